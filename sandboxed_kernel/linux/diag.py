"""Questions to Linux about its sockets (sock_diag): who listens on this address, which path is this socket bound to.

Source: sock_diag(7), include/uapi/linux/inet_diag.h and unix_diag.h. No privilege is needed for sockets of the own
network namespace.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import IPv4Address, IPv6Address

from sandboxed_kernel.records import Record

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NO_COOKIE = 0xFFFFFFFF
_TCP_LISTEN = 10
_UNIX_LISTEN = 10  # unix_diag reports TCP_LISTEN too
_SHOW_NAME, _SHOW_VFS = 1, 2
_ATTRIBUTE_NAME, _ATTRIBUTE_VFS = 0, 1


class UnixSocket(Record):
    """What a living unix socket is bound to. ``name`` is the path or abstract name (with its leading NUL).

    ``device`` and ``inode`` (32 bits of it) are those of the path, or None for an abstract or unbound one.
    """

    name: bytes
    device: int | None
    inode: int | None
    listening: bool


class SocketDiag:
    """One netlink socket for such questions. Owns it. Raises OSError where netlink is refused (an outer sandbox)."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG)
        self._socket.settimeout(1.0)
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def _ask(self, request: bytes) -> bytes | None:
        """The one answer's payload, or None where Linux knows no such socket."""
        self._sequence += 1
        header = _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, _NLM_F_REQUEST, self._sequence, 0)
        self._socket.sendto(header + request, (0, 0))
        while True:
            reply = self._socket.recv(4096)
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(reply)
            if sequence == self._sequence:
                return None if kind == _NLMSG_ERROR else reply[_HEADER.size : length]

    def tcp_listener(self, address: IPv4Address | IPv6Address, port: int) -> int | None:
        """The sockfs inode of the socket that would accept a connection to ``address`` and ``port``, or None.

        An IPv6 socket that serves IPv4 too is found under the IPv4 address.
        """
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        source = address.packed.ljust(16, b"\0")
        identity = struct.pack("!HH", port, 0) + source + bytes(16) + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        reply = self._ask(struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN) + identity)
        if reply is None:
            return None
        state = reply[1]
        (inode,) = struct.unpack_from("=I", reply, 4 + 48 + 16)
        return inode if state == _TCP_LISTEN else None

    def unix_socket(self, inode: int) -> UnixSocket | None:
        """What the unix socket with this sockfs inode is bound to, or None when there is none any more."""
        show = _SHOW_NAME | _SHOW_VFS
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, show, _NO_COOKIE, _NO_COOKIE)
        reply = self._ask(request)
        if reply is None:
            return None
        name, device, bound_inode = b"", None, None
        offset = 16  # struct unix_diag_msg
        while offset + 4 <= len(reply):
            length, kind = struct.unpack_from("=HH", reply, offset)
            if length < 4:
                break
            payload = reply[offset + 4 : offset + length]
            if kind == _ATTRIBUTE_NAME:
                name = payload
            elif kind == _ATTRIBUTE_VFS:
                bound_inode, device = struct.unpack("=II", payload[:8])
            offset += (length + 3) & ~3
        return UnixSocket(name, device, bound_inode, reply[2] == _UNIX_LISTEN)

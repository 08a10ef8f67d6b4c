"""Questions to Linux about its sockets (sock_diag): who listens on this address, which path is this socket bound to.

Source: sock_diag(7), include/uapi/linux/inet_diag.h and unix_diag.h. No privilege is needed for sockets of the own
network namespace.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.records import Record

_SOCK_DIAG = 4  # NETLINK_SOCK_DIAG
_BY_FAMILY = 20  # SOCK_DIAG_BY_FAMILY
_NLM_F_REQUEST = 1
_NLM_F_DUMP = 0x300
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_DUMPED_AT_ONCE = 32768  # bytes, what Linux fills at most (net/netlink/af_netlink.c, netlink_dump)
_U32 = struct.Struct("=I")
_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
_NO_COOKIE = 0xFFFFFFFF
_TCP_LISTEN = 10
_INET_DIAG_FIELDS = 4 + 48 + 4  # struct inet_diag_msg: idiag_rqueue and what follows
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
    """One netlink socket for such questions. Owns it."""

    def __init__(self) -> None:
        """Raises HostError."""
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _SOCK_DIAG)
        except OSError as error:
            raise HostError(
                f"this host refuses netlink sockets for sock_diag(7) ({error.strerror}), so it cannot be known whose a"
                " socket is. A container's profile, or another sandbox around this one, has to permit them."
            ) from None
        self._socket.settimeout(1.0)
        self._sequence = 0
        self._lacks: dict[str, bool] = {}

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

    def _dump(self, request: bytes) -> Iterator[bytes]:
        """Each answer's payload; no more of them once Linux says that something went wrong."""
        self._sequence += 1
        flags = _NLM_F_REQUEST | _NLM_F_DUMP
        self._socket.sendto(
            _HEADER.pack(_HEADER.size + len(request), _BY_FAMILY, flags, self._sequence, 0) + request, (0, 0)
        )
        while True:
            replies = self._socket.recv(_DUMPED_AT_ONCE)
            offset = 0
            while offset + _HEADER.size <= len(replies):
                length, kind, _flags, sequence, _port = _HEADER.unpack_from(replies, offset)
                if sequence == self._sequence:
                    if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                        return
                    yield replies[offset + _HEADER.size : offset + length]
                offset += max(_HEADER.size, (length + 3) & ~3)

    def lacks(self, module: str) -> bool:
        """Whether Linux answers none of the questions that ``module`` (one of MODULES) is for.

        Without it the answer is ENOENT, as for a socket that does not exist (net/core/sock_diag.c,
        net/ipv4/inet_diag.c): so it is asked, once, about one that does.
        """
        if module not in self._lacks:
            try:
                self._lacks[module] = not _TRIALS[module](self)
            except TimeoutError:  # netlink without anybody behind it
                self._lacks[module] = True
            except OSError:  # no socket could be made to ask about
                return False
        return self._lacks[module]

    def tcp_listener(self, address: IPv4Address | IPv6Address, port: int) -> int | None:
        """The sockfs inode of the socket that would accept a connection to ``address`` and ``port``, or None.

        An IPv6 socket that serves IPv4 too is found under the IPv4 address.
        """
        found = self._ask_listener(address, port)
        return None if found is None else found[3]

    def tcp_listeners(self, port: int = 0) -> list[tuple[IPv4Address | IPv6Address, int, int]]:
        """Address, port and sockfs inode of each TCP socket that listens, at any address; on ``port`` alone if given.
        A mapped address is given as its IPv4.
        """
        identity = struct.pack("!HH", port, 0) + bytes(32) + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        found: list[tuple[IPv4Address | IPv6Address, int, int]] = []
        for family in (socket.AF_INET, socket.AF_INET6):
            for reply in self._dump(
                struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN) + identity
            ):
                at, (inode,) = int.from_bytes(reply[4:6], "big"), _U32.unpack_from(reply, _INET_DIAG_FIELDS + 12)
                if family == socket.AF_INET:
                    found.append((IPv4Address(reply[8:12]), at, inode))
                else:
                    address = IPv6Address(reply[8:24])
                    found.append((address.ipv4_mapped or address, at, inode))
        return found

    def has_room(self, address: IPv4Address | IPv6Address, port: int) -> bool:
        """Whether that socket can take a further connection into its queue."""
        found = self._ask_listener(address, port)
        return found is not None and found[0] <= found[1]  # as sk_acceptq_is_full, include/net/sock.h

    def tcp_connection(
        self, here: tuple[IPv4Address | IPv6Address, int], there: tuple[IPv4Address | IPv6Address, int]
    ) -> int | None:
        """The sockfs inode of the TCP socket whose own address and port is ``here`` and whose peer is ``there``.

        None where there is none. Unlike getpeername(2) this waits for nobody who has the socket locked.
        """
        family = socket.AF_INET if here[0].version == 4 else socket.AF_INET6
        ports = struct.pack("!HH", here[1], there[1])
        addresses = b"".join(address.packed.ljust(16, b"\0") for address, _ in (here, there))
        identity = ports + addresses + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        reply = self._ask(struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 0xFFFFFFFF) + identity)
        if reply is None or reply[1] == _TCP_LISTEN or reply[4:8] != ports:  # a listener may be found in its stead
            return None
        (inode,) = _U32.unpack_from(reply, _INET_DIAG_FIELDS + 12)
        return int(inode)

    def _ask_listener(self, address: IPv4Address | IPv6Address, port: int) -> tuple[int, int, int, int] | None:
        """Length of the queue, its limit, user and inode: the last four fields of struct inet_diag_msg."""
        family = socket.AF_INET if address.version == 4 else socket.AF_INET6
        source = address.packed.ljust(16, b"\0")
        identity = struct.pack("!HH", port, 0) + source + bytes(16) + struct.pack("=III", 0, _NO_COOKIE, _NO_COOKIE)
        reply = self._ask(struct.pack("=BBBBI", family, socket.IPPROTO_TCP, 0, 0, 1 << _TCP_LISTEN) + identity)
        if reply is None or reply[1] != _TCP_LISTEN:
            return None
        queue, limit, user, inode = struct.unpack_from("=IIII", reply, _INET_DIAG_FIELDS)
        return queue, limit, user, inode

    def unix_inodes(self) -> set[int]:
        """The sockfs inodes of all unix sockets of this network namespace: some 12 ms for 19,000."""
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, 0, _NO_COOKIE, _NO_COOKIE)
        return {inode for reply in self._dump(request) for (inode,) in [_U32.unpack_from(reply, 4)]}

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


def _finds_tcp_listener(diag: SocketDiag) -> bool:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return diag.tcp_listener(IPv4Address("127.0.0.1"), sock.getsockname()[1]) == os.fstat(sock.fileno()).st_ino


def _finds_unix_socket(diag: SocketDiag) -> bool:
    with socket.socket(socket.AF_UNIX) as sock:
        return diag.unix_socket(os.fstat(sock.fileno()).st_ino) is not None


_TRIALS: dict[str, Callable[[SocketDiag], bool]] = {"tcp_diag": _finds_tcp_listener, "unix_diag": _finds_unix_socket}
MODULES = tuple(_TRIALS)  # of Linux, by the names of modprobe(8); tcp_diag brings inet_diag along


def missing_modules() -> tuple[str, ...]:
    """Those of MODULES that are neither built in nor loaded, and were not loaded when asked for. Raises HostError."""
    diag = SocketDiag()
    try:
        return tuple(filter(diag.lacks, MODULES))
    finally:
        diag.close()

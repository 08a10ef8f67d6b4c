"""Does: receive, copy, decide, act, answer. ``Broker.handle`` tells a call's story; one file per kind of socket acts.

No call's arguments are looked at twice, and no call is ever let through to Linux: each is carried out here on the
broker's own copies, or refused. Whatever goes wrong on the way, the answer is no and the loop lives on.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address

from sandboxed_kernel.broker import decisions, links, process, relatives, terminals
from sandboxed_kernel.broker.calls import (
    AF_NETLINK,
    AF_UNIX,
    MAX_ADDRESS,
    Address,
    InetAddress,
    Malformed,
    NetlinkAddress,
    Unspecified,
    as_int,
    parse_address,
)
from sandboxed_kernel.broker.connecting import Connecting
from sandboxed_kernel.broker.datagram_calls import DatagramCalls
from sandboxed_kernel.broker.datagrams import MAX_DATAGRAM, Datagrams
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.metadata import CALLS as METADATA_CALLS
from sandboxed_kernel.broker.metadata import Metadata, Outside
from sandboxed_kernel.broker.relatives import NotADescendant
from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.broker.sockets import Reference, Sockets
from sandboxed_kernel.broker.tcp_calls import TcpCalls
from sandboxed_kernel.broker.telling import Telling
from sandboxed_kernel.broker.unix_calls import UnixCalls
from sandboxed_kernel.errors import Bug
from sandboxed_kernel.linux.seccomp import Listener, Notification
from sandboxed_kernel.records import Record

_NO_SOCKET = 1  # in the place of its inode, for calls whose arguments alone say what was asked for
_MAX_TRACEBACKS = 10  # of one sandbox: the launcher's standard error is Jupyter's log


class Parts(Record):
    """What the broker's call handling works with; ``assembly`` makes them."""

    listener: Listener
    replies: Replies
    sockets: Sockets
    connecting: Connecting
    datagrams: Datagrams
    metadata: Metadata
    links: links.Links
    telling: Telling
    tcp: TcpCalls
    unix: UnixCalls
    datagram: DatagramCalls


class Broker:
    def __init__(self, parts: Parts, warden: int, numbers: Mapping[str, int]) -> None:
        """``warden``: see ``assembly``. ``numbers`` maps this machine's system call names to their numbers."""
        self._parts = parts
        self._replies, self._sockets, self._telling = parts.replies, parts.sockets, parts.telling
        self._warden = warden
        self._tracebacks = 0
        by_name: dict[str, Callable[[Notification], None]] = {
            "socket": self._socket,
            "connect": self._connect,
            "bind": self._bind,
            "listen": self._listen,
            "sendto": self._sendto,
            "ioctl": self._ioctl,
            **{name: self._for(self._metadata, name) for name in METADATA_CALLS},
            **{name: self._for(self._link, name) for name in links.CALLS},
            **{name: self._for(self._relative, name) for name in relatives.CALLS},
        }
        self._handlers = {numbers[name]: handler for name, handler in by_name.items() if name in numbers}

    @staticmethod
    def _for(handler: Callable[[Notification, str], None], name: str) -> Callable[[Notification], None]:
        return lambda call: handler(call, name)

    def receive(self, _events: int) -> None:
        call = self._parts.listener.receive()
        if call is not None:
            self.handle(call)

    def handle(self, call: Notification) -> None:
        """Answer ``call``, now or later. Never raises."""
        try:
            handler = self._handlers.get(call.nr)
            if handler is None:
                self._replies.answer(call, error=errno.ENOSYS)
            else:
                handler(call)
        except Malformed as error:
            self._telling.malformed(call, error)
        except process.Unreadable:
            reason = "its program may be run but not read, so what it asks for cannot be looked at"
            refusal = Refuse(errno.EACCES, reason)
            self._telling.refuse(call, refusal, "process", process.short_name(call.tid), protocol="seccomp")
        except OSError as error:
            self._replies.answer(call, error=error.errno or errno.EACCES)
        except Exception:  # noqa: BLE001  # when the broker cannot decide the answer is no, and the loop lives on
            self._fail_closed(call)

    def _fail_closed(self, call: Notification) -> None:
        self._tracebacks += 1
        if self._tracebacks <= _MAX_TRACEBACKS:
            import traceback

            sys.stderr.write(f"{Bug('a call could not be judged and was refused')}\n{traceback.format_exc()}")
        with suppress(Exception):
            self._replies.answer(call, error=errno.EACCES)

    # --- look ------------------------------------------------------------------------------------------------------

    def _copy_address(self, call: Notification, pointer: int, length: int) -> bytes:
        size = as_int(length)
        if not 0 <= size <= MAX_ADDRESS:
            raise Malformed(errno.EINVAL, f"an address of {size} bytes")
        data = process.read_memory(call.tid, pointer, size) if size else b""
        if not self._replies.is_waiting(call):  # the bytes are the caller's only if it still waits
            raise Malformed(errno.EINTR, "the caller is gone")
        return data

    def _file(self, call: Notification) -> process.OpenFile:
        found = process.open_file(call.tid, as_int(call.args[0]))
        if not stat.S_ISSOCK(found.mode):
            raise Malformed(errno.ENOTSOCK, "no socket")
        return found

    # --- sockets ---------------------------------------------------------------------------------------------------

    def _socket(self, call: Notification) -> None:
        family, kind, protocol = (as_int(register) for register in call.args[:3])
        verdict = decisions.decide_socket(family, kind, protocol)
        if isinstance(verdict, Refuse):
            self._telling.refuse(call, verdict, "socket", f"family {family}, type {kind & 0xF}, protocol {protocol}")
        elif isinstance(verdict, decisions.CreatePair):
            pair = self._parts.datagrams.create(verdict)
            number = self._replies.give_descriptor(call, pair.near.fileno(), close_on_exec=verdict.close_on_exec)
            if number is None:
                self._parts.datagrams.discard(pair)
            else:
                self._parts.datagrams.keep(pair, call.tid)
        else:
            reference = self._sockets.create(verdict)
            near = reference.sock.fileno()
            number = self._replies.give_descriptor(call, near, close_on_exec=verdict.close_on_exec)
            if number is None:
                reference.sock.close()
            else:
                self._sockets.keep(reference, call.tid, number)

    def _connect(self, call: Notification) -> None:
        file = self._file(call)
        call.said = self._copy_address(call, call.args[1], call.args[2])
        if self._replies.repeat(call, file.inode):
            return
        reference = self._sockets.find(file.device, file.inode)
        if reference is not None:
            if not self._parts.tcp.connect_as_before(call, reference):
                self._connect_reference(call, reference, parse_address(call.said))
            return
        address = parse_address(call.said)
        pair = self._parts.datagrams.find(file.inode)
        if pair is not None:
            self._parts.datagram.connect(call, pair, address)
            return
        # Accepted, made by socketpair, or let go because it is connected or listens.
        self._replies.answer(call, error=errno.EOPNOTSUPP if isinstance(address, Unspecified) else errno.EISCONN)

    def _connect_reference(self, call: Notification, reference: Reference, address: Address) -> None:
        if isinstance(address, Unspecified):
            self._parts.connecting.disconnect(call, reference)
        elif reference.family == AF_UNIX:
            self._parts.unix.connect(call, reference, address, self.handle)
        elif reference.family == AF_NETLINK or not isinstance(address, InetAddress):
            self._replies.answer(call, error=errno.EAFNOSUPPORT)
        else:
            wrong = decisions.wrong_family(reference.family, address)
            if wrong is not None:
                self._replies.answer(call, error=wrong)
            else:
                self._parts.tcp.connect(call, reference, address, self.handle)

    def _bind(self, call: Notification) -> None:
        file = self._file(call)
        call.said = self._copy_address(call, call.args[1], call.args[2])
        if self._replies.repeat(call, file.inode):
            return
        address = parse_address(call.said)
        reference = self._sockets.find(file.device, file.inode)
        if reference is None:
            is_pair = self._parts.datagrams.find(file.inode) is not None
            self._replies.answer(call, error=0 if is_pair else errno.EINVAL)
        elif reference.family == AF_UNIX:
            self._parts.unix.bind(call, reference, address)
        elif reference.family == AF_NETLINK:
            error = self._bind_netlink(reference, address)
            self._replies.answer(call, error=error, inode=reference.inode)
        else:
            self._parts.tcp.bind(call, reference, _as_inet(address))

    @staticmethod
    def _bind_netlink(reference: Reference, address: Address) -> int:
        if not isinstance(address, NetlinkAddress):
            return errno.EINVAL
        if address.port or address.groups:
            return errno.EPERM
        reference.sock.bind((0, 0))
        return 0

    def _listen(self, call: Notification) -> None:
        file = self._file(call)
        if self._replies.repeat(call, file.inode):
            return
        reference = self._sockets.find(file.device, file.inode)
        if reference is None:
            self._replies.answer(call, error=self._listen_without_reference(file.inode))
        elif reference.family == AF_NETLINK:
            self._replies.answer(call, error=errno.EOPNOTSUPP)
        elif reference.family == AF_UNIX:
            self._parts.unix.listen(call, reference)
        else:
            self._parts.tcp.listen(call, reference)

    def _listen_without_reference(self, inode: int) -> int:
        """An errno: 0 where the socket listens already, which Linux allows to be said again."""
        if self._parts.tcp.listens_already(inode) or self._parts.unix.listens_already(inode):
            return 0
        return errno.EINVAL if self._parts.datagrams.find(inode) is None else errno.EOPNOTSUPP

    def _sendto(self, call: Notification) -> None:
        file = self._file(call)
        if self._replies.repeat(call, file.inode):
            return
        address = parse_address(self._copy_address(call, call.args[4], call.args[5]))
        reference = self._sockets.find(file.device, file.inode)
        pair = self._parts.datagrams.find(file.inode) if reference is None else None
        if reference is None and pair is None:
            self._replies.answer(call, error=errno.EISCONN)
        elif reference is not None and reference.family != AF_NETLINK:
            self._replies.answer(call, error=errno.EOPNOTSUPP if reference.family == AF_UNIX else errno.EPIPE)
        else:
            data = self._payload(call)
            if reference is not None:
                self._send_netlink(call, reference, data)
            elif pair is not None:
                self._parts.datagram.send(call, pair, address, data)

    @staticmethod
    def _payload(call: Notification) -> bytes:
        size = call.args[2]
        if size > MAX_DATAGRAM:
            raise Malformed(errno.EMSGSIZE, f"a datagram of {size} bytes")
        return process.read_memory(call.tid, call.args[1], size) if size else b""

    def _send_netlink(self, call: Notification, reference: Reference, data: bytes) -> None:
        sent = reference.sock.sendto(data, (0, 0))
        self._replies.answer(call, sent, inode=reference.inode)

    # --- files, terminals, other processes -------------------------------------------------------------------------

    def _metadata(self, call: Notification, name: str) -> None:
        if self._replies.repeat(call, _NO_SOCKET):
            return
        try:
            self._parts.metadata.carry_out(name, call.tid, call.args)
        except OSError as error:
            self._replies.answer(call, error=error.errno or errno.EACCES, inode=_NO_SOCKET)
            return
        except Outside as outside:
            reason = "mode, owner, times and attributes can only be changed beneath a writable grant"
            refusal = Refuse(errno.EPERM, reason)
            self._telling.refuse(call, refusal, "metadata", str(outside), protocol=name)
            return
        self._replies.answer(call, inode=_NO_SOCKET)

    def _link(self, call: Notification, name: str) -> None:
        if self._replies.repeat(call, _NO_SOCKET):
            return
        try:
            self._parts.links.carry_out(name, call, self._replies.is_waiting)
        except links.LeadsOutside as outside:
            reason = "a program outside that writes to the link (Jupyter, when it saves) would write there"
            self._telling.refuse(call, Refuse(errno.EPERM, reason), "link", str(outside), protocol=name)
            return
        except OSError as error:
            self._replies.answer(call, error=error.errno or errno.EACCES, inode=_NO_SOCKET)
            return
        self._replies.answer(call, inode=_NO_SOCKET)

    def _relative(self, call: Notification, name: str) -> None:
        try:
            relatives.carry_out(name, call, self._warden, self._replies.is_waiting)
        except NotADescendant as error:
            refusal = Refuse(errno.EPERM, "limits and priorities can only be changed of processes of this sandbox")
            self._telling.refuse(call, refusal, "process", f"process {error.pid}", protocol=name)
            return
        self._replies.answer(call)

    def _ioctl(self, call: Notification) -> None:
        """The filter notifies TIOCGPTPEER alone."""
        flags = as_int(call.args[2])
        peer = terminals.open_peer(call.tid, as_int(call.args[0]), flags)
        try:
            self._replies.give_descriptor(call, peer, close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            os.close(peer)


def _as_inet(address: Address) -> InetAddress | None:
    """bind(2) takes AF_UNSPEC for AF_INET where the address is 0.0.0.0: inet_bind."""
    if isinstance(address, InetAddress):
        return address
    if isinstance(address, Unspecified) and len(address.rest) >= 14 and address.rest[2:6] == bytes(4):
        return InetAddress(IPv4Address(0), int.from_bytes(address.rest[:2], "big"))
    return None

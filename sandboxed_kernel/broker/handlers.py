"""Does: one handler for each kind of call: it looks, decides, acts on the broker's own copies, and returns the outcome.

``dispatch`` says what becomes of an outcome; one file per kind of socket acts.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable
from ipaddress import IPv4Address

from sandboxed_kernel.broker import decisions, links, other_processes, process, terminals, thread_names
from sandboxed_kernel.broker.calls import (
    AF_NETLINK,
    AF_UNIX,
    MAX_ADDRESS,
    Address,
    Call,
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
from sandboxed_kernel.broker.files import OPENING, Files, Opened
from sandboxed_kernel.broker.metadata import CALLS as METADATA_CALLS
from sandboxed_kernel.broker.metadata import Metadata
from sandboxed_kernel.broker.outcomes import NO_SOCKET, Answer, Later, Outcome, Refusal, ToLandlock
from sandboxed_kernel.broker.repeats import Repeats
from sandboxed_kernel.broker.sockets import MayWait, Reference, Sockets
from sandboxed_kernel.broker.tcp_calls import TcpCalls
from sandboxed_kernel.broker.unix_calls import UnixCalls
from sandboxed_kernel.linux.seccomp import Listener
from sandboxed_kernel.records import Record


class Parts(Record):
    """What the handlers work with; ``assembly`` makes them."""

    listener: Listener
    may_wait: MayWait
    repeats: Repeats
    sockets: Sockets
    connecting: Connecting
    datagrams: Datagrams
    metadata: Metadata
    links: links.Links
    files: Files | None  # where the notebook's folder is guarded
    tcp: TcpCalls
    unix: UnixCalls
    datagram: DatagramCalls


OnSocket = Callable[[Call, process.OpenFile, Reference | None], Outcome]


class Handlers:
    def __init__(self, parts: Parts, warden: int) -> None:
        """``warden``: see ``assembly``."""
        self._parts, self._warden = parts, warden
        self._may_wait, self._repeats, self._sockets = parts.may_wait, parts.repeats, parts.sockets
        self.by_name: dict[str, Callable[[Call], Outcome]] = {
            "socket": self._socket,
            "connect": self._connect,
            "bind": self._bind,
            "listen": self._listen,
            "sendto": self._sendto,
            "ioctl": self._ioctl,
            **{name: self._for(self._metadata, name) for name in METADATA_CALLS},
            **{name: self._for(self._link, name) for name in links.CALLS},
            **{name: self._for(self._other_process, name) for name in other_processes.CALLS},
            **{name: self._for(self._opening, name) for name in OPENING},
        }
        if parts.files is not None:
            self.by_name |= self._of_files(parts.files)

    @staticmethod
    def _for(handler: Callable[[Call, str], Outcome], name: str) -> Callable[[Call], Outcome]:
        return lambda call: handler(call, name)

    # --- look ------------------------------------------------------------------------------------------------------

    def _look(self, call: Call, pointer: int = 0, length: int = 0) -> process.OpenFile:
        """The socket behind the call's first argument; the address that ``length`` bytes at ``pointer`` are becomes
        ``call.copied``, once. Without the lock.
        """
        found = process.open_file(call.tid, as_int(call.args[0]))
        if not stat.S_ISSOCK(found.mode):
            raise Malformed(errno.ENOTSOCK, "no socket")
        if call.copied is None:
            size = as_int(length)
            if not 0 <= size <= MAX_ADDRESS:
                raise Malformed(errno.EINVAL, f"an address of {size} bytes")
            call.copied = process.read_memory(call.tid, pointer, size) if size else b""
        self._check_waiting(call)
        return found

    def _check_waiting(self, call: Call) -> None:
        """What was copied is the caller's only if it still waits. Raises Malformed."""
        if not self._parts.listener.is_valid(call.id):
            raise Malformed(errno.EINTR, "the caller is gone")

    def _on_socket(self, call: Call, file: process.OpenFile, act: OnSocket) -> Outcome:
        """``act``, while no other call works on this socket; the repeat of a call has the kept answer."""
        reference = self._sockets.find(file.device, file.inode)
        if reference is None:
            return self._repeats.find(call, file.inode) or act(call, file, None)
        if reference.taken:
            return Later(reference.waiting.append)
        reference.taken = True
        try:
            return self._repeats.find(call, file.inode) or act(call, file, reference)
        finally:
            self._sockets.give_back(reference)

    # --- sockets ---------------------------------------------------------------------------------------------------

    def _socket(self, call: Call) -> Outcome:
        family, kind, protocol = (as_int(register) for register in call.args[:3])
        verdict = decisions.decide_socket(family, kind, protocol)
        if isinstance(verdict, Refuse):
            return Refusal(verdict, "socket", f"family {family}, type {kind & 0xF}, protocol {protocol}")
        if isinstance(verdict, decisions.CreatePair):
            pair = self._parts.datagrams.create(verdict)
            self._parts.datagrams.keep(pair, call.tid)
            try:
                self._give(call, pair.near.fileno(), close_on_exec=verdict.close_on_exec)
            except BaseException:
                self._parts.datagrams.discard(pair)
                raise
            pair.near.close()  # it is the sandbox's alone
            return None
        reference = self._sockets.create(verdict)
        self._sockets.keep(reference)
        try:
            number = self._give(call, reference.sock.fileno(), close_on_exec=verdict.close_on_exec)
        except BaseException:
            self._may_wait(self._sockets.forget(reference))
            raise
        self._sockets.handed_over(reference, call.tid, number)
        return None

    def _give(self, call: Call, descriptor: int, *, close_on_exec: bool) -> int:
        """Answer with a copy of ``descriptor``: its number there. Raises Gone, and OSError where no number is free."""
        give = lambda: self._parts.listener.add_descriptor(call.id, descriptor, close_on_exec=close_on_exec)  # noqa: E731
        return self._may_wait(give)

    def _connect(self, call: Call) -> Outcome:
        return self._on_socket(call, self._may_wait(self._look, call, call.args[1], call.args[2]), self._do_connect)

    def _do_connect(self, call: Call, file: process.OpenFile, reference: Reference | None) -> Outcome:
        if reference is not None:
            found = self._parts.tcp.connect_as_before(call, reference)
            return found or self._connect_reference(call, reference, parse_address(call.copied or b""))
        address = parse_address(call.copied or b"")
        pair = self._parts.datagrams.find(file.inode)
        if pair is not None:
            number = as_int(call.args[0])
            pair.polls = self._may_wait(process.is_non_blocking, call.tid, number)
            may_sort = pair.may_sort and not pair.polls
            if may_sort and self._parts.datagram.only_sorts(pair, address):
                return self._stand_in(call)
            return self._parts.datagram.connect(call, pair, address, may_sort=may_sort)
        # Accepted, made by socketpair, or let go because it is connected or listens.
        return Answer(error=errno.EOPNOTSUPP if isinstance(address, Unspecified) else errno.EISCONN)

    def _stand_in(self, call: Call) -> Answer:
        """Put in the place of the pair what getsockname(2) calls an IPv4 socket: a TCP socket without a reference,
        so that it never connects, binds or listens. The library asks, and closes it.
        """
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as stand_in:
            self._may_wait(self._replace, call, stand_in.fileno())
        return Answer()

    def _replace(self, call: Call, descriptor: int) -> None:
        self._parts.listener.replace_descriptor(call.id, descriptor, as_int(call.args[0]), close_on_exec=True)

    def _connect_reference(self, call: Call, reference: Reference, address: Address) -> Outcome:
        if isinstance(address, Unspecified):
            return self._parts.connecting.disconnect(reference)
        if reference.family == AF_UNIX:
            return self._parts.unix.connect(call, reference, address)
        if reference.family == AF_NETLINK or not isinstance(address, InetAddress):
            return Answer(error=errno.EAFNOSUPPORT)
        wrong = decisions.wrong_family(reference.family, address)
        return self._parts.tcp.connect(call, reference, address) if wrong is None else Answer(error=wrong)

    def _bind(self, call: Call) -> Outcome:
        return self._on_socket(call, self._may_wait(self._look, call, call.args[1], call.args[2]), self._do_bind)

    def _do_bind(self, call: Call, file: process.OpenFile, reference: Reference | None) -> Outcome:
        address = parse_address(call.copied or b"")
        if reference is None:
            return Answer(error=errno.EINVAL if self._parts.datagrams.find(file.inode) is None else 0)
        if reference.family == AF_UNIX:
            return self._parts.unix.bind(call, reference, address)
        if reference.family == AF_NETLINK:
            return Answer(error=self._bind_netlink(reference, address), inode=reference.inode)
        return self._parts.tcp.bind(reference, _as_inet(address))

    def _bind_netlink(self, reference: Reference, address: Address) -> int:
        if not isinstance(address, NetlinkAddress):
            return errno.EINVAL
        if address.port or address.groups:
            return errno.EPERM
        self._may_wait(reference.sock.bind, (0, 0))
        return 0

    def _listen(self, call: Call) -> Outcome:
        return self._on_socket(call, self._may_wait(self._look, call), self._do_listen)

    def _do_listen(self, call: Call, file: process.OpenFile, reference: Reference | None) -> Outcome:
        if reference is None:
            return Answer(error=self._listen_without_reference(file.inode))
        if reference.family == AF_NETLINK:
            return Answer(error=errno.EOPNOTSUPP)
        if reference.family == AF_UNIX:
            return self._parts.unix.listen(call, reference)
        return self._parts.tcp.listen(reference)

    def _listen_without_reference(self, inode: int) -> int:
        """An errno: 0 where the socket listens already, which Linux allows to be said again."""
        if self._parts.tcp.listens_already(inode) or self._parts.unix.listens_already(inode):
            return 0
        return errno.EINVAL if self._parts.datagrams.find(inode) is None else errno.EOPNOTSUPP

    def _sendto(self, call: Call) -> Outcome:
        return self._on_socket(call, self._may_wait(self._look, call, call.args[4], call.args[5]), self._do_send)

    def _do_send(self, call: Call, file: process.OpenFile, reference: Reference | None) -> Outcome:
        address = parse_address(call.copied or b"")
        if reference is None:
            pair = self._parts.datagrams.find(file.inode)
            if pair is None:
                return Answer(error=errno.EISCONN)
            return self._parts.datagram.send(call, pair, address, self._may_wait(self._payload, call))
        if reference.family != AF_NETLINK:
            return Answer(error=errno.EOPNOTSUPP if reference.family == AF_UNIX else errno.EPIPE)
        data = self._may_wait(self._payload, call)
        return Answer(self._may_wait(reference.sock.sendto, data, (0, 0)), inode=reference.inode)

    def _payload(self, call: Call) -> bytes:
        size = call.args[2]
        if size > MAX_DATAGRAM:
            raise Malformed(errno.EMSGSIZE, f"a datagram of {size} bytes")
        data = process.read_memory(call.tid, call.args[1], size) if size else b""
        self._check_waiting(call)
        return data

    # --- files, terminals, other processes -------------------------------------------------------------------------

    def _metadata(self, call: Call, name: str) -> Outcome:
        return self._once(call, lambda: self._parts.metadata.carry_out(name, call.tid, call.args))

    def _link(self, call: Call, name: str) -> Outcome:
        return self._once(call, lambda: self._parts.links.carry_out(name, call, self._check_waiting))

    def _of_files(self, files: Files) -> dict[str, Callable[[Call], Outcome]]:
        def acting(call: Call, name: str) -> Outcome:
            return self._once(call, lambda: files.by_name[name](call))

        return {name: self._for(acting, name) for name in files.by_name}

    def _opening(self, call: Call, name: str) -> Outcome:
        return self._may_wait(self._open, call, name)

    def _open(self, call: Call, name: str) -> ToLandlock | None:
        """Without the lock. Raises Gone, OSError, Malformed, Refused."""
        files, own = self._parts.files, thread_names.open_name(call, name, self._parts.listener)
        if own is not None:
            with own:
                close_on_exec = bool(as_int(call.args[OPENING[name].flags or 0]) & os.O_CLOEXEC)
                self._parts.listener.add_descriptor(call.id, own.fileno(), close_on_exec=close_on_exec)
            return None
        if files is None:
            return ToLandlock()
        opened = files.open(call, name)
        if isinstance(opened, ToLandlock):
            return opened
        self._hand_over(call, files, opened)
        return None

    def _hand_over(self, call: Call, files: Files, opened: Opened) -> None:
        """Without the lock. Raises Gone, OSError."""
        listener, number = self._parts.listener, opened.file.fileno()
        with opened.file:
            try:
                if not opened.program:
                    listener.add_descriptor(call.id, number, close_on_exec=opened.close_on_exec)
                    return
                # What is still open here for writing cannot be run there (execve(2), ETXTBSY).
                given = listener.place_descriptor(call.id, number, close_on_exec=opened.close_on_exec)
                opened.file.close()
                listener.answer(call.id, given)
            except BaseException:
                files.undo(opened)
                raise

    def _once(self, call: Call, act: Callable[[], ToLandlock | None]) -> Answer | ToLandlock:
        """``act``, unless it was done already; the answer is kept for the call's repeat."""
        kept = self._repeats.find(call, NO_SOCKET)
        if kept is not None:
            return kept
        try:
            return self._may_wait(act) or Answer(inode=NO_SOCKET)
        except OSError as error:
            return Answer(error=error.errno or errno.EACCES, inode=NO_SOCKET)

    def _other_process(self, call: Call, name: str) -> Outcome:
        self._may_wait(other_processes.carry_out, name, call, self._warden, self._check_waiting)
        return Answer()

    def _ioctl(self, call: Call) -> Outcome:
        """The filter notifies TIOCGPTPEER alone."""
        flags = as_int(call.args[2])
        peer = self._may_wait(terminals.open_peer, call.tid, as_int(call.args[0]), flags)
        try:
            self._give(call, peer.fileno(), close_on_exec=bool(flags & os.O_CLOEXEC))
        finally:
            self._may_wait(peer.close)
        return None


def _as_inet(address: Address) -> InetAddress | None:
    """bind(2) takes AF_UNSPEC for AF_INET where the address is 0.0.0.0: inet_bind."""
    if isinstance(address, InetAddress):
        return address
    if isinstance(address, Unspecified) and len(address.rest) >= 14 and address.rest[2:6] == bytes(4):
        return InetAddress(IPv4Address(0), int.from_bytes(address.rest[:2], "big"))
    return None

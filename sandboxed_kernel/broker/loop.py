"""Does: receive, copy, decide, act, answer: one method per kind of call. ``Broker.handle`` tells a call's story.

No call's arguments are looked at twice, and no call is ever let through to Linux: each is carried out here on the
broker's own copies, or refused. Whatever goes wrong on the way, the answer is no and the loop lives on.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address

from sandboxed_kernel.broker import decisions, process, relatives, terminals
from sandboxed_kernel.broker.calls import (
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    MAX_ADDRESS,
    Address,
    InetAddress,
    Malformed,
    NetlinkAddress,
    UnixAbstract,
    UnixPath,
    UnixUnnamed,
    Unspecified,
    as_int,
    parse_address,
)
from sandboxed_kernel.broker.connecting import Connecting, path_of
from sandboxed_kernel.broker.datagrams import MAX_DATAGRAM, Datagrams, Pair
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.metadata import CALLS as METADATA_CALLS
from sandboxed_kernel.broker.metadata import Metadata, Outside
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.questions import QuestionStreams
from sandboxed_kernel.broker.relatives import NotADescendant
from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.broker.reporting import Reporter
from sandboxed_kernel.broker.sockets import Reference, Sockets
from sandboxed_kernel.broker.unix_sockets import UnixSockets, is_silent
from sandboxed_kernel.errors import Bug
from sandboxed_kernel.hostnames.addresses import Kind
from sandboxed_kernel.hostnames.pins import Rejected
from sandboxed_kernel.linux.diag import SocketDiag
from sandboxed_kernel.linux.seccomp import Listener, Notification
from sandboxed_kernel.linux.sockets import is_own_interface, peer_process
from sandboxed_kernel.notices import events
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.policy.explain import allow_line
from sandboxed_kernel.policy.model import Destination, Transport

_MAX_LISTENERS = 4096
_MAX_ADDRESSES = 1024  # remembered for a second
_MAX_PORTS_HAD = 256  # of some 28,000 that Linux hands out
_CLOSE_ON_EXEC = os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Parts:
    """What the broker's call handling works with; ``serve`` makes them."""

    listener: Listener
    replies: Replies
    sockets: Sockets
    connecting: Connecting
    unix: UnixSockets
    datagrams: Datagrams
    streams: QuestionStreams
    names: Names
    metadata: Metadata
    diag: SocketDiag
    reporter: Reporter
    ephemeral: range


class Broker:
    def __init__(self, parts: Parts, numbers: Mapping[str, int], helpers: set[int]) -> None:
        """``numbers`` maps this machine's system call names to their numbers; ``helpers``: trusted children."""
        self._parts = parts
        self._replies, self._sockets, self._reporter = parts.replies, parts.sockets, parts.reporter
        self._listening: dict[tuple[decisions.IpAddress, int], int] = {}  # where this sandbox listens -> inode
        self._ports_had: dict[int, None] = {}  # in the order of their last use
        self._own_addresses: dict[decisions.IpAddress, tuple[float, bool]] = {}  # until when it is known, and what
        self._binding: dict[int, Notification] = {}  # unix paths being bound, by the socket's inode
        self._own_pid = os.getpid()
        self._helpers = helpers
        by_name: dict[str, Callable[[Notification], None]] = {
            "socket": self._socket,
            "connect": self._connect,
            "bind": self._bind,
            "listen": self._listen,
            "sendto": self._sendto,
            "ioctl": self._ioctl,
            **{name: self._for(self._metadata, name) for name in METADATA_CALLS},
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
            self._malformed(call, error)
        except OSError as error:
            self._replies.answer(call, error=error.errno or errno.EACCES)
        except Exception:  # noqa: BLE001  # when the broker cannot decide the answer is no, and the loop lives on
            self._fail_closed(call)

    def _fail_closed(self, call: Notification) -> None:
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

    # --- socket ----------------------------------------------------------------------------------------------------

    def _socket(self, call: Notification) -> None:
        family, kind, protocol = (as_int(register) for register in call.args[:3])
        verdict = decisions.decide_socket(family, kind, protocol)
        if isinstance(verdict, Refuse):
            self._refuse(call, verdict, "socket", f"family {family}, type {kind & 0xF}, protocol {protocol}")
        elif isinstance(verdict, decisions.CreatePair):
            pair = self._parts.datagrams.create(verdict)
            if self._replies.give_descriptor(call, pair.near.fileno(), close_on_exec=verdict.close_on_exec):
                self._parts.datagrams.keep(pair, call.tid)
            else:
                self._parts.datagrams.discard(pair)
        else:
            reference = self._sockets.create(verdict)
            if self._replies.give_descriptor(call, reference.sock.fileno(), close_on_exec=verdict.close_on_exec):
                self._sockets.keep(reference)
            else:
                reference.sock.close()

    # --- connect ---------------------------------------------------------------------------------------------------

    def _connect(self, call: Notification) -> None:
        file = self._file(call)
        call = call._replace(said=self._copy_address(call, call.args[1], call.args[2]))
        if self._replies.repeat(call, file.inode):
            return
        address = parse_address(call.said)
        reference = self._sockets.find(file.device, file.inode)
        if reference is not None:
            self._connect_reference(call, reference, address)
            return
        pair = self._parts.datagrams.find(file.inode)
        if pair is not None:
            self._connect_pair(call, pair, address)
            return
        # Accepted, made by socketpair, or let go because it is connected or listens.
        self._replies.answer(call, error=errno.EOPNOTSUPP if isinstance(address, Unspecified) else errno.EISCONN)

    def _connect_reference(self, call: Notification, reference: Reference, address: Address) -> None:
        if isinstance(address, Unspecified):
            self._parts.connecting.disconnect(call, reference)
        elif reference.family == AF_UNIX:
            self._connect_unix(call, reference, address)
        elif reference.family == AF_NETLINK or not isinstance(address, InetAddress):
            self._replies.answer(call, error=errno.EINVAL if reference.family == AF_UNIX else errno.EAFNOSUPPORT)
        else:
            wrong = decisions.wrong_family(reference.family, address)
            if wrong is not None:
                self._replies.answer(call, error=wrong)
            else:
                self._connect_inet(call, reference, address)

    def _connect_inet(self, call: Notification, reference: Reference, to: InetAddress) -> None:
        if self._parts.connecting.join(call, reference):
            return
        address = decisions.normalise(to.address)
        rules = self._parts.names.pins
        # As an address of our own first: what is allowed even there needs no question about the route.
        verdict = decisions.decide_connect(to, rules, own_interface=True)
        if isinstance(verdict, decisions.ConnectToOwn) and not self._is_here(address):
            verdict = decisions.decide_connect(to, rules, own_interface=False)
        if isinstance(verdict, decisions.ConnectTo):
            self._allowed(call, "tcp", verdict.rule, address, to.port)
            self._parts.connecting.connect(call, reference, self._target(reference, to, verdict.address))
        elif isinstance(verdict, decisions.AnswerNames):
            host, port = self._parts.streams.address()
            target = InetAddress(IPv4Address(host), port)
            expect = self._expect(reference, call.tid)
            self._parts.connecting.connect(call, reference, self._target(reference, target, target.address), expect)
        elif isinstance(verdict, decisions.ConnectToOwn):
            self._connect_own(call, reference, to, verdict.address)
        elif self._parts.names.launching:
            # The address may belong to a name of the policy that is being looked up: look again when that is over.
            self._parts.names.when_launched(lambda: self.handle(call))
        else:
            self._refuse_endpoint(call, verdict, "connect", "tcp", to, reference.inode)

    def _connect_own(
        self, call: Notification, reference: Reference, to: InetAddress, address: decisions.IpAddress
    ) -> None:
        """To a socket that this very sandbox listens on, looked up before and again after connecting."""
        candidates = [address]
        if address == decisions.LOOPBACK6:  # a server bound to :: was bound to the mapped IPv4 loopback
            candidates.append(decisions.LOOPBACK4)
        occupied = False
        for candidate in candidates:
            found = self._parts.diag.tcp_listener(candidate, to.port)
            if found is not None and found == self._listening.get((candidate, to.port)):
                still = self._still_listens(candidate, to.port, found)
                self._parts.connecting.connect(call, reference, self._target(reference, to, candidate), still)
                return
            occupied = occupied or found is not None
        itself = decisions.normalise(to.address)
        if itself not in candidates:  # another address of this machine, where only others can listen
            occupied = occupied or self._parts.diag.tcp_listener(itself, to.port) is not None
        if occupied and self._parts.names.launching:
            self._parts.names.when_launched(lambda: self.handle(call))
        elif occupied:
            self._refuse_endpoint(call, decisions.NOT_OURS, "connect", "tcp", to, reference.inode)
        else:
            self._replies.answer(call, error=errno.ECONNREFUSED, inode=reference.inode)

    def _still_listens(self, address: decisions.IpAddress, port: int, inode: int) -> Callable[[], bool]:
        return lambda: self._parts.diag.tcp_listener(address, port) == inode

    def _expect(self, reference: Reference, tid: int) -> Callable[[], bool]:
        return lambda: self._parts.streams.expect(reference.sock, tid)

    @staticmethod
    def _target(reference: Reference, to: InetAddress, address: decisions.IpAddress) -> tuple[str | int, ...]:
        """Where the reference is connected to: a copy in our own memory, of the judged address."""
        if reference.family == AF_INET6:
            text = f"::ffff:{address}" if address.version == 4 else str(address)
            return (text, to.port, to.flow, to.scope)
        return (str(address), to.port)

    def _decide_datagram(self, to: InetAddress) -> decisions.DatagramVerdict:
        rules = self._parts.names.pins
        verdict = decisions.decide_datagram(to, rules, own_interface=True)
        if isinstance(verdict, Refuse) and not self._is_here(decisions.normalise(to.address)):
            verdict = decisions.decide_datagram(to, rules, own_interface=False)
        return verdict

    def _is_here(self, address: decisions.IpAddress) -> bool:
        """Whether who listens on this (normalised) address is on this machine."""
        return decisions.is_loopback(address) or self._is_own_interface(address)

    def _is_own_interface(self, address: decisions.IpAddress) -> bool:
        """Asked anew after a second: addresses come and go, and a loop of connects need not ask each time."""
        until, known = self._own_addresses.get(address, (0.0, False))
        now = time.monotonic()
        if now > until:
            if len(self._own_addresses) >= _MAX_ADDRESSES:
                self._own_addresses.clear()
            known = is_own_interface(str(address), socket.AF_INET if address.version == 4 else socket.AF_INET6)
            self._own_addresses[address] = (now + 1.0, known)
        return known

    def _connect_unix(self, call: Notification, reference: Reference, address: Address) -> None:
        connecting, unix = self._parts.connecting, self._parts.unix
        if connecting.join(call, reference):
            return
        if isinstance(address, UnixAbstract):
            if unix.owns_abstract(address):
                name = "\0" + os.fsdecode(address.name[1:])
                connecting.connect(call, reference, name, self._listener_is_own(reference))
            else:
                shown = "@" + address.name[1:].decode(errors="replace")
                refusal = Refuse(errno.ECONNREFUSED, "this abstract socket was not bound inside the sandbox")
                self._refuse(call, refusal, "connect", shown, protocol="unix", inode=reference.inode)
            return
        if not isinstance(address, UnixPath):
            self._replies.answer(call, error=errno.EINVAL)
            return
        if is_silent(address.path):
            self._replies.answer(call, error=errno.ENOENT)
            return
        try:
            found, is_own = unix.open_path(call.tid, address)
        except PermissionError:
            refusal = Refuse(errno.EACCES, "this socket was not bound inside the sandbox")
            shown = address.path.decode(errors="replace")
            self._refuse(call, refusal, "connect", shown, protocol="unix", inode=reference.inode)
            return
        try:
            still_right = self._listener_is_own(reference) if is_own else _yes
            connecting.connect(call, reference, path_of(found), still_right)
        finally:
            os.close(found)

    def _listener_is_own(self, reference: Reference) -> Callable[[], bool]:
        """Asked once connected: a socket of this sandbox listens because the broker called listen(2) for it."""
        return lambda: peer_process(reference.sock) == self._own_pid

    def _connect_pair(self, call: Notification, pair: Pair, address: Address) -> None:
        datagrams = self._parts.datagrams
        if isinstance(address, Unspecified):
            datagrams.disconnect(pair)
            self._replies.answer(call)
        elif isinstance(address, UnixPath | UnixAbstract):
            self._refuse_datagram_path(call, address)
        elif not isinstance(address, InetAddress):
            self._replies.answer(call, error=errno.EAFNOSUPPORT)
        else:
            verdict = self._decide_datagram(address)
            if isinstance(verdict, decisions.AnswerNames):
                datagrams.connect_names(pair)
                self._replies.answer(call)
            elif isinstance(verdict, decisions.RelayTo):
                self._allowed(call, "udp", verdict.rule, verdict.address, address.port)
                self._replies.answer(call, error=datagrams.connect_relay(pair, verdict.address, address.port))
            else:
                self._refuse_endpoint(call, verdict, "datagram", "udp", address, 0)

    def _refuse_datagram_path(self, call: Notification, address: UnixPath | UnixAbstract) -> None:
        if isinstance(address, UnixPath) and is_silent(address.path):
            self._replies.answer(call, error=errno.ENOENT)
            return
        name = address.path if isinstance(address, UnixPath) else b"@" + address.name[1:]
        refusal = Refuse(errno.EACCES, "unix datagram sockets do not exist inside")
        self._refuse(call, refusal, "datagram", name.decode(errors="replace"), protocol="unix")

    # --- bind and listen -------------------------------------------------------------------------------------------

    def _bind(self, call: Notification) -> None:
        file = self._file(call)
        call = call._replace(said=self._copy_address(call, call.args[1], call.args[2]))
        if self._replies.repeat(call, file.inode):
            return
        address = parse_address(call.said)
        reference = self._sockets.find(file.device, file.inode)
        if reference is None:
            is_pair = self._parts.datagrams.find(file.inode) is not None
            self._replies.answer(call, error=0 if is_pair else errno.EINVAL)
        elif reference.family == AF_UNIX:
            self._bind_unix(call, reference, address)
        elif reference.family == AF_NETLINK:
            error = self._bind_netlink(reference, address)
            self._replies.answer(call, error=error, inode=reference.inode)
        else:
            self._bind_inet(call, reference, _as_inet(address))

    @staticmethod
    def _bind_netlink(reference: Reference, address: Address) -> int:
        if not isinstance(address, NetlinkAddress):
            return errno.EINVAL
        if address.port or address.groups:
            return errno.EPERM
        reference.sock.bind((0, 0))
        return 0

    def _bind_unix(self, call: Notification, reference: Reference, address: Address) -> None:
        inode = reference.inode
        if isinstance(address, UnixPath):
            waiting = self._binding.get(inode)
            if waiting is not None:  # the repeat of an interrupted call joins it; another thread's bind comes too late
                if waiting.tid == call.tid:
                    self._binding[inode] = call
                else:
                    self._replies.answer(call, error=errno.EINVAL)
                return
            self._parts.unix.bind_path(call.tid, reference, address.path, lambda error: self._bound_path(error, inode))
            self._binding[inode] = call
        elif isinstance(address, UnixAbstract | UnixUnnamed):
            name = address.name if isinstance(address, UnixAbstract) else b""
            error = self._parts.unix.bind_abstract(reference, name)
            self._replies.answer(call, error=error, inode=inode)
        else:
            self._replies.answer(call, error=errno.EINVAL)

    def _bound_path(self, error: int, inode: int) -> None:
        self._replies.answer(self._binding.pop(inode), error=error, inode=inode)

    def _bind_inet(self, call: Notification, reference: Reference, to: InetAddress | None) -> None:
        if to is None:
            self._replies.answer(call, error=errno.EAFNOSUPPORT)
            return
        wrong = decisions.wrong_family(reference.family, to)
        if wrong is not None:
            self._replies.answer(call, error=wrong)
            return
        verdict = decisions.decide_bind(
            reference.family,
            to,
            v6_only=_is_v6_only(reference),
            own_interface=self._is_own_interface(decisions.normalise(to.address)),
            ephemeral=self._parts.ephemeral,
            ports_had=self._ports_had,
        )
        if isinstance(verdict, Refuse):
            self._refuse_endpoint(call, verdict, "bind", "tcp", to, reference.inode)
            return
        error = self._bind_now(reference, verdict)
        self._replies.answer(call, error=error, inode=reference.inode)

    def _bind_now(self, reference: Reference, to: decisions.BindTo) -> int:
        try:
            try:
                reference.sock.bind((str(to.address), to.port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                self._sockets.sweep()  # the port may be held by a socket that the sandbox has closed
                reference.sock.bind((str(to.address), to.port))
        except OSError as error:
            return error.errno or errno.EINVAL
        self._remember_port(reference.sock.getsockname()[1])
        return 0

    def _remember_port(self, port: int) -> None:
        """The last ones only: else a loop of bind(0) would collect them all, to wait where others listen next."""
        if port in self._parts.ephemeral:
            self._ports_had.pop(port, None)
            self._ports_had[port] = None
            if len(self._ports_had) > _MAX_PORTS_HAD:
                del self._ports_had[next(iter(self._ports_had))]

    def _listen(self, call: Notification) -> None:
        file = self._file(call)
        if self._replies.repeat(call, file.inode):
            return
        reference = self._sockets.find(file.device, file.inode)
        if reference is None:
            is_pair = self._parts.datagrams.find(file.inode) is not None
            error = 0 if self._listens_already(file.inode) else errno.EOPNOTSUPP if is_pair else errno.EINVAL
            self._replies.answer(call, error=error)
            return
        if reference.family == AF_NETLINK:
            self._replies.answer(call, error=errno.EOPNOTSUPP)
            return
        if reference.busy:  # a connect gave it an address of an interface, which listen(2) must not keep
            self._replies.answer(call, error=errno.EINVAL)
            return
        inet = reference.family != AF_UNIX
        # Unless it has one of our addresses, listen(2) would bind it to every address of the machine. The port says
        # nothing: a failed connect gives its port back, and getsockname(2) still names it.
        if inet and not _is_on_loopback(reference.sock):
            loopback = decisions.any_loopback(reference.family, v6_only=_is_v6_only(reference))
            error = self._bind_now(reference, decisions.BindTo(loopback, 0))
            if error:
                self._replies.answer(call, error=error, inode=reference.inode)
                return
        # Room for all who come: a connect that finds the queue full cannot wait (Connecting._give_up).
        reference.sock.listen(socket.SOMAXCONN if inet else max(0, as_int(call.args[1])))
        if inet:
            self._remember_listener(reference)
        self._replies.answer(call, inode=reference.inode)
        self._sockets.drop(reference)

    def _remember_listener(self, reference: Reference) -> None:
        host, port, *_ = reference.sock.getsockname()
        address = parse_host(host)
        if len(self._listening) >= _MAX_LISTENERS:
            for (old, old_port), inode in list(self._listening.items()):
                if self._parts.diag.tcp_listener(old, old_port) != inode:
                    del self._listening[old, old_port]
            while len(self._listening) >= _MAX_LISTENERS:
                del self._listening[next(iter(self._listening))]
        self._listening[address, port] = reference.inode

    def _listens_already(self, inode: int) -> bool:
        for (address, port), known in self._listening.items():
            if known == inode:
                return self._parts.diag.tcp_listener(address, port) == inode
        found = self._parts.diag.unix_socket(inode)
        return found is not None and found.listening

    # --- sendto ----------------------------------------------------------------------------------------------------

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
                self._send_datagram(call, pair, address, data)

    @staticmethod
    def _payload(call: Notification) -> bytes:
        size = call.args[2]
        if size > MAX_DATAGRAM:
            raise Malformed(errno.EMSGSIZE, f"a datagram of {size} bytes")
        return process.read_memory(call.tid, call.args[1], size) if size else b""

    def _send_netlink(self, call: Notification, reference: Reference, data: bytes) -> None:
        refusal = decisions.decide_netlink_request(data)
        if refusal is not None:
            self._refuse(call, refusal, "socket", "rtnetlink", protocol="netlink", inode=reference.inode)
            return
        sent = reference.sock.sendto(data, (0, 0))
        self._replies.answer(call, sent, inode=reference.inode)

    def _send_datagram(self, call: Notification, pair: Pair, address: Address, data: bytes) -> None:
        if isinstance(address, UnixPath | UnixAbstract):
            self._refuse_datagram_path(call, address)
            return
        if not isinstance(address, InetAddress):
            self._replies.answer(call, error=errno.EAFNOSUPPORT)
            return
        verdict = self._decide_datagram(address)
        if isinstance(verdict, decisions.AnswerNames):
            self._parts.datagrams.send_names(pair, data)
            self._replies.answer(call, len(data), inode=pair.inode)
        elif isinstance(verdict, decisions.RelayTo):
            self._allowed(call, "udp", verdict.rule, verdict.address, address.port)
            error = self._parts.datagrams.send_relay(pair, verdict.address, address.port, data)
            self._replies.answer(call, len(data), error, inode=pair.inode)
        else:
            self._refuse_endpoint(call, verdict, "datagram", "udp", address, pair.inode)

    # --- files, terminals, other processes -------------------------------------------------------------------------

    def _metadata(self, call: Notification, name: str) -> None:
        try:
            self._parts.metadata.carry_out(name, call.tid, call.args)
        except Outside as outside:
            reason = "mode, owner, times and attributes can only be changed beneath a writable grant"
            refusal = Refuse(errno.EPERM, reason)
            self._refuse(call, refusal, "metadata", str(outside), protocol=name)
            return
        self._replies.answer(call)

    def _relative(self, call: Notification, name: str) -> None:
        try:
            relatives.carry_out(name, call.tid, call.args, self._own_pid, self._helpers)
        except NotADescendant as error:
            refusal = Refuse(errno.EPERM, "limits and priorities can only be changed of processes of this sandbox")
            self._refuse(call, refusal, "process", f"process {error.pid}", protocol=name)
            return
        self._replies.answer(call)

    def _ioctl(self, call: Notification) -> None:
        """The filter notifies TIOCGPTPEER alone."""
        flags = as_int(call.args[2])
        peer = terminals.open_peer(call.tid, as_int(call.args[0]), flags)
        try:
            self._replies.give_descriptor(call, peer, close_on_exec=bool(flags & _CLOSE_ON_EXEC))
        finally:
            os.close(peer)

    # --- telling ---------------------------------------------------------------------------------------------------

    def _refuse_endpoint(
        self, call: Notification, verdict: Refuse, kind: events.Kind, protocol: Transport, to: InetAddress, inode: int
    ) -> None:
        """Refuse an address and port; the user learns the line that would allow it."""
        address = str(decisions.normalise(to.address))
        names = self._parts.names.pins.names_of(decisions.normalise(to.address))
        host = names[0] if names else None
        private = self._is_here(decisions.normalise(to.address))
        line = allow_line(host or address, to.port, protocol, private=private) if kind != "bind" else None
        self._refuse(
            call, verdict, kind, address, protocol=protocol, host=host, port=to.port, allow_line=line, inode=inode
        )

    def _refuse(
        self,
        call: Notification,
        verdict: Refuse,
        kind: events.Kind,
        address: str,
        *,
        protocol: str = "",
        host: str | None = None,
        port: int | None = None,
        allow_line: str | None = None,
        inode: int = 0,
    ) -> None:
        reason = verdict.reason
        if reason is None:
            self._replies.answer(call, error=verdict.error, inode=inode)
            return
        make = self._event(call.tid, kind, reason, protocol, host, address, port, allow_line=allow_line)
        answer = lambda: self._answer_refusal(call, verdict.error, inode)  # noqa: E731
        self._reporter.refused((kind, protocol, host or address, port), make, answer)

    def _answer_refusal(self, call: Notification, error: int, inode: int) -> None:
        self._replies.answer(call, error=error, inode=inode)

    def refuse_name(self, name: str, pid: int, then: Callable[[], None]) -> None:
        """Report a DNS question for a name that the policy does not name; ``then`` the question is answered."""
        reason = "no line under [network] allow names this host"
        line = allow_line(name, 443)
        make = self._event(pid, "name", reason, "dns", name, None, None, allow_line=line)
        self._reporter.refused(("name", "dns", name, None), make, then)

    def names_rejected(self, rejected: list[Rejected]) -> None:
        """A name of the policy has an address that it may not have, or only with ``private = true``."""
        for one in rejected:
            private = one.kind in (Kind.PRIVATE, Kind.LOOPBACK)
            port = one.rule.ports[0].first
            line = allow_line(one.name, port, one.rule.transport, private=True) if private else None
            make = self._event(
                self._own_pid, "name", one.reason, "dns", one.name, str(one.address), None, allow_line=line
            )
            self._reporter.tell(make())

    def lost_datagram(self, pid: int) -> None:
        """A message on a socket that was never connected: its destination is not visible, and it went nowhere."""
        reason = "a datagram was sent by sendmsg() from a socket that is not connected; it went nowhere"
        make = self._event(pid, "datagram", reason, "udp", None, "unknown", None)
        self._reporter.tell(make())

    def _allowed(
        self, call: Notification, protocol: Transport, rule: Destination, address: decisions.IpAddress, port: int
    ) -> None:
        destination = ("connect", protocol, str(address), port)
        self._reporter.allowed(destination, lambda: self._allowed_event(call.tid, protocol, rule, address, port))

    def _allowed_event(
        self, tid: int, protocol: Transport, rule: Destination, address: decisions.IpAddress, port: int
    ) -> Event:
        names = self._parts.names.pins.names_of(address)
        return Event(
            kind="connect" if protocol == "tcp" else "datagram",
            verdict="allowed",
            reason=f"allowed by {rule.text}",
            protocol=protocol,
            when=time.time(),
            pid=process.process_of(tid),
            process=process.short_name(tid),
            host=names[0] if names else None,
            address=str(address),
            port=port,
            rule=f"{rule.place} = {rule.text}",
        )

    @staticmethod
    def _event(
        tid: int,
        kind: events.Kind,
        reason: str,
        protocol: str,
        host: str | None,
        address: str | None,
        port: int | None,
        *,
        allow_line: str | None = None,
    ) -> Callable[[], Event]:
        return lambda: Event(
            kind=kind,
            verdict="refused",
            reason=reason,
            protocol=protocol,
            when=time.time(),
            pid=process.process_of(tid),
            process=process.short_name(tid),
            host=host,
            address=address,
            port=port,
            allow_line=allow_line,
        )

    def _malformed(self, call: Notification, error: Malformed) -> None:
        """Everyday mistakes (a bad descriptor) get their errno; arguments that mean nothing are logged as well."""
        if error.error in (errno.EBADF, errno.ENOTSOCK, errno.EINTR, errno.ENOTTY, errno.ENOTDIR):
            self._replies.answer(call, error=error.error)
            return
        reason = f"a call with {error}"
        make = self._event(call.tid, "malformed", reason, f"system call {call.nr}", None, None, None)
        self._reporter.note(("malformed", str(call.nr), reason, None), make)
        self._replies.answer(call, error=error.error)


def _yes() -> bool:
    return True


def _as_inet(address: Address) -> InetAddress | None:
    """bind(2) takes AF_UNSPEC for AF_INET where the address is 0.0.0.0: inet_bind."""
    if isinstance(address, InetAddress):
        return address
    if isinstance(address, Unspecified) and len(address.rest) >= 14 and address.rest[2:6] == bytes(4):
        return InetAddress(IPv4Address(0), int.from_bytes(address.rest[:2], "big"))
    return None


def _is_v6_only(reference: Reference) -> bool:
    if reference.family != AF_INET6:
        return False
    return bool(reference.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def _is_on_loopback(sock: socket.socket) -> bool:
    import ipaddress

    return decisions.is_loopback(ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]))


def parse_host(text: str) -> decisions.IpAddress:
    """A host as getsockname gives it; a mapped address as its IPv4."""
    import ipaddress

    return decisions.normalise(ipaddress.ip_address(text.partition("%")[0]))

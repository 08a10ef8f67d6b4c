"""Does: connect(2), bind(2) and listen(2) of TCP sockets: own loopback by address and port, all else by the policy."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from math import inf

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.broker.calls import AF_INET6, InetAddress
from sandboxed_kernel.broker.connecting import Connecting, Near, Target
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.ports import Ports
from sandboxed_kernel.broker.questions import QuestionStreams
from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.broker.sockets import Reference, Sockets
from sandboxed_kernel.broker.telling import Telling
from sandboxed_kernel.linux import sockets as linux_sockets
from sandboxed_kernel.linux.diag import SocketDiag
from sandboxed_kernel.linux.seccomp import Notification

_MAX_LISTENERS = 4096
_LOOK_EVERY = 1.0  # second, at all listeners of the machine, once there are so many
_MAX_TARGETS = 4096
_TARGET_KNOWN = 1.0  # seconds, where the address may become one of this machine
_NO_TARGET: tuple[float, Target] = (0.0, ())


class TcpCalls:
    def __init__(
        self,
        replies: Replies,
        sockets: Sockets,
        connecting: Connecting,
        streams: QuestionStreams,
        names: Names,
        diag: SocketDiag,
        own: OwnAddresses,
        telling: Telling,
        ports: Ports,
    ) -> None:
        self._replies, self._sockets, self._connecting, self._streams = replies, sockets, connecting, streams
        self._names, self._diag, self._own, self._telling = names, diag, own, telling
        self._ports = ports
        self._listening: dict[tuple[decisions.IpAddress, int], int] = {}  # where this sandbox listens -> inode
        self._targets: dict[tuple[int, bytes], tuple[float, Target]] = {}  # (family, sockaddr) -> until when, where to
        self._look_again = 0.0  # at all listeners of the machine, of time.monotonic()

    def connect_as_before(self, call: Notification, reference: Reference) -> bool:
        """Connect where this very address was allowed to lead before: what policy and pins allow only ever grows."""
        until, target = self._targets.get((reference.family, call.said), _NO_TARGET)
        if time.monotonic() >= until:
            return False
        self._connecting.connect(call, reference, target)
        return True

    def _remember_target(self, family: int, said: bytes, until: float, target: Target) -> None:
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        self._targets[family, said] = (until, target)

    def connect(
        self, call: Notification, reference: Reference, to: InetAddress, again: Callable[[Notification], None]
    ) -> None:
        """``again(call)`` looks at the call anew, once the names of the policy are known."""
        if self._connecting.join(call, reference):
            return
        address = decisions.normalise(to.address)
        rules = self._names.pins
        # As an address of our own first: what is allowed even there needs no question about the route.
        verdict, until = decisions.decide_connect(to, rules, own_interface=True), inf
        if isinstance(verdict, decisions.ConnectToOwn) and not self._own.is_here(address):
            until = time.monotonic() + _TARGET_KNOWN
            verdict = decisions.decide_connect(to, rules, own_interface=False)
        if isinstance(verdict, decisions.ConnectTo):
            self._telling.allowed(call, "tcp", verdict.rule, address, to.port)
            target = self._target(reference, to, verdict.address)
            self._remember_target(reference.family, call.said, until, target)
            self._connecting.connect(call, reference, target)
        elif isinstance(verdict, decisions.AnswerNames):
            host, port = self._streams.address()
            names = InetAddress(IPv4Address(host), port)
            target = self._target(reference, names, names.address)
            self._connecting.connect_near(call, reference, Near(target, 4, self._expect(reference, call.tid)))
        elif isinstance(verdict, decisions.ConnectToOwn):
            self._connect_own(call, reference, to, verdict.address, again)
        elif self._names.launching:
            # The address may belong to a name of the policy that is being looked up: look again when that is over.
            self._names.when_launched(lambda: again(call))
        else:
            self._telling.refuse_endpoint(call, verdict, "connect", "tcp", to, reference.inode)

    def _connect_own(
        self,
        call: Notification,
        reference: Reference,
        to: InetAddress,
        address: decisions.IpAddress,
        again: Callable[[Notification], None],
    ) -> None:
        """To a socket that this very sandbox listens on, looked up before and again after connecting."""
        candidates = [address]
        if address == decisions.LOOPBACK6:  # a server bound to :: was bound to the mapped IPv4 loopback
            candidates.append(decisions.LOOPBACK4)
        occupied = False
        for candidate in candidates:
            found = self._diag.tcp_listener(candidate, to.port)
            if found is not None and found == self._listening.get((candidate, to.port)):
                target = self._target(reference, to, candidate)
                self._connecting.connect_near(call, reference, self._near(target, candidate, to.port, found))
                return
            occupied = occupied or found is not None
        itself = decisions.normalise(to.address)
        if itself not in candidates:  # another address of this machine, where only others can listen
            occupied = occupied or self._diag.tcp_listener(itself, to.port) is not None
        if occupied and self._names.launching:
            self._names.when_launched(lambda: again(call))
        elif occupied:
            self._telling.refuse_endpoint(call, decisions.NOT_OURS, "connect", "tcp", to, reference.inode)
        elif any((own, to.port) in self._listening for own in candidates) and self._diag.lacks("tcp_diag"):
            refusal = decisions.unknowable(errno.ECONNREFUSED, "tcp_diag")
            inode, port = reference.inode, to.port
            self._telling.refuse(call, refusal, "connect", str(address), protocol="tcp", port=port, inode=inode)
        else:
            self._replies.answer(call, error=errno.ECONNREFUSED, inode=reference.inode)

    def _near(self, target: Target, address: decisions.IpAddress, port: int, inode: int) -> Near:
        diag = self._diag
        still_listens = lambda: diag.tcp_listener(address, port) == inode  # noqa: E731
        return Near(target, address.version, still_listens, lambda: diag.has_room(address, port))

    def _expect(self, reference: Reference, tid: int) -> Callable[[], bool]:
        return lambda: self._streams.expect(reference.sock, tid)

    @staticmethod
    def _target(reference: Reference, to: InetAddress, address: decisions.IpAddress) -> tuple[str | int, ...]:
        """Where the reference is connected to: a copy in our own memory, of the judged address."""
        if reference.family == AF_INET6:
            text = f"::ffff:{address}" if address.version == 4 else str(address)
            return (text, to.port, to.flow, to.scope)
        return (str(address), to.port)

    def bind(self, call: Notification, reference: Reference, to: InetAddress | None) -> None:
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
            own_interface=self._own.is_interface(decisions.normalise(to.address)),
            given=self._ports.given,
            taken=self._ports.taken(to.port, self._own_listeners(to.port)),
        )
        if isinstance(verdict, Refuse):
            self._telling.refuse_endpoint(call, verdict, "bind", "tcp", to, reference.inode)
            return
        error = self._bind_now(reference, verdict)
        self._replies.answer(call, error=error, inode=reference.inode)

    def _own_listeners(self, port: int) -> set[int]:
        """The inodes of those sockets of this sandbox that were made to listen on ``port``."""
        return {inode for (_, known), inode in self._listening.items() if known == port}

    def _bind_now(self, reference: Reference, to: decisions.BindTo) -> int:
        error = errno.EADDRINUSE
        for port in [to.port] if to.port else self._ports.choose():
            error = self._bind_to(reference, str(to.address), port)
            if error != errno.EADDRINUSE:
                break
        return error

    def _bind_to(self, reference: Reference, host: str, port: int) -> int:
        try:
            try:
                reference.sock.bind((host, port))
            except OSError as error:
                # It may be held by a socket that the sandbox has closed.
                if error.errno != errno.EADDRINUSE or not self._sockets.free_port(port):
                    raise
                reference.sock.bind((host, port))
        except OSError as error:
            return error.errno or errno.EINVAL
        reference.port = port
        return 0

    def listen(self, call: Notification, reference: Reference) -> None:
        if reference.busy:  # a connect gave it an address of an interface, which listen(2) must not keep
            self._replies.answer(call, error=errno.EINVAL)
            return
        # Unless it has one of our addresses, listen(2) would bind it to every address of the machine. The port says
        # nothing: a failed connect gives its port back, and getsockname(2) still names it.
        if not reference.port or not _is_on_loopback(reference.sock):
            loopback = decisions.any_loopback(reference.family, v6_only=_is_v6_only(reference))
            error = self._bind_now(reference, decisions.BindTo(loopback, 0))
            if error:
                self._replies.answer(call, error=error, inode=reference.inode)
                return
        if not self._has_room():
            self._replies.answer(call, error=errno.ENOBUFS, inode=reference.inode)
            return
        address, port = _parse_host(reference.sock.getsockname()[0]), reference.port
        own = {reference.inode, *self._own_listeners(port)}
        refusal = decisions.decide_port(address, port, self._ports.taken(port, own, address))
        if refusal is None:
            linux_sockets.show_token(reference.sock, address.version)
            # Room for all who come: a connect that finds the queue full cannot wait (Connecting.connect_near).
            reference.sock.listen(socket.SOMAXCONN)
            # Again: somebody may have begun since. Who of the two was first cannot be known, so it was the other.
            refusal = decisions.decide_port(address, port, self._ports.taken(port, own, address))
        if refusal is not None:
            linux_sockets.disconnect(reference.sock)  # it listens no more, if it did
            where = InetAddress(address, port)
            self._telling.refuse_endpoint(call, refusal, "bind", "tcp", where, reference.inode)
            return
        self._listening[address, port] = reference.inode
        self._replies.answer(call, inode=reference.inode)
        self._sockets.drop(reference)

    def _has_room(self) -> bool:
        """Whether one more listener can be remembered, once those that are gone are forgotten."""
        if len(self._listening) < _MAX_LISTENERS:
            return True
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + _LOOK_EVERY
            living = {inode for _, _, inode in self._diag.tcp_listeners()}
            for where in [where for where, inode in self._listening.items() if inode not in living]:
                del self._listening[where]
        return len(self._listening) < _MAX_LISTENERS

    def listens_already(self, inode: int) -> bool:
        for (address, port), known in self._listening.items():
            if known == inode:
                return self._diag.tcp_listener(address, port) == inode
        return False


def _is_v6_only(reference: Reference) -> bool:
    if reference.family != AF_INET6:
        return False
    return bool(reference.sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY))


def _is_on_loopback(sock: socket.socket) -> bool:
    return decisions.is_loopback(ipaddress.ip_address(sock.getsockname()[0].partition("%")[0]))


def _parse_host(text: str) -> decisions.IpAddress:
    """A host as getsockname gives it; a mapped address as its IPv4."""
    return decisions.normalise(ipaddress.ip_address(text.partition("%")[0]))

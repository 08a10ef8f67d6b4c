"""Does: connect(2), bind(2) and listen(2) of TCP sockets: own loopback by address and port, all else by the policy."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time
from collections.abc import Callable
from ipaddress import IPv4Address
from math import inf
from typing import TYPE_CHECKING, cast

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.broker.calls import AF_INET6, Call, InetAddress
from sandboxed_kernel.broker.connecting import Connecting, Near, Target
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.notifier import Notifier
from sandboxed_kernel.broker.outcomes import Answer, Later, Outcome, Refusal
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.ports import Ports
from sandboxed_kernel.broker.questions import QuestionStreams
from sandboxed_kernel.broker.rules import Rules
from sandboxed_kernel.broker.sockets import MayWait, Reference, Sockets
from sandboxed_kernel.linux import sockets as linux_sockets
from sandboxed_kernel.linux.diag import SocketDiag

if TYPE_CHECKING:  # most policies have nothing that is checked
    from sandboxed_kernel.broker.guarded_connects import GuardedConnects

_MAX_LISTENERS = 4096
_LOOK_EVERY = 1.0  # second, at all listeners of the machine, once there are so many
_MAX_TARGETS = 4096
_TARGET_KNOWN = 1.0  # seconds, where the address may become one of this machine

_Known = tuple[float, Target, decisions.IpAddress, int]  # until when, where to, which address and port is meant


class TcpCalls:
    def __init__(
        self,
        may_wait: MayWait,
        sockets: Sockets,
        connecting: Connecting,
        streams: QuestionStreams,
        names: Names,
        diag: SocketDiag,
        own: OwnAddresses,
        notifier: Notifier,
        ports: Ports,
        rules: Rules,
        guarded: Callable[[], GuardedConnects],
    ) -> None:
        """``guarded`` is called for the first connection whose TLS greeting is looked at."""
        self._make_guarded, self._guarded = guarded, cast("GuardedConnects | None", None)
        self._may_wait, self._sockets, self._connecting, self._streams = may_wait, sockets, connecting, streams
        self._names, self._diag, self._own, self._notifier = names, diag, own, notifier
        self._ports, self._rules = ports, rules
        rules.when_changed.append(lambda _allow: self._targets.clear())
        self._listening: dict[tuple[decisions.IpAddress, int], int] = {}  # where this sandbox listens -> inode
        self._targets: dict[tuple[int, bytes], _Known] = {}  # by family and sockaddr
        self._look_again = 0.0  # at all listeners of the machine, of time.monotonic()

    def connect_as_before(self, call: Call, reference: Reference) -> Outcome:
        """Connect where this very address was allowed to lead before, by rules that still hold. None where not."""
        self._rules.refresh(time.monotonic())  # which may wait: what the target knows is judged by the time after it
        known = self._targets.get((reference.family, call.copied or b""))
        if known is None or time.monotonic() >= known[0] or self._names.pins.check_for(known[2], known[3]) is not None:
            return None
        target = known[1]
        return self._connecting.connect(call, reference, target)

    def _remember_target(self, family: int, copied: bytes, known: _Known) -> None:
        if len(self._targets) >= _MAX_TARGETS:
            self._targets.clear()
        self._targets[family, copied] = known

    def connect(self, call: Call, reference: Reference, to: InetAddress) -> Outcome:
        joined = self._connecting.join(call, reference)
        if joined is not None:
            return joined
        address = decisions.normalise(to.address)
        rules, number = self._names.pins, self._rules.number
        # As an address of our own first: what is allowed even there needs no question about the route.
        verdict, until = decisions.decide_connect(to, rules, own_interface=True), inf
        if isinstance(verdict, decisions.ConnectToOwn) and not self._own.is_here(address):
            until = time.monotonic() + _TARGET_KNOWN
            verdict = decisions.decide_connect(to, rules, own_interface=False)
        if isinstance(verdict, decisions.ConnectTo):
            self._notifier.allowed(call, "tcp", verdict.rule, address, to.port)
            if self._rules.number != number:  # the sandbox can make that wait; its target would be known for good
                return self.connect(call, reference, to)
            if rules.check_for(address, to.port) is not None:
                return self._connect_guarded(call, reference, address, to)
            if self._names.launching and rules.may_be_checked(to.port):
                # A name that is checked may turn out to mean this address too, and the strictest line decides.
                return self._once_launched()
            target = self._target(reference, to, verdict.address)
            self._remember_target(reference.family, call.copied or b"", (until, target, address, to.port))
            return self._connecting.connect(call, reference, target)
        if isinstance(verdict, decisions.AnswerNames):
            host, port = self._streams.address()
            names = InetAddress(IPv4Address(host), port)
            target = self._target(reference, names, names.address)
            return self._connecting.connect_near(reference, Near(target, 4, self._expect(reference, call.tid)))
        if isinstance(verdict, decisions.ConnectToOwn):
            return self._connect_own(call, reference, to, verdict.address)
        return self._refuse(call, reference, to, verdict)

    def _connect_guarded(
        self, call: Call, reference: Reference, address: decisions.IpAddress, to: InetAddress
    ) -> Outcome:
        """To where the name in the TLS greeting is checked: the guard has the connection."""
        if self._guarded is None:
            self._guarded = self._make_guarded()
        return self._guarded.connect(call, reference, address, to)

    def finish(self, seconds: float) -> None:
        """Everything inside has ended. What it sent to where a name is checked still goes on, for that long at most."""
        if self._guarded is not None:
            self._guarded.finish(seconds)

    def _refuse(self, call: Call, reference: Reference, to: InetAddress, refusal: Refuse) -> Outcome:
        if self._names.launching:
            # The address may belong to a name of the policy that is being looked up: look again when that is over.
            return self._once_launched()
        if self._rules.have_changed():
            return self.connect(call, reference, to)
        return self._notifier.endpoint(refusal, "connect", "tcp", to, reference.inode)

    def _connect_own(self, call: Call, reference: Reference, to: InetAddress, address: decisions.IpAddress) -> Outcome:
        """To a socket that this very sandbox listens on, looked up before and again after connecting."""
        candidates = [address]
        if address == decisions.LOOPBACK6:  # a server bound to :: was bound to the mapped IPv4 loopback
            candidates.append(decisions.LOOPBACK4)
        occupied = False
        for candidate in candidates:
            found = self._diag.tcp_listener(candidate, to.port)
            if found is not None and found == self._listening.get((candidate, to.port)):
                target = self._target(reference, to, candidate)
                return self._connecting.connect_near(reference, self._near(target, candidate, to.port, found))
            occupied = occupied or found is not None
        itself = decisions.normalise(to.address)
        if itself not in candidates:  # another address of this machine, where only others can listen
            occupied = occupied or self._diag.tcp_listener(itself, to.port) is not None
        if occupied:
            return self._refuse(call, reference, to, decisions.NOT_OURS)
        if any((own, to.port) in self._listening for own in candidates) and self._diag.lacks("tcp_diag"):
            refusal = decisions.unknowable(errno.ECONNREFUSED, "tcp_diag")
            return Refusal(refusal, "connect", str(address), protocol="tcp", port=to.port, inode=reference.inode)
        return Answer(error=errno.ECONNREFUSED, inode=reference.inode)

    def _once_launched(self) -> Later:
        return Later(lambda resume: self._names.when_launched(lambda: resume(None)))

    def _near(self, target: Target, address: decisions.IpAddress, port: int, inode: int) -> Near:
        diag = self._diag
        still_listens = lambda: diag.tcp_listener(address, port) == inode  # noqa: E731
        return Near(target, address.version, still_listens, lambda: diag.has_room(address, port))

    def _expect(self, reference: Reference, tid: int) -> Callable[[], bool]:
        def expected() -> bool:
            """It is connected to us: serve it. Everybody else's connection is closed."""
            host, port, *_ = self._may_wait(reference.sock.getsockname)
            self._streams.expect(host.removeprefix("::ffff:"), port, tid)
            return True

        return expected

    @staticmethod
    def _target(reference: Reference, to: InetAddress, address: decisions.IpAddress) -> tuple[str | int, ...]:
        """Where the reference is connected to: a copy in our own memory, of the judged address."""
        if reference.family == AF_INET6:
            text = f"::ffff:{address}" if address.version == 4 else str(address)
            return (text, to.port, to.flow, to.scope)
        return (str(address), to.port)

    def bind(self, reference: Reference, to: InetAddress | None) -> Outcome:
        if to is None:
            return Answer(error=errno.EAFNOSUPPORT)
        wrong = decisions.wrong_family(reference.family, to)
        if wrong is not None:
            return Answer(error=wrong)
        verdict = decisions.decide_bind(
            reference.family,
            to,
            v6_only=self._is_v6_only(reference),
            own_interface=self._own.is_interface(decisions.normalise(to.address)),
            given=self._ports.given,
            taken=self._ports.taken(to.port, self._own_listeners(to.port)),
        )
        if isinstance(verdict, Refuse):
            return self._notifier.endpoint(verdict, "bind", "tcp", to, reference.inode)
        return Answer(error=self._bind_now(reference, verdict), inode=reference.inode)

    def _is_v6_only(self, reference: Reference) -> bool:
        return reference.family == AF_INET6 and self._may_wait(linux_sockets.is_v6_only, reference.sock)

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
                self._may_wait(reference.sock.bind, (host, port))
            except OSError as error:
                # It may be held by a socket that the sandbox has closed.
                if error.errno != errno.EADDRINUSE or not self._sockets.free_port(port):
                    raise
                self._may_wait(reference.sock.bind, (host, port))
        except OSError as error:
            return error.errno or errno.EINVAL
        reference.port = port
        return 0

    def listen(self, reference: Reference) -> Outcome:
        inode, may_wait = reference.inode, self._may_wait
        if reference.busy:  # a connect gave it an address of an interface, which listen(2) must not keep
            return Answer(error=errno.EINVAL)
        # Unless it has one of our addresses, listen(2) would bind it to every address of the machine. The port says
        # nothing: a failed connect gives its port back, and getsockname(2) still names it.
        if not reference.port or not decisions.is_loopback(may_wait(_bound_to, reference.sock)):
            loopback = decisions.any_loopback(reference.family, v6_only=self._is_v6_only(reference))
            error = self._bind_now(reference, decisions.BindTo(loopback, 0))
            if error:
                return Answer(error=error, inode=inode)
        if not self._has_room():
            return Answer(error=errno.ENOBUFS, inode=inode)
        address, port = decisions.normalise(may_wait(_bound_to, reference.sock)), reference.port
        own = {inode, *self._own_listeners(port)}
        refusal = decisions.decide_port(address, port, self._ports.taken(port, own, address))
        if refusal is None:
            self._listening[address, port] = inode  # first: somebody inside may connect before this thread goes on
            may_wait(linux_sockets.show_token, reference.sock, address.version)
            # Room for all who come: a connect that finds the queue full cannot wait (Connecting.connect_near).
            may_wait(reference.sock.listen, socket.SOMAXCONN)
            # Again: somebody may have begun since. Who of the two was first cannot be known, so it was the other.
            refusal = decisions.decide_port(address, port, self._ports.taken(port, own, address))
        if refusal is not None:
            if self._listening.get((address, port)) == inode:
                del self._listening[address, port]
            may_wait(linux_sockets.disconnect, reference.sock)  # it listens no more, if it did
            return self._notifier.endpoint(refusal, "bind", "tcp", InetAddress(address, port), inode)
        return Answer(inode=inode, after=self._sockets.forget(reference))

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


def _bound_to(sock: socket.socket) -> decisions.IpAddress:
    return ipaddress.ip_address(sock.getsockname()[0].partition("%")[0])

"""Does: tells the user and the audit log what was refused, why, and what would allow it."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from sandboxed_kernel.broker import decisions, process
from sandboxed_kernel.broker.calls import Call, InetAddress, Malformed
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.outcomes import Refusal
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.reporting import Reporter
from sandboxed_kernel.broker.rules import Rules
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.hostnames.addresses import Kind, find_range
from sandboxed_kernel.hostnames.pins import Pins, Rejected
from sandboxed_kernel.notices import events
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.policy.explain import allow_line, allow_name_line
from sandboxed_kernel.policy.model import Destination, Transport
from sandboxed_kernel.records import replace

if TYPE_CHECKING:  # most policies have nothing that is checked
    from sandboxed_kernel.broker.greetings import Refused as Greeting

# A library asks for IPv4 and IPv6 addresses within this many seconds: one refusal for people, not two.
_ONE_QUESTION = 0.02
# A call is of the cell that runs when it is refused, which was said a moment before at most. One that Linux has kept
# from being looked at for longer is of the cell in which it came.
_PROMPT = 0.05  # seconds
# Everyday mistakes: their errno says all.
_UNREMARKABLE = (errno.EBADF, errno.ENOTSOCK, errno.EINTR, errno.ENOTTY, errno.ENOTDIR)
# What to do stands in docs/compatibility.md with an example of each.
OWN_RESOLVER = (
    "it looks names up by a resolver of its own (c-ares, musl), which takes no answer from sockets without an address."
    " Use socket.getaddrinfo; in curl_cffi CurlOpt.RESOLVE; in aiodns and pycares flags=1, which is DNS over TCP"
)

Line = Callable[[], str | None]


class Notifier:
    def __init__(self, reporter: Reporter, pins: Pins, own: OwnAddresses, workers: Workers, rules: Rules) -> None:
        self._reporter, self._pins, self._own, self._rules = reporter, pins, own, rules
        self._may_wait, self._post = workers.may_wait, workers.post
        self._ourselves = _who(os.getpid())
        # What was reported last, by which process, in which cell; and when.
        self._last_name: tuple[tuple[str, int, str | None], float] = (("", 0, None), 0.0)

    def endpoint(self, verdict: Refuse, kind: events.Kind, protocol: Transport, to: InetAddress, inode: int) -> Refusal:
        """Of an address and port; the user learns the line that would allow it."""
        where = decisions.normalise(to.address)
        address, private = str(where), self._own.is_here(where)
        names = self._pins.names_of(where)
        host = names[0] if names else None

        def line() -> str | None:
            return None if kind == "bind" else allow_line(host or address, to.port, protocol, private=private)

        return Refusal(verdict, kind, address, protocol, host, to.port, line, inode)

    def refused(self, call: Call, refusal: Refusal, answer: Callable[[], None]) -> bool:
        """Whether the call may be answered at once; else ``answer`` is called when the user has been told."""
        reason = refusal.verdict.reason
        if reason is None:
            return True
        kind, protocol, host = refusal.kind, refusal.protocol, refusal.host
        address, port = refusal.address, refusal.port
        make = self._event(call.tid, kind, reason, protocol, host, address, port, allow_line=refusal.allow_line)
        now = time.monotonic()
        self._reporter.hear(now)
        cell = self._reporter.cell if now - call.when < _PROMPT else call.cell
        return self._reporter.refused((kind, protocol, host or address, port), make, answer, cell=cell)

    def refuse_name(self, name: str, pid: int, then: Callable[[], None], again: Callable[[], None]) -> None:
        """Report a DNS question for a name that the policy does not name; ``then`` the question is answered. Where the
        rules have changed it is asked ``again``.
        """
        self._post(self._refuse_name, name, pid, then, again)

    def _refuse_name(self, name: str, pid: int, then: Callable[[], None], again: Callable[[], None]) -> None:
        if self._rules.have_changed():
            again()
            return
        now, asked = time.monotonic(), (name, pid, self._reporter.cell)
        last, when = self._last_name
        if asked == last and now - when < _ONE_QUESTION:
            then()  # the IPv6 half of a question that was just reported
            return
        self._last_name = (asked, now)
        reason = "no line under [network] allow names this host"
        make = self._event(pid, "name", reason, "dns", name, None, None, allow_line=lambda: allow_name_line(name))
        if self._reporter.refused(("name", "dns", name, None), make, then, cell=self._reporter.cell):
            then()

    def greeting(
        self, refused: Greeting, tid: int, address: decisions.IpAddress, port: int, then: Callable[[], None]
    ) -> bool:
        """A connection of thread ``tid`` whose TLS greeting may not pass. Whether it may end at once; else ``then`` is
        called when the user has been told.
        """

        def line() -> str | None:
            if refused.host is None or refused.line is None:
                return None
            private = self._own.is_here(address) or find_range(address).kind is Kind.PRIVATE
            return allow_line(refused.host, port, private=private, unchecked=refused.line == "unchecked")

        make = self._event(tid, "tls", refused.reason, "tcp", refused.host, str(address), port, allow_line=line)
        self._reporter.hear(time.monotonic())
        destination = ("tls", "tcp", refused.host or str(address), port)
        return self._reporter.refused(destination, make, then, cell=self._reporter.cell)

    def nameless(self, name: str, tid: int, address: decisions.IpAddress, port: int) -> None:
        """A TLS greeting that names no server has passed, since ``name`` alone means the address: a line in the log."""
        reason = f"a TLS greeting that names no server; of the policy's names only {name} means this address"
        make = self._event(tid, "tls", reason, "tcp", name, str(address), port)
        self._reporter.note(("tls", "tcp", name, port), lambda: replace(make(), verdict="allowed"))

    def names_rejected(self, rejected: list[Rejected]) -> None:
        """A name of the policy has an address that it may not have, or only with ``private = true``."""
        for one in rejected:
            self._tell_rejected(one)

    def _tell_rejected(self, one: Rejected) -> None:
        def line() -> str | None:
            if one.kind not in (Kind.PRIVATE, Kind.LOOPBACK):
                return None
            return allow_line(one.name, one.rule.ports[0].first, one.rule.transport, private=True)

        address = str(one.address)
        make = self._event(self._ourselves, "name", one.reason, "dns", one.name, address, None, allow_line=line)
        self._reporter.tell(make())

    def lost_datagram(self, pid: int) -> None:
        """A message on a socket that was never connected: its destination is not visible, and it went nowhere."""
        reason = "a datagram was sent by sendmsg() from a socket that is not connected; it went nowhere"
        make = self._event(pid, "datagram", reason, "udp", None, "unknown", None)
        self._post(lambda: self._reporter.tell(make()))

    def cut_datagram(self, pid: int, address: decisions.IpAddress, port: int) -> None:
        """A message on a socket that was connected when that was allowed."""
        reason = "the policy has changed: no line under [network] allow names this address and port any more"
        names = self._pins.names_of(address)
        host = names[0] if names else None

        def line() -> str | None:
            return allow_line(host or str(address), port, "udp")

        make = self._event(pid, "datagram", reason, "udp", host, str(address), port, allow_line=line)
        self._post(lambda: self._reporter.tell(make()))

    def unheard_resolver(self, pid: int, server: decisions.IpAddress) -> None:
        """A library looks names up by itself, and takes no answers from a socket without an address."""
        make = self._event(pid, "datagram", OWN_RESOLVER, "udp", None, str(server), decisions.DNS_PORT)
        self._post(lambda: self._reporter.tell(make()))

    def allowed(
        self, call: Call, protocol: Transport, rule: Destination, address: decisions.IpAddress, port: int
    ) -> None:
        destination = ("connect", protocol, str(address), port)
        self._reporter.allowed(destination, lambda: self._allowed_event(call.tid, protocol, rule, address, port))

    def malformed(self, call: Call, error: Malformed) -> None:
        """Arguments that mean nothing are logged; of everyday mistakes (a bad descriptor) the errno says all."""
        if error.error in _UNREMARKABLE:
            return
        reason = f"a call with {error}"
        make = self._event(call.tid, "malformed", reason, f"system call {call.nr}", None, None, None)
        self._reporter.note(("malformed", str(call.nr), reason, None), make)

    def _allowed_event(
        self, tid: int, protocol: Transport, rule: Destination, address: decisions.IpAddress, port: int
    ) -> Event:
        names = self._pins.names_of(address)
        pid, name = self._may_wait(_who, tid)
        return Event(
            kind="connect" if protocol == "tcp" else "datagram",
            verdict="allowed",
            reason=f"allowed by {rule.text}",
            protocol=protocol,
            when=time.time(),
            pid=pid,
            process=name,
            host=names[0] if names else None,
            address=str(address),
            port=port,
            rule=f"{rule.place} = {rule.text}",
        )

    def _event(
        self,
        who: int | tuple[int, str],
        kind: events.Kind,
        reason: str,
        protocol: str,
        host: str | None,
        address: str | None,
        port: int | None,
        *,
        allow_line: Line = lambda: None,
    ) -> Callable[[], Event]:
        """``who``: a thread, or a process with its name. To be called where one may wait, if it is a thread."""

        def make() -> Event:
            pid, name = self._may_wait(_who, who) if isinstance(who, int) else who
            return Event(
                kind=kind,
                verdict="refused",
                reason=reason,
                protocol=protocol,
                when=time.time(),
                pid=pid,
                process=name,
                host=host,
                address=address,
                port=port,
                allow_line=allow_line(),
            )

        return make


def _who(tid: int) -> tuple[int, str]:
    """The process of a thread, and its short name. It may wait, for the lock of a folder of /proc."""
    return process.process_of(tid), process.short_name(tid)

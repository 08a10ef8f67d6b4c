"""Does: connect(2) and sendto(2) of what the sandbox believes to be UDP sockets; ``datagrams`` has their far ends."""

from __future__ import annotations

import errno
import time

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.broker.calls import (
    AF_INET,
    AF_INET6,
    Address,
    Call,
    InetAddress,
    UnixAbstract,
    UnixPath,
    Unspecified,
)
from sandboxed_kernel.broker.datagrams import Datagrams, Pair
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.notifier import Notifier
from sandboxed_kernel.broker.outcomes import Answer, Outcome, Refusal
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.rules import Rules
from sandboxed_kernel.broker.unix_sockets import is_silent


class DatagramCalls:
    def __init__(self, datagrams: Datagrams, names: Names, own: OwnAddresses, notifier: Notifier, rules: Rules) -> None:
        self._datagrams, self._names, self._own, self._notifier = datagrams, names, own, notifier
        self._rules = rules
        rules.when_changed.append(lambda _allow: self._cut_off())

    def connect(self, call: Call, pair: Pair, address: Address, *, may_sort: bool) -> Outcome:
        """``may_sort``: see ``decisions.may_sort``; the socket is still blocking."""
        datagrams = self._datagrams
        if isinstance(address, Unspecified):
            datagrams.disconnect(pair)
            return Answer()
        to = _destination(address)
        if not isinstance(to, InetAddress):
            return to
        if may_sort and decisions.is_any4(to) and pair.family == AF_INET6:
            return Answer(error=errno.EAFNOSUPPORT)  # then the library asks with a socket of that family
        verdict = self._decide_and_log(call, to)
        if isinstance(verdict, decisions.AnswerNames):
            again = pair.mode == "dns" and pair.named == to.address
            datagrams.connect_names(pair, to.address)
            return Answer(error=decisions.connected(may_sort=may_sort, again=again))
        if isinstance(verdict, decisions.RelayTo):
            again = pair.connected == (verdict.address, to.port)
            error = datagrams.connect_relay(pair, verdict.address, to.port)
            return Answer(error=error or decisions.connected(may_sort=may_sort, again=again))
        return self._notifier.endpoint(verdict, "datagram", "udp", to, 0)

    def only_sorts(self, pair: Pair, address: Address) -> bool:
        """Whether this connect can only be the question from where one would send, of a socket that reaches nothing."""
        if not isinstance(address, InetAddress) or pair.family != AF_INET:
            return False
        return decisions.is_any4(address) and not isinstance(self._decide(address), decisions.RelayTo)

    def send(self, call: Call, pair: Pair, address: Address, data: bytes) -> Outcome:
        to = _destination(address)
        if not isinstance(to, InetAddress):
            return to
        verdict = self._decide_and_log(call, to)
        if isinstance(verdict, decisions.AnswerNames):
            self._datagrams.send_names(pair, to.address, data)
            return Answer(len(data), inode=pair.inode)
        if isinstance(verdict, decisions.RelayTo):
            error = self._datagrams.send_relay(pair, verdict.address, to.port, data)
            return Answer(len(data), error, inode=pair.inode)
        return self._notifier.endpoint(verdict, "datagram", "udp", to, pair.inode)

    def _decide_and_log(self, call: Call, to: InetAddress) -> decisions.DatagramVerdict:
        """By the rules that hold once it is logged, which the sandbox can make wait."""
        while True:
            verdict = self._decide(to)
            number = self._rules.number
            if isinstance(verdict, decisions.RelayTo):
                self._notifier.allowed(call, "udp", verdict.rule, verdict.address, to.port)
            if self._rules.number == number:
                return verdict

    def _cut_off(self) -> None:
        """A datagram socket has no connection that could stand: what is not allowed any more is sent no more."""
        for address, port in self._datagrams.destinations():
            here = self._own.is_here(address)
            verdict = decisions.decide_datagram(InetAddress(address, port), self._names.pins, own_interface=here)
            if not isinstance(verdict, decisions.RelayTo):
                self._datagrams.cut_off(address, port)

    def _decide(self, to: InetAddress) -> decisions.DatagramVerdict:
        self._rules.refresh(time.monotonic())
        rules = self._names.pins
        verdict = decisions.decide_datagram(to, rules, own_interface=True)
        if isinstance(verdict, Refuse) and not self._own.is_here(decisions.normalise(to.address)):
            verdict = decisions.decide_datagram(to, rules, own_interface=False)
        if isinstance(verdict, Refuse) and self._rules.have_changed():
            return self._decide(to)
        return verdict


def _destination(address: Address) -> InetAddress | Answer | Refusal:
    """What may be judged, or what becomes of a call with any other address."""
    if isinstance(address, InetAddress):
        return address
    if not isinstance(address, UnixPath | UnixAbstract):
        return Answer(error=errno.EAFNOSUPPORT)
    if isinstance(address, UnixPath) and is_silent(address.path):
        return Answer(error=errno.ENOENT)
    name = address.path if isinstance(address, UnixPath) else b"@" + address.name[1:]
    refusal = Refuse(errno.EACCES, "unix datagram sockets do not exist inside")
    return Refusal(refusal, "datagram", name.decode(errors="replace"), protocol="unix")

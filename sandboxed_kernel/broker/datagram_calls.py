"""Does: connect(2) and sendto(2) of what the sandbox believes to be UDP sockets; ``datagrams`` has their far ends."""

from __future__ import annotations

import errno

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.broker.calls import Address, InetAddress, UnixAbstract, UnixPath, Unspecified
from sandboxed_kernel.broker.datagrams import Datagrams, Pair
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.broker.telling import Telling
from sandboxed_kernel.broker.unix_sockets import is_silent
from sandboxed_kernel.linux.seccomp import Notification


class DatagramCalls:
    def __init__(
        self, replies: Replies, datagrams: Datagrams, names: Names, own: OwnAddresses, telling: Telling
    ) -> None:
        self._replies, self._datagrams, self._names = replies, datagrams, names
        self._own, self._telling = own, telling

    def connect(self, call: Notification, pair: Pair, address: Address) -> None:
        datagrams = self._datagrams
        if isinstance(address, Unspecified):
            datagrams.disconnect(pair)
            self._replies.answer(call)
        elif isinstance(address, UnixPath | UnixAbstract):
            self._refuse_path(call, address)
        elif not isinstance(address, InetAddress):
            self._replies.answer(call, error=errno.EAFNOSUPPORT)
        else:
            verdict = self._decide(address)
            if isinstance(verdict, decisions.AnswerNames):
                datagrams.connect_names(pair)
                self._replies.answer(call)
            elif isinstance(verdict, decisions.RelayTo):
                self._telling.allowed(call, "udp", verdict.rule, verdict.address, address.port)
                self._replies.answer(call, error=datagrams.connect_relay(pair, verdict.address, address.port))
            else:
                self._telling.refuse_endpoint(call, verdict, "datagram", "udp", address, 0)

    def send(self, call: Notification, pair: Pair, address: Address, data: bytes) -> None:
        if isinstance(address, UnixPath | UnixAbstract):
            self._refuse_path(call, address)
            return
        if not isinstance(address, InetAddress):
            self._replies.answer(call, error=errno.EAFNOSUPPORT)
            return
        verdict = self._decide(address)
        if isinstance(verdict, decisions.AnswerNames):
            self._datagrams.send_names(pair, data)
            self._replies.answer(call, len(data), inode=pair.inode)
        elif isinstance(verdict, decisions.RelayTo):
            self._telling.allowed(call, "udp", verdict.rule, verdict.address, address.port)
            error = self._datagrams.send_relay(pair, verdict.address, address.port, data)
            self._replies.answer(call, len(data), error, inode=pair.inode)
        else:
            self._telling.refuse_endpoint(call, verdict, "datagram", "udp", address, pair.inode)

    def _decide(self, to: InetAddress) -> decisions.DatagramVerdict:
        rules = self._names.pins
        verdict = decisions.decide_datagram(to, rules, own_interface=True)
        if isinstance(verdict, Refuse) and not self._own.is_here(decisions.normalise(to.address)):
            verdict = decisions.decide_datagram(to, rules, own_interface=False)
        return verdict

    def _refuse_path(self, call: Notification, address: UnixPath | UnixAbstract) -> None:
        if isinstance(address, UnixPath) and is_silent(address.path):
            self._replies.answer(call, error=errno.ENOENT)
            return
        name = address.path if isinstance(address, UnixPath) else b"@" + address.name[1:]
        refusal = Refuse(errno.EACCES, "unix datagram sockets do not exist inside")
        self._telling.refuse(call, refusal, "datagram", name.decode(errors="replace"), protocol="unix")

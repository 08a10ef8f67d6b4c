"""Whole calls, from the notification to the answer. What Linux says is given as facts: no socket, no process.

Whatever may wait in Linux goes through ``may_wait``; here that answers with the fact of that name.
"""

from __future__ import annotations

import errno
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import AF_INET, AF_NETLINK, AF_UNIX, Call, Malformed
from sandboxed_kernel.broker.connecting import Connecting
from sandboxed_kernel.broker.datagram_calls import DatagramCalls
from sandboxed_kernel.broker.datagrams import Datagrams
from sandboxed_kernel.broker.decisions import PortsOfOthers, Refuse
from sandboxed_kernel.broker.dispatch import Dispatcher
from sandboxed_kernel.broker.handlers import Handlers, Parts
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.notifier import Notifier
from sandboxed_kernel.broker.outcomes import Refusal, Refused
from sandboxed_kernel.broker.own_addresses import OwnAddresses
from sandboxed_kernel.broker.repeats import Repeats
from sandboxed_kernel.broker.reporting import Reporter
from sandboxed_kernel.broker.rules import Rules
from sandboxed_kernel.broker.sockets import MayWait, Reference, Sockets
from sandboxed_kernel.broker.tcp_calls import TcpCalls
from sandboxed_kernel.broker.unix_calls import UnixCalls
from sandboxed_kernel.broker.unix_sockets import UnixSockets
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.hostnames.pins import Pins
from sandboxed_kernel.linux.seccomp import Gone
from sandboxed_kernel.notices.channel import Reported, decode
from sandboxed_kernel.policy.model import Destination, Policy
from tests.support.rules import rule

NUMBERS = {name: number for number, name in enumerate(("socket", "connect", "bind", "listen", "sendto", "fchmod"), 1)}
NUMBERS |= {"symlink": 7, "setpriority": 8, "ioctl": 9}
ALLOWED, REFUSED, OWN = "203.0.113.5", "192.0.2.1", "127.0.0.1"
DEVICE, INODE, TID = 8, 77, 4242


def sockaddr(host: str, port: int) -> bytes:
    return struct.pack("=H", AF_INET) + struct.pack("!H", port) + ip_address(host).packed + bytes(8)


class FakeSocket:
    closed = False

    def fileno(self) -> int:
        return 9

    def close(self) -> None:
        self.closed = True

    def listen(self, _backlog: int) -> None:
        raise NotImplementedError  # a fact says what becomes of it

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        return bytes(size)


class Broker:
    """The real dispatcher, handlers and tables. Linux, the loop and the relay are made up."""

    def __init__(self, *allow: Destination) -> None:
        self.facts: dict[str, Any] = {"is_own_interface": False, "close": None}
        self.asked: list[str] = []  # what may wait, in its order
        self.said: list[Reported] = []
        self.logged: list[Any] = []
        self.answers: list[tuple[int, int, int]] = []
        self.gone = False
        self.complain = Workers(threading.Lock()).complain
        self.lost: set[int] = set()  # threads that have ended
        self.jobs: list[Callable[[], object]] = []
        self.listeners: dict[tuple[str, int], int] = {}  # of this machine: address and port -> inode
        self.timers: list[Callable[[], None]] = []
        self.watched: dict[int, Callable[[int], None]] = {}
        self.launched: list[Callable[[], None]] = []
        self.may_wait = cast(MayWait, self._may_wait)
        loop, may_wait = cast(Any, self), self.may_wait
        self.repeats = Repeats(once=(NUMBERS["connect"], NUMBERS["bind"]))
        self.reporter = Reporter(cast(Any, self), cast(Any, SimpleNamespace(write=self.logged.append)), cast(Any, self))
        self.pins = Pins(allow)
        own = OwnAddresses(may_wait)

        def policy() -> tuple[int, Policy]:
            return self.policy

        self.policy = (0, Policy(allow=allow))
        self.meanwhile: dict[str, Callable[[], object]] = {}  # what comes while a call waits for that, once
        self.rules = rules = Rules(cast(Any, SimpleNamespace(words=(), look=policy)), may_wait, self.post, print)
        rules.when_changed.append(self.pins.replace)
        notifier = Notifier(self.reporter, self.pins, own, loop, rules)
        self.names = cast(Names, SimpleNamespace(pins=self.pins, launching=False, when_launched=self.launched.append))
        self.sockets = Sockets(cast(Any, None), DEVICE, may_wait, self.post)
        connecting = Connecting(loop, loop, self.sockets, loop)
        given = range(20000, 20001)
        ports = cast(Any, SimpleNamespace(given=given, choose=lambda: iter((20000,)), taken=self.taken))
        self.tcp = TcpCalls(
            may_wait,
            self.sockets,
            connecting,
            cast(Any, None),
            self.names,
            loop,
            own,
            notifier,
            ports,
            rules,
            cast(Any, None),
        )
        unix = UnixSockets(loop, loop, loop, lambda: None, named=())
        parts = Parts(
            listener=loop,
            may_wait=may_wait,
            repeats=self.repeats,
            sockets=self.sockets,
            connecting=connecting,
            datagrams=cast(Datagrams, SimpleNamespace(find=lambda _inode: None)),
            metadata=cast(Any, SimpleNamespace(carry_out=lambda *_: self.fact("metadata"))),
            links=cast(Any, SimpleNamespace(carry_out=lambda *_: self.fact("links"))),
            files=None,
            tcp=self.tcp,
            unix=UnixCalls(may_wait, self.sockets, connecting, unix, loop, loop),
            datagram=cast(DatagramCalls, None),
        )
        by_name = Handlers(parts, warden=1).by_name
        handlers = {NUMBERS[name]: handler for name, handler in by_name.items() if name in NUMBERS}
        self.dispatcher = Dispatcher(loop, loop, self.repeats, self.reporter, notifier, handlers)
        self.ident = 0

    # --- Linux -----------------------------------------------------------------------------------------------------

    def _may_wait(self, function: Callable[..., Any], /, *arguments: Any) -> Any:
        self.meanwhile.pop(function.__name__, lambda: None)()
        if function.__name__ in ("_who", "short_name"):
            return (1, "python") if function.__name__ == "_who" else "python"
        self.asked.append(function.__name__)
        if function.__name__ == "_knock":
            return self.fact("connect_now")[0]
        if function.__name__ in ("_send", "<lambda>", "close", "policy"):
            return function(*arguments)
        if function.__name__ == "_look":
            call = arguments[0]
            if call.tid in self.lost:
                raise Malformed(errno.EINTR, "the caller is gone")
            call.copied = self.fact("address")
            return process.OpenFile(DEVICE, self.fact("inode"), stat.S_IFSOCK)
        return self.fact(function.__name__)

    def fact(self, name: str) -> Any:
        found = self.facts[name]
        if isinstance(found, BaseException):
            raise found
        return found

    def taken(self, *_: object) -> PortsOfOthers:
        return PortsOfOthers(range(30000, 60000), frozenset({8888}), ())

    def answer(self, ident: int, value: int, error: int) -> None:
        if self.gone:
            raise Gone
        self.answers.append((ident, value, error))

    def tcp_listener(self, address: object, port: int) -> int | None:
        return self.listeners.get((str(address), port))

    def has_room(self, *_: object) -> bool:
        return False

    def lacks(self, _what: str) -> bool:
        return False

    # --- loop, workers, relay --------------------------------------------------------------------------------------

    def post(self, function: Callable[..., object], *arguments: object) -> None:
        self.jobs.append(lambda: function(*arguments))

    def run(self) -> None:
        while self.jobs:
            self.jobs.pop(0)()

    def watch(self, descriptor: int, _events: int, callback: Callable[[int], None]) -> None:
        self.watched[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        self.watched.pop(descriptor, None)

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> None:
        self.timers.append(callback)

    def send(self, data: bytes) -> bool:
        message = decode(data)
        assert isinstance(message, Reported)
        self.said.append(message)
        return True

    def hear(self) -> None:
        pass

    # --- what a test says ------------------------------------------------------------------------------------------

    def reference(self, family: int = AF_INET, *, port: int = 0) -> FakeSocket:
        sock = FakeSocket()
        reference = Reference(cast(socket.socket, sock), INODE, family)
        reference.port = port
        self.sockets.keep(reference)
        self.sockets.handed_over(reference, TID, 5)
        self.facts["inode"] = INODE
        return sock

    def call(self, name: str, *, tid: int = TID, **facts: Any) -> tuple[int, int] | None:
        """The answer: (value, errno), or None where there is none yet."""
        self.facts |= facts
        self.ident += 1
        before = len(self.answers)
        self.dispatcher.handle(Call(self.ident, tid, NUMBERS[name], (5, 0x1000, 16, 0, 0, 0), None, time.monotonic()))
        return self.last(before)

    def last(self, before: int = 0) -> tuple[int, int] | None:
        self.run()
        return self.answers[-1][1:] if len(self.answers) > before else None


@pytest.fixture
def broker() -> Broker:
    return Broker(rule(ALLOWED + "/32", 80))


def test_a_refused_connect_is_told_before_it_is_answered(broker: Broker) -> None:
    broker.reference()
    assert broker.call("connect", address=sockaddr(REFUSED, 80)) is None
    (told,) = broker.said
    assert (told.event.address, told.event.port, told.event.kind) == (REFUSED, 80, "connect")
    assert told.event.allow_line is not None
    assert [event.address for event in broker.logged] == [REFUSED]
    assert told.number is not None
    broker.reporter.published(told.number)
    assert broker.last() == (0, errno.EACCES)
    assert "connect_now" not in broker.asked
    assert broker.call("connect", address=sockaddr(REFUSED, 80)) == (0, errno.EACCES), "counted, not told again"
    assert len(broker.said) == 1


def test_an_answer_does_not_wait_for_a_relay_that_says_nothing(broker: Broker) -> None:
    broker.reference()
    assert broker.call("connect", address=sockaddr(REFUSED, 80)) is None
    broker.timers[0]()
    assert broker.last() == (0, errno.EACCES)
    broker.reporter.published(1)
    broker.run()
    assert len(broker.answers) == 1


def test_an_allowed_connect_is_made_answered_and_let_go(broker: Broker) -> None:
    sock = broker.reference()
    assert broker.call("connect", address=sockaddr(ALLOWED, 80), connect_now=(0, False)) == (0, 0)
    assert broker.asked == ["_look", "policy", "connect_now", "_send"]
    assert sock.closed
    assert len(broker.sockets) == 0
    assert not broker.said
    assert [event.verdict for event in broker.logged] == ["allowed"]


def test_rules_that_change_while_a_call_waits_count_for_it_and_all_later_ones(broker: Broker) -> None:
    """The name of the calling process is read for the audit log, and the sandbox can keep that waiting."""

    def shrink() -> None:
        broker.policy = (1, Policy())
        assert broker.rules.have_changed()

    broker.reference()
    broker.meanwhile["_who"] = shrink
    connected: dict[str, Any] = {"connect_now": AssertionError("connected")}
    for _ in range(2):
        assert broker.call("connect", address=sockaddr(ALLOWED, 80), **connected) in (None, (0, errno.EACCES))
        broker.timers[0]()
        assert broker.last() == (0, errno.EACCES)
    assert [reported.event.address for reported in broker.said] == [ALLOWED]


def test_a_connect_that_fails_keeps_the_socket(broker: Broker) -> None:
    sock = broker.reference()
    failed = (errno.ECONNREFUSED, False)
    assert broker.call("connect", address=sockaddr(ALLOWED, 80), connect_now=failed) == (0, errno.ECONNREFUSED)
    assert not sock.closed
    assert broker.call("connect", connect_now=(0, False)) == (0, 0)


def test_a_connect_under_way_is_answered_when_it_is_over(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandboxed_kernel.linux.sockets.is_settled", lambda _sock: True)
    sock = broker.reference()
    assert broker.call("connect", address=sockaddr(ALLOWED, 80), connect_now=(errno.EINPROGRESS, False)) is None
    broker.facts["is_connected"] = True
    broker.watched[sock.fileno()](0)
    assert broker.last() == (0, 0)
    assert sock.closed


def test_who_polls_is_told_at_once_and_finds_the_error_in_the_socket(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sandboxed_kernel.linux.sockets.is_settled", lambda _sock: True)
    sock = broker.reference()
    facts: dict[str, Any] = {"connect_now": (errno.EINPROGRESS, True), "is_connected": False}
    assert broker.call("connect", address=sockaddr(ALLOWED, 80), **facts) == (0, errno.EINPROGRESS)
    broker.watched[sock.fileno()](0)
    assert "dissolve" not in broker.asked
    assert not sock.closed


def test_an_own_listener_is_met_with_the_token_and_nobody_else(broker: Broker) -> None:
    broker.reference(port=20000)
    facts: dict[str, Any] = {"_bound_to": ip_address(OWN), "show_token": None, "listen": None}
    broker.listeners[OWN, 20000] = INODE
    assert broker.call("listen", address=b"", **facts) == (0, 0)
    broker.reference()
    demanded: dict[str, Any] = {"connect_now": (0, False), "demand_no_token": None}
    broker.asked.clear()
    assert broker.call("connect", address=sockaddr(OWN, 20000), **demanded) == (0, 0)
    assert broker.asked == ["_look", "policy", "_knock", "demand_no_token", "_send"]
    broker.reference()
    broker.listeners[OWN, 20000] = 123  # somebody else's, since
    assert broker.call("connect", tid=TID + 1) is None
    assert broker.said[-1].event.port == 20000


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (Malformed(errno.EFAULT, "nothing there"), errno.EFAULT),
        (Malformed(errno.EBADF, "no descriptor"), errno.EBADF),
        (OSError(errno.ENOBUFS, ""), errno.ENOBUFS),
        (OSError(), errno.EACCES),
    ],
)
def test_what_goes_wrong_is_its_errno(broker: Broker, raised: BaseException, error: int) -> None:
    broker.reference()
    assert broker.call("connect", address=raised) == (0, error)


def test_a_bug_of_ours_is_a_refusal(broker: Broker, capsys: pytest.CaptureFixture[str]) -> None:
    broker.reference()
    assert broker.call("connect", address=ZeroDivisionError()) == (0, errno.EACCES)
    assert "BUG in sandboxed_kernel" in capsys.readouterr().err
    assert broker.call("connect", address=sockaddr(ALLOWED, 80), connect_now=(0, False)) == (0, 0)


def test_who_cannot_be_looked_into_is_refused_and_told(broker: Broker) -> None:
    broker.reference()
    assert broker.call("connect", address=process.Unreadable()) is None
    assert broker.said[0].event.kind == "process"
    broker.timers[0]()
    assert broker.last() == (0, errno.EACCES)


def test_a_call_of_no_kind_does_not_exist(broker: Broker) -> None:
    broker.dispatcher.handle(Call(1, TID, 999, (0, 0, 0, 0, 0, 0)))
    assert broker.last() == (0, errno.ENOSYS)


@pytest.mark.parametrize("name", ["fchmod", "symlink"])
@pytest.mark.parametrize("error", [0, errno.EROFS])
def test_what_nobody_heard_is_done_once(broker: Broker, name: str, error: int) -> None:
    fact = "metadata" if name == "fchmod" else "links"
    broker.gone = True
    result = OSError(error, "") if error else None
    broker.facts[fact] = result
    assert broker.call(name) is None
    broker.gone = False
    broker.facts[fact] = AssertionError("done twice")
    assert broker.call(name) == (0, error)


def test_a_connect_that_nobody_heard_of_is_found_by_its_repeat(broker: Broker) -> None:
    broker.reference()
    broker.gone = True
    assert broker.call("connect", address=sockaddr(ALLOWED, 80), connect_now=(0, False)) is None
    broker.gone = False
    assert broker.call("connect", connect_now=AssertionError("done twice")) == (0, 0)
    assert broker.call("connect", tid=TID + 1) == (0, errno.EISCONN)


@pytest.mark.parametrize(
    ("name", "fact", "kind"),
    [("fchmod", "metadata", "metadata"), ("symlink", "links", "link"), ("setpriority", "carry_out", "process")],
)
def test_what_lies_outside_is_refused_and_told(broker: Broker, name: str, fact: str, kind: Any) -> None:
    refusal = Refusal(Refuse(errno.EPERM, "not yours"), kind, "/etc/passwd", protocol=name)
    broker.facts[fact] = Refused(refusal)
    assert broker.call(name) is None
    told = broker.said[0].event
    assert (told.kind, told.reason, told.address, told.protocol) == (kind, "not yours", "/etc/passwd", name)
    broker.timers[0]()
    assert broker.last() == (0, errno.EPERM)


def test_a_socket_is_found_before_the_program_has_it(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def add_descriptor(_ident: int, _descriptor: int, *, close_on_exec: bool) -> int:
        assert not close_on_exec
        seen.append(len(broker.sockets))
        raise Gone

    monkeypatch.setattr(broker, "add_descriptor", add_descriptor, raising=False)
    broker.dispatcher.handle(Call(1, TID, NUMBERS["socket"], (AF_INET, 1, 0, 0, 0, 0)))
    assert seen == [1]
    assert len(broker.sockets) == 0, "nobody took it"
    assert broker.answers == []


@pytest.mark.parametrize(("family", "error"), [(AF_UNIX, errno.EOPNOTSUPP), (AF_INET, errno.EPIPE)])
def test_nothing_is_sent_without_a_connection(broker: Broker, family: int, error: int) -> None:
    broker.reference(family)
    assert broker.call("sendto", address=sockaddr(ALLOWED, 80)) == (0, error)


def test_netlink_neither_connects_nor_listens(broker: Broker) -> None:
    broker.reference(AF_NETLINK)
    assert broker.call("connect", address=sockaddr(ALLOWED, 80)) == (0, errno.EAFNOSUPPORT)
    assert broker.call("listen", address=b"") == (0, errno.EOPNOTSUPP)
    assert broker.call("bind", address=struct.pack("=HHII", AF_NETLINK, 0, 7, 0)) == (0, errno.EPERM)


def three_wait(broker: Broker) -> Reference:
    """Threads 1, 2 and 3 connect the same socket, on which somebody else works."""
    broker.reference()
    reference = broker.sockets.find(DEVICE, INODE)
    assert reference is not None
    reference.taken = True
    broker.facts["address"] = sockaddr(ALLOWED, 80)
    for tid in (1, 2, 3):
        broker.dispatcher.handle(Call(tid, tid, NUMBERS["connect"], (5, 0x1000, 16, 0, 0, 0), None, time.monotonic()))
    assert broker.last() is None
    return reference


def test_one_call_at_a_time_works_on_a_socket(broker: Broker) -> None:
    reference = three_wait(broker)
    broker.facts["connect_now"] = (0, False)
    broker.sockets.give_back(reference)
    broker.run()
    assert broker.answers == [(1, 0, 0), (2, 0, errno.EISCONN), (3, 0, errno.EISCONN)]


def test_a_caller_that_is_gone_keeps_nobody_from_his_turn(broker: Broker) -> None:
    reference = three_wait(broker)
    broker.facts["connect_now"] = (errno.ECONNREFUSED, False)
    broker.lost = {1, 2}
    broker.sockets.give_back(reference)
    broker.run()
    assert broker.answers == [(1, 0, errno.EINTR), (2, 0, errno.EINTR), (3, 0, errno.ECONNREFUSED)]
    assert not reference.taken


def test_a_frozen_call_counts_for_the_cell_in_which_it_came(broker: Broker) -> None:
    broker.reference()
    broker.facts["address"] = sockaddr(REFUSED, 80)
    broker.reporter.cell_began("nine")
    for number, (cell, when) in enumerate((("three", time.monotonic() - 60), ("three", time.monotonic()))):
        broker.dispatcher.handle(Call(number, TID, NUMBERS["connect"], (5, 0x1000, 16, 0, 0, 0), cell, when))
    assert [told.event.cell for told in broker.said] == ["three", "nine"]

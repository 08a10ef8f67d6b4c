"""Does: hands connections to the guard, starts it for the first one, and answers what it asks about their greetings."""

from __future__ import annotations

import collections
import errno
import socket
import time
from collections.abc import Callable
from functools import partial
from select import POLLIN

from sandboxed_kernel.broker.decisions import IpAddress
from sandboxed_kernel.broker.greetings import decide_greeting
from sandboxed_kernel.broker.loop import IN, OUT, Loop
from sandboxed_kernel.broker.meeting import Attempt
from sandboxed_kernel.broker.names import Names
from sandboxed_kernel.broker.notifier import Notifier
from sandboxed_kernel.broker.rules import Rules
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.guard.messages import (
    MAX_BYTES,
    MAX_NAMES,
    Asked,
    Opened,
    Passed,
    Verdict,
    decode_from_guard,
    encode,
)
from sandboxed_kernel.linux.descriptor import is_ready
from sandboxed_kernel.records import Record

GONE = "the guard, which looks at TLS greetings, has ended"
_AT_ONCE = 64  # messages
_MAX_QUEUED = 512  # messages, most of them with two sockets, that a guard which was stopped does not take
_PAUSE = 0.05  # seconds
_MAX_HANDED = 4096  # whose greeting is not over


class _Handed(Record):
    """What is known of a connection that the guard may still ask about."""

    address: IpAddress
    port: int
    tid: int


class Guarding:
    """For who holds the lock; ``start`` is the guard's own."""

    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        start: Callable[[], tuple[int, int]],
        names: Names,
        rules: Rules,
        notifier: Notifier,
        lost: Callable[[str], None],
    ) -> None:
        """``lost`` is called where the guard is gone, in the loop's thread: without it nothing goes on."""
        self._loop, self._workers, self._start_it, self._lost = loop, workers, start, lost
        self._names, self._rules, self._notifier = names, rules, notifier
        self._channel: socket.socket | None = None
        self._starting = False
        # Messages, with the sockets and the number of a connection that is handed over.
        self._queue: collections.deque[tuple[bytes, tuple[socket.socket, ...], int | None]] = collections.deque()
        self._waits = False  # before it is tried again to send the first of them
        self._handed: dict[int, _Handed] = {}
        self._next = 0

    def begin(self) -> None:
        """Start it, where it does not run; who hands over meanwhile waits for it."""
        if not self._starting:
            self._starting = True
            self._workers.post(self._start)

    @property
    def queued(self) -> int:
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        return len(self._queue) < _MAX_QUEUED and len(self._handed) < _MAX_HANDED

    def _start(self) -> None:
        try:
            _pid, number = self._workers.may_wait(self._start_it)
        except OSError as error:
            self._loop.from_thread(
                partial(self._lost, f"the guard, which looks at TLS greetings, cannot start: {error}")
            )
            return
        channel = self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=number)
        channel.setblocking(False)
        self._loop.watch(channel.fileno(), IN, self._ready)
        self._drain()

    def hand_over(self, attempt: Attempt) -> None:
        """Both of its sockets are the guard's from now on."""
        self.begin()
        ident, self._next = self._next, self._next + 1
        self._handed[ident] = _Handed(attempt.address, attempt.port, attempt.tid)
        checked = self._names.pins.check_for(attempt.address, attempt.port)
        names = () if checked is None else checked.names[:MAX_NAMES]
        self._queue.append((encode(Opened(ident, names)), (attempt.near, attempt.far), ident))
        self._drain()

    def finish(self, seconds: float) -> None:
        """Everything inside has ended: what it sent before still goes on, for that long at most."""
        if self._channel is None:
            return
        self._loop.unwatch(self._channel.fileno())
        try:
            self._channel.shutdown(socket.SHUT_WR)
        except OSError:
            return
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and is_ready(self._channel.fileno(), POLLIN, int(left * 1000)):
            try:
                if not self._channel.recv(MAX_BYTES):
                    return
            except OSError:
                return

    def _drain(self) -> None:
        channel = self._channel
        if channel is None:
            return
        while self._queue:
            data, sockets, ident = self._queue[0]
            try:
                socket.send_fds(channel, [data], [sock.fileno() for sock in sockets])
            except BlockingIOError:
                self._loop.rewatch(channel.fileno(), IN | OUT)
                return
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS:
                    # Of all programs of this user, so of the sandbox too, too many descriptors are under way.
                    self._loop.rewatch(channel.fileno(), IN)
                    self._try_again()
                    return
                if ident is not None:  # it is gone, and so is everything soon
                    self._handed.pop(ident, None)
            self._queue.popleft()
            for sock in sockets:
                sock.close()
        self._loop.rewatch(channel.fileno(), IN)

    def _try_again(self) -> None:
        if not self._waits:
            self._waits = True
            self._loop.call_later(_PAUSE, self._drain_again)

    def _drain_again(self) -> None:
        self._waits = False
        self._drain()

    def _ready(self, events: int) -> None:
        channel = self._channel
        if channel is None:
            return
        if events & OUT:
            self._drain()
        for _ in range(_AT_ONCE):
            try:
                data = channel.recv(MAX_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._loop.unwatch(channel.fileno())
                self._lost(GONE)
                return
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        try:
            said = decode_from_guard(data)
        except (ValueError, KeyError, TypeError):
            self._lost("what the guard says cannot be understood")
            return
        if isinstance(said, Passed):
            self._handed.pop(said.id, None)
        elif isinstance(said, Asked):
            self._workers.post(self._judge, said)

    def _judge(self, asked: Asked) -> None:
        handed = self._handed.get(asked.id)
        if handed is None:
            self._tell(Verdict(asked.id, passes=False))
            return
        self._rules.have_changed()
        if self._names.launching:  # a name that is allowed by now may be about to mean this address
            self._names.when_launched(lambda: self._workers.post(self._judge, asked))
            return
        pins = self._names.pins
        checked = pins.check_for(handed.address, handed.port)
        refused = decide_greeting(
            asked.kind,
            asked.name,
            asked.words,
            checked,
            allowed=pins.rule_for(handed.address, handed.port, "tcp") is not None,
            elsewhere=asked.name is not None and pins.rule_for_name(asked.name, handed.port, "tcp") is not None,
        )
        if refused is None:
            if asked.kind == "none" and checked is not None:
                self._notifier.nameless(checked.names[0], handed.tid, handed.address, handed.port)
            self._answer(asked.id, passes=True)
            return
        answer = partial(self._answer, asked.id, passes=False)
        if self._notifier.greeting(refused, handed.tid, handed.address, handed.port, answer):
            answer()

    def _answer(self, ident: int, *, passes: bool) -> None:
        if not passes:
            self._handed.pop(ident, None)
        self._tell(Verdict(ident, passes))

    def _tell(self, verdict: Verdict) -> None:
        self._queue.append((encode(verdict), (), None))
        self._drain()

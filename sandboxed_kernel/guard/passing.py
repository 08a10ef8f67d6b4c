"""Does: one connection: its greeting is looked at, then bytes are passed both ways as they come.

Nothing is truncated: a half close is passed on behind the last byte, a reset as a reset, once what came before it has
arrived (RFC 9293 section 3.6). Of each direction at most one buffer is held here; the rest waits in Linux, and the
sender with it.
"""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import time
from collections.abc import Callable
from select import EPOLLIN, EPOLLOUT
from typing import Protocol

from sandboxed_kernel.guard.filter import SIOCOUTQ
from sandboxed_kernel.guard.greeting import Greeting, Wrong
from sandboxed_kernel.guard.messages import MAY_PASS, Asked, FromGuard, Kind, Passed

BUFFER = 65536  # bytes
_ROUNDS = 4  # buffers of one direction, then others have their turn
_RESET = struct.pack("=ii", 1, 0)  # struct linger: close(2) resets
_ACCESS_DENIED = b"\x15\x03\x03\x00\x02\x02\x31"  # a fatal alert, RFC 8446 section 6.2
_DRAINED = 1 << 20  # bytes that a refused client may still send
_DRAIN = 2.0  # seconds
_ARRIVES = 1.0  # seconds in which something of what was sent before a reset has to arrive
_LOOK_AGAIN = 0.02  # seconds
# A client that has closed looks like one that has closed one half. Linux waits for the other side's end as long, where
# nobody has the socket any more (tcp_fin_timeout of tcp(7)).
_LEFT = 60.0  # seconds


class Hub(Protocol):
    """What serves all connections; ``serve.Guard``."""

    buffer: memoryview

    def watch(self, sock: socket.socket, events: int, callback: Callable[[int], None]) -> None:
        """Call it with those of ``events`` that hold; with 0 events no more, a hang-up neither."""

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None: ...

    def tell(self, message: FromGuard) -> None: ...

    def ended(self, ident: int) -> None: ...


class _Way:
    """One direction."""

    __slots__ = ("done", "ended", "pending", "source", "target")

    def __init__(self, source: socket.socket, target: socket.socket) -> None:
        self.source, self.target = source, target
        self.pending = b""  # read, and not taken by the target yet
        self.ended = False  # there is nothing more to read
        self.done = False  # and the target knows

    def send(self, data: bytes | memoryview) -> None:
        """Raises OSError where the target is gone."""
        if not data:  # which a target that is gone would not take either
            return
        if self.pending:
            self.pending += data
            return
        try:
            sent = self.target.send(data)
        except BlockingIOError:
            sent = 0
        if sent < len(data):
            self.pending = bytes(data[sent:])

    def flush(self) -> None:
        """Raises OSError."""
        if self.pending:
            data, self.pending = self.pending, b""
            self.send(data)


class Connection:
    """``near`` is connected to the sandbox, ``far`` to the server; both are non-blocking. Owns them."""

    def __init__(self, hub: Hub, ident: int, names: frozenset[str], near: socket.socket, far: socket.socket) -> None:
        """``names``: those that its greeting may name without a question."""
        self._hub, self._id, self._names = hub, ident, names
        self._near, self._far = near, far
        self._up, self._down = _Way(near, far), _Way(far, near)
        self._greeting: Greeting | None = Greeting()  # None once it is over
        self._accepted = False  # the first one
        self._asked: Kind | None = None  # the broker, and nothing happens until it answers
        self._ending = False  # what is left to do is not for ``_ready``
        self._drained = 0
        self._silent_since = math.inf  # once the client has ended
        self._watch()

    @property
    def _is_closed(self) -> bool:
        return self._near.fileno() < 0

    def is_left(self, now: float) -> bool:
        """Whether it may make room for another one: the client has ended or closed, and the server says nothing."""
        return self._up.ended and now - self._silent_since >= _LEFT

    # --- what is waited for ----------------------------------------------------------------------------------------

    def _watch(self) -> None:
        self._hub.watch(self._near, self._events(self._up, self._down), self._near_ready)
        self._hub.watch(self._far, self._events(self._down, self._up), self._far_ready)

    def _unwatch(self) -> None:
        for sock in (self._near, self._far):
            if sock.fileno() >= 0:
                self._hub.watch(sock, 0, self._near_ready)

    def _events(self, reads: _Way, writes: _Way) -> int:
        wanted = EPOLLOUT if writes.pending else 0
        if not (reads.pending or reads.ended) and self._may_read(reads):
            wanted |= EPOLLIN
        return wanted

    def _may_read(self, way: _Way) -> bool:
        return self._greeting is None or way is self._down or self._greeting.takes_more

    def _near_ready(self, events: int) -> None:
        self._ready(events, self._up, self._down)

    def _far_ready(self, events: int) -> None:
        self._ready(events, self._down, self._up)

    def _ready(self, events: int, reads: _Way, writes: _Way) -> None:
        """Of one socket, which ``reads`` reads from and ``writes`` writes to."""
        if events & ~EPOLLOUT:
            self._move(reads)
        if events & ~EPOLLIN:
            self._move(writes)
        self._go_on()

    def _go_on(self) -> None:
        """After anything has changed."""
        if self._up.ended and not self._up.done:
            self._move(self._up)  # its end waited for the greeting's
        if self._is_closed or self._asked is not None or self._ending:
            return
        if self._up.done and self._down.done:
            self.close()
        else:
            self._watch()

    # --- bytes -----------------------------------------------------------------------------------------------------

    def _move(self, way: _Way) -> None:
        for _ in range(_ROUNDS):
            if way.done or self._is_closed or self._asked is not None or self._ending:
                return
            try:
                way.flush()
            except OSError:
                self._break(way.target)
                return
            if way.pending:
                return
            if way.ended:
                self._pass_end(way)
                return
            if not self._may_read(way):
                return
            try:
                length = way.source.recv_into(self._hub.buffer)
            except BlockingIOError:
                return
            except OSError:
                self._break(way.source)
                return
            if not length:
                way.ended = True
                self._silent_since = time.monotonic()
                self._pass_end(way)
                return
            if self._up.ended:
                self._silent_since = time.monotonic()
            self._pass(way, self._hub.buffer[:length])

    def _pass(self, way: _Way, data: memoryview) -> None:
        try:
            if self._greeting is None:
                way.send(data)
            elif way is self._up:
                self._up.send(self._greeting.from_client(data))
                self._judge()
            else:
                released = self._greeting.from_server(data)
                self._down.send(data)
                self._up.send(released)
                self._judge()
        except Wrong as wrong:
            self._ask(wrong.kind, words=str(wrong))
        except OSError:
            self._break(way.target)

    def _pass_end(self, way: _Way) -> None:
        """Of one direction, behind its last byte."""
        if self._greeting is not None:
            cut_off = self._greeting.holds_back and self._greeting.waits_for_client
            if way is self._down or not self._accepted or cut_off:
                self.close()  # nobody is left who could greet, or answer
                return
            if self._greeting.holds_back:
                return  # what the client has said waits for the server's answer, and so does its end
        way.done = True
        try:
            way.target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it is gone: reading from it says how

    def _break(self, gone: socket.socket) -> None:
        """``gone`` was reset, or is no longer answered for. What it sent before goes on, then a reset."""
        self._ending = True
        self._unwatch()
        self._deliver(self._up if gone is self._near else self._down, _ARRIVES)

    def _deliver(self, way: _Way, left: float) -> None:
        """Reset both sides when the target has all that its source sent, or where it takes nothing for so long (s)."""
        if self._is_closed:
            return
        before, moved = len(way.pending), False
        try:
            way.flush()
            moved = len(way.pending) < before
            while not way.pending and not way.ended:
                moved = self._read_last(way) or moved
            waits = bool(way.pending) or _unsent(way.target) > 0
        except OSError:
            waits = False
        if not waits or left <= 0:
            self.reset()
            return
        left = _ARRIVES if moved else left - _LOOK_AGAIN
        self._hub.call_later(_LOOK_AGAIN, lambda: self._deliver(way, left))

    def _read_last(self, way: _Way) -> bool:
        """Whether there was anything. Raises OSError where the target is gone."""
        try:
            length = way.source.recv_into(self._hub.buffer)
        except OSError:
            length = 0
        if not length or (way is self._up and self._greeting is not None):  # a greeting goes nowhere any more
            way.ended = True
            return False
        way.send(self._hub.buffer[:length])
        return True

    # --- the greeting ----------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Raises OSError where the server is gone."""
        greeting = self._greeting
        if greeting is None:
            return
        if greeting.is_over:
            self._greeting = None
            self._hub.tell(Passed(self._id))
        elif greeting.hello is not None:
            hello = greeting.hello
            if hello.encrypted:
                self._ask("encrypted", hello.name)
            elif self._accepted or hello.name in self._names:  # the second one is for the same server, or Wrong
                self._accept(greeting)
            else:
                self._ask("none" if hello.name is None else "name", hello.name)

    def _ask(self, kind: Kind, name: str | None = None, words: str = "") -> None:
        self._asked = kind
        self._unwatch()
        self._hub.tell(Asked(self._id, kind, name, words))

    def _accept(self, greeting: Greeting) -> None:
        """Raises OSError where the server is gone."""
        self._accepted = True
        self._up.send(greeting.accept())

    def answered(self, *, passes: bool) -> None:
        """The broker's answer to what was asked."""
        kind, self._asked = self._asked, None
        if kind is None or self._is_closed:
            return
        if not passes or kind not in MAY_PASS or self._greeting is None:
            self._refuse()
            return
        try:
            self._accept(self._greeting)
        except OSError:
            self._break(self._far)
        self._go_on()

    def _refuse(self) -> None:
        """An alert for who understands it, a reset for who does not."""
        self._ending = True
        if self._greeting is None or not self._greeting.is_tls:
            self.reset()
            return
        _set_reset(self._far)
        self._far.close()
        try:
            self._near.send(_ACCESS_DENIED)
            self._near.shutdown(socket.SHUT_WR)
        except OSError:
            self.close()
            return
        # What the client still sends is thrown away: left unread it makes close(2) reset, and the alert is lost.
        self._hub.watch(self._near, EPOLLIN, self._drain)
        self._hub.call_later(_DRAIN, self.close)

    def _drain(self, _events: int) -> None:
        try:
            length = self._near.recv_into(self._hub.buffer)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        self._drained += length
        if not length or self._drained > _DRAINED:
            self.close()

    # --- the end ---------------------------------------------------------------------------------------------------

    def has_more(self) -> bool:
        """Whether there is, or may be, something for the server: not once the sandbox's end has been passed on."""
        return not (self._is_closed or self._up.done or (self._greeting is not None and not self._accepted))

    def reset(self) -> None:
        """Both sides learn that it did not end well."""
        if not self._is_closed:
            _set_reset(self._near)
            _set_reset(self._far)
            self.close()

    def close(self) -> None:
        if self._is_closed:
            return
        self._unwatch()
        self._near.close()
        self._far.close()
        if self._greeting is not None:
            self._hub.tell(Passed(self._id))
        self._hub.ended(self._id)


def _set_reset(sock: socket.socket) -> None:
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    except OSError:
        pass


def _unsent(sock: socket.socket) -> int:
    """Bytes that the other side has not taken yet, SIOCOUTQ of tcp(7)."""
    found = fcntl.ioctl(sock.fileno(), SIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(found, "little")

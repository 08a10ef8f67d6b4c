"""Does: tells the relay and the audit log what was decided, and holds a refused call until the user was told.

The first refusal of a destination in a cell is published before the call is answered, so that it precedes the
traceback, but never at the price of the answer: after 50 ms the answer goes out. Further refusals of the same
destination are counted and cost no message each: a flood becomes a number.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable
from typing import Protocol

from sandboxed_kernel.broker.orders import Log
from sandboxed_kernel.notices import channel
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.records import replace

HOLD = 0.05  # seconds that a refused call may wait for its notice
_FLUSH = 0.2  # seconds between updates of counts
_MAX_DESTINATIONS = 1000  # told one by one in a cell; a kernel that makes up more gets them counted as one
_MAX_ALLOWED = 10_000  # named in the audit log


class Clock(Protocol):
    def call_later(self, seconds: float, callback: Callable[[], None]) -> object: ...


class Sender(Protocol):
    """The relay's end; False when it takes nothing at the moment."""

    def send(self, data: bytes) -> bool: ...


Destination = tuple[str, str, str | None, int | None]

_OTHERS: Destination = ("", "", None, None)


class Reporter:
    def __init__(self, sender: Sender, log: Log, clock: Clock) -> None:
        self._sender, self._log, self._clock = sender, log, clock
        self._cell: str | None = None  # that began last
        self._seen: dict[Destination, Event] = {}  # of this cell, with the count so far
        self._dirty: set[Destination] = set()
        self._flush_pending = False
        self._allowed: set[Destination] = set()
        self._noted: set[Destination] = set()
        self._held: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._queue: collections.deque[bytes] = collections.deque()  # bounded by _MAX_DESTINATIONS

    def refused(self, destination: Destination, make: Callable[[], Event], answer: Callable[[], None]) -> None:
        """Report, then ``answer``. ``make`` is called only for a destination that is new in this cell."""
        known = self._seen.get(destination)
        if known is not None:
            self._count(destination, known)
            answer()
            return
        event = replace(make(), cell=self._cell)
        if len(self._seen) >= _MAX_DESTINATIONS:
            destination = (event.kind, event.protocol, None, None)
            event = replace(event, host="many others", address=None, port=None, allow_line=None)
            known = self._seen.get(destination)
            if known is not None:
                self._count(destination, known)
                answer()
                return
        self._seen[destination] = event
        self._log.write(event)
        self._number += 1
        number = self._number
        self._held[number] = answer
        self._send(channel.Reported(event, number))
        self._clock.call_later(HOLD, lambda: self.published(number))

    def allowed(self, destination: Destination, make: Callable[[], Event]) -> None:
        """One line in the audit log for each new destination, and one that says where the log stops naming them."""
        if destination in self._allowed or _OTHERS in self._allowed:
            return
        event = replace(make(), cell=self._cell)
        if len(self._allowed) >= _MAX_ALLOWED:
            destination, event = _OTHERS, replace(event, host="many others", address=None, port=None)
        self._allowed.add(destination)
        self._log.write(event)

    def note(self, destination: Destination, make: Callable[[], Event]) -> None:
        """One line in the audit log, the first time; the user is not told."""
        # With a bound of its own: a program can make up any number of these, and must not push out the allowed ones.
        if destination not in self._noted and len(self._noted) < _MAX_DESTINATIONS:
            self._noted.add(destination)
            self._log.write(replace(make(), cell=self._cell))

    def tell(self, event: Event) -> None:
        """An event that no call waits for."""
        event = replace(event, cell=self._cell)
        known = self._seen.get(event.destination)
        if known is not None:
            self._count(event.destination, known)
        elif len(self._seen) < _MAX_DESTINATIONS:
            self._seen[event.destination] = event
            self._log.write(event)
            self._send(channel.Reported(event))

    def published(self, number: int) -> None:
        """The relay has told the user, or did not within the time: the call may be answered."""
        answer = self._held.pop(number, None)
        if answer is not None:
            answer()

    def cell_began(self, msg_id: str) -> None:
        """Counting starts afresh, so that this cell gets notices of its own; what was counted is the last one's."""
        self._send_counts()
        self._seen.clear()
        self._cell = msg_id

    def _count(self, destination: Destination, known: Event) -> None:
        self._seen[destination] = replace(known, count=known.count + 1, when=time.time())
        self._dirty.add(destination)
        self._flush_soon()

    def _flush_soon(self) -> None:
        if not self._flush_pending:
            self._flush_pending = True
            self._clock.call_later(_FLUSH, self._flush_timer)

    def _flush_timer(self) -> None:
        self._flush_pending = False
        self.flush()

    def flush(self) -> None:
        """Send and log the counts that grew; later while the relay takes nothing, so that they do not pile up."""
        if self._queue:
            self._flush_soon()
        else:
            self._send_counts()

    def _send_counts(self) -> None:
        for destination in self._dirty:
            event = self._seen.get(destination)
            if event is not None:
                self._log.write(event)
                self._send(channel.Reported(event))
        self._dirty.clear()

    def send(self, message: channel.FromBroker) -> None:
        self._send(message)

    def _send(self, message: channel.FromBroker) -> None:
        self._queue.append(channel.encode(message))
        self.drain()

    def drain(self) -> None:
        """Send what the relay would not take before."""
        while self._queue:
            if not self._sender.send(self._queue[0]):
                return
            self._queue.popleft()

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
from sandboxed_kernel.records import Record, replace

HOLD = 0.05  # seconds that a refused call may wait for its notice
_HEARD = 0.0002  # seconds; longer takes the way from the relay's word that a cell begins to the cell's first call
_FLUSH = 0.2  # seconds between updates of counts
_MAX_DESTINATIONS = 1000  # told one by one in a cell; a kernel that makes up more gets them counted as one
_MAX_REMARK = 2000  # characters
_MAX_ALLOWED = 10_000  # named in the audit log


class Clock(Protocol):
    def call_later(self, seconds: float, callback: Callable[[], None]) -> object: ...


class Sender(Protocol):
    """The relay's end; False when it takes nothing at the moment."""

    def send(self, data: bytes) -> bool: ...

    def hear(self) -> None:
        """Take in what it has said meanwhile: that a cell began."""


Destination = tuple[str, str, str | None, int | None]
Counter = tuple[str | None, Destination]  # a destination in a cell

_OTHERS: Destination = ("", "", None, None)


class _Told(Record, frozen=False):
    """A destination that was told in this cell. The event is made anew when its count is sent, not for each call."""

    event: Event
    count: int = 1
    logged: int = 1  # the count in its last line of the audit log
    when: float = 0.0  # of the last call, once there was a second

    def as_counted(self) -> Event:
        return self.event if self.count == 1 else replace(self.event, count=self.count, when=self.when)


class Reporter:
    def __init__(self, sender: Sender, log: Log, clock: Clock) -> None:
        self._sender, self._log, self._clock = sender, log, clock
        self.cell: str | None = None  # that began last
        self._seen: dict[Counter, _Told] = {}  # since this cell began
        self._dirty: set[Counter] = set()
        self._flush_pending = False
        self._allowed: set[Destination] = set()
        self._noted: set[Destination] = set()
        self._held: dict[int, Callable[[], None]] = {}
        self._number = 0
        self._hear_at = 0.0
        self._queue: collections.deque[bytes] = collections.deque()  # bounded by _MAX_DESTINATIONS

    def hear(self, now: float) -> None:
        """See ``Sender``; not for each call of a loop. ``now`` is of time.monotonic()."""
        if now >= self._hear_at:
            self._hear_at = now + _HEARD
            self._sender.hear()

    def refused(
        self, destination: Destination, make: Callable[[], Event], answer: Callable[[], None], *, cell: str | None
    ) -> bool:
        """Report it. Whether the call may be answered at once; else ``answer`` is called when the relay has told it.

        ``make`` is called only for a destination that is new in this ``cell``, and may wait.
        """
        if self._count((cell, destination)):
            return True
        event = replace(make(), cell=cell)
        if self._count((cell, destination)):  # another thread was faster
            return True
        if len(self._seen) >= _MAX_DESTINATIONS:
            destination = (event.kind, event.protocol, None, None)
            event = replace(event, host="many others", address=None, port=None, allow_line=None)
            if self._count((cell, destination)):
                return True
        self._seen[cell, destination] = _Told(event)
        self._log.write(event)
        self._number += 1
        number = self._number
        self._held[number] = answer
        self._send(channel.Reported(event, number))
        self._clock.call_later(HOLD, lambda: self.published(number))
        return False

    def allowed(self, destination: Destination, make: Callable[[], Event]) -> None:
        """One line in the audit log for each new destination, and one that says where the log stops naming them."""
        if destination in self._allowed or _OTHERS in self._allowed:
            return
        self._sender.hear()
        event = replace(make(), cell=self.cell)
        if destination in self._allowed:
            return
        if len(self._allowed) >= _MAX_ALLOWED:
            destination, event = _OTHERS, replace(event, host="many others", address=None, port=None)
        self._allowed.add(destination)
        self._log.write(event)

    def note(self, destination: Destination, make: Callable[[], Event]) -> None:
        """One line in the audit log, the first time; the user is not told."""
        # With a bound of its own: a program can make up any number of these, and must not push out the allowed ones.
        if destination not in self._noted and len(self._noted) < _MAX_DESTINATIONS:
            self._noted.add(destination)
            self._log.write(replace(make(), cell=self.cell))

    def tell(self, event: Event) -> None:
        """An event that no call waits for."""
        event = replace(event, cell=self.cell)
        counter = (self.cell, event.destination)
        if not self._count(counter) and len(self._seen) < _MAX_DESTINATIONS:
            self._seen[counter] = _Told(event)
            self._log.write(event)
            self._send(channel.Reported(event))

    def remark(self, sentence: str) -> None:
        """For the cell that runs, or the next one."""
        self._send(channel.Remark(sentence[:_MAX_REMARK]))

    def published(self, number: int) -> None:
        """The relay has told the user, or did not within the time: the call may be answered."""
        answer = self._held.pop(number, None)
        if answer is not None:
            answer()

    def cell_began(self, msg_id: str) -> None:
        """Counting starts afresh, so that this cell gets notices of its own; what was counted is the last one's."""
        self._send_counts(last=True)
        self._seen.clear()
        self.cell = msg_id

    def _count(self, counter: Counter) -> bool:
        """Whether the destination was told in that cell already; then this refusal is one more of it."""
        known = self._seen.get(counter)
        if known is None:
            return False
        known.count += 1
        known.when = time.time()
        self._dirty.add(counter)
        self._flush_soon()
        return True

    def _flush_soon(self) -> None:
        if not self._flush_pending:
            self._flush_pending = True
            self._clock.call_later(_FLUSH, self._flush_timer)

    def _flush_timer(self) -> None:
        self._flush_pending = False
        self.flush()

    def flush(self, *, last: bool = False) -> None:
        """Send and log the counts that grew; later while the relay takes nothing, so that they do not pile up."""
        if self._queue and not last:
            self._flush_soon()
        else:
            self._send_counts(last=last)

    def _send_counts(self, *, last: bool = False) -> None:
        """To the relay each time; into the log where a count is ten times as large, and at the last."""
        for counter in self._dirty:
            known = self._seen.get(counter)
            if known is not None:
                event = known.as_counted()
                self._send(channel.Reported(event))
                self._log_count(known, event, last)
        self._dirty.clear()
        if last:
            for known in self._seen.values():
                self._log_count(known, known.as_counted(), last)

    def _log_count(self, known: _Told, event: Event, last: bool) -> None:
        if known.count > known.logged and (last or known.count >= 10 * known.logged):
            known.logged = known.count
            self._log.write(event)

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

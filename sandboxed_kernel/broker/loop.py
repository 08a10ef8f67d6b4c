"""Does: waits. One epoll with its callbacks, timers, and results that come from threads.

asyncio would cost 4.6 MB and 10 ms in every broker, and a few microseconds at every call.
"""

from __future__ import annotations

import collections
import heapq
import itertools
import math
import os
import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

IN, OUT, ERR, HUP = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR, select.EPOLLHUP


_TIDY = 1000  # cancelled timers that may wait for their time before the rest is moved together


class Timer:
    """A pending callback; ``cancel`` makes it do nothing."""

    __slots__ = ("_cancelled", "callback")

    def __init__(self, callback: Callable[[], None], cancelled: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback
        self._cancelled = cancelled

    def cancel(self) -> None:
        if self.callback is not None:
            self.callback = None
            self._cancelled()


class Loop:
    """Runs in the main thread, and holds ``lock`` but while it waits. Others may call its methods with the lock, and
    ``from_thread`` without.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._until = -math.inf  # of time.monotonic(): when it wakes up by itself; -inf while it does not wait
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[int], None]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._cancelled = 0
        self._running = True
        self._first = -1
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._results: collections.deque[Callable[[], None]] = collections.deque()
        self.watch(self._wake, IN, self._take_results)

    def watch(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """``callback(events)`` whenever one of ``events`` holds (level-triggered)."""
        self._callbacks[descriptor] = callback
        self._epoll.register(descriptor, events)

    def watch_first(self, descriptor: int, events: int, callback: Callable[[int], None]) -> None:
        """As ``watch``, and of everything that is ready at once this one has its turn first."""
        self._first = descriptor
        self.watch(descriptor, events, callback)

    def rewatch(self, descriptor: int, events: int) -> None:
        self._epoll.modify(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Before the descriptor is closed: an open copy in the sandbox would keep reporting."""
        if self._callbacks.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """``when`` is of time.monotonic()."""
        timer = Timer(callback, self._count_cancelled)
        heapq.heappush(self._timers, (when, next(self._order), timer))
        if when < self._until:
            os.eventfd_write(self._wake, 1)
        return timer

    def _count_cancelled(self) -> None:
        """Cancelled timers leave when many: with an hour's SO_SNDTIMEO each connect would leave one for an hour."""
        self._cancelled += 1
        if self._cancelled > _TIDY + len(self._timers) // 2:
            self._timers = [entry for entry in self._timers if entry[2].callback is not None]
            heapq.heapify(self._timers)
            self._cancelled = 0

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Timer:
        return self.call_at(time.monotonic() + seconds, callback)

    def from_thread(self, callback: Callable[[], None]) -> None:
        """Run ``callback`` in the loop's own thread, soon."""
        self._results.append(callback)
        os.eventfd_write(self._wake, 1)

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until ``stop``; then the lock is held. Idle without a timer it never wakes up."""
        poll, callbacks, lock = self._epoll.poll, self._callbacks, self.lock
        lock.acquire()
        while self._running:
            timeout = self._timeout()
            lock.release()
            try:
                ready = poll(timeout)
            finally:
                lock.acquire()
            self._until = -math.inf
            if len(ready) > 1:
                ready.sort(key=lambda each: each[0] != self._first)
            for descriptor, events in ready:
                callback = callbacks.get(descriptor)  # an earlier callback of this round may have removed it
                if callback is not None:
                    callback(events)
            if self._timers:
                self._run_timers()

    def _timeout(self) -> float:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            self._until = math.inf
            return -1.0
        self._until = self._timers[0][0]
        return max(0.0, self._until - time.monotonic())

    def _run_timers(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            callback, timer.callback = timer.callback, None
            if callback is not None:
                callback()

    def _take_results(self, _events: int) -> None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._wake)
        while self._results:
            self._results.popleft()()

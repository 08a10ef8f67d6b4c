"""Does: writes in a thread of its own, so that a slow disk or a full pipe keeps nobody waiting."""

from __future__ import annotations

import collections
import signal
import threading
from collections.abc import Callable

from sandboxed_kernel.broker.orders import Log
from sandboxed_kernel.notices.events import Event

_MAX_QUEUED = 10_000  # each an event of some 500 bytes, or a piece of output of up to 64 KiB, of which there are few


class Aside:
    """What ``do`` is given is done in that order. Beyond a bound it is dropped, and counted."""

    def __init__(self) -> None:
        """Raises RuntimeError where there may be no more threads."""
        self.lost = 0
        self._waiting: collections.deque[Callable[[], object]] = collections.deque()
        self._bell = threading.Semaphore(0)
        self._ended = threading.Event()
        threading.Thread(target=self._work, daemon=True).start()

    def do(self, action: Callable[[], object]) -> None:
        if len(self._waiting) >= _MAX_QUEUED:
            self.lost += 1
            return
        self._waiting.append(action)
        self._bell.release()

    def finish(self, within: float) -> None:
        """Wait for what is to be done, at most ``within`` seconds; nothing is done afterwards."""
        self._waiting.append(self._ended.set)
        self._bell.release()
        self._ended.wait(within)

    def _work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while not self._ended.is_set():
            self._bell.acquire()
            self._waiting.popleft()()


class LogAside:
    """A log whose lines are written aside."""

    def __init__(self, log: Log, aside: Aside) -> None:
        self._log, self._aside = log, aside

    def write(self, event: Event) -> None:
        self._aside.do(lambda: self._log.write(event))

"""Does: the names of the policy and their pins, resolved aside so that the loop never waits for a name server."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable

from sandboxed_kernel.broker.loop import Loop
from sandboxed_kernel.hostnames.pins import Pins, Rejected, Resolution
from sandboxed_kernel.policy.model import Destination

_MAX_AT_ONCE = 4  # threads, each of which waits for one helper process
_MAX_QUEUED = 256  # names, and questions that wait for one of them; further ones stay unanswered, as on a busy network

Resolve = Callable[[list[str]], Iterable[tuple[str, Resolution]]]


class Names:
    def __init__(
        self, loop: Loop, pins: Pins, resolve: Resolve, rejected: Callable[[list[Rejected]], None], *, renew: bool
    ) -> None:
        """``resolve`` asks the real resolver and may take seconds; it never raises (``hostnames.helper``).

        ``rejected`` is told of addresses that a name may not have. ``renew``: ask again when records expire.
        """
        self.pins = pins
        self._rejected, self._renew_expired = rejected, renew
        self._loop, self._resolve = loop, resolve
        self._asked: dict[str, list[Callable[[], None]]] = {}  # names under way, and who waits for them
        self._queue: list[str] = []
        self._threads = 0
        self._at_launch: set[str] = set()
        self._launched: list[Callable[[], None]] = []
        self._renewal_set = False

    def begin(self) -> None:
        """Resolve what the policy names; calls that could depend on it wait (``when_launched``)."""
        self._look_up_due()

    def replace(self, allow: tuple[Destination, ...]) -> None:
        """Other rules from now on; what they name anew is resolved as at the launch."""
        self.pins.replace(allow)
        self._look_up_due()

    def _look_up_due(self) -> None:
        names = self.pins.due(time.monotonic())
        self._at_launch.update(names)
        for name in names:
            self.ask(name, lambda name=name: self._launch_done(name))  # type: ignore[misc]
        if self._renew_expired and not self._renewal_set:
            self._schedule_renewal()

    @property
    def launching(self) -> bool:
        return bool(self._at_launch)

    def when_launched(self, callback: Callable[[], None]) -> None:
        """Once every name of the policy has been asked for, successfully or not."""
        if self._at_launch:
            self._launched.append(callback)
        else:
            callback()

    def ask(self, name: str, callback: Callable[[], None]) -> None:
        """Resolve ``name`` into the pins, then call back; one question under way serves everybody."""
        waiting = self._asked.get(name)
        if waiting is not None:
            if len(waiting) < _MAX_QUEUED or name in self._at_launch:
                waiting.append(callback)
            return
        if len(self._queue) >= _MAX_QUEUED and name not in self._at_launch:
            return
        self._asked[name] = [callback]
        self._queue.append(name)
        self._loop.from_thread(self._work_on_queue)  # after what else this turn asks for: one helper serves all

    def _work_on_queue(self) -> None:
        if not self._queue or self._threads >= _MAX_AT_ONCE:
            return
        import threading

        names = self._queue
        try:
            threading.Thread(target=self._work, args=(names,), daemon=True).start()
        except RuntimeError:  # there are no more threads for this user now
            self._loop.call_later(1.0, self._work_on_queue)
            return
        self._queue = []
        self._threads += 1

    def _work(self, names: list[str]) -> None:
        """A thread."""
        for name, resolution in self._resolve(names):
            self._loop.from_thread(lambda name=name, r=resolution: self._resolved(name, r))  # type: ignore[misc]
        self._loop.from_thread(self._thread_ended)

    def _thread_ended(self) -> None:
        self._threads -= 1
        self._work_on_queue()

    def _resolved(self, name: str, resolution: Resolution) -> None:
        if rejected := self.pins.record(name, resolution, time.monotonic()):
            self._rejected(rejected)
        for callback in self._asked.pop(name, []):
            callback()

    def _launch_done(self, name: str) -> None:
        self._at_launch.discard(name)
        if not self._at_launch:
            waiting, self._launched = self._launched, []
            for callback in waiting:
                callback()

    # --- pins = "ttl", and names that failed ---------------------------------------------------------------------

    def _schedule_renewal(self) -> None:
        when = self.pins.next_due()
        self._renewal_set = when != math.inf
        if self._renewal_set:
            self._loop.call_at(when, self._renew)

    def _renew(self) -> None:
        for name in self.pins.due(time.monotonic()):
            self.ask(name, _nothing)
        self._schedule_renewal()


def _nothing() -> None:
    return None

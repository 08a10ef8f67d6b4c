"""Does: the network rules as last accepted, looked at anew before a refusal and when a cell begins."""

from __future__ import annotations

import time
from collections.abc import Callable

from sandboxed_kernel.broker.orders import RunningPolicy
from sandboxed_kernel.broker.sockets import MayWait
from sandboxed_kernel.policy.model import Destination

_LOOK_EVERY = 1.0  # second, where nothing is refused and no cell begins

Post = Callable[[Callable[[], object]], object]
WhenChanged = Callable[[tuple[Destination, ...]], None]


class Rules:
    def __init__(self, policy: RunningPolicy, may_wait: MayWait, post: Post, say: Callable[[str], None]) -> None:
        """``say`` is given sentences for the user."""
        self._policy, self._may_wait, self._say = policy, may_wait, say
        self._post = post
        self.number = 0  # of the rules that hold; whoever waits after a decision compares it, and decides again
        self._look_again = 0.0  # of time.monotonic()
        self.when_changed: list[WhenChanged] = []

    def cell_began(self) -> None:
        """Nothing of the cell is allowed before the rules were looked at; what there is to say is said in it."""
        self._look_again = 0.0
        self._post(self.have_changed)

    def refresh(self, now: float) -> None:
        """Before something is allowed: fewer rules hold within a second in a long cell, and without cells."""
        if now >= self._look_again:
            self.have_changed()

    def refresh_soon(self) -> None:
        """The same for the main thread, which never waits."""
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + _LOOK_EVERY
            self._post(self.have_changed)

    def have_changed(self) -> bool:
        """Whether other rules hold now than when it was called: then what was to be refused is decided again. For
        threads that may wait.
        """
        before = self.number
        number, policy = self._may_wait(self._policy.look)
        self._look_again = time.monotonic() + _LOOK_EVERY
        while self._policy.words:
            self._say(self._policy.words.popleft())
        if number > self.number:
            self.number = number
            for change in self.when_changed:
                change(policy.allow)
        return self.number != before

"""What the broker makes of a control group's counters. The group is made up here; tests/vm has real ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import cast

import pytest

from sandboxed_kernel.broker.limits import LimitWatch
from sandboxed_kernel.broker.loop import Loop, Timer
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.linux.cgroups import Group
from sandboxed_kernel.policy.model import Limits
from tests.support.directly import directly

BOTH = frozenset({"memory", "pids"})


class FakeGroup:
    def __init__(self, controllers: frozenset[str]) -> None:
        self.controllers = controllers
        self.events: dict[int, dict[str, int]] = {}
        self.by_name: dict[str, int] = {}
        self.living = 1
        self.gone = False

    def open_events(self, controller: str) -> int:
        descriptor = self.by_name[controller] = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self.events[descriptor] = {"oom": 0, "oom_kill": 0, "max": 0}
        return descriptor

    def read_events(self, descriptor: int) -> dict[str, int]:
        if self.gone:
            raise OSError(19, "ENODEV")
        return self.events[descriptor]

    def processes(self) -> int:
        return self.living


class FakeLoop:
    def __init__(self) -> None:
        self.watched: dict[int, Callable[[int], None]] = {}
        self.timers: list[Callable[[], None]] = []

    def watch(self, descriptor: int, _events: int, callback: Callable[[int], None]) -> None:
        self.watched[descriptor] = callback

    def unwatch(self, descriptor: int) -> None:
        del self.watched[descriptor]

    def from_thread(self, callback: Callable[[], None]) -> None:
        callback()

    def call_later(self, _seconds: float, callback: Callable[[], None]) -> Timer:
        self.timers.append(callback)
        return Timer(callback, lambda: self.timers.remove(callback))


class Directly:
    """``Workers`` without threads."""

    def post(self, job: Callable[[], None]) -> None:
        job()

    may_wait = staticmethod(directly)


class Watched:
    """A watch with its surroundings, and what it said."""

    def __init__(self, limits: Limits, controllers: frozenset[str] = BOTH) -> None:
        self.group, self.loop = FakeGroup(controllers), FakeLoop()
        self.crossed: list[tuple[str, str]] = []
        self.told: list[tuple[str, str]] = []
        self.watch = LimitWatch(
            cast("Loop", self.loop),
            cast("Workers", Directly()),
            os.getpid(),
            limits,
            cast("Group", self.group),
            lambda *said: self.crossed.append(said),
            lambda *said: self.told.append(said),
        )
        self.watch.begin()

    def happens(self, controller: str, **counters: int) -> None:
        descriptor = self.group.by_name[controller]
        self.group.events[descriptor] |= counters
        self.loop.watched[descriptor](0)

    def time_passes(self) -> None:
        for callback in [self.loop.timers.pop() for _ in self.loop.timers[:]]:
            callback()


@pytest.mark.usefixtures("closed")
def test_memory_is_said_once_and_needs_no_timer() -> None:
    watched = Watched(Limits(memory=1 << 30), frozenset({"memory"}))
    assert not watched.loop.timers
    watched.happens("memory", oom_kill=1)  # somebody else's limit, or the machine's
    assert not watched.crossed
    watched.happens("memory", oom=1)
    watched.watch.look_at_memory()
    assert [name for name, _ in watched.crossed] == ["memory"]
    assert '[limits] memory = "1 GiB"' in watched.crossed[0][1]


@pytest.mark.usefixtures("closed")
def test_each_refused_process_is_told_and_the_sandbox_goes_on() -> None:
    watched = Watched(Limits(processes=10), frozenset({"pids"}))
    watched.happens("pids", max=1)
    watched.happens("pids")  # woken without anything new
    watched.happens("pids", max=5)
    assert [name for name, _ in watched.told] == ["processes", "processes"]
    assert "[limits] processes = 10" in watched.told[0][1]
    assert not watched.crossed


@pytest.mark.usefixtures("closed")
def test_processes_are_counted_in_the_group() -> None:
    watched = Watched(Limits(processes=10))
    watched.group.living = 10
    watched.time_passes()
    assert not watched.crossed
    watched.group.living = 11
    watched.time_passes()
    assert [name for name, _ in watched.crossed] == ["processes"]
    assert not watched.loop.timers


@pytest.mark.usefixtures("closed")
def test_what_the_group_has_no_controller_for_is_looked_at() -> None:
    watched = Watched(Limits(memory=1, processes=1000), frozenset({"pids"}))
    pid = os.fork()
    if pid == 0:
        os.read(os.pipe()[0], 1)
    try:
        watched.time_passes()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
    assert [name for name, _ in watched.crossed] == ["memory"]


@pytest.mark.usefixtures("closed")
def test_a_group_that_somebody_removed_wakes_nobody_for_ever() -> None:
    watched = Watched(Limits(memory=1 << 30), frozenset({"memory"}))
    watched.group.gone = True
    watched.happens("memory")
    assert watched.loop.watched == {}
    watched.watch.look_at_memory()
    assert not watched.crossed


@pytest.fixture
def closed() -> Iterator[None]:
    """The watch lives as long as the broker and closes nothing; a test does it for it."""
    before = set(os.listdir("/proc/self/fd"))
    yield
    for name in set(os.listdir("/proc/self/fd")) - before:
        if os.path.exists(f"/proc/self/fd/{name}"):
            os.close(int(name))

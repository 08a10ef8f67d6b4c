"""Does: sees to the limits on memory and processes of one sandbox as a whole, and says which was crossed.

No rlimit counts these right: RLIMIT_NPROC counts every process of the user, also outside, and does not hold for root;
RLIMIT_AS counts what is only reserved. In a control group Linux itself holds the memory to the byte, and wakes the
broker when it had to. Without one, and for the number of processes, the broker looks four times a second, and only
where the policy sets such a limit.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.loop import Loop, Timer
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.linux import processes
from sandboxed_kernel.policy.model import Limits
from sandboxed_kernel.policy.words import size_text

if TYPE_CHECKING:
    from sandboxed_kernel.linux.cgroups import Group

Told = Callable[[str, str], None]  # (the limit's name, words for people)

_PATIENCE = 10  # seconds that one look may take, since code inside can make it wait
_INTERVAL = 0.25  # seconds; a fork bomb makes some thousand processes in it, which the end still reaches all at once
_DESCRIPTORS_AT_ONCE = 500  # some 3 ms
_MEMORY = ("/memfd:", "/dev/zero", "/dev/shm/")  # how their links in /proc/PID/fd begin, proc_pid_fd(5)
_CHANGED = select.EPOLLPRI  # of an events file of a control group; it is always readable


class LimitWatch:
    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        warden: int,
        limits: Limits,
        group: Group | None,
        crossed: Told,
        told: Told,
    ) -> None:
        """What descends from ``warden`` is inside. ``crossed`` is called once, when the sandbox has to end; ``told``
        when Linux refused something to it.
        """
        self._warden = warden
        self._post, self._may_wait = workers.post, workers.may_wait
        self._loop, self._limits, self._crossed, self._told = loop, limits, crossed, told
        self._group = group
        kept = frozenset[str]() if group is None else group.controllers
        self._memory = limits.memory if "memory" not in kept else None  # to be looked at
        self._counted_by_group = "pids" in kept
        self._events: dict[str, int] = {}  # descriptors, by controller
        self._refused = 0  # processes and threads, at the last look
        self._done = False
        self._overdue: Timer | None = None
        self._shared = SharedMemory()

    def begin(self) -> None:
        if self._group is not None:
            looks = {"memory": self.look_at_memory, "pids": self._look_at_tasks}
            for controller in self._group.controllers:
                self._watch_events(self._group, controller, looks[controller])
        if self._memory is not None or self._limits.processes is not None:
            self._look_later()

    def _look_later(self) -> None:
        self._loop.call_later(_INTERVAL, self._begin_look)

    def _begin_look(self) -> None:
        words = f"the sandbox kept the look at its [limits] waiting for {_PATIENCE} seconds"
        self._overdue = self._loop.call_later(_PATIENCE, lambda: self._cross("processes", words))
        self._post(self._look)

    def _watch_events(self, group: Group, controller: str, look: Callable[[], None]) -> None:
        descriptor = self._events[controller] = group.open_events(controller)
        self._loop.watch(descriptor, _CHANGED, lambda _events: look())
        look()  # what happened before; and poll(2) says what has changed since it was read

    # --- what Linux keeps ------------------------------------------------------------------------------------------

    def look_at_memory(self) -> None:
        """Also for the moment in which the confined process was found dead: Linux kills first and tells then."""
        # "oom" counts for the group whose own limit was met; "oom_kill" also where the machine has no memory left.
        if self._count("memory", "oom"):
            self._cross("memory", _memory_words(self._limits))

    def _look_at_tasks(self) -> None:
        refused = self._count("pids", "max")
        if refused > self._refused:
            self._refused = refused
            self._told(
                "processes",
                "Linux refused another process or thread (EAGAIN): the sandbox has very many, by the policy's [limits] "
                f"processes = {self._limits.processes}",
            )

    def _count(self, controller: str, event: str) -> int:
        descriptor = self._events.get(controller)
        if self._group is None or descriptor is None:
            return 0
        try:
            return self._group.read_events(descriptor).get(event, 0)
        except OSError:  # ENODEV: somebody outside removed the group, which poll(2) would report for ever
            self._loop.unwatch(descriptor)
            os.close(self._events.pop(controller))
            return 0

    # --- what is looked at -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        crossed = self._may_wait(self._crossed_now)
        if self._overdue is not None:
            self._overdue.cancel()
        if crossed is None:
            self._look_later()
        else:
            self._loop.from_thread(lambda: self._cross(*crossed))

    def _crossed_now(self) -> tuple[str, str] | None:
        """The limit's name, and words for people."""
        # Not further than needed: while a bomb goes off, looking at all of it takes longer than it gives.
        most = self._limits.processes
        if most is not None and self._more_processes_than(most):
            return (
                "processes",
                f"the sandbox had more than {most} processes; the policy says [limits] processes = {most}",
            )
        if self._memory is not None and self._memory_in_use(most) > self._memory:
            return "memory", _memory_words(self._limits)
        return None

    def _memory_in_use(self, most: int | None) -> int:
        """What the processes hold for themselves, and what they share: the most that one has mapped, or what open
        descriptors hold, if that is more. Each shared page is counted once at most.
        """
        own, shared = 0, 0
        for pid in self._pids(most):
            anonymous, mapped = resident_bytes(pid)
            own, shared = own + anonymous, max(shared, mapped)
        return own + max(shared, self._shared.look(self._pids(most)))

    def _more_processes_than(self, most: int) -> bool:
        if self._group is not None and self._counted_by_group:
            with suppress(OSError):
                return self._group.processes() > most
        return sum(1 for _ in self._pids(most)) > most

    def _pids(self, most: int | None) -> Iterator[int]:
        found = processes.descendants(self._warden)
        return found if most is None else islice(found, most + 1)

    def _cross(self, limit: str, words: str) -> None:
        if not self._done:
            self._done = True
            self._crossed(limit, words)


def _memory_words(limits: Limits) -> str:
    most = size_text(limits.memory or 0)
    return f'the sandbox used more than {most} of memory; the policy says [limits] memory = "{most}"'


def resident_bytes(pid: int) -> tuple[int, int]:
    """What the process has in memory of its own, and of memory that can be shared: RssAnon and RssShmem of
    proc_pid_status(5). Zeros where it is gone. Reading that file waits for nothing inside, as smaps_rollup does.
    """
    own, shared = (process.field(f"/proc/{pid}/status", name) or 0 for name in (b"RssAnon:", b"RssShmem:"))
    return 1024 * own, 1024 * shared


class SharedMemory:
    """What open descriptors hold of memory: memfd_create(2), shared anonymous mappings handed on, files in /dev/shm.

    It is in nobody's RssShmem until it is mapped. Some descriptors are looked at each time, so that their number makes
    no look long.
    """

    def __init__(self) -> None:
        probe = os.memfd_create("device", os.MFD_CLOEXEC)
        self._devices = {os.fstat(probe).st_dev}
        os.close(probe)
        with suppress(OSError):
            self._devices.add(os.stat("/dev/shm").st_dev)
        self._found: dict[int, int] = {}  # in this round: inode -> bytes
        self._before = 0  # bytes, in the round before
        self._round: Iterator[os.stat_result | None] = iter(())

    def look(self, pids: Iterator[int]) -> int:
        """Bytes, as far as is known now."""
        for _ in range(_DESCRIPTORS_AT_ONCE):
            try:
                status = next(self._round)
            except StopIteration:
                self._before, self._found = sum(self._found.values()), {}
                self._round = _descriptors(list(pids))
                break
            if status is not None and status.st_dev in self._devices:
                self._found[status.st_ino] = status.st_blocks * 512
        return max(self._before, sum(self._found.values()))


def _descriptors(pids: list[int]) -> Iterator[os.stat_result | None]:
    for pid in pids:
        try:
            with os.scandir(f"/proc/{pid}/fd") as entries:
                for entry in entries:
                    yield _of_memory(entry.path)
        except OSError:
            yield None  # gone


def _of_memory(path: str) -> os.stat_result | None:
    """What stat(2) says of a descriptor that may be of memory. None for others, which may be of a file system that does
    not answer.
    """
    try:
        return os.stat(path) if os.readlink(path).startswith(_MEMORY) else None
    except OSError:
        return None

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

from sandboxed_kernel.broker.reactor import Reactor
from sandboxed_kernel.linux import processes
from sandboxed_kernel.policy.model import Limits

if TYPE_CHECKING:
    from sandboxed_kernel.linux.cgroups import Group

Told = Callable[[str, str], None]  # (the limit's name, words for people)

_INTERVAL = 0.25  # seconds; a fork bomb makes some thousand processes in it, which the end still reaches all at once
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")
_CHANGED = select.EPOLLPRI  # of an events file of a control group; it is always readable


class LimitWatch:
    def __init__(
        self, reactor: Reactor, warden: int, limits: Limits, group: Group | None, crossed: Told, told: Told
    ) -> None:
        """What descends from ``warden`` is inside. ``crossed`` is called once, when the sandbox has to end; ``told``
        when Linux refused something to it.
        """
        self._warden = warden
        self._reactor, self._limits, self._crossed, self._told = reactor, limits, crossed, told
        self._group = group
        kept = frozenset[str]() if group is None else group.controllers
        self._memory = limits.memory if "memory" not in kept else None  # to be looked at
        self._counted_by_group = "pids" in kept
        self._events: dict[str, int] = {}  # descriptors, by controller
        self._refused = 0  # processes and threads, at the last look
        self._done = False

    def begin(self) -> None:
        if self._group is not None:
            looks = {"memory": self.look_at_memory, "pids": self._look_at_tasks}
            for controller in self._group.controllers:
                self._watch_events(self._group, controller, looks[controller])
        if self._memory is not None or self._limits.processes is not None:
            self._reactor.call_later(_INTERVAL, self._look)

    def _watch_events(self, group: Group, controller: str, look: Callable[[], None]) -> None:
        descriptor = self._events[controller] = group.open_events(controller)
        self._reactor.watch(descriptor, _CHANGED, lambda _events: look())
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
            self._reactor.unwatch(descriptor)
            os.close(self._events.pop(controller))
            return 0

    # --- what is looked at -----------------------------------------------------------------------------------------

    def _look(self) -> None:
        # Not further than needed: while a bomb goes off, looking at all of it takes longer than it gives.
        most = self._limits.processes
        if most is not None and self._more_processes_than(most):
            words = f"the sandbox had more than {most} processes; the policy says [limits] processes = {most}"
            self._cross("processes", words)
        elif self._memory is not None and sum(map(resident_bytes, self._pids(most))) > self._memory:
            self._cross("memory", _memory_words(self._limits))
        else:
            self._reactor.call_later(_INTERVAL, self._look)

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
    most = limits.memory
    return f"the sandbox used more than {most} bytes of memory; the policy says [limits] memory = {most}"


def resident_bytes(pid: int) -> int:
    """What the process holds in memory and shares with no file: resident less shared of /proc/PID/statm; 0: gone.

    Anonymous shared memory (multiprocessing.shared_memory) counts as shared there and is bounded by /dev/shm itself.
    """
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            _size, resident, shared, *_ = file.read().split()
    except (OSError, ValueError):
        return 0
    return (int(resident) - int(shared)) * _PAGE_SIZE

"""Does: watches what no rlimit counts right: the memory and the number of all processes of one sandbox together.

RLIMIT_NPROC counts every process of the user, also outside, and does not hold for root; RLIMIT_AS counts what is only
reserved. So the broker looks, four times a second, and only where the policy sets such a limit.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import islice

from sandboxed_kernel.broker.reactor import Reactor
from sandboxed_kernel.policy.model import Limits

_INTERVAL = 0.25  # seconds; a fork bomb makes some thousand processes in it, which the end still reaches all at once
_PAGE_SIZE = os.sysconf("SC_PAGE_SIZE")


class LimitWatch:
    def __init__(
        self, reactor: Reactor, limits: Limits, pids: Callable[[], Iterator[int]], crossed: Callable[[str], None]
    ) -> None:
        """``crossed(words)`` is called once, when a limit is crossed."""
        self._reactor, self._limits, self._pids, self._crossed = reactor, limits, pids, crossed

    def begin(self) -> None:
        if self._limits.memory is not None or self._limits.processes is not None:
            self._reactor.call_later(_INTERVAL, self._look)

    def _look(self) -> None:
        # Not further than needed: while a bomb goes off, looking at all of it takes longer than it gives.
        most = self._limits.processes
        pids = list(self._pids() if most is None else islice(self._pids(), most + 1))
        words = self._judge(len(pids), sum(map(resident_bytes, pids)) if self._limits.memory is not None else 0)
        if words:
            self._crossed(words)
        else:
            self._reactor.call_later(_INTERVAL, self._look)

    def _judge(self, processes: int, memory: int) -> str:
        if self._limits.memory is not None and memory > self._limits.memory:
            return f"the sandbox used {memory} bytes of memory; the policy says [limits] memory = {self._limits.memory}"
        if self._limits.processes is not None and processes > self._limits.processes:
            allowed = self._limits.processes
            return f"the sandbox had more than {allowed} processes; the policy says [limits] processes = {allowed}"
        return ""


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

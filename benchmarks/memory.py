"""Figure: proportional set size after the first cell, of everything that runs and of each role in it."""

from __future__ import annotations

from benchmarks import processes
from benchmarks.kernels import ready
from benchmarks.model import Contender, Sample, Scale


def measure(contender: Contender, _scale: Scale) -> Sample:
    with ready(contender) as kernel:
        parts = {role: processes.memory(pids) for role, pids in processes.roles(kernel.pid).items() if pids}
    return {"all": sum(parts.values()), **parts}

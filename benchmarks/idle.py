"""Figure: what a kernel that nobody uses does: context switches and processor time, trusted processes apart."""

from __future__ import annotations

import time

from benchmarks import processes
from benchmarks.kernels import ready
from benchmarks.model import Contender, Sample, Scale
from benchmarks.processes import Activity

_SECONDS = 15.0


def measure(contender: Contender, scale: Scale) -> Sample:
    with ready(contender) as kernel:
        time.sleep(scale.seconds(2.0))  # ipykernel still tidies up
        roles = processes.roles(kernel.pid)
        before = {role: processes.activity(pids) for role, pids in roles.items() if pids}
        time.sleep(scale.seconds(_SECONDS))
        after = {role: processes.activity(roles[role]) for role in before}
    done = {
        role: Activity(after[role].wake_ups - before[role].wake_ups, after[role].cpu_ms - before[role].cpu_ms)
        for role in before
    }
    found: dict[str, float] = {}
    for role, activity in done.items():
        found[f"{role}_wake_ups"], found[f"{role}_cpu"] = activity.wake_ups, activity.cpu_ms
    return found

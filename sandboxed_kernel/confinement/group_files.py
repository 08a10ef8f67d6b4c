"""Pure: which files of a control group keep which limit of a policy.

Source: Documentation/admin-guide/cgroup-v2.rst of Linux, sections "Memory Interface Files", "PID Interface Files".
"""

from __future__ import annotations

from sandboxed_kernel.policy.model import Limits
from sandboxed_kernel.records import Record

_TASKS_PER_PROCESS = 32
_TASKS_AT_LEAST = 1024


class GroupFile(Record):
    controller: str
    name: str
    value: str
    optional: bool  # Linux may be built without it


def most_tasks(processes: int) -> int:
    """``pids.max`` for ``[limits] processes``: how many processes *and threads* Linux lets there be at once.

    It counts threads, the policy does not: numpy starts one for each processor, Java a hundred. So this is no more than
    the dam that a fork bomb does not get over; processes are counted by the broker.
    """
    return max(_TASKS_AT_LEAST, _TASKS_PER_PROCESS * processes)


def group_files(limits: Limits) -> tuple[GroupFile, ...]:
    """What to write into a new group, in this order; empty where no limit asks for a group."""
    files: list[GroupFile] = []
    if limits.memory is not None:
        files += [
            # What does not fit ends the sandbox, rather than filling the machine's swap space slowly.
            GroupFile("memory", "memory.swap.max", "0", True),
            # All of it, as the broker's watch does: half a kernel that waits for a dead worker tells nobody why.
            GroupFile("memory", "memory.oom.group", "1", False),
            GroupFile("memory", "memory.max", str(limits.memory), False),
        ]
    if limits.processes is not None:
        files.append(GroupFile("pids", "pids.max", str(most_tasks(limits.processes)), False))
    return tuple(files)

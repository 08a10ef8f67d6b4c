"""Does: limits, priorities and processors of other processes, for descendants of the sandbox only.

RLIMIT_CPU on the broker would kill it in spite of Landlock's signal scope (measured). The call is carried out by the
broker on its own copy of the arguments; what is no descendant at that moment is refused.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Callable

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Malformed, as_int
from sandboxed_kernel.linux import processes

Arguments = tuple[int, int, int, int, int, int]
_RLIMIT = struct.Struct("=QQ")
_INFINITY = 0xFFFFFFFFFFFFFFFF
_MAX_MASK = 8192  # bytes: 65,536 processors
_MAX_ATTRIBUTES = 4096
_PRIO_PROCESS, _IOPRIO_WHO_PROCESS = 0, 1


class NotADescendant(Exception):
    """The process named is none of this sandbox's. ``pid`` is its number."""

    def __init__(self, pid: int) -> None:
        super().__init__(str(pid))
        self.pid = pid


def carry_out(name: str, tid: int, arguments: Arguments, warden: int) -> None:
    """Do it; the call then answers 0. What descends from ``warden`` is inside. Raises OSError, Malformed or
    NotADescendant.
    """
    pid_at, act = CALLS[name]
    pid = as_int(arguments[pid_at])
    if pid <= 0 or not processes.is_descendant(pid, warden):
        raise NotADescendant(pid)
    act(tid, pid, arguments)


def _limit(tid: int, pid: int, arguments: Arguments) -> None:
    if arguments[3]:  # the old limit cannot be written into the caller's memory: ask for it in a call of its own
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    if as_int(arguments[1]) == resource.RLIMIT_CORE:
        return  # without effect, as the filter answers for the caller itself
    soft, hard = _RLIMIT.unpack(process.read_memory(tid, arguments[2], _RLIMIT.size))
    limits = tuple(resource.RLIM_INFINITY if value == _INFINITY else value for value in (soft, hard))
    try:
        resource.prlimit(pid, as_int(arguments[1]), (limits[0], limits[1]))
    except (ValueError, OverflowError) as error:
        raise Malformed(errno.EINVAL, str(error)) from None


def _priority(_tid: int, pid: int, arguments: Arguments) -> None:
    if as_int(arguments[0]) != _PRIO_PROCESS:  # groups and users reach further
        raise NotADescendant(pid)
    os.setpriority(os.PRIO_PROCESS, pid, as_int(arguments[2]))


def _io_priority(_tid: int, pid: int, arguments: Arguments) -> None:
    if as_int(arguments[0]) != _IOPRIO_WHO_PROCESS:
        raise NotADescendant(pid)
    processes.set_io_priority(_IOPRIO_WHO_PROCESS, pid, as_int(arguments[2]))


def _affinity(tid: int, pid: int, arguments: Arguments) -> None:
    size = arguments[1] & 0xFFFFFFFF
    mask = process.read_memory(tid, arguments[2], min(size, _MAX_MASK))
    bits = int.from_bytes(mask, "little")
    os.sched_setaffinity(pid, [cpu for cpu in range(8 * len(mask)) if bits >> cpu & 1])


def _scheduler(tid: int, pid: int, arguments: Arguments) -> None:
    (priority,) = struct.unpack("=i", process.read_memory(tid, arguments[2], 4))
    os.sched_setscheduler(pid, as_int(arguments[1]), os.sched_param(priority))


def _parameters(tid: int, pid: int, arguments: Arguments) -> None:
    (priority,) = struct.unpack("=i", process.read_memory(tid, arguments[1], 4))
    os.sched_setparam(pid, os.sched_param(priority))


def _attributes(tid: int, pid: int, arguments: Arguments) -> None:
    (size,) = struct.unpack("=I", process.read_memory(tid, arguments[1], 4))
    if not 48 <= size <= _MAX_ATTRIBUTES:
        raise Malformed(errno.EINVAL, f"a struct sched_attr of {size} bytes")
    copied = struct.pack("=I", size) + process.read_memory(tid, arguments[1], size)[4:]  # the size that was checked
    processes.set_scheduling_attributes(pid, copied, as_int(arguments[2]))


# Which argument is the process, and what is done.
CALLS: dict[str, tuple[int, Callable[[int, int, Arguments], None]]] = {
    "prlimit64": (0, _limit),
    "setpriority": (1, _priority),
    "ioprio_set": (1, _io_priority),
    "sched_setaffinity": (0, _affinity),
    "sched_setscheduler": (0, _scheduler),
    "sched_setparam": (0, _parameters),
    "sched_setattr": (0, _attributes),
}

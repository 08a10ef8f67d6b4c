"""Does: limits, priorities and processors of other processes, for descendants of the sandbox only.

RLIMIT_CPU on the broker would kill it in spite of Landlock's signal scope (measured). The call is carried out by the
broker on its own copy of the arguments; what does not descend from the warden at that moment is refused.
"""

from __future__ import annotations

import errno
import os
import resource
import struct
from collections.abc import Callable, Iterator
from typing import Any

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Arguments, Call, Malformed, as_int
from sandboxed_kernel.broker.decisions import decide_process
from sandboxed_kernel.broker.outcomes import Refusal, Refused
from sandboxed_kernel.linux import processes

_RLIMIT = struct.Struct("=QQ")
_INFINITY = 0xFFFFFFFFFFFFFFFF
_MAX_MASK = 8192  # bytes: 65,536 processors
_MAX_ATTRIBUTES = 4096
_PRIO_PROCESS, _PRIO_PGRP = 0, 1
_IOPRIO_WHO_PROCESS, _IOPRIO_WHO_PGRP = 1, 2

Read = Callable[[int, Arguments], object]
Act = Callable[[int, Arguments, Any], None]


def carry_out(name: str, call: Call, warden: int, check_waiting: Callable[[Call], None]) -> None:
    """Do it; the call then answers 0. What descends from ``warden`` is inside.

    Everything that may wait for the caller is read first; ``check_waiting`` raises where it is gone meanwhile. Then
    comes the question whose the process is, and the act right behind it: else its number could be given to another one.

    Raises OSError (ESRCH for what has ended), Malformed, Unreadable or Refused.
    """
    pid_at, kinds, read, act = CALLS[name]
    copied = read(call.tid, call.args)
    check_waiting(call)
    pid = as_int(call.args[pid_at])
    if kinds is not None and as_int(call.args[0]) == kinds[1]:
        _on_group(pid or os.getpgid(call.tid), warden, name, lambda thread: act(thread, call.args, copied))
        return
    one = kinds is None or as_int(call.args[0]) == kinds[0]
    inside = pid > 0 and processes.is_descendant(pid, warden)
    verdict = decide_process(pid, one=one, inside=inside, exists=inside or os.path.exists(f"/proc/{pid}"))
    if verdict is not None:
        raise Refused(Refusal(verdict, "process", f"process {pid}", protocol=name))
    act(pid, call.args, copied)


def _on_group(group: int, warden: int, name: str, act: Callable[[int], None]) -> None:
    """Every thread of the processes of ``group`` that are inside; what of it is outside stays as it is.

    As Linux does it: one that cannot be changed is an error, and the others are changed all the same. What is forked
    meanwhile may be missed.
    """
    failed: OSError | None = None
    inside = False
    for thread in _threads_of_group(group, warden):
        try:
            act(thread)
            inside = True
        except ProcessLookupError:
            continue
        except OSError as error:
            failed, inside = error, True
    verdict = decide_process(group, one=True, inside=inside, exists=inside or _is_group(group))
    if verdict is not None:
        raise Refused(Refusal(verdict, "process", f"process group {group}", protocol=name))
    if failed is not None:
        raise failed


def _threads_of_group(group: int, warden: int) -> Iterator[int]:
    for pid in processes.descendants(warden):
        try:
            # Asked once more, right before the act: the number may be another process's by now.
            if os.getpgid(pid) == group and processes.is_descendant(pid, warden):
                yield from map(int, os.listdir(f"/proc/{pid}/task"))
        except OSError:
            continue


def _is_group(group: int) -> bool:
    try:
        os.getpriority(os.PRIO_PGRP, group)
    except OSError:
        return False
    return True


def _nothing(_tid: int, _arguments: Arguments) -> None:
    pass


def _read_limit(tid: int, arguments: Arguments) -> tuple[int, int] | None:
    if arguments[3]:  # the old limit cannot be written into the caller's memory: ask for it in a call of its own
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))
    if as_int(arguments[1]) == resource.RLIMIT_CORE:
        return None
    soft, hard = (
        resource.RLIM_INFINITY if value == _INFINITY else value
        for value in _RLIMIT.unpack(process.read_memory(tid, arguments[2], _RLIMIT.size))
    )
    return soft, hard


def _limit(pid: int, arguments: Arguments, limits: tuple[int, int] | None) -> None:
    if limits is None:
        return  # RLIMIT_CORE: without effect, as the filter answers for the caller itself
    try:
        resource.prlimit(pid, as_int(arguments[1]), limits)
    except (ValueError, OverflowError) as error:
        raise Malformed(errno.EINVAL, str(error)) from None


def _priority(pid: int, arguments: Arguments, _copied: None) -> None:
    os.setpriority(os.PRIO_PROCESS, pid, as_int(arguments[2]))


def _io_priority(pid: int, arguments: Arguments, _copied: None) -> None:
    processes.set_io_priority(_IOPRIO_WHO_PROCESS, pid, as_int(arguments[2]))


def _read_mask(tid: int, arguments: Arguments) -> bytes:
    return process.read_memory(tid, arguments[2], min(arguments[1] & 0xFFFFFFFF, _MAX_MASK))


def _affinity(pid: int, _arguments: Arguments, mask: bytes) -> None:
    bits = int.from_bytes(mask, "little")
    os.sched_setaffinity(pid, [cpu for cpu in range(8 * len(mask)) if bits >> cpu & 1])


def _read_priority(at: int) -> Read:
    return lambda tid, arguments: struct.unpack("=i", process.read_memory(tid, arguments[at], 4))[0]


def _scheduler(pid: int, arguments: Arguments, priority: int) -> None:
    os.sched_setscheduler(pid, as_int(arguments[1]), os.sched_param(priority))


def _parameters(pid: int, _arguments: Arguments, priority: int) -> None:
    os.sched_setparam(pid, os.sched_param(priority))


def _read_attributes(tid: int, arguments: Arguments) -> bytes:
    (size,) = struct.unpack("=I", process.read_memory(tid, arguments[1], 4))
    if not 48 <= size <= _MAX_ATTRIBUTES:
        raise Malformed(errno.EINVAL, f"a struct sched_attr of {size} bytes")
    return struct.pack("=I", size) + process.read_memory(tid, arguments[1], size)[4:]  # the size that was checked


def _attributes(pid: int, arguments: Arguments, copied: bytes) -> None:
    processes.set_scheduling_attributes(pid, copied, as_int(arguments[2]))


# Which argument is the process; what the first one says where one process, or a group, is meant (None: it is always one
# process); what is read of the caller; and what is done to a thread.
CALLS: dict[str, tuple[int, tuple[int, int] | None, Read, Act]] = {
    "prlimit64": (0, None, _read_limit, _limit),
    "setpriority": (1, (_PRIO_PROCESS, _PRIO_PGRP), _nothing, _priority),
    "ioprio_set": (1, (_IOPRIO_WHO_PROCESS, _IOPRIO_WHO_PGRP), _nothing, _io_priority),
    "sched_setaffinity": (0, None, _read_mask, _affinity),
    "sched_setscheduler": (0, None, _read_priority(2), _scheduler),
    "sched_setparam": (0, None, _read_priority(1), _parameters),
    "sched_setattr": (0, None, _read_attributes, _attributes),
}

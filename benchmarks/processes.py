"""Does: memory, processor time and context switches of processes, out of proc(5)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

_KERNEL_MARKS = ("ipykernel_launcher", "inside/start.py")
_TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


def descendants(pid: int) -> list[int]:
    """``pid`` and everything below it, parents first."""
    found = [pid]
    for parent in found:
        for thread in _listdir(f"/proc/{parent}/task"):
            found += map(int, _read(f"/proc/{parent}/task/{thread}/children").split())
    return found


def roles(launcher: int) -> dict[str, list[int]]:
    """``launcher``, ``kernel`` (the Python that runs cells, and what descends from it), ``broker`` (what lies between).

    The broker is the launcher's child, its fork: the command line is the launcher's own.
    """
    found: dict[str, list[int]] = {"launcher": [launcher], "broker": [], "kernel": []}
    of_kernel: set[int] = set()
    for pid in descendants(launcher):
        if pid not in of_kernel and _is_kernel(pid):
            of_kernel.update(descendants(pid))
    for pid in descendants(launcher):
        if pid in of_kernel:
            found["kernel"].append(pid)
        elif pid != launcher:
            found["broker"].append(pid)
    if launcher in of_kernel:
        found["launcher"] = []  # plain: the kernel is all there is
    return found


def _is_kernel(pid: int) -> bool:
    words = _read(f"/proc/{pid}/cmdline").split("\0")
    is_python = Path(words[0]).name.startswith("python")
    return is_python and any(word.endswith(_KERNEL_MARKS) for word in words[1:])


def memory(pids: list[int], field: str = "Pss") -> float:
    """MB (10^6 bytes) of ``Pss`` or ``Rss`` together. Raises PermissionError."""
    total = 0
    for pid in pids:
        try:
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # ended meanwhile
        total += sum(int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{field}:"))
    return total * 1024 / 1e6


@dataclass(frozen=True, slots=True)
class Activity:
    """What processes have done since they began: times they were scheduled, and milliseconds on a processor."""

    wake_ups: int
    cpu_ms: float


def activity(pids: list[int]) -> Activity:
    """Over all threads. A thread that sleeps through has no context switch."""
    switches, ticks = 0, 0
    for pid in pids:
        for thread in _listdir(f"/proc/{pid}/task"):
            for line in _read(f"/proc/{pid}/task/{thread}/status").splitlines():
                switches += int(line.split()[1]) if "ctxt_switches" in line else 0
        after_name = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()  # a name may hold spaces
        ticks += sum(map(int, after_name[11:13]))  # utime, stime
    return Activity(switches, ticks * _TICK_MS)


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _listdir(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except OSError:
        return []

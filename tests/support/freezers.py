"""Does: makes another process wait in Linux, as code inside can do it. The text of this file is what runs inside.

A thread at SCHED_IDLE beside busy processes on one processor has next to none of it. What it holds in Linux meanwhile,
a lock that somebody else asks for, it holds for that long. Everything ends by itself after ``LASTS`` seconds.
"""

import ctypes
import mmap
import os
import threading
import time
from collections.abc import Callable

LASTS = 30.0  # seconds
HOGS = 6
_PUNCH = 3  # FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE, fallocate(2)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_long]
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def start_hogs(processor: int = 0) -> None:
    """Busy processes on ``processor``; they end with the sandbox, or by themselves."""
    for _ in range(HOGS):
        if os.fork() == 0:
            os.sched_setaffinity(0, {processor})
            end = time.monotonic() + LASTS
            while time.monotonic() < end:
                pass
            os._exit(0)


def starve(work: Callable[[], object], processor: int = 0) -> None:
    """``work`` again and again, in a thread that gets no time beside the hogs once it is in Linux."""
    began, thread = threading.Event(), []

    def run() -> None:
        thread.append(threading.get_native_id())
        began.set()
        end = time.monotonic() + LASTS
        while time.monotonic() < end:
            work()

    threading.Thread(target=run, daemon=True).start()
    began.wait()
    time.sleep(0.005)  # not before: it would have Python's lock then, for as long
    os.sched_setaffinity(thread[0], {processor})
    os.sched_setscheduler(thread[0], os.SCHED_IDLE, os.sched_param(0))


def hold_inode(descriptor: int, mebibytes: int = 300) -> None:
    """The lock of a file in memory: chmod(2) and its kin wait for it, in state D."""
    size = mebibytes << 20

    def work() -> None:
        _libc.fallocate(descriptor, 0, 0, size)
        _libc.fallocate(descriptor, _PUNCH, 0, size)

    starve(work)


def hold_memory(mebibytes: int = 512) -> None:
    """The lock of this process's own mappings: whoever copies from its memory waits, in state D."""
    size = mebibytes << 20
    at = _libc.mmap(None, size, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
    _libc.madvise(at, size, 15)  # MADV_NOHUGEPAGE: many small pages, each to be changed
    _libc.madvise(at, size, 23)  # MADV_POPULATE_WRITE, Linux 5.14

    def work() -> None:
        _libc.mprotect(at, size, 1)
        _libc.mprotect(at, size, 3)

    starve(work)


def hold_page(mebibytes: int = 512) -> int:
    """A page that is being taken out of its file: its address. Whoever copies from there waits, in state D."""
    size = mebibytes << 20
    file = os.memfd_create("page")
    os.ftruncate(file, size)
    at = int(_libc.mmap(None, size, 3, mmap.MAP_SHARED, file, 0))
    # All but the page itself and its neighbours, which would be mapped together.
    _libc.madvise(at + (1 << 20), size - (1 << 20), 23)  # MADV_POPULATE_WRITE
    starve(lambda: _libc.fallocate(file, _PUNCH, 0, size))
    return at + 8192


def starved_process(work: Callable[[], object], processor: int = 0) -> None:
    """``work`` again and again, in a process that gets no time beside the hogs."""
    if os.fork() == 0:
        os.sched_setaffinity(0, {processor})
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        end = time.monotonic() + LASTS
        while time.monotonic() < end:
            work()
        os._exit(0)

"""Shared memory, semaphores, message queues and keys that a program outside has made are not reached.

They belong to the user, not to a folder, so no grant of files keeps them apart.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.programs import RAW, REPORT
from tests.support.sandbox import run_inside, run_outside

PRELUDE = (
    """
import ctypes, errno, json, os, struct
NR = {numbers!r}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

"""
    + RAW
    + """
KEY, NAME = {key}, b"{name}"

def attached(fill=None):
    address = raw("shmat", raw("shmget", KEY, 4096, 0), None, 0)
    try:
        if fill:
            ctypes.memmove(address, fill, len(fill))
        return ctypes.string_at(address, 6).decode()
    finally:
        raw("shmdt", address)

def received(queue):
    buffer = ctypes.create_string_buffer(64)
    raw("msgrcv", queue, buffer, 8, 0, 0o4000)  # IPC_NOWAIT
    return buffer.raw[8:14].decode()

def queued():
    buffer = ctypes.create_string_buffer(8192)
    size = raw("mq_timedreceive", raw("mq_open", NAME, os.O_RDWR | os.O_NONBLOCK, 0, None), buffer, 8192, None, None)
    return buffer.raw[:size].decode()
"""
)

MAKE = """
raw("shmget", KEY, 4096, 0o1600)
attached(b"s3cret")
raw("semctl", raw("semget", KEY, 1, 0o1600), 0, 16, 5)  # SETVAL
raw("msgsnd", raw("msgget", KEY, 0o1600), struct.pack("q", 1) + b"s3cret", 6, 0)
try:
    queue = raw("mq_open", NAME, os.O_CREAT | os.O_RDWR, 0o600, None)
    raw("mq_timedsend", queue, b"s3cret", 6, 0, None)
except OSError as error:
    if error.errno != errno.ENOSYS:  # a Linux without queues
        raise
"""

REMOVE = """
for go in (
    lambda: raw("shmctl", raw("shmget", KEY, 0, 0), 0, None),
    lambda: raw("semctl", raw("semget", KEY, 0, 0), 0, 0, 0),
    lambda: raw("msgctl", raw("msgget", KEY, 0), 0, None),
    lambda: raw("mq_unlink", NAME),
):
    try:
        go()
    except OSError:
        pass  # taken away by the attack already
"""

ATTACK = (
    """
WAYS = {
    "shared memory": attached,
    "semaphore": lambda: str(raw("semctl", raw("semget", KEY, 0, 0), 0, 12, 0)),  # GETVAL
    "message": lambda: received(raw("msgget", KEY, 0)),
    "queue": queued,
    "overwritten": lambda: attached(b"broken"),
    "semaphore taken": lambda: str(raw("semop", raw("semget", KEY, 0, 0), struct.pack("HhH", 0, -1, 0), 1)),
    "memory removed": lambda: str(raw("shmctl", raw("shmget", KEY, 0, 0), 0, None)),
    "semaphore removed": lambda: str(raw("semctl", raw("semget", KEY, 0, 0), 0, 0, 0)),
    "messages removed": lambda: str(raw("msgctl", raw("msgget", KEY, 0), 0, None)),
    "queue removed": lambda: str(raw("mq_unlink", NAME)),
}
told = {}
"""
    + REPORT
)


def test_objects_of_other_programs_in_memory_are_out_of_reach(workspace: Path) -> None:
    key = 0x5B000000 | os.getpid() & 0xFFFFFF
    prelude = PRELUDE.format(numbers=NUMBERS[os.uname().machine], key=key, name=f"sbk-{os.getpid()}")
    wanted = {
        "shared memory": "s3cret", "semaphore": "5", "message": "s3cret", "queue": "s3cret", "overwritten": "broken",
        "semaphore taken": "0", "memory removed": "0", "semaphore removed": "0", "messages removed": "0",
        "queue removed": "0",
    }  # fmt: skip
    try:
        run_outside(prelude + MAKE, workspace=workspace).check()
        told = run_outside(prelude + ATTACK, workspace=workspace).json()
        if told["queue"] == "ENOSYS":
            wanted |= {"queue": "ENOSYS", "queue removed": "ENOSYS"}
        assert told == wanted

        run_outside(prelude + MAKE, workspace=workspace).check()
        told = run_inside(prelude + ATTACK, workspace=workspace).json()
        assert set(told.values()) == {"ENOSYS"}, told
        # Whole and in place, seen from outside.
        assert run_outside(prelude + ATTACK, workspace=workspace).json() == wanted
    finally:
        run_outside(prelude + REMOVE, workspace=workspace).check()

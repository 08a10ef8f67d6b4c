"""This Linux takes the kept program, and answers as the simulator does."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import struct

import pytest

from sandboxed_kernel.confinement.filters import load_program
from sandboxed_kernel.confinement.numbers import AUDIT_ARCH, NUMBERS, RET_NOTIFY, RETURN, X32_BIT
from sandboxed_kernel.linux import processes, seccomp
from tests.support.bpf import Machine
from tests.support.child import ChildKilled, in_child

MACHINE = platform.machine()
UNASKED = 77  # the errno that stands for a notification: nobody listens here
ONE = (1 << 64) - 1

# Calls that do nothing, or fail with something other than what the filter would answer, where they are let through.
PROBES: list[tuple[str, tuple[int, ...]]] = [
    ("getppid", ()),
    ("io_uring_setup", (1, 0)),
    ("ptrace", (0x1234, 0, 0, 0)),
    ("clone3", (0, 0)),
    ("openat2", (ONE, 0, 0, 0)),
    ("socket", (2, 1, 0)),
    ("socket", (0x100000002, 1, 0)),
    ("sendto", (ONE, 0, 0, 0, 0, 0)),
    ("sendto", (ONE, 0, 0, 0, 1 << 40, 0)),
    ("sendto", (ONE, 0, 0, 0x20000000, 1, 0)),
    ("sendmsg", (ONE, 0, 0x20000000)),
    ("socketpair", (1, 3, 0, 0)),
    ("socketpair", (1 << 32 | 1, 1, 0, 0)),
    ("setsockopt", (ONE, 0, 11, 0, 0)),
    ("setsockopt", (ONE, 41, 57, 0, 0)),
    ("setsockopt", (ONE, 6, 1, 0, 0)),
    ("ioctl", (ONE, 0x100005412, 0)),
    ("ioctl", (ONE, 0x5441, 0)),
    ("ioctl", (ONE, 0x5401, 0)),
    ("prctl", (4, 0)),
    ("prctl", (1, 15)),
    ("prctl", (35, 0)),
    ("prlimit64", (0x7FFFFFFF, 7, 0, 0)),  # nobody: ESRCH
    ("prlimit64", (1, 7, 1, 0)),
    ("setpriority", (2, 0, 0)),
    ("unshare", (0x10000000,)),
    ("mknodat", (ONE, 0, 0o020644, 0x103)),
    ("fcntl", (ONE, 1024, 1)),
    ("shmget", (0, 1, 0)),
    ("setns", (ONE, 0)),
]


def without_a_listener(program: bytes) -> bytes:
    """The same program, with an errno in the place of every notification."""
    refusal = 0x50000 | UNASKED
    return b"".join(
        struct.pack("<HBBI", code, if_true, if_false, refusal if (code, k) == (RETURN, RET_NOTIFY) else k)
        for code, if_true, if_false, k in struct.iter_unpack("<HBBI", program)
    )


def call(nr: int, args: tuple[int, ...]) -> int:
    """0 for success, else the errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    registers = [ctypes.c_uint64(value) for value in (nr, *args, *(0,) * (6 - len(args)))]
    return ctypes.get_errno() if libc.syscall(*registers) == -1 else 0


def answers(calls: list[tuple[int, tuple[int, ...]]]) -> list[int]:
    processes.set_no_new_privs()
    seccomp.install(without_a_listener(load_program(MACHINE)), listener=False)
    return [call(nr, args) for nr, args in calls]


@pytest.mark.skipif(MACHINE not in NUMBERS, reason="no table for this machine")
def test_linux_answers_as_the_simulator() -> None:
    machine = Machine(without_a_listener(load_program(MACHINE)))
    calls = [(NUMBERS[MACHINE][name], args) for name, args in PROBES]
    allowed = 0
    for (name, args), (nr, _), got in zip(PROBES, calls, in_child(answers, calls), strict=True):
        value, _steps = machine.run(nr, AUDIT_ARCH[MACHINE], (*args, *(0,) * (6 - len(args))))
        if value == 0x7FFF0000:
            allowed += 1
            assert got not in (errno.EPERM, errno.ENOSYS, UNASKED), name
        else:
            assert got == value & 0xFFFF, name
    assert 4 <= allowed < len(PROBES)


@pytest.mark.skipif(MACHINE != "x86_64", reason="x32 is x86_64's")
def test_an_x32_call_kills() -> None:
    with pytest.raises(ChildKilled) as killed:
        in_child(answers, [(X32_BIT | NUMBERS["x86_64"]["getppid"], ())])
    assert killed.value.signal == signal.SIGSYS


def test_an_ordinary_program_runs_under_it() -> None:
    def run() -> int:
        processes.set_no_new_privs()
        seccomp.install(without_a_listener(load_program(MACHINE)), listener=False)
        return os.spawnv(os.P_WAIT, "/bin/sh", ["sh", "-c", "ls / >/dev/null && echo x | cat >/dev/null"])

    assert in_child(run) == 0

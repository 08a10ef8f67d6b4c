"""The C library and raw system calls, with errno turned into OSError.

Numbers above 423 are the same on every architecture Linux added since 2019; the few others are listed per machine.
Source: include/uapi/asm-generic/unistd.h and arch/x86/entry/syscalls/syscall_64.tbl.
"""

from __future__ import annotations

import ctypes
import os

_libc = ctypes.CDLL(None, use_errno=True)
_syscall = _libc.syscall
_syscall.restype = ctypes.c_long

MACHINE = os.uname().machine

PIDFD_OPEN = 434
CLOSE_RANGE = 436
OPENAT2 = 437
LANDLOCK_CREATE_RULESET = 444
LANDLOCK_ADD_RULE = 445
LANDLOCK_RESTRICT_SELF = 446

_PER_MACHINE = {
    "x86_64": {
        "seccomp": 317,
        "capset": 126,
        "ioprio_set": 251,
        "sched_setattr": 314,
        "utimensat": 280,
        "renameat2": 316,
        "statx": 332,
    },
    "aarch64": {
        "seccomp": 277,
        "capset": 91,
        "ioprio_set": 30,
        "sched_setattr": 274,
        "utimensat": 88,
        "renameat2": 276,
        "statx": 291,
    },
}


def number(name: str) -> int:
    """The number of a call that differs between machines. Raises OSError(ENOSYS) on a machine without a table."""
    try:
        return _PER_MACHINE[MACHINE][name]
    except KeyError:
        raise OSError(38, f"no system call table for {MACHINE}: {name}") from None


def syscall(nr: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    """Call Linux; the result, or OSError with its errno.

    Integers are passed as 64-bit values: ctypes would cut a plain int to 32 bits.
    """
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    result: int = _syscall(ctypes.c_long(nr), *converted)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2); OSError with its errno."""
    longs = [ctypes.c_ulong(a) for a in (arg2, arg3, arg4, arg5)]
    result: int = _libc.prctl(ctypes.c_int(option), *longs)
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result


_setsockopt = _libc.setsockopt
_setsockopt.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]


def set_option(descriptor: int, level: int, option: int, value: bytes) -> None:
    """setsockopt(2); OSError with its errno.

    The setsockopt of Python's sockets keeps the interpreter lock while it waits for the lock of a socket, which whoever
    shares the socket can hold for long. This one lets other threads run.
    """
    if _setsockopt(descriptor, level, option, value, len(value)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


_getsockopt = _libc.getsockopt
_getsockopt.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p]


def option(descriptor: int, level: int, option: int, size: int) -> bytes:
    """getsockopt(2), up to ``size`` bytes; OSError with its errno. It lets other threads run, as ``set_option``."""
    value, length = ctypes.create_string_buffer(size), ctypes.c_uint(size)
    if _getsockopt(descriptor, level, option, value, ctypes.addressof(length)) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return value.raw[: length.value]


_set_mask = _libc.pthread_sigmask
_set_mask.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p]


class SignalMask:
    """Some signals of the calling thread. signal.pthread_sigmask makes enum members of the old mask: 6 us."""

    def __init__(self, *numbers: int) -> None:
        self._set = buffer_from(sum(1 << number - 1 for number in numbers).to_bytes(128, "little"))  # sigset_t
        self._at = address_of(self._set)

    def block(self) -> None:
        _set_mask(0, self._at, None)  # SIG_BLOCK

    def unblock(self) -> None:
        _set_mask(1, self._at, None)  # SIG_UNBLOCK


def address_of(buffer: ctypes.Array[ctypes.c_char]) -> int:
    return ctypes.addressof(buffer)


def write_memory(address: int, data: bytes) -> None:
    """Write into this process's own memory."""
    ctypes.memmove(address, data, len(data))


def buffer_from(data: bytes) -> ctypes.Array[ctypes.c_char]:
    """A C buffer holding ``data`` (no NUL appended); it must outlive the call that uses its address."""
    return ctypes.create_string_buffer(data, max(len(data), 1))

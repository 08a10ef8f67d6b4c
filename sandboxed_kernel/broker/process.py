"""Does: copies arguments out of the calling process, once each, and asks whether the caller still waits.

A descriptor of its memory is never kept: one of an earlier call could belong to a process that is gone. What is
read is the trusted side's own copy from then on; nothing in the sandbox's memory is read twice.
"""

from __future__ import annotations

import errno
import os
from typing import NamedTuple

from sandboxed_kernel.broker.calls import Malformed
from sandboxed_kernel.linux import memory
from sandboxed_kernel.linux.descriptor import Descriptor

_PAGE = 4096


class Unreadable(Exception):
    """The caller runs a program that may be run but not read: Linux shows nothing of it, not even to its own user."""


_PATH_MAX = 4096  # with the NUL, limits.h
AT_FDCWD = -100


def read_memory(tid: int, address: int, length: int) -> bytes:
    """Exactly ``length`` bytes of the caller's memory. Raises Malformed(EFAULT), Unreadable."""
    data = _copy(tid, address, length)
    if len(data) != length:
        raise Malformed(errno.EFAULT, f"{length} bytes at {address:#x} cannot be read")
    return data


def read_string(tid: int, address: int) -> bytes:
    """A path: the bytes up to the first NUL. Raises Malformed(EFAULT), Malformed(ENAMETOOLONG)."""
    found = b""
    while len(found) < _PATH_MAX:
        # Up to the page's end: the string may end just before a page that does not exist.
        chunk = _copy(tid, address + len(found), _PAGE - (address + len(found)) % _PAGE)
        head, nul, _ = chunk.partition(b"\0")
        found += head
        if nul:
            if len(found) >= _PATH_MAX:
                break
            return found
        if not chunk:
            raise Malformed(errno.EFAULT, f"a string at {address:#x} cannot be read")
    raise Malformed(errno.ENAMETOOLONG, "a path of more than 4,095 bytes")


def _copy(tid: int, address: int, length: int) -> bytes:
    """As much of it as can be read. Raises Malformed(EFAULT) where the process is gone, Unreadable."""
    if length <= memory.MAX_BYTES:
        try:
            return memory.read(tid, address, length)
        except OSError:
            pass  # perhaps only the call is forbidden, by a container's profile
    try:
        descriptor = os.open(f"/proc/{tid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except PermissionError:
        raise Unreadable from None
    except OSError:
        raise Malformed(errno.EFAULT, "the caller's memory cannot be read") from None
    try:
        return os.pread(descriptor, length, address)
    except (OSError, OverflowError):
        return b""
    finally:
        os.close(descriptor)


class OpenFile(NamedTuple):
    """What a descriptor number of the caller means now: a device and inode."""

    device: int
    inode: int
    mode: int


def open_file(tid: int, descriptor: int) -> OpenFile:
    """Raises Malformed(EBADF), Unreadable."""
    try:
        status = os.stat(f"/proc/{tid}/fd/{descriptor}")
    except PermissionError:
        raise Unreadable from None
    except OSError:
        raise Malformed(errno.EBADF, f"no descriptor {descriptor}") from None
    return OpenFile(status.st_dev, status.st_ino, status.st_mode)


def open_directory(tid: int, descriptor: int = AT_FDCWD) -> Descriptor:
    """A descriptor of our own for the caller's working directory or the directory behind its descriptor.

    Raises Malformed(EBADF), Malformed(ENOTDIR).
    """
    place = "cwd" if descriptor == AT_FDCWD else f"fd/{descriptor}"
    try:
        return Descriptor(os.open(f"/proc/{tid}/{place}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except NotADirectoryError:
        raise Malformed(errno.ENOTDIR, f"descriptor {descriptor} is no directory") from None
    except OSError:
        raise Malformed(errno.EBADF, f"no descriptor {descriptor}") from None


def is_non_blocking(tid: int, descriptor: int) -> bool:
    """What the caller's descriptor is by now, whatever it was made as: proc_pid_fdinfo(5)."""
    flags = field(f"/proc/{tid}/fdinfo/{descriptor}", b"flags:", base=8)
    return flags is not None and bool(flags & os.O_NONBLOCK)


def umask(tid: int) -> int:
    """The caller's umask, /proc/TID/status. Raises Malformed."""
    found = field(f"/proc/{tid}/status", b"Umask:", base=8)
    if found is None:
        raise Malformed(errno.EACCES, "the caller's umask cannot be read")
    return found


def short_name(tid: int) -> str:
    """The command's short name as the caller chose it, or ``?``."""
    try:
        with open(f"/proc/{tid}/comm", "rb", buffering=0) as file:
            return file.read(64).rstrip(b"\n").decode(errors="replace")
    except OSError:
        return "?"


def process_of(tid: int) -> int:
    """The process (thread group) of a thread, or the number itself where that is gone."""
    found = field(f"/proc/{tid}/status", b"Tgid:")
    return tid if found is None else found


def field(path: str, name: bytes, *, base: int = 10) -> int | None:
    """The number after ``name`` in a file of /proc with a field per line, or None where there is none."""
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith(name):
                    return int(line.split()[1], base)
    except (OSError, ValueError):
        pass
    return None

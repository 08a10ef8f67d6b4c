"""Does: the calls that change a file's metadata, which Landlock does not cover, through the broker's own descriptor.

Without any grant a key file could be made world-readable and a setuid file made, measured on Linux 6.18. So each call
is carried out on a descriptor that the broker opened from its own copy of the path, relative to the caller's folder,
and only where that descriptor lies beneath a writable grant. Nothing can be moved from outside into a grant (Landlock's
REFER), so where the descriptor lies cannot be raced. Set-user-id and set-group-id bits never survive.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable

from sandboxed_kernel.broker import decisions, process
from sandboxed_kernel.broker.calls import Arguments, Malformed, as_int
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.guarded_folder import Writable
from sandboxed_kernel.broker.outcomes import Refusal, Refused
from sandboxed_kernel.broker.process import AT_FDCWD
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.records import Record

_MODE_AT = {"chmod": 1, "fchmod": 1, "fchmodat": 2, "fchmodat2": 2}  # which argument is the mode
_MAX_VALUE = 65536  # XATTR_SIZE_MAX, limits.h
_TIMESPEC, _TIMEVAL, _UTIMBUF = 32, 32, 16
# glibc's and gnulib's fchmodat(AT_SYMLINK_NOFOLLOW), in Linux since 6.6 only: tar calls it for every folder.
_DESCRIPTOR_LINK = re.compile(rb"/proc/(?:thread-)?self/fd/(\d{1,9})")


class _Target(Record):
    """Where the file is named in a call's arguments: by path, by descriptor, or by path relative to one."""

    path: int | None = None
    descriptor: int | None = None
    flags: int | None = None
    follow: bool = True


Program = Callable[[bytes, Descriptor], Descriptor | None]
Act = Callable[[int, Arguments, Descriptor], None]


class Metadata:
    def __init__(self, writable: Writable, become_program: Program | None = None) -> None:
        """``become_program``: ``Files.become_program``, where the notebook's folder is guarded."""
        self._writable, self._become_program = writable, become_program

    def carry_out(self, name: str, tid: int, arguments: Arguments) -> None:
        """Do it. Raises OSError or Malformed with the errno for the caller; Refused where no grant covers the file."""
        target, act = CALLS[name]
        with self._open(target, tid, arguments) as found:
            path = os.readlink(os.fsencode(found.path))
            inside = self._writable.holds(path, os.fstat(found.fileno()))
            verdict = decisions.decide_metadata(inside=inside, anothers=not inside and _is_anothers(found))
            if verdict is None and self._writable.is_holder(path, os.fstat(found.fileno())):
                verdict = self._of_holder(name, arguments, found)
            if verdict is not None:
                raise Refused(Refusal(verdict, "metadata", path.decode(errors="replace"), protocol=name))
            program = self._program(name, arguments, path, found)
            act(tid, arguments, found if program is None else program)

    @staticmethod
    def _of_holder(name: str, arguments: Arguments, found: Descriptor) -> Refuse | None:
        before = stat.S_IMODE(os.fstat(found.fileno()).st_mode)
        if name in _MODE_AT:
            return decisions.decide_holder(before, decisions.mode_to_set(arguments[_MODE_AT[name]]))
        return decisions.decide_holder(before, None) if "chown" in name or "xattr" in name else None

    def _program(self, name: str, arguments: Arguments, path: bytes, found: Descriptor) -> Descriptor | None:
        """What a linker, or ``chmod +x``, makes executable by its path."""
        if self._become_program is None or name not in _MODE_AT or name == "fchmod":
            return None
        if not arguments[_MODE_AT[name]] & 0o111:
            return None
        return self._become_program(path, found)

    @staticmethod
    def _open(target: _Target, tid: int, arguments: Arguments) -> Descriptor:
        flags = arguments[target.flags] if target.flags is not None else 0
        path = b""
        if target.path is not None and arguments[target.path]:
            path = process.read_string(tid, arguments[target.path])
        elif target.path is not None and target.descriptor is None:
            raise Malformed(errno.EFAULT, "no path")
        descriptor = as_int(arguments[target.descriptor]) if target.descriptor is not None else AT_FDCWD
        _check(decisions.decide_flags(flags))
        # futimens(3) is utimensat with a descriptor and no path; with AT_EMPTY_PATH others take the same form.
        by_descriptor = (
            target.path is None or not arguments[target.path] or (not path and flags & decisions.AT_EMPTY_PATH)
        )
        follow = target.follow and not flags & decisions.AT_SYMLINK_NOFOLLOW
        link = _DESCRIPTOR_LINK.fullmatch(path) if follow else None
        if link is not None:  # of the caller, where our own /proc/self would mean us
            by_descriptor, descriptor = True, int(link[1])
        if by_descriptor and descriptor != AT_FDCWD:
            process.open_file(tid, descriptor)
            return Descriptor(os.open(f"/proc/{tid}/fd/{descriptor}", os.O_PATH | os.O_CLOEXEC))
        with process.open_directory(tid, AT_FDCWD if path.startswith(b"/") else descriptor) as directory:
            return processes.open_beneath(directory, path, os.O_PATH | (0 if follow else os.O_NOFOLLOW))


def _check(verdict: Refuse | None) -> None:
    """Raises OSError for a refusal."""
    if verdict is not None:
        raise OSError(verdict.error, os.strerror(verdict.error))


def _is_anothers(found: Descriptor) -> bool:
    """Whether this user could change no metadata of the file outside either: chmod(2), utimensat(2)."""
    return os.geteuid() not in (0, os.fstat(found.fileno()).st_uid) and not os.access(found.path, os.W_OK)


def _change_mode(mode_at: int) -> Act:
    def act(_tid: int, arguments: Arguments, found: Descriptor) -> None:
        if stat.S_ISLNK(os.fstat(found.fileno()).st_mode):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        os.chmod(found.path, decisions.mode_to_set(arguments[mode_at]))

    return act


def _change_owner(user_at: int) -> Act:
    def act(_tid: int, arguments: Arguments, found: Descriptor) -> None:
        os.chown(found.path, _identity(arguments[user_at]), _identity(arguments[user_at + 1]))

    return act


def _identity(register: int) -> int:
    """A user's or group's number, unsigned in Linux but for -1, which leaves it as it is: chown(2)."""
    number = register & 0xFFFFFFFF
    return -1 if number == 0xFFFFFFFF else number


def _times_from_timespec(tid: int, arguments: Arguments, found: Descriptor, at: int) -> None:
    times = process.read_memory(tid, arguments[at], _TIMESPEC) if arguments[at] else None
    processes.set_times(found.path, times)


def _times_from_timeval(tid: int, arguments: Arguments, found: Descriptor, at: int) -> None:
    times = None
    if arguments[at]:
        data = process.read_memory(tid, arguments[at], _TIMEVAL)
        parts = [int.from_bytes(data[i : i + 8], "little", signed=True) for i in range(0, _TIMEVAL, 8)]
        if not decisions.are_microseconds(parts[1], parts[3]):
            raise Malformed(errno.EINVAL, "microseconds out of range")
        parts[1], parts[3] = parts[1] * 1000, parts[3] * 1000
        times = b"".join(part.to_bytes(8, "little", signed=True) for part in parts)
    processes.set_times(found.path, times)


def _times_from_utimbuf(tid: int, arguments: Arguments, found: Descriptor, at: int) -> None:
    times = None
    if arguments[at]:
        data = process.read_memory(tid, arguments[at], _UTIMBUF)
        times = data[:8] + bytes(8) + data[8:] + bytes(8)
    processes.set_times(found.path, times)


def _times(read: Callable[[int, Arguments, Descriptor, int], None], at: int) -> Act:
    return lambda tid, arguments, found: read(tid, arguments, found, at)


def _attribute_name(tid: int, address: int) -> bytes:
    name = process.read_string(tid, address)
    _check(decisions.decide_attribute(name))
    return name


def _set_attribute(tid: int, arguments: Arguments, found: Descriptor) -> None:
    name = _attribute_name(tid, arguments[1])
    size = arguments[3]
    if size > _MAX_VALUE:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG))
    value = process.read_memory(tid, arguments[2], size) if size else b""
    os.setxattr(found.path, name, value, as_int(arguments[4]))


def _remove_attribute(tid: int, arguments: Arguments, found: Descriptor) -> None:
    os.removexattr(found.path, _attribute_name(tid, arguments[1]))


_PATH, _LINK = _Target(path=0), _Target(path=0, follow=False)
_DESCRIPTOR = _Target(descriptor=0)

# Per call: how it names its file, and what is done. setxattrat and removexattrat (Linux 6.13) are not among them: libc
# does not use them yet, and the filter answers ENOSYS.
CALLS: dict[str, tuple[_Target, Act]] = {
    "chmod": (_PATH, _change_mode(_MODE_AT["chmod"])),
    "fchmod": (_DESCRIPTOR, _change_mode(_MODE_AT["fchmod"])),
    "fchmodat": (_Target(path=1, descriptor=0), _change_mode(_MODE_AT["fchmodat"])),
    "fchmodat2": (_Target(path=1, descriptor=0, flags=3), _change_mode(_MODE_AT["fchmodat2"])),
    "chown": (_PATH, _change_owner(1)),
    "lchown": (_LINK, _change_owner(1)),
    "fchown": (_DESCRIPTOR, _change_owner(1)),
    "fchownat": (_Target(path=1, descriptor=0, flags=4), _change_owner(2)),
    "utime": (_PATH, _times(_times_from_utimbuf, 1)),
    "utimes": (_PATH, _times(_times_from_timeval, 1)),
    "futimesat": (_Target(path=1, descriptor=0), _times(_times_from_timeval, 2)),
    "utimensat": (_Target(path=1, descriptor=0, flags=3), _times(_times_from_timespec, 2)),
    "setxattr": (_PATH, _set_attribute),
    "lsetxattr": (_LINK, _set_attribute),
    "fsetxattr": (_DESCRIPTOR, _set_attribute),
    "removexattr": (_PATH, _remove_attribute),
    "lremovexattr": (_LINK, _remove_attribute),
    "fremovexattr": (_DESCRIPTOR, _remove_attribute),
}

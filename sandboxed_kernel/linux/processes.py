"""What a process may do to itself and its descendants: privileges, death signals, process trees.

Source: prctl(2), capabilities(7), pidfd_open(2), openat2(2), proc(5).
"""

from __future__ import annotations

import os
import signal
import struct
import time
from collections.abc import Callable, Iterator

from sandboxed_kernel.linux import landlock, libc
from sandboxed_kernel.linux.descriptor import Descriptor

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_CAPBSET_READ = 23
_PR_CAPBSET_DROP = 24
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4

_REFER = 1 << 13  # LANDLOCK_ACCESS_FS_REFER
_SCOPE_SIGNAL = 2  # LANDLOCK_SCOPE_SIGNAL, landlock(7)
_CLOSE_RANGE_CLOEXEC = 4
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS = 2
_RESOLVE_NO_SYMLINKS = 4
_RESOLVE_BENEATH = 8
_CAPABILITY_VERSION_3 = 0x20080522
_TICKS = os.sysconf("SC_CLK_TCK")  # per second


def set_no_new_privs() -> None:
    """No exec of this process or its descendants can ever gain privileges again."""
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """Give up every capability, for good: ambient, bounding, permitted, effective, inheritable.

    Only who has CAP_SETPCAP can empty the bounding set; under no_new_privs nobody can gain what stays in it.
    """
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    capability = 0
    while True:
        try:
            present = libc.prctl(_PR_CAPBSET_READ, capability)
        except OSError:
            break  # EINVAL: past the last capability of this Linux
        if present:
            try:
                libc.prctl(_PR_CAPBSET_DROP, capability)
            except PermissionError:
                break
        capability += 1
    header = libc.buffer_from(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    libc.syscall(libc.number("capset"), header, libc.buffer_from(bytes(24)))


def become_subreaper() -> None:
    """Orphaned descendants get this process as their new parent, so that none can leave the tree."""
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)


def signal_at_parents_end(number: int, parent: int) -> None:
    """This signal for this process when the thread that forked it ends. Exits where ``parent`` is gone already."""
    libc.prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:
        os._exit(1)


def rename(name: bytes) -> None:
    """Another name for this process in ps(1) and for pkill(1), whose arguments were its parent's too.

    Source: PR_SET_NAME, prctl(2); arg_start and arg_end, proc_pid_stat(5).
    """
    short = libc.buffer_from(name[:15] + b"\0")
    libc.prctl(_PR_SET_NAME, libc.address_of(short))
    with open("/proc/self/stat", "rb") as file:
        fields = file.read().rpartition(b")")[2].split()
    start, end = (int(fields[index]) for index in (45, 46))  # the 48th and 49th field
    if 0 < start < end:
        libc.write_memory(start, name[: end - start - 1].ljust(end - start, b"\0"))


def close_from(first: int) -> None:
    """Close every descriptor from ``first`` on. Raises OSError (ENOSYS before Linux 5.9)."""
    libc.syscall(libc.CLOSE_RANGE, first, 0xFFFFFFFF, 0)


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from ``first`` on close-on-exec. Raises OSError (ENOSYS before Linux 5.11)."""
    libc.syscall(libc.CLOSE_RANGE, first, 0xFFFFFFFF, _CLOSE_RANGE_CLOEXEC)


def open_beneath(directory: Descriptor, path: bytes, flags: int) -> Descriptor:
    """openat2(2) that follows no /proc magic links: what is opened is what an ordinary path names. Raises OSError."""
    return _openat2(directory.fileno(), path, flags, _RESOLVE_NO_MAGICLINKS)


def open_real(path: str) -> Descriptor:
    """A descriptor (O_PATH) of a path in which no component is a symbolic link. Raises OSError; ELOOP where one is."""
    return _openat2(_AT_FDCWD, os.fsencode(path), os.O_PATH, _RESOLVE_NO_SYMLINKS)


def open_real_folder(path: bytes) -> Descriptor:
    """A descriptor (O_PATH) of the folder at an absolute path, by way of no magic link of /proc. Raises OSError."""
    return _openat2(_AT_FDCWD, path, os.O_PATH | os.O_DIRECTORY, _RESOLVE_NO_MAGICLINKS)


def open_entry(folder: Descriptor, name: bytes, flags: int, mode: int = 0) -> Descriptor:
    """One entry of ``folder``, opened or made; ELOOP where it is a symbolic link. Raises OSError."""
    beneath = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    return _openat2(folder.fileno(), name, flags, beneath, mode)


def rename_entry(source: Descriptor, old: bytes, target: Descriptor, new: bytes, flags: int = 0) -> None:
    """renameat2(2) between two open folders. Raises OSError."""
    old_name, new_name = libc.buffer_from(old + b"\0"), libc.buffer_from(new + b"\0")
    libc.syscall(libc.number("renameat2"), source.fileno(), old_name, target.fileno(), new_name, flags)


def _openat2(directory: int, path: bytes, flags: int, resolve: int, mode: int = 0) -> Descriptor:
    how = libc.buffer_from(struct.pack("=QQQ", flags | os.O_CLOEXEC, mode, resolve))
    return Descriptor(libc.syscall(libc.OPENAT2, directory, libc.buffer_from(path + b"\0"), how, 24))


def children(pid: int) -> list[int]:
    """The children of every thread of ``pid``; empty where it is gone. Source: proc_pid_task_tid_children(5)."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb", buffering=0) as file:
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


def descendants(pid: int) -> Iterator[int]:
    """Every living or zombie descendant of ``pid``, parents first. A snapshot: new ones may be forked meanwhile."""
    waiting = children(pid)
    while waiting:
        current = waiting.pop()
        yield current
        waiting += children(current)


def tables_of_descendants(pid: int) -> Iterator[tuple[int, float] | None]:
    """Each living descendant of ``pid``: a thread of it whose /proc/TID/fd shows the descriptors, and when the process
    was started (seconds, CLOCK_BOOTTIME). In between None for each thread that was asked for its children: so whoever
    goes through this can stop after so many steps.
    """
    waiting = [pid]
    while waiting:
        current = waiting.pop()
        try:
            threads = os.listdir(f"/proc/{current}/task")
            state, started = _state_and_start(current)
        except (OSError, ValueError, IndexError):
            continue
        if current != pid:
            # Once the first thread has ended, nothing is seen through it of what the others have open.
            yield int(threads[-1]) if state == b"Z" else current, started
        for thread in threads:
            try:
                with open(f"/proc/{current}/task/{thread}/children", "rb", buffering=0) as file:
                    waiting += map(int, file.read().split())
            except OSError:
                pass
            yield None


def _state_and_start(pid: int) -> tuple[bytes, float]:
    """The third and the 22nd field of proc_pid_stat(5). Raises OSError, ValueError, IndexError."""
    with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
        fields = file.read().rpartition(b")")[2].split()
    return fields[0], int(fields[19]) / _TICKS


def sockets_of(pid: int) -> frozenset[int]:
    """The sockfs inodes of the sockets that a process has open; none where its descriptors cannot be read."""
    found = set()
    try:
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return frozenset()
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.add(int(target[8:-1]))
    return frozenset(found)


def is_descendant(pid: int, ancestor: int) -> bool:
    """Whether ``pid`` (or the process of that thread) descends from ``ancestor``, by its chain of parents."""
    for _ in range(10_000):  # deeper trees do not exist; a loop cannot either, but the answer must come
        try:
            with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            return False
        if pid == ancestor:
            return True
        if pid <= 1:
            return False
    return False


def fence_signals() -> bool:
    """From now on this thread's signals reach only its own process and what it forks later. Needs no_new_privs.

    False where Linux cannot do that (before 6.12, Landlock ABI 6); then nothing has changed.
    """
    try:
        ruleset = landlock.create_ruleset(_REFER, scoped=_SCOPE_SIGNAL)
    except OSError:
        return False
    try:
        # A ruleset that does not name it refuses to move files between folders (landlock(7)), for all descendants too.
        root = os.open("/", os.O_PATH | os.O_CLOEXEC)
        try:
            landlock.add_path(ruleset, root, _REFER)
        finally:
            os.close(root)
        landlock.restrict_self(ruleset)
    except OSError:
        return False
    finally:
        os.close(ruleset)
    return not _can_signal_parent()


def _can_signal_parent() -> bool:
    """A second look before anybody kills "everybody": our parent is outside the fence, so Linux must refuse us."""
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True  # nobody to ask: take it for unfenced
    return True


def kill_descendants(
    deadline: float | None, *, fenced: bool, reaped: Callable[[int, int], None] = lambda _pid, _status: None
) -> bool:
    """SIGKILL every descendant of this process and reap it, also those forked meanwhile; True when none is left.

    Needs ``become_subreaper``: what loses its parent becomes our child. ``deadline`` is of time.monotonic(), None for
    none. ``reaped`` is called with each child's number and status, as from os.waitpid.
    ``fenced``: ``fence_signals`` said True in this thread, before the first descendant was forked. Then one kill(2) to
    everybody reaches exactly these, between two forks of any of them; going through /proc, a bomb forks faster.
    """
    own = os.getpid()
    pause = 0.001
    while True:
        for pid in [-1] if fenced else descendants(own):
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return True
            if pid == 0:
                break
            reaped(pid, status)
        if deadline is not None and time.monotonic() > deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, 0.05)  # what waits in Linux ends when it comes back from there


def set_io_priority(which: int, who: int, priority: int) -> None:
    """ioprio_set(2). Raises OSError."""
    libc.syscall(libc.number("ioprio_set"), which, who, priority)


def set_scheduling_attributes(pid: int, attributes: bytes, flags: int) -> None:
    """sched_setattr(2) with a copied struct sched_attr. Raises OSError."""
    libc.syscall(libc.number("sched_setattr"), pid, libc.buffer_from(attributes), flags)


def set_times(path: str, times: bytes | None) -> None:
    """utimensat(2) with two copied struct timespec, or None for now; follows links. Raises OSError."""
    name = libc.buffer_from(os.fsencode(path) + b"\0")
    libc.syscall(libc.number("utimensat"), _AT_FDCWD, name, None if times is None else libc.buffer_from(times), 0)

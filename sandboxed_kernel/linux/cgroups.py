"""Control groups, version 2: a group of its own for some processes, where Linux lets this user make one.

Source: cgroups(7); Documentation/admin-guide/cgroup-v2.rst of Linux, sections "Delegation", "No Internal Process
Constraint", "Core Interface Files".
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

_PREFIX = "sandboxed-kernel-"
_ATTEMPTS = 3
_PATIENCE = 0.5  # seconds for the end of a group that nobody holds


class Place(NamedTuple):
    """A group beneath which this process can make another and enter it; ``controllers`` are those it would have."""

    path: str
    controllers: frozenset[str]


class Group:
    """A group that ``make`` made. It is gone after ``remove``, with every process in it."""

    def __init__(self, path: str, controllers: frozenset[str], held: int) -> None:
        """``held`` is a descriptor of it, with a lock that says that it is in use; it is closed by ``remove``."""
        self.path, self.controllers = path, controllers
        self._held = held

    def __repr__(self) -> str:
        return f"<Group {self.path}>"

    def set(self, name: str, value: str) -> None:
        """Write one of its files. Raises OSError."""
        _write(f"{self.path}/{name}", value)

    def enter(self) -> None:
        """The calling process, which has one thread, and all that it forks from now on. Raises OSError."""
        self.set("cgroup.procs", "0")

    def processes(self) -> int:
        """How many live in it; a zombie is not counted. Raises OSError."""
        return len(_read(f"{self.path}/cgroup.procs").split())

    def open_events(self, controller: str) -> int:
        """A descriptor of ``memory.events`` or ``pids.events``: poll(2) says POLLPRI when it has changed since the last
        ``read_events``. Raises OSError.
        """
        return os.open(f"{self.path}/{controller}.events", os.O_RDONLY | os.O_CLOEXEC)

    def read_events(self, descriptor: int) -> dict[str, int]:
        """The counters of a file from ``open_events``. Raises OSError: the group is gone."""
        return {key: int(number) for key, number in _pairs(os.pread(descriptor, 4096, 0).decode())}

    def kill(self) -> None:
        """SIGKILL for every process in it, at once and for those forked meanwhile too. Linux 5.14."""
        with suppress(OSError):
            self.set("cgroup.kill", "1")

    def remove(self, deadline: float) -> bool:
        """Kill what is in it and remove it; False where it is still there at ``deadline`` (of time.monotonic())."""
        self.kill()
        if self._held >= 0:
            os.close(self._held)
            self._held = -1
        while True:
            try:
                os.rmdir(self.path)
            except FileNotFoundError:
                return True
            except OSError:  # EBUSY: killed processes leave it when they have let go of everything
                if time.monotonic() > deadline:
                    return False
                time.sleep(0.002)
            else:
                return True


def make(place: Place) -> Group:
    """A new, empty group without limits. Raises OSError.

    Each is locked while one of the processes lives that hold it open: its maker and what that has forked. What nobody
    holds any more, because all were killed at the same instant, is ended and removed here.
    """
    _remove_forsaken(place)
    for _ in range(_ATTEMPTS):
        path = f"{place.path}/{_PREFIX}{os.urandom(8).hex()}"
        os.mkdir(path, 0o755)
        held = _lock(path)
        if held is not None:
            return Group(path, place.controllers, held)
        with suppress(OSError):  # somebody was faster: another launcher that tidies up, or a sandbox that plays
            os.rmdir(path)
    raise OSError(errno.EAGAIN, "others remove new control groups", place.path)


def _remove_forsaken(place: Place) -> None:
    for name in os.listdir(place.path):
        if name.startswith(_PREFIX):
            path = f"{place.path}/{name}"
            held = _lock(path)
            if held is not None:
                Group(path, frozenset(), held).remove(time.monotonic() + _PATIENCE)


def _lock(path: str) -> int | None:
    """A descriptor that holds the group; None where somebody else does, or it is gone."""
    try:
        held = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(held), os.stat(path)):  # else it was removed between the two
            return held
    except OSError:
        pass
    os.close(held)
    return None


def find_place(wanted: frozenset[str], proc: str = "/proc/self") -> Place | None:
    """Where this process may make a group with at least one of the controllers ``wanted``; None: nowhere.

    A group that holds processes cannot give controllers to groups beneath it, and ours holds at least this process.
    So the place is the group above, if it is ours to write; or our own, if it is the root, which may do both. No
    process is moved for it, least of all one that is somebody else's.
    """
    try:
        own = _own_group(proc)
        if own is None:
            return None
        mounted, path = own
        for candidate, above in ((f"{mounted}{path}", False), (f"{mounted}{os.path.dirname(path)}", True)):
            if above and path == "/":
                continue  # what is above lies outside of this mount or this namespace
            controllers = _offered(candidate.rstrip("/"), wanted, enable=above)
            if controllers:
                return Place(candidate.rstrip("/"), controllers)
    except OSError:
        return None
    return None


def _own_group(proc: str) -> tuple[str, str] | None:
    """Where the hierarchy is mounted, and this process's path in what is mounted there."""
    path = next((line[3:] for line in _read(f"{proc}/cgroup").splitlines() if line.startswith("0::/")), None)
    if path is None or ".." in path.split("/"):
        return None  # no version 2, or outside of this cgroup namespace
    for root, point in _mounts(_read(f"{proc}/mountinfo")):
        if root == "/":
            return point, path
        if path == root or path.startswith(f"{root}/"):
            return point, path[len(root) :] or "/"
    return None


def _mounts(mountinfo: str) -> Iterator[tuple[str, str]]:
    """(root of the mount in its filesystem, mount point) of every cgroup2. Source: proc_pid_mountinfo(5)."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        if after.split(" ")[0] == "cgroup2":
            _id, _parent, _device, root, point, *_ = before.split(" ")
            yield _unescaped(root), _unescaped(point)


def _unescaped(field: str) -> str:
    """Blanks and backslashes are written in octal: ``\\040``."""
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def _offered(path: str, wanted: frozenset[str], *, enable: bool) -> frozenset[str]:
    """Which of ``wanted`` a new group beneath ``path`` would have; none where this user may not make and enter one.

    To enter it takes the right to write cgroup.procs of the common ancestor, which ``path`` is.
    """
    for file in (path, f"{path}/cgroup.procs"):
        if not os.access(file, os.W_OK, effective_ids=True):
            return frozenset()
    if os.path.exists(f"{path}/cgroup.type") and _read(f"{path}/cgroup.type").strip() != "domain":
        return frozenset()  # threads' groups have no memory
    offered = wanted & set(_read(f"{path}/cgroup.subtree_control").split())
    lacking = wanted & set(_read(f"{path}/cgroup.controllers").split()) - offered
    if lacking and enable and _is_delegated(path):
        with suppress(OSError):
            _write(f"{path}/cgroup.subtree_control", " ".join(f"+{name}" for name in sorted(lacking)))
            offered = wanted & set(_read(f"{path}/cgroup.subtree_control").split())
    return offered


def _is_delegated(path: str) -> bool:
    """Whether somebody gave it to this user to manage. Everything belongs to root: that says nothing, so it is no."""
    return os.geteuid() != 0 and os.stat(path).st_uid == os.geteuid() and not _read(f"{path}/cgroup.procs").strip()


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        yield key, value


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _write(path: str, value: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, value.encode())
    finally:
        os.close(descriptor)

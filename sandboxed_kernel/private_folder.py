"""Does: makes a launcher's private folder, removes it at the end, and those that others left behind.

Launcher and broker keep the folder locked for as long as either lives: flock(2) on a descriptor that the broker
inherits, and that no program which is started does. Linux unlocks it with the last of the two, however they ended. So a
folder that is marked as ours and not locked has lost both, and the next launcher that ends removes it. A marker is a
file named after this boot of Linux: another machine that shares the folder may not see our locks, nor we its.

The lock is on the folder itself because systemd-tmpfiles, which removes what is old in /tmp, passes by a locked folder
with all that is in it (tmpfiles.d(5)). Nothing inside can take lock or marker away: the sandbox has no rights on the
private folder's own level, only beneath its three subfolders. Where TMPDIR lies in the notebook's folder it has them,
and what it may make look abandoned is what it may remove itself.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.linux.folders import OPEN_FOLDER, remove_tree

_LONGEST = 40  # bytes: a unix socket's path holds 107, and libraries put long names into TMPDIR
_PREFIX = "sbk-"
_LENGTH = len(_PREFIX) + 8
_HEX = frozenset("0123456789abcdef")
_FOR_OTHERS = 0.3  # seconds for what others left behind; somebody waits for our exit code


class PrivateFolder:
    """An empty folder, mode 0700, with a short path. ``end`` removes it. Owns a descriptor of it."""

    def __init__(self) -> None:
        """Raises HostError."""
        self.path, self._folder = _make()
        self._marker = _marker()
        with suppress(OSError):  # a file system without locks: then nobody but us removes it
            flock(self._folder, LOCK_EX | LOCK_NB)
            if self._marker:
                os.close(os.open(self._marker, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=self._folder))

    def remove(self) -> None:
        """For the broker, whose launcher may be gone. Never raises."""
        remove_tree(self.path, self._folder, last=self._marker)

    def end(self) -> None:
        """For the launcher: remove it, and what killed ones left beside it. Never raises."""
        self.remove()
        os.close(self._folder)
        if self._marker:
            _remove_abandoned(os.path.dirname(self.path), self._marker, time.monotonic() + _FOR_OTHERS)


def _make() -> tuple[str, int]:
    """The path of a new folder, and a descriptor. Raises HostError."""
    # XDG_RUNTIME_DIR last: it is small and in memory, and what the sandbox installs and unpacks lies in this folder.
    candidates = [os.environ.get("TMPDIR", ""), "/tmp", "/var/tmp", os.environ.get("XDG_RUNTIME_DIR", "")]
    problems = []
    for parent in candidates:
        real = os.path.realpath(parent)
        if not os.path.isabs(parent) or len(real) + _LENGTH > _LONGEST:
            continue
        folder = os.path.join(real, _PREFIX + os.urandom(4).hex())
        try:
            os.mkdir(folder, 0o700)
            return folder, os.open(folder, OPEN_FOLDER)
        except OSError as error:
            problems.append(f"{parent}: {error.strerror}")
    why = "; ".join(problems)
    raise HostError(f"no folder for private files can be made ({why}). Set TMPDIR to a short, writable one.")


def _marker() -> str:
    """The marker's name, random(4); empty where this boot has no name."""
    with suppress(OSError), open("/proc/sys/kernel/random/boot_id", encoding="utf-8") as file:
        return f".in-use-{file.read().strip()}"
    return ""


def _remove_abandoned(parent: str, marker: str, deadline: float) -> None:
    with suppress(OSError):
        for name in os.listdir(parent):
            if len(name) == _LENGTH and name.startswith(_PREFIX) and _HEX.issuperset(name[len(_PREFIX) :]):
                with suppress(OSError):
                    _remove_if_abandoned(os.path.join(parent, name), marker, deadline)


def _remove_if_abandoned(path: str, marker: str, deadline: float) -> None:
    """Raises OSError where it is no folder, not marked, or locked: in use, or being removed by another launcher."""
    folder = os.open(path, OPEN_FOLDER)
    try:
        status = os.fstat(folder)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) != 0o700:
            return
        # Marked first: whoever makes one locks it before marking it, and must not find it locked by us.
        _check_marker(folder, marker)
        flock(folder, LOCK_EX | LOCK_NB)
        _check_marker(folder, marker)  # who held the lock a moment ago may have removed it
        remove_tree(path, folder, last=marker, deadline=deadline)
    finally:
        os.close(folder)


def _check_marker(folder: int, marker: str) -> None:
    """Raises OSError where there is none of our own."""
    status = os.lstat(marker, dir_fd=folder)
    if status.st_uid != os.geteuid() or not stat.S_ISREG(status.st_mode):
        raise PermissionError

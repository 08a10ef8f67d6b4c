"""Does: makes a launcher's private folder and removes it at the end.

The launcher, the broker or the warden removes it, whoever is left. The folder is locked (flock(2)) for as long as one
of them lives: systemd-tmpfiles, which removes what is old in /tmp, passes by a locked folder with all that is in it
(tmpfiles.d(5)).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from itertools import islice

from sandboxed_kernel.errors import HostError
from sandboxed_kernel.linux.folders import OPEN_FOLDER, remove_tree, size_of_tree

_LONGEST = 40  # bytes: a unix socket's path holds 107, and libraries put long names into TMPDIR
_PREFIX = "sbk-"
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_LENGTH = len(_PREFIX) + 8
_LOOK = 0.05  # seconds; what is looked through in that time is removed in half a second
_MOST_ENTRIES = 100_000


class PrivateFolder:
    """An empty folder, mode 0700, with a short path. ``end`` removes it. Owns ``descriptor``, the folder itself."""

    def __init__(self) -> None:
        """Raises HostError."""
        self.path, self.descriptor = _make()
        with suppress(OSError):  # a file system without locks
            flock(self.descriptor, LOCK_EX | LOCK_NB)
        self._pools: list[tuple[str, int]] = []
        self._held: list[tuple[int, Callable[[], None]]] = []

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What whoever removes the folder keeps open."""
        return (*self._own_descriptors, *(descriptor for descriptor, _end in self._held))

    @property
    def _own_descriptors(self) -> tuple[int, ...]:
        return (self.descriptor, *(descriptor for _path, descriptor in self._pools))

    def hold(self, descriptor: int, end: Callable[[], None]) -> None:
        """Keep it open for as long as one of the three lives; the launcher calls ``end``, which closes it, at last."""
        self._held.append((descriptor, end))

    def add_pool(self, path: str, folders: tuple[str, ...], files: tuple[str, ...]) -> None:
        """Make ``path`` with empty ``folders`` and ``files`` in it; it goes with the private one. Raises OSError."""
        os.mkdir(path, 0o700)
        descriptor = os.open(path, OPEN_FOLDER)
        self._pools.append((path, descriptor))
        with suppress(OSError):
            flock(descriptor, LOCK_EX | LOCK_NB)
        for folder in folders:
            os.mkdir(folder, 0o700)
        for file in files:
            os.close(os.open(file, _MAKE, 0o600))
        with open(os.open(f"{path}/.gitignore", _MAKE, 0o600), "wb") as ignored:
            ignored.write(b"*\n")

    def remove(self) -> None:
        """For the broker and the warden, where the launcher may be gone. Never raises."""
        for path, descriptor in self._pools:
            remove_tree(path, descriptor)
        remove_tree(self.path, self.descriptor)

    def end(self) -> None:
        """For the launcher. Never raises."""
        self.remove()
        for descriptor in self._own_descriptors:
            os.close(descriptor)
        for _descriptor, end in self._held:
            end()


def remove_left_pools(folder: str, prefix: str) -> None:
    """What killed sandboxes left in ``folder``: folders whose names begin so, and that nobody holds. Never raises.

    Code inside may have made one of millions of entries, which would hold up the start: that stays.
    """
    deadline = time.monotonic() + _LOOK
    with suppress(OSError), os.scandir(folder) as entries:
        for path in [entry.path for entry in islice(entries, _MOST_ENTRIES) if entry.name.startswith(prefix)]:
            with suppress(OSError):
                descriptor = os.open(path, OPEN_FOLDER)
                try:
                    flock(descriptor, LOCK_EX | LOCK_NB)
                    if size_of_tree(descriptor, deadline)[1]:
                        remove_tree(path, descriptor)
                finally:
                    os.close(descriptor)


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

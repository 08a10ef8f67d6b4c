"""Does: runs an installer on the packages that last, all or nothing. A script of the standard library alone:
``PYTHON -IS transaction.py FOLDER COMMAND ...``

Before, every file gets a second name in ``FOLDER.before``; installers write new files, and none into one that is there.
When the installer fails, or the next start finds that it was killed, that takes the place of what was begun.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock

_CHANGES = frozenset(("install", "uninstall"))


def main(folder: str, command: list[str]) -> int:
    """The installer's exit code."""
    if not _CHANGES & set(command):
        os.execvp(command[0], command)  # noqa: S606  # the installer, as the caller named it
    lock = _open_lock(folder)
    try:
        flock(lock, LOCK_EX)  # waits for another kernel's installation
        _settle(folder)
        try:
            _begin(folder)
        except OSError as error:
            sys.stderr.write(f"nothing was installed: {folder}: {error}\n")
            return 1
        import subprocess  # a kernel's start, which asks for ``settle_left`` alone, does not wait for it

        code = 1
        try:
            code = subprocess.call(command)
        finally:
            if code == 0:
                os.rename(f"{folder}.before", f"{folder}.old")
            _settle(folder)
        return code
    finally:
        os.close(lock)


def settle_left(folder: str) -> None:
    """Undo what a killed installer left; one that still runs, in another kernel, is left alone. Raises OSError."""
    if os.path.lexists(f"{folder}.before"):
        lock = _open_lock(folder)
        try:
            with suppress(BlockingIOError):
                flock(lock, LOCK_EX | LOCK_NB)
                _settle(folder)
        finally:
            os.close(lock)


def _open_lock(folder: str) -> int:
    return os.open(f"{folder}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)


def _begin(folder: str) -> None:
    import shutil

    try:
        shutil.copytree(folder, f"{folder}.new", symlinks=True, copy_function=_second_name)
    except OSError:  # shutil.Error among them
        _remove(f"{folder}.new")
        raise
    os.rename(f"{folder}.new", f"{folder}.before")


def _second_name(source: str, target: str) -> None:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # a file system without hard links
        import shutil

        shutil.copy2(source, target, follow_symlinks=False)


def _settle(folder: str) -> None:
    before = f"{folder}.before"
    if os.path.lexists(before):
        if os.path.lexists(folder):
            _remove(f"{folder}.failed")
            os.rename(folder, f"{folder}.failed")
        os.rename(before, folder)
    for suffix in ("new", "old", "failed"):
        _remove(f"{folder}.{suffix}")


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        import shutil

        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))

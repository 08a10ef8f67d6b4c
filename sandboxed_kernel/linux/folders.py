"""Removing a folder tree that hostile code filled: no link is followed, no depth is too deep, no mode too narrow."""

from __future__ import annotations

import os
import stat
from contextlib import suppress

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str) -> None:
    """Remove ``path`` and everything beneath it, as far as this user may. Never raises.

    A folder that lies deep is moved to the top before it is emptied, so that neither recursion nor the length of a path
    bounds the depth. Nobody else may write to the tree meanwhile.
    """
    with suppress(OSError):
        root = os.open(path, _OPEN_FOLDER)
        try:
            os.fchmod(root, 0o700)
            _empty(root)
        finally:
            os.close(root)
        os.rmdir(path)


def _empty(root: int) -> None:
    moved = 0
    while folders := _remove_files(root):
        for name in folders:
            with suppress(OSError):
                os.chmod(name, 0o700, dir_fd=root)
            try:
                os.rmdir(name, dir_fd=root)
                continue
            except OSError:
                pass
            inner = os.open(name, _OPEN_FOLDER, dir_fd=root)
            try:
                os.fchmod(inner, 0o700)
                for deeper in _remove_files(inner):
                    moved += 1
                    with suppress(OSError):
                        os.chmod(deeper, 0o700, dir_fd=inner)
                    os.rename(deeper, f".removed-{moved}", src_dir_fd=inner, dst_dir_fd=root)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=root)


def _remove_files(folder: int) -> list[str]:
    """Remove what is no folder; the names of the folders that are there."""
    folders = []
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders

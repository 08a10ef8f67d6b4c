"""Working in a folder tree that hostile code filled: no link is followed, no depth is too deep, no mode too narrow.

And which links a path passes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def remove_tree(path: str, root: int) -> None:
    """Remove the folder ``path``, open as ``root``, and everything beneath it, as far as this user may. Never raises.

    A folder that lies deep is moved to the top before it is emptied, so that neither recursion nor the length of a path
    bounds the depth. Hostile code that still runs and may write beneath ``root``, but not in it, can make the removal
    end early; nothing that it puts in the way leads elsewhere.
    """
    with suppress(OSError):
        os.fchmod(root, 0o700)
        _empty(root)
        os.rmdir(path)


def _empty(root: int) -> None:
    prefix = f".removed-{os.urandom(4).hex()}"  # its own: an interrupted removal left its names here
    moved = 0
    while folders := _remove_files(root):
        for name in folders:
            try:
                os.rmdir(name, dir_fd=root)
                continue
            except OSError:
                inner = _open(name, root)
            try:
                for deeper in _remove_files(inner):
                    moved += 1
                    with suppress(OSError):
                        os.close(_open(deeper, inner))  # to be moved it has to be writable
                    os.rename(deeper, f"{prefix}-{moved}", src_dir_fd=inner, dst_dir_fd=root)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=root)


def _open(name: str, within: int) -> int:
    """A descriptor of a folder that may have been closed to its owner.

    chmod(2) follows links, so it gets a descriptor's path: ``name`` may be exchanged for a link at any moment.
    """
    found = os.open(name, _NAME_FOLDER, dir_fd=within)
    try:
        os.chmod(f"/proc/self/fd/{found}", 0o700)
        return os.open(".", OPEN_FOLDER, dir_fd=found)
    finally:
        os.close(found)


def _remove_files(folder: int) -> list[str]:
    """Remove what is no folder; the names of the folders that are there."""
    folders = []
    for name in os.listdir(folder):
        if stat.S_ISDIR(os.lstat(name, dir_fd=folder).st_mode):
            folders.append(name)
        else:
            os.unlink(name, dir_fd=folder)
    return folders


def link_beneath(root: int, path: str, target: str) -> bool:
    """A symbolic link ``path`` beneath the open folder ``root`` that says ``target``; missing folders on the way are
    made, mode 0700. ``path`` is relative and has no ``..``.

    No link on the way is followed and nothing that is there is replaced: False where something stands in the way, or
    this user may not make it. A link that says the same already is one.
    """
    *above, leaf = path.split("/")
    folder = os.dup(root)
    try:
        for name in above:
            with suppress(FileExistsError):
                os.mkdir(name, 0o700, dir_fd=folder)
            inner = os.open(name, OPEN_FOLDER, dir_fd=folder)
            os.close(folder)
            folder = inner
        try:
            os.symlink(target, leaf, dir_fd=folder)
        except FileExistsError:
            return os.readlink(leaf, dir_fd=folder) == target
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


_MOST_LINKS = 40  # of one path: MAXSYMLINKS, include/linux/namei.h


def links_on_the_way(path: str) -> Iterator[str]:
    """Where each symbolic link lies that resolving the absolute ``path`` passes: its folder's real path, and its name.

    Nothing has to exist. Source: path_resolution(7).
    """
    current, waiting, links = "/", path.split("/")[::-1], 0
    while waiting and links < _MOST_LINKS:
        name = waiting.pop()
        if name in ("", "."):
            continue
        if name == "..":
            current = os.path.dirname(current)
            continue
        step = os.path.join(current, name)
        try:
            target = os.readlink(step)
        except OSError:
            current = step
            continue
        yield step
        links += 1
        if target.startswith("/"):
            current = "/"
        waiting += target.split("/")[::-1]

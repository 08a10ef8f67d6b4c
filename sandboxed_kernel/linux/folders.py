"""Working in a folder tree that hostile code filled: no link is followed, no depth is too deep, no mode too narrow.

And which links a path passes.
"""

from __future__ import annotations

import os
import stat
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

from sandboxed_kernel.linux import libc

OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ONE_MOUNT = 0x01 | 0x04 | 0x08  # RESOLVE_NO_XDEV, _NO_SYMLINKS, _BENEATH: openat2(2)
_DEEPEST = 100  # a descriptor is open for each level


def remove_tree(path: str, root: int) -> None:
    """Remove the folder ``path``, open as ``root``, and everything beneath it, as far as this user may. Never raises.

    A folder that lies deep is moved to the top before it is emptied, so that neither recursion nor the length of a path
    bounds the depth. What is mounted in it ends the removal there. Hostile code that still runs and may write beneath
    ``root``, but not in it, can make the removal end early; nothing that it puts in the way leads elsewhere.
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
                inner = open_own(name, root)
            try:
                for deeper in _remove_files(inner):
                    moved += 1
                    with suppress(OSError):
                        os.close(open_own(deeper, inner))  # to be moved it has to be writable
                    os.rename(deeper, f"{prefix}-{moved}", src_dir_fd=inner, dst_dir_fd=root)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=root)


def open_own(name: str, within: int) -> int:
    """A descriptor of a folder that may have been closed to its owner, which it is no more. Raises OSError.

    chmod(2) follows links, so it gets a descriptor's path: ``name`` may be exchanged for a link at any moment.
    """
    how = libc.buffer_from(struct.pack("=QQQ", _NAME_FOLDER, 0, _ONE_MOUNT))
    found = libc.syscall(libc.OPENAT2, within, libc.buffer_from(os.fsencode(name) + b"\0"), how, 24)
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


def link_beneath(root: int, path: str, target: str, *, set_aside: list[str] | None = None) -> bool:
    """A symbolic link ``path`` beneath the open folder ``root`` that says ``target``; missing folders on the way are
    made, mode 0700. ``path`` is relative and has no ``..``.

    No link on the way is followed and nothing that is there is replaced: False where something stands in the way, or
    this user may not make it. A link that says the same already is one. With ``set_aside`` what stands in the way gets
    another name, which is added to it.
    """
    *above, leaf = path.split("/")
    folder = os.dup(root)
    try:
        for name in above:
            inner = _make_folder(name, folder, set_aside)
            os.close(folder)
            folder = inner
        try:
            os.symlink(target, leaf, dir_fd=folder)
        except FileExistsError:
            with suppress(OSError):
                if os.readlink(leaf, dir_fd=folder) == target:
                    return True
            if set_aside is None:
                return False
            _set_aside(leaf, folder, set_aside)
            os.symlink(target, leaf, dir_fd=folder)
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


def _make_folder(name: str, within: int, set_aside: list[str] | None) -> int:
    """A descriptor of the folder ``name``, made where there is none. Raises OSError."""
    for last in (set_aside is None, True):
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=within)
        try:
            return os.open(name, OPEN_FOLDER, dir_fd=within)
        except OSError:
            if last or set_aside is None:
                raise
            _set_aside(name, within, set_aside)
    raise AssertionError


def _set_aside(name: str, within: int, names: list[str]) -> None:
    new = f"{name}.kept-{os.urandom(4).hex()}"
    os.rename(name, new, src_dir_fd=within, dst_dir_fd=within)
    names.append(new)


def size_of_tree(root: int, deadline: float) -> tuple[int, bool]:
    """The bytes that the tree beneath the open folder ``root`` takes on the disk, a file with several names divided by
    these, and whether that is all: until ``deadline`` (time.monotonic()), no deeper than a hundred folders, and not in
    what may not be listed or is mounted there. Never raises.
    """
    try:
        return _size(os.dup(root), deadline)
    except OSError:
        return 0, False


def _size(top: int, deadline: float) -> tuple[int, bool]:
    device, size, whole = os.fstat(top).st_dev, 0, True
    folders = [(top, os.scandir(top))]  # not os.listdir: one folder may have millions of entries
    try:
        while folders:
            folder, listing = folders[-1]
            try:
                entry = next(listing, None)
            except OSError:
                entry, whole = None, False
            if entry is None:
                listing.close()
                os.close(folders.pop()[0])
                continue
            if time.monotonic() > deadline:
                return size, False
            try:
                status = os.lstat(entry.name, dir_fd=folder)
                is_folder = stat.S_ISDIR(status.st_mode)
                size += status.st_blocks * 512 // (1 if is_folder else max(status.st_nlink, 1))
                if is_folder and (status.st_dev != device or len(folders) >= _DEEPEST):
                    whole = False
                elif is_folder:
                    folders.append(_opened(entry.name, folder))
            except OSError:  # closed to its owner, or gone meanwhile
                whole = False
    finally:
        for folder, listing in folders:
            listing.close()
            os.close(folder)
    return size, whole


def _opened(name: str, within: int) -> tuple[int, os._ScandirIterator[str]]:
    """Raises OSError."""
    inner = os.open(name, OPEN_FOLDER, dir_fd=within)
    try:
        return inner, os.scandir(inner)
    except OSError:
        os.close(inner)
        raise


_STATX_BTIME = 0x800
_AT_EMPTY_PATH = 0x1000


def birth_of(descriptor: int) -> int:
    """When what is open was made, in ns since the epoch; 0 where the file system does not say. Source: statx(2)."""
    found = libc.buffer_from(bytes(256))
    try:
        libc.syscall(libc.number("statx"), descriptor, b"", _AT_EMPTY_PATH, _STATX_BTIME, found)
    except OSError:
        return 0
    mask, seconds, nanoseconds = struct.unpack_from("=I76xqI", found)
    return seconds * 1_000_000_000 + nanoseconds if mask & _STATX_BTIME else 0

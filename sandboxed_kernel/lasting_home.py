"""Does: makes, finds, measures and removes what lasts of the private homes, one for each notebook's folder and kernel.

    homes/                       locked while one is chosen, made or given another name
        0123456789abcdef/        locked (shared) for as long as a kernel uses it; of an ``Owner``'s name
            meta.json            whose it is; only trusted processes write here
            h/cache, h/packages  what lasts; nothing inside can write in ``h`` itself (``policy/lasting.py``)

Code inside fills the folders in ``h`` with what it likes, links among it. Nothing here opens what lies in them but to
count and to remove, each step from the descriptor of the folder above and past no link (``linux/folders.py``).
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EAGAIN, ENOTDIR
from fcntl import LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, flock
from typing import Self

from sandboxed_kernel.linux import acl
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.folders import OPEN_FOLDER, birth_of, open_own, remove_tree, size_of_tree
from sandboxed_kernel.policy.lasting import (
    CACHE,
    FOLDERS,
    Meta,
    Owner,
    former_homes,
    is_same_folder,
    meta_from,
    size_about,
)
from sandboxed_kernel.policy.paths import ancestors
from sandboxed_kernel.records import Record, replace

_NAME = re.compile(r"[0-9a-f]{16}(-[1-9])?(\.aside-[0-9a-f]{8})?")
_META = "meta.json"
_LARGEST_META = 1 << 16
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
_PATIENCE = 2.0  # seconds for the lock, which everybody holds for milliseconds
_LOOK = 0.05  # seconds for the size at a start, while Python starts inside
_LITTLE = 1 << 30  # bytes that are free
_CACHE_TAG = "CACHEDIR.TAG"
_CACHE_TEXT = b"Signature: 8a477f597d28d172789f06886806bc55\n"  # bford.info/cachedir: back-ups pass it by


class InUseError(OSError):
    """A kernel uses it."""


class NothingLasts(Record):
    """The private home goes with the kernel."""

    reason: str
    path: str = ""

    def describe(self) -> str:
        return f"removed at the end of the kernel: {self.reason}"

    def remarks(self, _limit: int) -> Iterator[str]:
        return iter(())


class LastingHome:
    """What lasts of the home of one kernel. Owns a descriptor, by which it is locked."""

    def __init__(self, homes: str, name: str, descriptor: int, meta: Meta, remark: str) -> None:
        self.name, self.descriptor, self.meta = name, descriptor, meta
        self.path = f"{homes}/{name}/h"
        self._homes, self._remark = homes, remark

    def describe(self) -> str:
        return f"caches, history, %store and packages last, since {_date(self.meta.created)}: {self.path}"

    def remarks(self, limit: int) -> Iterator[str]:
        """Sentences for the first cell. Looks how much lies there, for a short time."""
        if self._remark:
            yield self._remark
        size, whole = size_of_tree(self.descriptor, time.monotonic() + _LOOK)
        about = ("" if whole else "more than ") + size_about(size)
        if self.meta.runs > 1:
            yield (
                "caches, history and packages are those of earlier notebooks of this folder:"
                f" {about} since {_date(self.meta.created)}, written by {self.meta.runs} runs (sandboxed-kernel home)."
            )
        free = os.fstatvfs(self.descriptor)
        if size > limit:
            yield f"the private home holds {about}, and [home] limit is {size_about(limit)}. {_CLEAN}"
        elif free.f_bavail * free.f_frsize < _LITTLE:
            yield f"less than 1 GiB is free on the disk of the private home, which holds {about}. {_CLEAN}"

    def end(self) -> None:
        """For the launcher, when nothing inside is left: a home in which nothing lies is removed. Never raises."""
        with suppress(OSError):
            if not any(_holds_something(f"{self.path}/{folder}") for folder in FOLDERS):
                with Homes(self._homes) as homes:
                    homes.remove(self.name, held=self.descriptor)
        os.close(self.descriptor)


def _holds_something(folder: str) -> bool:
    """Raises OSError."""
    with os.scandir(folder) as listing:  # however many entries it has
        return any(entry.name != _CACHE_TAG for entry in listing)


_CLEAN = "To empty its caches, in a terminal: sandboxed-kernel home clean --cache"


def _date(seconds: int) -> str:
    return time.strftime("%d %b %Y", time.localtime(seconds)).lstrip("0")


def open_lasting(path: str, owner: Owner) -> LastingHome | NothingLasts:
    """The home of ``owner`` in the folder of homes, made where there is none. Never raises."""
    if reason := _not_private(owner.folder):
        return NothingLasts(reason)
    try:
        with Homes(path, make=True) as homes:
            return homes.choose(owner)
    except OSError as error:
        return NothingLasts(f"{path}: {error.strerror}")


def _not_private(folder: str) -> str:
    """Why another user may put a folder in the place of this one; empty where none may."""
    for path in (folder, *ancestors(folder, "/")):
        try:
            status = os.stat(path)
        except OSError as error:
            return f"{path}: {error.strerror}"
        if path == folder and status.st_uid != os.geteuid():
            return "the notebook's folder belongs to another user"
        if not status.st_mode & stat.S_ISVTX and (_others_write(status) or _are_named_writers(path)):
            return f"other users may write in {path}"
    return ""


def _others_write(status: os.stat_result) -> bool:
    if status.st_mode & stat.S_IWOTH:
        return True
    return bool(status.st_mode & stat.S_IWGRP) and status.st_gid != 0 and not _is_own_group(status.st_gid)


def _are_named_writers(path: str) -> bool:
    """Whether an ACL lets named users or groups write there; the mode's group bits are its mask then: acl(5)."""
    found = acl.read(path, acl.ACCESS)
    if found is None:
        return False
    entries = acl.entries(found)
    mask = next((allowed for tag, allowed in entries if tag == acl.MASK), 7)
    return any(tag in (acl.USER, acl.GROUP) and allowed & mask & os.W_OK for tag, allowed in entries)


def _is_own_group(number: int) -> bool:
    """Whether it is the group that has its only user's name, as most systems make one for each."""
    import grp
    import pwd

    with suppress(KeyError):
        return grp.getgrgid(number).gr_name == pwd.getpwuid(os.geteuid()).pw_name
    return False


class Homes:
    """The folder of all homes of this user. Between ``with`` and its end nobody else chooses or moves one."""

    def __init__(self, path: str, *, make: bool = False) -> None:
        """Raises OSError: among others PermissionError where it is another user's."""
        self.path = path
        self._left: list[str] = []
        if make and not os.path.isdir(path):
            os.makedirs(path, 0o700)
            for name in (".nomedia", ".trackerignore"):  # neither a gallery nor a search shows what lies there
                os.close(os.open(f"{path}/{name}", _MAKE, 0o600))
        self._descriptor = os.open(path, OPEN_FOLDER)
        if os.fstat(self._descriptor).st_uid != os.geteuid():
            os.close(self._descriptor)
            raise PermissionError(EACCES, "it belongs to another user")

    def __enter__(self) -> Self:
        deadline = time.monotonic() + _PATIENCE
        while not _lock(self._descriptor, LOCK_EX):
            if time.monotonic() > deadline:
                os.close(self._descriptor)
                raise InUseError(EAGAIN, "another program has locked it")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            flock(self._descriptor, LOCK_UN)
        for name in self._left:
            self._destroy(name)
        os.close(self._descriptor)

    # --- one home ----------------------------------------------------------------------------------------------------

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._descriptor) if _NAME.fullmatch(name))

    def metas(self) -> dict[str, Meta]:
        """Of all homes, whatever state they are in."""
        found = {}
        for name in self.names():
            with suppress(OSError), self.opened(name) as home:
                meta = _read(home)
                if meta is not None:
                    found[name] = meta
        return found

    @contextmanager
    def opened(self, name: str, *, alone: bool = False) -> Iterator[int]:
        """Its descriptor; with ``alone`` no kernel uses it meanwhile. Raises OSError, among others InUseError."""
        home = os.open(name, OPEN_FOLDER, dir_fd=self._descriptor)
        try:
            if alone and not _lock(home, LOCK_EX):
                raise InUseError(EAGAIN, "a kernel uses it")
            yield home
        finally:
            os.close(home)

    def choose(self, owner: Owner) -> LastingHome:
        """Raises OSError."""
        meta = new_meta(owner)
        name, found = self._find(owner)
        remark = ""
        if found is not None and not is_same_folder(found, meta.inode, meta.birth):
            self._set_aside(name)
            found = None
        if found is None:
            if former := former_homes(self.metas(), meta):
                remark = (
                    "caches, history and packages begin anew, since this folder was made anew or moved, or the policy"
                    " opens more or less than before. To take the former ones over:"
                    f" sandboxed-kernel home adopt {former[0]}"
                )
            self._make(name, meta)
            found = replace(meta, runs=0)
        home = os.open(name, OPEN_FOLDER, dir_fd=self._descriptor)
        try:
            _lock(home, LOCK_SH)
            found = replace(found, runs=found.runs + 1, used=meta.used)
            with suppress(OSError):  # on a full disk it stays as it was
                _write(home, found)
            with _inner(home) as inner:
                _make_folders(inner.fileno())
        except OSError:
            os.close(home)
            raise
        return LastingHome(self.path, name, home, found, remark)

    def _find(self, owner: Owner) -> tuple[str, Meta | None]:
        """The home of ``owner``, or the name for a new one."""
        for name in (owner.name, *(f"{owner.name}-{number}" for number in range(1, 10))):
            try:
                with self.opened(name) as home:
                    meta = _read(home)
            except FileNotFoundError:
                return name, None
            if meta is not None and meta.owner == owner:
                return name, meta
        raise OSError(ENOTDIR, "no name is free for a home")

    def _make(self, name: str, meta: Meta) -> None:
        """Whole, or not at all. Raises OSError."""
        passing = f".new-{os.urandom(4).hex()}"
        os.mkdir(passing, 0o700, dir_fd=self._descriptor)
        try:
            with self.opened(passing) as home:
                os.mkdir("h", 0o700, dir_fd=home)
                with _inner(home) as inner:
                    _make_folders(inner.fileno())
                _write(home, meta)
            self._rename(passing, name)
        except OSError:
            self._destroy(passing)
            raise

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)

    def _set_aside(self, name: str) -> None:
        self._rename(name, f"{name.partition('.')[0]}.aside-{os.urandom(4).hex()}")

    def current(self, owner: Owner) -> str:
        """The name of its home, there or not. Raises OSError."""
        return self._find(owner)[0]

    # --- for people --------------------------------------------------------------------------------------------------

    def adopt(self, name: str, owner: Owner) -> None:
        """Let the home ``name`` be that of ``owner``, whose own, if there is one, is set aside. Raises OSError."""
        with self.opened(name, alone=True) as home:
            before = _read(home)
            new = new_meta(owner)
            own, found = self._find(owner)
            if own != name:
                if found is not None:
                    with self.opened(own, alone=True):
                        self._set_aside(own)
                self._rename(name, own)
            if before is not None:
                new = replace(new, created=before.created, runs=before.runs)
            _write(home, new)

    def remove(self, name: str, *, held: int | None = None) -> None:
        """With all that is in it; ``held``: the caller's own lock on it. Raises OSError, among others InUseError."""
        if held is None:
            with self.opened(name, alone=True):
                self._remove(name)
        elif _lock(held, LOCK_EX):
            self._remove(name)

    def _remove(self, name: str) -> None:
        self._rename(name, self._rubbish())

    def _rubbish(self) -> str:
        """A name for what is removed when nobody waits any more."""
        self._left.append(f".removed-{os.urandom(4).hex()}")
        return self._left[-1]

    def _destroy(self, name: str) -> None:
        with suppress(OSError), self.opened(name) as home:
            remove_tree(f"{self.path}/{name}", home)

    def empty_cache(self, name: str) -> None:
        """Raises OSError, among others InUseError."""
        with self.opened(name, alone=True) as home, _inner(home) as inner:
            _make_folders(inner.fileno())
            os.rename(CACHE, self._rubbish(), src_dir_fd=inner.fileno(), dst_dir_fd=self._descriptor)
            _make_folders(inner.fileno())

    def remove_left(self) -> None:
        """What was not removed to its end, or not made."""
        self._left += [name for name in os.listdir(self._descriptor) if name.startswith((".new-", ".removed-"))]

    def sizes(self, names: Iterable[str], seconds: float) -> Iterator[tuple[str, int, bool]]:
        """Of each, as ``size_of_tree``. Nobody waits meanwhile. Raises OSError."""
        flock(self._descriptor, LOCK_UN)
        for name in names:
            with self.opened(name) as home:
                yield name, *size_of_tree(home, time.monotonic() + seconds)


def new_meta(owner: Owner) -> Meta:
    """Raises OSError."""
    folder = os.open(owner.folder, OPEN_FOLDER)
    try:
        now = int(time.time())
        inode, birth = os.fstat(folder).st_ino, birth_of(folder)
    finally:
        os.close(folder)
    return Meta(owner.folder, owner.kernel, owner.more, inode, birth, now, now, 0)


def _inner(home: int) -> Descriptor:
    """Of the folder in which the ones that last lie. Raises OSError."""
    return Descriptor(os.open("h", OPEN_FOLDER, dir_fd=home))


def _make_folders(inner: int) -> None:
    for name in FOLDERS:
        try:
            os.mkdir(name, 0o700, dir_fd=inner)
        except FileExistsError:
            os.close(open_own(name, inner))  # code inside may have closed it
            continue
        if name == CACHE:
            _make_file(f"{CACHE}/{_CACHE_TAG}", inner, _CACHE_TEXT)


def _make_file(name: str, within: int, data: bytes) -> None:
    with open(os.open(name, _MAKE | os.O_NOFOLLOW, 0o600, dir_fd=within), "wb") as file:
        file.write(data)


def _read(home: int) -> Meta | None:
    try:
        file = os.open(_META, _READ, dir_fd=home)
    except OSError:
        return None
    try:
        return meta_from(os.read(file, _LARGEST_META).decode(errors="replace"))
    except OSError:
        return None
    finally:
        os.close(file)


def _write(home: int, meta: Meta) -> None:
    """In one step. Raises OSError, and leaves what was there."""
    passing = f".{_META}-{os.urandom(4).hex()}"
    try:
        _make_file(passing, home, meta.to_json().encode())
        os.rename(passing, _META, src_dir_fd=home, dst_dir_fd=home)
    except OSError:
        with suppress(OSError):
            os.unlink(passing, dir_fd=home)
        raise


def _lock(descriptor: int, how: int) -> bool:
    """False where somebody else has it. A file system without locks has none to wait for."""
    try:
        flock(descriptor, how | LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass
    return True

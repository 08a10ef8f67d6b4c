"""Does: finds what a path means in a guarded folder, component by component, and what may be done with it.

No string decides: each component is looked at in the folder that is open, links are followed here, and what is opened
is one entry of a folder that was judged. So nothing that is exchanged meanwhile leads elsewhere.
"""

from __future__ import annotations

import errno
import os
import stat
from collections import deque
from contextlib import suppress
from itertools import islice
from typing import NamedTuple, TypeVar

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.processes import open_entry, open_real, open_real_folder
from sandboxed_kernel.policy.guarded import (
    ENVIRONMENT_MARKERS,
    ENVIRONMENT_PARTS,
    IMPORTED,
    REPOSITORY_MARKERS,
    Access,
    Guard,
    Judgement,
    Mode,
    is_imported,
    judge,
    may_be_another,
    stricter,
)
from sandboxed_kernel.policy.paths import is_beneath, is_within

_MOST_LINKS = 40  # MAXSYMLINKS, include/linux/namei.h
# A folder is held open for each step. By way of links Linux goes deeper, and on for longer; no program needs it.
_LONGEST, _MOST_STEPS = 4096, 5000

_T = TypeVar("_T")
Identity = tuple[int, int]  # device and inode


class Place(NamedTuple):
    """An entry of a guarded folder, whether it exists or not. ``leaf`` is ``.`` for the folder itself.

    ``status``: of the entry itself, no link followed; None where there is none. ``path``: real, beneath the root.
    ``kind``: the class that ``access`` comes from, or what is closed here by its path.
    """

    folder: Descriptor
    leaf: bytes
    access: Access
    kind: str
    status: os.stat_result | None
    path: str
    mode: Mode  # of the folder

    def is_folder(self) -> bool:
        return self.status is not None and stat.S_ISDIR(self.status.st_mode)

    def is_link(self) -> bool:
        return self.status is not None and stat.S_ISLNK(self.status.st_mode)


class Native(NamedTuple):
    """Beneath a folder, or a program, that Landlock has a rule for."""

    access: Access
    path: str
    at_entry: bool  # the path names that very folder or program: its own folder is a guarded one
    kind: str


class _Step(NamedTuple):
    folder: Descriptor
    path: str
    mode: Mode
    native: bool = False  # it lies in a folder that Landlock has a rule for


class GuardedFolder:
    """Every method may wait for the file system, and is called without the broker's lock."""

    def __init__(self, guard: Guard) -> None:
        """Raises OSError where the folder is gone."""
        self.guard = guard
        self._root = os.fsencode(guard.root)
        # What paths begin with that mean the folder, or something in it, and what of it they mean; None: nothing of it.
        # The longest counts. A path that leads back by ".." is Landlock's to judge, as all that lies elsewhere.
        roots: dict[bytes, bytes | None] = {self._root: b"", os.fsencode(guard.named): b""}
        roots |= dict.fromkeys(map(os.fsencode, guard.elsewhere))
        roots |= {os.fsencode(where): os.fsencode(path)[len(self._root) :] for where, path in guard.aliases}
        self._roots = dict(sorted(roots.items(), key=lambda item: -len(item[0])))
        self._closed = {each.path: each for each in guard.closed}
        self._opened = open_real(guard.root)
        self.pool: Descriptor | None = None
        with suppress(OSError):  # none, where this user may make nothing in the folder
            self.pool = open_real(guard.pool) if guard.pool else None
        self._natives: dict[Identity, Access] = {}
        self._held: list[Descriptor] = []  # so that no number of theirs can become another file's
        self._closed_files: dict[Identity, str] = {}
        for path in guard.readable:
            if not path.endswith("/.git"):  # not all of it is read only
                self._hold(path, self._natives, "read")
        for path in (*guard.native, *guard.pooled):
            self._hold(path, self._natives, "open")
        for each in guard.closed:
            self._hold(each.path, self._closed_files, each.path)

    def _hold(self, path: str, known: dict[Identity, _T], what: _T) -> None:
        with suppress(OSError):
            held = open_real(path)
            self._held.append(held)
            known[_identity(os.fstat(held.fileno()))] = what

    # --- what is asked of it -----------------------------------------------------------------------------------------

    def find(self, base: bytes, path: bytes, *, follow: bool, whole: bool = False) -> Place | Native | None:
        """What ``path`` means, from the folder ``base`` where it is relative; None where it lies elsewhere.

        ``follow``: a link at its end too. ``whole``: also beneath what is native. Raises OSError as Linux would.
        """
        text = path if path.startswith(b"/") else base + b"/" + path
        around = False
        for _ in range(_MOST_LINKS):
            rest = self._beneath(text)
            found = None if rest is None else self._walk(rest, follow=follow, whole=whole)
            if found is None and not around:  # by way of folders outside, perhaps
                around, found = True, _real_path(text)
            if not isinstance(found, bytes):
                return found
            text = found
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))

    def find_open(self, path: bytes, status: os.stat_result, *, whole: bool = False) -> Place | Native | None:
        """The entry ``path`` if it is this very file: what a descriptor of the caller names."""
        found = self.find(b"/", path, follow=False, whole=whole)
        there = found.status if isinstance(found, Place) else None
        return found if there is not None and os.path.samestat(there, status) else None

    def may_write(self, path: bytes, status: os.stat_result | None = None) -> bool:
        """Whether the real ``path`` is one that the sandbox may write; with ``status``, and is that very file still."""
        try:
            found = self.find(b"/", path, follow=False, whole=True)
        except OSError:
            return False
        if not isinstance(found, Place) or found.access != "open" or not self.guard.writable:
            return False
        if found.leaf == b"." and self.guard.mode == "home" and found.path == self.guard.root:
            return False
        return status is None or (found.status is not None and _identity(found.status) == _identity(status))

    def holds_closed(self, path: str) -> str | None:
        """What must stay at its place beneath ``path``, so that no folder on the way may be moved or made anew."""
        if self._is_imported(f"{path}/__init__.py"):
            return f"{path}/__init__.py"
        return next((each.path for each in self.guard.closed if is_beneath(each.path, path)), None)

    def is_holder(self, path: str) -> bool:
        """Whether a folder was there at the start with something closed in it: moved away, another one could be made in
        its place.
        """
        return path == self.guard.root or path in self.guard.holders

    def must_stay(self, path: str) -> bool:
        """Whether it is one, or one that nobody has looked at."""
        return self.is_holder(path) or any(is_within(path, each) for each in self.guard.not_seen)

    def is_pooled(self, path: str) -> bool:
        """Whether it lies in the pool, which is emptied at the end."""
        return bool(self.guard.pool) and is_beneath(path, self.guard.pool)

    def holds_names(self, place: Place) -> bool:
        """Whether a folder without a Landlock rule, made since the start, holds something closed, or is too large to be
        looked through.
        """
        return _Look(self).holds(place)

    def holds(self, path: bytes, status: os.stat_result) -> bool:
        """Whether something closed lies beneath the real folder ``path``, or too much to be looked through."""
        if self.is_holder(os.fsdecode(path)) or self.is_native(status):
            return not self.is_native(status)
        place = self.find(b"/", path, follow=False, whole=True)
        return isinstance(place, Place) and place.leaf != b"." and self.holds_names(place)

    def closed_file(self, status: os.stat_result) -> str | None:
        """The closed path whose very file this is, under whatever name."""
        return self._closed_files.get(_identity(status))

    def is_native(self, status: os.stat_result) -> bool:
        return _identity(status) in self._natives

    # --- the walk ----------------------------------------------------------------------------------------------------

    def _beneath(self, path: bytes) -> bytes | None:
        for root, within in self._roots.items():
            if path.startswith(root) and (len(path) == len(root) or path[len(root)] == 0x2F or root == b"/"):
                return None if within is None else within + path[len(root) :]
        return None

    def _walk(self, rest: bytes, *, follow: bool, whole: bool) -> Place | Native | bytes | None:
        """Bytes: another absolute path, since a link leads there."""
        parts = deque(_split(rest))
        steps = [_Step(self._opened, self.guard.root, self.guard.mode)]
        links = walked = 0
        while parts:
            name = parts.popleft()
            walked += 1
            if name == b"..":
                if len(steps) == 1:
                    return None
                steps.pop()
                continue
            step = steps[-1]
            path = f"{step.path.rstrip('/')}/{os.fsdecode(name)}"
            _check_length(path, walked)
            status = _status(step.folder, name)
            native = None if status is None else self._natives.get(_identity(status))
            if native == "open" and not whole and b".." not in parts:
                return Native(native, path, not parts, "")
            judged = self._judge(step, name, path, status)
            if native == "read" and not whole and b".." not in parts:
                return Native(native, path, not parts, judged.kind)
            if native == "open":
                judged = Judgement("open", "", "free")
            is_link = status is not None and stat.S_ISLNK(status.st_mode)
            if step.native and not parts and not whole:
                return Native("open", path, False, "")
            if (not parts and not (is_link and follow)) or judged.access == "none":
                return Place(step.folder, name, judged.access, judged.kind, status, path, step.mode)
            if status is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if is_link:
                links += 1
                target = _link(step.folder, name, links)
                if target.startswith(b"/"):
                    return b"/".join((target, *parts))
                parts.extendleft(reversed(_split(target)))
                continue
            steps.append(self._enter(step, name, path, judged.inner, native=step.native or native == "open"))
        last = steps[-1]
        access: Access = "open" if last.mode in ("plain", "home", "free") else "read"
        return Place(last.folder, b".", access, "", os.fstat(last.folder.fileno()), last.path, last.mode)

    def _enter(self, step: _Step, name: bytes, path: str, mode: Mode, *, native: bool) -> _Step:
        folder = open_entry(step.folder, name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
        status = os.fstat(folder.fileno())
        if status.st_dev not in self.guard.devices:  # mounted since
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        if (known := self.closed_file(status)) is not None:
            mode = self._closed[known].inner
        elif mode == "shut" and _has_any(folder, ENVIRONMENT_MARKERS):
            mode = "environment"
        elif mode in ("plain", "home") and (
            _has_any(folder, ENVIRONMENT_MARKERS) or _has_all(folder, REPOSITORY_MARKERS)
        ):
            mode = "shut"  # made since the start, and who made it is not known
        elif step.mode == "git modules" and not _has_all(folder, ("HEAD",)):
            mode = "git modules"
        return _Step(folder, path, mode, native)

    def _judge(self, step: _Step, name: bytes, path: str, status: os.stat_result | None) -> Judgement:
        closed = self._closed.get(path)
        if closed is None and status is not None:
            known = self.closed_file(status)
            closed = self._closed[known] if known is not None else None
        judged = judge(step.mode, os.fsdecode(name))
        if closed is not None:
            return Judgement(stricter(closed.access, judged.access), f"it is {closed.what}", closed.inner)
        if judged.access == "open" and step.path == self.guard.root and self._is_part(step, name):
            return Judgement("read", "it is a part of an environment; programs outside run from there", "library")
        if judged.access == "open" and self._is_imported(path):
            return Judgement("read", IMPORTED, "shut")
        if status is not None and stat.S_ISDIR(status.st_mode) and step.mode in ("plain", "home"):
            is_environment = any(_status(step.folder, name + b"/" + each.encode()) for each in ENVIRONMENT_MARKERS)
            if is_environment and (judged.access == "open" or name == b".env"):
                return Judgement("read", "it is an environment; programs outside run from there", "environment")
        if status is not None and may_be_another(os.fsdecode(name)) and not _is_listed(step.folder, name):
            return Judgement("none", "it is another name of a file, which may be closed", "shut")
        return judged

    def _is_imported(self, path: str) -> bool:
        guard = self.guard
        return path not in guard.own_modules and is_imported(path, guard.started_in, guard.modules)

    @staticmethod
    def _is_part(step: _Step, name: bytes) -> bool:
        """Of an environment that the notebook's folder itself has become since the start."""
        return os.fsdecode(name) in ENVIRONMENT_PARTS and _has_any(step.folder, ENVIRONMENT_MARKERS)


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _real_path(text: bytes) -> bytes | None:
    """Of a path that goes up and down again, or has slashes twice, its folder's real path and the last name. It is
    judged as any other then.
    """
    if b"//" not in text and b"/." not in text:
        return None
    above, _, leaf = text.rstrip(b"/").rpartition(b"/")
    if leaf in (b".", b".."):
        above, leaf = text, b"."
    try:
        with open_real_folder(above or b"/") as folder:
            return os.readlink(os.fsencode(folder.path)) + b"/" + leaf + (b"/" if text.endswith(b"/") else b"")
    except OSError:
        return None  # Linux says what is wrong with it


def _check_length(path: str, walked: int) -> None:
    """Raises OSError."""
    if len(path) > _LONGEST or walked > _MOST_STEPS:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))


def _split(path: bytes) -> list[bytes]:
    return [part for part in path.split(b"/") if part not in (b"", b".")]


def _link(folder: Descriptor, name: bytes, count: int) -> bytes:
    """Where the link leads. Raises OSError; ELOOP for more than Linux follows."""
    if count > _MOST_LINKS:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return os.readlink(name, dir_fd=folder.fileno())


def _status(folder: Descriptor, name: bytes) -> os.stat_result | None:
    """Of the entry itself. Raises OSError for anything but that it is not there."""
    try:
        return os.stat(name, dir_fd=folder.fileno(), follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _is_listed(folder: Descriptor, name: bytes) -> bool:
    """Whether the entry is listed by this name. Of a very large folder: no."""
    listed = open_entry(folder, b".", os.O_RDONLY | os.O_DIRECTORY)
    with listed, os.scandir(listed.fileno()) as listing:
        return any(os.fsencode(entry.name) == name for entry in islice(listing, _MOST_LOOKED_AT))


def _has_any(folder: Descriptor, names: tuple[str, ...]) -> bool:
    return any(_status(folder, each.encode()) for each in names)


def _has_all(folder: Descriptor, names: tuple[str, ...]) -> bool:
    return all(_status(folder, each.encode()) for each in names)


_MOST_LOOKED_AT = 2000


class _Look:
    def __init__(self, folder: GuardedFolder) -> None:
        self._folder, self._left = folder, _MOST_LOOKED_AT

    def holds(self, place: Place) -> bool:
        try:
            opened = open_entry(place.folder, place.leaf, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            return self._in(opened, "plain", 0)
        except OSError:
            return True

    def _in(self, folder: Descriptor, mode: Mode, depth: int) -> bool:
        with folder:
            if depth > _DEEPEST or _has_any(folder, ENVIRONMENT_MARKERS) or _has_all(folder, REPOSITORY_MARKERS):
                return True
            with os.scandir(folder.fileno()) as listing:
                return any(self._closed(folder, entry.name, mode, depth) for entry in listing)

    def _closed(self, folder: Descriptor, name: str, mode: Mode, depth: int) -> bool:
        self._left -= 1
        judged = judge(mode, name)
        if self._left < 0 or judged.access != "open":
            return True
        status = _status(folder, os.fsencode(name))
        if status is None:
            return False
        if self._folder.closed_file(status) is not None:
            return True
        if not stat.S_ISDIR(status.st_mode) or self._folder.is_native(status):
            return False
        inner = open_entry(folder, os.fsencode(name), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        return self._in(inner, judged.inner, depth + 1)


_DEEPEST = 50


class Writable:
    """Where the sandbox may write: beneath some paths, and in what is open of the guarded folder."""

    def __init__(self, paths: tuple[str, ...], folder: GuardedFolder | None) -> None:
        """``paths`` are real, and lie outside of the guarded folder. One that ends with a slash means what lies beneath
        the folder, without the folder itself.
        """
        self._paths = tuple(os.fsencode(path) for path in paths)
        self._folder = folder

    def is_holder(self, path: bytes, status: os.stat_result) -> bool:
        """Whether something closed lies beneath the folder ``path``, whose status that is."""
        return self._folder is not None and stat.S_ISDIR(status.st_mode) and self._folder.holds(path, status)

    def may_hold_link(self, path: bytes) -> bool:
        """Whether a link may be made at the real ``path``: not where something closed would lie beneath it."""
        return self.holds(path) and (self._folder is None or self._folder.holds_closed(os.fsdecode(path)) is None)

    def may_lead_to(self, path: bytes) -> bool:
        """Whether a link may lead to the real ``path``: not to a folder in which something is closed, since other names
        would then lead through it.
        """
        return self.holds(path) and (self._folder is None or not self._folder.must_stay(os.fsdecode(path)))

    def holds(self, path: bytes, status: os.stat_result | None = None) -> bool:
        """Whether the real ``path`` may be written; with ``status``: if it is that very file. It may wait."""
        if decisions.covers(self._paths, path):
            return True
        return self._folder is not None and self._folder.may_write(path, status)

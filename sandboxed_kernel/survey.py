"""Does: looks through the notebook's folder for what must stay closed in it, before anything untrusted runs.

Breadth first, for a bounded time. What was not reached in time is not opened natively either: the broker judges each
access to it.
"""

from __future__ import annotations

import os
import stat
import time
from collections import deque
from collections.abc import Iterable, Mapping
from contextlib import suppress

from sandboxed_kernel.confinement.plan import Surroundings, closed_in_workspace
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.policy.guarded import (
    ENVIRONMENT_MARKERS,
    POOL_PREFIX,
    Closed,
    Guard,
    Judgement,
    Mode,
    ancestors,
    is_beneath,
    judge,
)
from sandboxed_kernel.policy.model import Policy
from sandboxed_kernel.records import replace

_TIME = 0.3  # seconds: a home folder of 12,000 folders takes some seconds when it is looked through whole
_FOLDERS = 5000
_RULES = 512  # of each kind; a descriptor is held for each
_SKIPPED = frozenset({"__pycache__"})  # nothing in them is looked for
_MOST_FOUND = 1000


def look_for_closed(policy: Policy, around: Surroundings, workspace: str) -> Guard | None:
    """The guard of the notebook's folder, or None where all of it is open. ``workspace``: as the user named it.

    Raises PolicyError where it can be nobody's workspace, HostError where it cannot be listed.
    """
    root = around.workspace
    named = {around.real_paths.get(grant.path, ""): grant.writable for grant in policy.grants}
    writable = named.get(root, not any(grant.writable for grant in policy.grants))
    closed = closed_in_workspace(around, writable=writable)
    closed += _places_on_path(around)
    closed += (
        Closed(path, "read", f"where {link} leads")
        for path, link in home_links(around.home).items()
        if is_beneath(path, root)
    )
    try:
        guard = survey(root, named=os.path.abspath(workspace), home=around.home, writable=writable, closed=closed)
    except OSError as error:
        raise HostError(f"the notebook's folder {root} cannot be listed ({error.strerror}).") from None
    if guard is None:
        return None
    beneath = {path: writable for path, writable in named.items() if is_beneath(path, root)}
    return replace(
        guard,
        native=(*guard.native, *(path for path, writable in beneath.items() if writable)),
        readable=(*guard.readable, *(path for path, writable in beneath.items() if not writable)),
        pool=os.path.join(root, POOL_PREFIX + os.urandom(4).hex()) if writable else "",
    )


def _places_on_path(around: Surroundings) -> Iterable[Closed]:
    """The folders in which a shell outside looks for commands."""
    entries = around.environment.get("PATH", "").split(os.pathsep)
    real = {around.real_paths.get(entry, "") for entry in entries}
    return (Closed(path, "read", "a folder on PATH") for path in real if is_beneath(path, around.workspace))


def survey(root: str, *, named: str, home: str, writable: bool, closed: Iterable[Closed]) -> Guard | None:
    """What of ``root`` stays closed, or None where it holds nothing of the kind. All paths are real but ``named``.

    ``closed``: further paths beneath ``root``. Raises OSError where ``root`` cannot be listed.
    """
    look = _Look(root, "home" if root == home else "plain", {each.path: each for each in sorted(closed, key=_strict)})
    look.go()
    if look.mode != "home" and not look.holders:
        return None
    native, readable = look.rules()
    return Guard(
        root=root,
        named=named,
        mode=look.mode,
        writable=writable,
        native=tuple(native[:_RULES]),
        readable=tuple(readable[:_RULES]),
        closed=tuple(look.closed.values()),
        found=tuple(look.found[:_MOST_FOUND]),
        holders=frozenset(look.holders),
        not_seen=tuple(look.not_seen),
        devices=frozenset(look.devices),
        visible=tuple(look.visible[:_RULES]),
    )


def _strict(closed: Closed) -> bool:
    return closed.access == "none"


class _Look:
    def __init__(self, root: str, mode: Mode, closed: dict[str, Closed]) -> None:
        self.root, self.mode, self.closed = root, mode, closed
        self.holders: set[str] = set()  # folders that hold something closed, at any depth
        self.found: list[str] = []
        self.not_seen: list[str] = []
        self.visible: list[str] = []
        self.devices = {os.stat(root).st_dev}
        self._modes: dict[str, Mode] = {root: mode}
        self._seen: set[str] = set()
        self._environments: set[str] = set()
        self._links: list[str] = []
        for path in closed:
            self._hold(path)

    def go(self) -> None:
        deadline = time.monotonic() + _TIME
        waiting = deque([self.root])
        seen = 0
        while waiting:
            folder = waiting.popleft()
            if folder != self.root and (seen >= _FOLDERS or time.monotonic() > deadline):
                self.not_seen.append(folder)
                self._hold(folder)
                continue
            seen += 1
            try:
                waiting += self._look_at(folder)
            except OSError:
                if folder == self.root:
                    raise
                self.not_seen.append(folder)  # perhaps later
                self._hold(folder)
        self._follow_links()

    def _hold(self, path: str) -> None:
        """Everything above ``path`` is guarded."""
        for folder in ancestors(path, self.root):
            if folder in self.holders:
                return
            self.holders.add(folder)

    def _close(self, path: str, mode: Mode) -> None:
        self.found.append(path)
        self._modes[path] = mode
        self._hold(path)

    def _look_at(self, folder: str) -> list[str]:
        """Look at the entries of one folder; those that are to be looked at next."""
        inner, mode = [], self._modes[folder]
        with os.scandir(folder) as listing:
            entries = list(listing)
        self._seen.add(folder)
        if folder != self.root and any(entry.name in ENVIRONMENT_MARKERS for entry in entries):
            self._environments.add(folder)
            self._close(folder, "shut")
            return []
        for entry in entries:
            if entry.path in self.closed:
                self.found.append(entry.path)
                continue
            judged = judge(mode, entry.name)
            if mode == "home" and judged.access == "open":
                self.visible.append(entry.path)
            if judged.access != "open":
                self._close(entry.path, judged.inner)
                if entry.is_symlink():
                    self._links.append(entry.path)
            elif entry.is_dir(follow_symlinks=False) and entry.name not in _SKIPPED:
                self._modes[entry.path] = judged.inner
                inner.append(entry.path)
        return inner

    def _follow_links(self) -> None:
        """Closed too is where a closed link leads: ~/.bashrc -> ~/dotfiles/bashrc."""
        for link in self._links:
            leads_to = os.path.realpath(link)
            if is_beneath(leads_to, self.root) and leads_to not in self.closed:
                self.closed[leads_to] = Closed(leads_to, "read", f"where {link} leads")
                self.found.append(leads_to)
                self._hold(leads_to)

    def rules(self) -> tuple[list[str], list[str]]:
        """(to write, to read): what Landlock can open, since nothing beneath is closed to it."""
        native: list[str] = []
        readable: list[str] = []
        unseen = frozenset(self.not_seen)
        guarded = {self.root, *self.holders} & self._seen - self._environments
        for folder in sorted(guarded, key=lambda path: path.count("/")):
            with suppress(OSError), os.scandir(folder) as listing:
                for entry in listing:
                    self._rule(entry, folder, unseen, native, readable)
        for folder, mode in self._modes.items():
            if mode == "git":
                native += [path for path in self._free_in_git(folder) if self._is_folder(path)]
        return native, readable

    def _rule(
        self, entry: os.DirEntry[str], folder: str, unseen: frozenset[str], native: list[str], readable: list[str]
    ) -> None:
        path = entry.path
        if path in self.holders or path in unseen or entry.is_symlink():
            return
        known = self.closed.get(path)
        judged = judge(self._modes.get(folder, "plain"), entry.name)
        if path in self._environments or (known is not None and known.access == "read"):
            judged = Judgement("read", "")
        elif known is not None:
            return
        if judged.access == "none":
            return
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder:
            self._note_device(entry)
        if judged.access == "read":
            readable.append(path)
        elif is_folder or _is_program(entry):
            native.append(path)

    def _note_device(self, entry: os.DirEntry[str]) -> None:
        with suppress(OSError):
            self.devices.add(entry.stat(follow_symlinks=False).st_dev)

    @staticmethod
    def _free_in_git(folder: str) -> list[str]:
        return [os.path.join(folder, name) for name in ("objects", "refs", "logs")]

    @staticmethod
    def _is_folder(path: str) -> bool:
        with suppress(OSError):
            return stat.S_ISDIR(os.lstat(path).st_mode)
        return False


def _is_program(entry: os.DirEntry[str]) -> bool:
    """A regular file that may be run. Others need no rule of their own: the broker opens them."""
    with suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)
    return False


def home_links(home: str) -> Mapping[str, str]:
    """Where the links among the dot entries of ``home`` lead, with the link: people who keep their dot files elsewhere
    (stow, yadm, home-manager) have the files that every shell reads in an ordinary folder.
    """
    found: dict[str, str] = {}
    for folder in (home, os.path.join(home, ".config"), os.path.join(home, ".local", "bin")):
        with suppress(OSError), os.scandir(folder) as listing:
            for entry in listing:
                if (folder != home or entry.name.startswith(".")) and entry.is_symlink():
                    found[os.path.realpath(entry.path)] = entry.path
    return found

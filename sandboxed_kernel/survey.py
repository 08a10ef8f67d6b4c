"""Does: looks through the notebook's folder for what must stay closed in it, before anything untrusted runs.

Breadth first, for a bounded time. What was not reached in time is not opened natively either: the broker judges each
access to it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice

from sandboxed_kernel.confinement.plan import Surroundings, closed_in_workspace
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.linux.folders import links_on_the_way
from sandboxed_kernel.named import (
    Place,
    own_places,
    own_settings,
    places_named_in,
    places_of_repository,
    there_in,
)
from sandboxed_kernel.policy.git_settings import Named
from sandboxed_kernel.policy.guarded import (
    ENVIRONMENT_MARKERS,
    ENVIRONMENT_PARTS,
    POOL_PREFIX,
    REPOSITORY_MARKERS,
    RUNS,
    Access,
    Closed,
    Guard,
    Judgement,
    Mode,
    is_imported,
    judge,
    mode_of_workspace,
    stricter,
)
from sandboxed_kernel.policy.model import PathGrant, Policy
from sandboxed_kernel.policy.paths import ancestors, is_beneath, is_within
from sandboxed_kernel.records import replace

_TIME = 0.3  # seconds: a home folder of 12,000 folders takes some seconds when it is looked through whole
_FOLDERS = 5000
_RULES = 512  # of each kind; a descriptor is held for each
_SKIPPED = frozenset({"__pycache__"})  # nothing in them is looked for
_MOST_FOUND = 1000
_MOST_NAMED = 2000  # by the closed things of one folder; nobody's settings have more


def look_for_closed(policy: Policy, around: Surroundings, workspace: str) -> Guard | None:
    """The guard of the notebook's folder, or None where all of it is open. ``workspace``: as the user named it.

    Raises PolicyError where it can be nobody's workspace, HostError where it cannot be listed.
    """
    root = around.workspace
    named = {around.real_paths.get(grant.path, ""): grant.writable for grant in policy.grants}
    writable = named.get(root, not any(grant.writable for grant in policy.grants))
    closed = closed_in_workspace(around, writable=writable)
    closed += _places_in_variables(around)
    closed += _led_to(around.home, root)
    programs = os.path.join(around.home, "bin")
    if is_beneath(programs, root):
        closed.append(Closed(programs, "read", "where a shell outside looks for commands"))
    try:
        guard = survey(
            root,
            named=os.path.abspath(workspace),
            home=around.home,
            writable=writable,
            closed=closed,
            own=own_settings(around.home, around.environment),
            whole=_root_in_variables(around),
            elsewhere=[*around.policy_files, *_dot_files(around.home)],
        )
    except OSError as error:
        raise HostError(f"the notebook's folder {root} cannot be listed ({error.strerror}).") from None
    if guard is None:
        return None
    beneath = {path: writable for path, writable in named.items() if is_beneath(path, root)}
    return replace(
        guard,
        found=tuple(path for path in guard.found if path not in beneath),
        native=(*guard.native, *(path for path, writable in beneath.items() if writable)),
        readable=(*guard.readable, *(path for path, writable in beneath.items() if not writable)),
        pool=os.path.join(root, POOL_PREFIX + os.urandom(4).hex()) if _may_be_filled(guard) else "",
    )


def _may_be_filled(guard: Guard) -> bool:
    return guard.writable and guard.mode in ("plain", "home")


# Variables with folders and files that programs outside run, import or obey wherever they are started.
_RUN_FROM = (
    "PATH", "PYTHONPATH", "PYTHONSTARTUP", "PYTHONUSERBASE", "LD_LIBRARY_PATH", "LD_PRELOAD", "BASH_ENV", "ENV",
    "ZDOTDIR", "NODE_PATH", "PERL5LIB", "RUBYLIB", "LUA_PATH", "CLASSPATH", "R_LIBS", "R_LIBS_USER", "R_LIBS_SITE",
    "R_PROFILE_USER", "R_ENVIRON_USER", "JULIA_LOAD_PATH", "JULIA_DEPOT_PATH", "GIT_EXEC_PATH", "GIT_TEMPLATE_DIR",
    "GIT_EDITOR", "GIT_PAGER", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_ASKPASS", "GIT_EXTERNAL_DIFF", "SSH_ASKPASS",
    "EDITOR", "VISUAL", "PAGER", "BROWSER",
)  # fmt: skip
_SEPARATORS = re.compile(r"[:\s\"']+")


def _in_variables(around: Surroundings) -> Iterable[tuple[str, str]]:
    """Each absolute path in these variables, there or not, and what it is."""
    for name in _RUN_FROM:
        what = f"a folder on {name}" if "PATH" in name else f"what {name} names"
        for entry in _SEPARATORS.split(around.environment.get(name, "")):
            if os.path.isabs(entry):
                yield entry, what


def _places_in_variables(around: Surroundings) -> Iterable[Closed]:
    for entry, what in _in_variables(around):
        yield from _closed_with_links(entry, around.workspace, "read", what)


def _root_in_variables(around: Surroundings) -> str:
    """Of the notebook's folder, where it is such a folder itself."""
    return next((what for entry, what in _in_variables(around) if os.path.realpath(entry) == around.workspace), "")


def _dot_files(home: str) -> Iterable[str]:
    """What every program of the user's reads, and may have another name in a folder: dot files kept by hard links."""
    folders = [".", *(entry.name for entry in _dot_entries(home) if entry.is_dir(follow_symlinks=False))]
    folders += [f".config/{entry.name}" for entry in _dot_entries(f"{home}/.config", "")]
    for folder in folders:
        if folder not in _CACHES:
            yield from (entry.path for entry in _dot_entries(f"{home}/{folder}", "." if folder == "." else ""))


def _dot_entries(folder: str, start: str = ".") -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as listing:
        return [entry for entry in islice(listing, _LOOKED_AT) if entry.name.startswith(start)][:_DOT_FOLDERS]
    return []


def _led_to(home: str, root: str) -> Iterable[Closed]:
    """Beneath ``root``: where the links among the dot entries of ``home`` lead, by way of which further links."""
    for link, path in home_links(home):
        if is_beneath(path, root):
            yield Closed(path, "none", f"where {link} leads")
        yield from _links_to(link, root)


def _closed_with_links(path: str, root: str, access: Access, what: str) -> Iterable[Closed]:
    """Where the absolute ``path`` leads, and each link that it passes, as far as they lie beneath ``root``."""
    real = os.path.realpath(path)
    if is_beneath(real, root):
        yield Closed(real, access, what)
    yield from _links_to(path, root)


def _links_to(path: str, root: str) -> Iterable[Closed]:
    """Exchanged for another one, such a link would lead elsewhere."""
    for link in links_on_the_way(path):
        if is_beneath(link, root):
            yield Closed(link, "read", f"a link on the way from {path}")


def survey(
    root: str,
    *,
    named: str,
    home: str,
    writable: bool,
    closed: Iterable[Closed],
    own: Named,
    whole: str = "",
    elsewhere: Iterable[str] = (),
) -> Guard | None:
    """What of ``root`` stays closed, or None where it holds nothing of the kind. All paths are real but ``named``.

    ``closed``: further paths beneath ``root``. ``own``: what the user's own settings of git name. ``whole``: what all
    of it is, where nothing in it may be changed. ``elsewhere``: files that are as closed under another name. Raises
    OSError where ``root`` cannot be listed.
    """
    further = {each.path: each for each in sorted(closed, key=_strict)}
    look = _Look(root, home, "home" if root == home else _mode_of(root), further, own)
    look.whole = whole
    look.go()
    look.close_further_names(elsewhere)
    if look.mode == "plain" and not look.holders and not look.whole:
        return None
    native, readable = look.rules()
    return Guard(
        root=root,
        named=named,
        mode=look.mode,
        writable=writable and not look.whole,
        whole=look.whole,
        started_in=frozenset(look.started_in),
        modules=frozenset(look.modules),
        own_modules=frozenset(look.own_modules),
        native=tuple(native[:_RULES]),
        readable=tuple(readable[:_RULES]),
        closed=tuple(look.closed.values()),
        found=tuple(look.found[:_MOST_FOUND]),
        holders=frozenset(look.holders),
        not_seen=tuple(look.not_seen),
        devices=frozenset(look.devices),
        visible=tuple(look.visible[:_RULES]),
    )


def _mode_of(root: str) -> Mode:
    on_the_way = [root, *ancestors(root, "/")][::-1]
    return mode_of_workspace((os.path.basename(folder), frozenset(_telling(folder))) for folder in on_the_way)


def _telling(folder: str) -> set[str]:
    return {name for name in _TELLING if os.path.lexists(os.path.join(folder, name))}


_TELLING = (*ENVIRONMENT_MARKERS, *REPOSITORY_MARKERS)


def _strict(closed: Closed) -> bool:
    return closed.access == "none"


class _Look:
    def __init__(self, root: str, home: str, mode: Mode, closed: dict[str, Closed], own: Named) -> None:
        """``own``: what the user's own settings of git name."""
        self.root, self._home, self.mode, self.closed, self._own = root, home, mode, closed, own
        self.whole = ""
        self.started_in: set[str] = set()
        self.modules: set[str] = set()
        self.own_modules: set[str] = set()  # that are there: a tool that imported them would be broken already
        self.holders: set[str] = set()  # folders that hold something closed, at any depth
        self.found: list[str] = []
        self.not_seen: list[str] = []
        self.visible: list[str] = []
        self.devices = {os.stat(root).st_dev}
        self._modes: dict[str, Mode] = {root: mode}
        self._seen: set[str] = set()
        self._shut: set[str] = set()  # closed by their names
        self._environments: set[str] = set()
        self._links: list[tuple[str, Access]] = []
        for path in closed:
            self._hold(path)

    def go(self) -> None:
        self._close_places(own_places(self._own))
        for folder in ancestors(self.root, "/"):  # what the notebook's folder lies in names something in it, perhaps
            self._close_places(places_named_in(folder, there_in(folder), self._own))
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
                waiting += self._look_at(folder, deadline)
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
        self._shut.add(path)
        self._modes[path] = mode
        self._hold(path)

    def _look_at(self, folder: str, deadline: float) -> list[str]:
        """Look at the entries of one folder; those that are to be looked at next. Raises OSError."""
        entries, whole = _entries(folder)
        if not whole:
            if folder != self.root:
                raise OSError(errno.EFBIG, "too many entries")
            self.holders.add(folder)  # what lies further on is judged when it is asked for
        names = {entry.name for entry in entries} if whole else {*_telling(folder), *there_in(folder)}
        if self._is_special(folder, names):
            self._close_places(places_named_in(folder, names, self._own))
            return []
        inner: list[str] = []
        for count, entry in enumerate(entries):
            if count % 1000 == 999 and folder != self.root and time.monotonic() > deadline:
                raise OSError(errno.EFBIG, "too many entries")
            self._look_at_entry(entry, self._modes[folder], inner)
        self._close_places(places_named_in(folder, names, self._own))
        self._seen.add(folder)
        return inner

    def _is_special(self, folder: str, names: set[str]) -> bool:
        """Whether it is an environment or a repository, as a whole."""
        if folder == self.root:
            if names & {*ENVIRONMENT_MARKERS}:
                self._close_parts()
            if self.mode == "git":
                self._close_named_in(folder)
            return False
        if names & {*ENVIRONMENT_MARKERS}:
            self._close(folder, "environment")
            what = "an environment; programs outside run from there"
            self.closed.setdefault(folder, Closed(folder, "read", what, "environment"))
        elif names >= {*REPOSITORY_MARKERS}:
            self._close_repository(folder)
        else:
            return False
        self._environments.add(folder)
        return True

    def _look_at_entry(self, entry: os.DirEntry[str], mode: Mode, inner: list[str]) -> None:
        if entry.path in self.closed:
            self.found.append(entry.path)
            return
        judged = judge(mode, entry.name)
        if mode == "home" and judged.access == "open":
            self.visible.append(entry.path)
        if judged.access != "open":
            self._close(entry.path, judged.inner)
            if entry.is_symlink():
                self._links.append((entry.path, judged.access))
        elif entry.is_dir(follow_symlinks=False) and entry.name not in _SKIPPED:
            self._modes[entry.path] = judged.inner
            inner.append(entry.path)

    def _close_parts(self) -> None:
        """Of an environment that the notebooks lie in."""
        for name in (*ENVIRONMENT_MARKERS, *ENVIRONMENT_PARTS):
            path = os.path.join(self.root, name)
            self.closed.setdefault(path, Closed(path, "read", "a part of an environment", "library"))
            self._hold(path)

    def _close_repository(self, folder: str) -> None:
        """A bare one. It stays one, whatever goes from it."""
        self._close(folder, "git")
        known = self.closed.get(folder)
        self.closed[folder] = Closed(folder, "read" if known is None else known.access, "a repository", "git")
        self._close_named_in(folder)

    def _close_named_in(self, repository: str) -> None:
        self._close_places(places_of_repository(repository, self._own))

    def _close_places(self, places: Iterable[Place]) -> None:
        """Closed too is what closed things name: programs outside run it, or read it as settings."""
        for place in islice(places, _MOST_NAMED):
            if place.modules:
                self._close_modules(os.path.realpath(place.path), place.modules)
                continue
            real = os.path.realpath(place.path)
            if place.needed and is_within(self.root, real) and not is_within(self._home, real):
                self.whole = self.whole or place.what
            self._close_path(place.path, "read", place.what)

    def _close_modules(self, folder: str, modules: frozenset[str]) -> None:
        """No folder there becomes a package of such a name. One that is a package is imported as it is."""
        if not is_within(folder, self.root):
            return
        self.started_in.add(folder)
        self.modules |= modules
        for name in os.listdir(folder):
            path = os.path.join(folder, name)
            package = os.path.join(path, "__init__.py")
            if is_imported(path, {folder}, modules):
                self.own_modules.add(path)
            elif name in modules and os.path.lexists(package):
                self.own_modules.add(package)
            elif name in modules and os.path.isdir(path) and not os.path.islink(path):
                self._hold(package)

    def _follow_links(self) -> None:
        """Closed too is where a closed link leads: ~/.bashrc -> ~/dotfiles/bashrc."""
        for link, access in self._links:
            self._close_path(link, access, f"where {link} leads")

    def close_further_names(self, elsewhere: Iterable[str]) -> None:
        """Other names, in the folders that were looked at, of files that are closed by one: hard links."""
        known: dict[tuple[int, int], tuple[str, Access]] = {}
        for path, access in (*((path, "none") for path in elsewhere), *self._closed_files()):
            with suppress(OSError):
                status = os.lstat(path)
                if status.st_nlink > 1 and stat.S_ISREG(status.st_mode):
                    known[status.st_dev, status.st_ino] = path, access
        numbers = {inode for _device, inode in known}
        for folder in sorted(self._seen) if known else ():
            with suppress(OSError):
                for entry in _entries(folder)[0]:
                    if entry.inode() in numbers:
                        status = entry.stat(follow_symlinks=False)
                        path, access = known.get((status.st_dev, status.st_ino), (entry.path, "read"))
                        if path != entry.path:
                            self._close_path(entry.path, access, f"another name of {path}")

    def _closed_files(self) -> Iterable[tuple[str, Access]]:
        """What was found closed, and what lies in folders that are; not in packages, which come from a common store."""
        for path in list(dict.fromkeys((*self.found, *self.closed))):
            access = stricter(judge("plain", os.path.basename(path)).access, "read")
            yield path, access
            inner = self._modes.get(path, "library")
            folders = [path] if inner == "shut" else [f"{path}/{name}" for name in (".", "hooks", "info")]
            for folder in folders if inner in ("shut", "git") else ():
                yield from ((entry.path, access) for entry in _dot_entries(folder, ""))

    def _close_path(self, path: str, access: Access, what: str) -> None:
        """What ``path`` means, and the links on the way there."""
        for each in _closed_with_links(path, self.root, access, what):
            if any(folder in self._shut for folder in ancestors(each.path, self.root)):
                continue  # as closed as all that lies there
            known = self.closed.get(each.path)
            if known is not None:
                each = replace(known, access=stricter(known.access, each.access))
            self.closed[each.path] = each
            if known is None and os.path.lexists(each.path):  # what is not there is nothing to tell of
                self.found.append(each.path)
            self._hold(each.path)

    def rules(self) -> tuple[list[str], list[str]]:
        """(to write, to read): what Landlock can open, since nothing beneath is closed to it."""
        native: list[str] = []
        readable: list[str] = []
        unseen = frozenset(self.not_seen)
        guarded = {self.root, *self.holders} & self._seen - self._environments
        files: list[tuple[os.DirEntry[str], str]] = []
        for folder in sorted(guarded, key=lambda path: path.count("/")):
            with suppress(OSError):
                for entry in _entries(folder)[0]:
                    if entry.is_dir(follow_symlinks=False):
                        self._rule(entry, folder, unseen, native, readable)
                    else:
                        files.append((entry, folder))
        deadline = time.monotonic() + _TIME
        for count, (entry, folder) in enumerate(files):
            if count % 1000 == 999 and time.monotonic() > deadline:
                break  # the broker opens the others
            self._rule(entry, folder, unseen, native, readable)
        for folder, mode in self._modes.items():
            if mode == "git":
                native += [
                    path for path in self._free_in_git(folder) if self._is_folder(path) and not _holds_secret(path)
                ]
        return native, readable

    def _rule(
        self, entry: os.DirEntry[str], folder: str, unseen: frozenset[str], native: list[str], readable: list[str]
    ) -> None:
        path = entry.path
        if path in self.holders or path in unseen or entry.is_symlink():
            return
        known = self.closed.get(path)
        judged = judge(self._modes.get(folder, "plain"), entry.name)
        if path in self._environments:
            judged = Judgement("read", "", self._modes[path])
        elif known is not None:
            judged = Judgement(stricter(known.access, judged.access), "", known.inner)
        if judged.access == "open" and self._is_imported(path):
            judged = Judgement("read", "")
        if judged.access == "none":
            return
        is_folder = entry.is_dir(follow_symlinks=False)
        if is_folder:
            self._note_device(entry)
        if judged.access == "read":
            readable += _readable(path, judged.inner) if is_folder else [path]
        elif is_folder or _is_program(entry):
            native.append(path)

    def _is_imported(self, path: str) -> bool:
        return path not in self.own_modules and is_imported(path, self.started_in, self.modules)

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


def _entries(folder: str) -> tuple[list[os.DirEntry[str]], bool]:
    """Of ``folder``, as many as the memory of a start is for, and whether these are all. Raises OSError."""
    with os.scandir(folder) as listing:
        found = list(islice(listing, _MOST_ENTRIES))
        return found, next(listing, None) is None


_MOST_ENTRIES = 100_000


def exposed(grants: Iterable[PathGrant]) -> list[str]:
    """What programs outside run or obey by themselves, directly in the folders that these lines open for writing. Never
    raises.
    """
    found = []
    for grant in grants:
        with suppress(OSError), os.scandir(grant.path) as listing:
            names = {entry.name for entry in islice(listing, _LOOKED_AT)} if grant.writable else set()
            if names & {*ENVIRONMENT_MARKERS}:
                found.append(grant.path)
            else:
                found += [os.path.join(grant.path, name) for name in sorted(names) if judge("plain", name).kind == RUNS]
    return found


def _readable(folder: str, mode: Mode) -> list[str]:
    """What Landlock can open for reading of a closed folder: all of it, if no secret lies there."""
    if mode == "shut" and any(os.path.lexists(os.path.join(folder, name)) for name in ENVIRONMENT_MARKERS):
        mode = "environment"
    if mode == "library" or (mode == "git" and os.path.basename(folder) == ".git"):
        return [folder]
    waiting, left = [(folder, mode)], _LOOKED_AT
    while waiting:
        place, inner = waiting.pop()
        try:
            with os.scandir(place) as listing:
                for entry in listing:
                    left -= 1
                    judged = judge(inner, entry.name)
                    if judged.access == "none" or left < 0:
                        return []
                    if judged.inner == "library" or not entry.is_dir(follow_symlinks=False):
                        continue
                    if judged.inner != "free":
                        waiting.append((entry.path, judged.inner))
                    elif _holds_secret(entry.path):
                        return []
        except OSError:
            return []
    return [folder]


def _holds_secret(folder: str) -> bool:
    """Whether a folder of a repository, in which no other name is closed, holds a secret: then it is none of git's."""
    waiting, left = [folder], _LOOKED_AT
    while waiting:
        with suppress(OSError), os.scandir(waiting.pop()) as listing:
            for entry in listing:
                left -= 1
                if left < 0:
                    return False
                if judge("free", entry.name).access == "none":
                    return True
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
    return False


_LOOKED_AT = 2000  # entries of one closed folder


def _is_program(entry: os.DirEntry[str]) -> bool:
    """A regular file that may be run. Others need no rule of their own: the broker opens them."""
    with suppress(OSError):
        status = entry.stat(follow_symlinks=False)
        return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o111)
    return False


def home_links(home: str) -> list[tuple[str, str]]:
    """The links among the dot entries of ``home``, with where they lead: people who keep their dot files elsewhere
    (stow, yadm, home-manager) have the files that every shell reads in an ordinary folder.
    """
    found = []
    waiting = deque([(home, 0)])
    left = _DOT_FOLDERS
    while waiting and left:
        left -= 1
        folder, depth = waiting.popleft()
        with suppress(OSError), os.scandir(folder) as listing:
            for entry in listing:
                if depth == 0 and not entry.name.startswith("."):
                    continue
                if entry.is_symlink():
                    found.append((entry.path, os.path.realpath(entry.path)))
                elif depth < _DOT_DEPTH and entry.name not in _CACHES and entry.is_dir():
                    waiting.append((entry.path, depth + 1))
    return found


_DOT_FOLDERS, _DOT_DEPTH = 500, 3
_CACHES = frozenset({".cache", ".git", "node_modules", ".npm", ".cargo", ".rustup", ".pyenv", ".nvm"})

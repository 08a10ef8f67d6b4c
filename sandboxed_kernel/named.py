"""Does: finds what closed things in and above the notebook's folder name: hooks, commands, settings, folders on PATH.

Programs outside run these by themselves when they meet the folder, so they are as closed as what names them. Nothing
is run and no shell understood: what is a word there and a file here is closed. Too much rather than too little.
"""

from __future__ import annotations

import os
import stat
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from sandboxed_kernel.policy.git_settings import Named, in_variables, named_in
from sandboxed_kernel.policy.script_words import (
    folders_on_path,
    interpreters_in,
    is_started,
    modules_in,
    starts_python,
    without_comments,
    without_selections,
    words_in,
)

_MOST_SETTINGS, _MOST_FILES = 1 << 18, 20  # bytes; files of git's settings
_MOST_HOOKS, _MOST_SCRIPTS = 100, 50  # of one repository or folder
_LONGEST_SCRIPT = 1 << 16  # bytes

# Settings beside the work whose commands git hooks, shells and editors run without being asked.
_TOOLS = (
    ".envrc", ".pre-commit-config.yaml", ".pre-commit-config.yml", ".lefthook.yml", ".lefthook.yaml", ".lefthook.toml",
    "lefthook.yml", "lefthook.yaml", "lefthook.toml", "lefthook-local.yml", ".mise.toml", "mise.toml",
    ".vscode/tasks.json",
)  # fmt: skip
_FOLDERS_OF_HOOKS = (".husky",)
TELLING = frozenset({".git", *_FOLDERS_OF_HOOKS, *(name.partition("/")[0] for name in _TOOLS)})


class Place(NamedTuple):
    """``needed``: closed whether it is there or not, and where it is the notebook's folder itself, all of that.

    ``modules``: not closed itself, but what a Python that is started in it would import by one of these names.
    """

    path: str
    what: str
    needed: bool
    modules: frozenset[str] = frozenset()


def there_in(folder: str) -> set[str]:
    """Which of ``TELLING`` there are."""
    return {name for name in TELLING if os.path.lexists(os.path.join(folder, name))}


def own_settings(home: str, environment: Mapping[str, str]) -> Named:
    """What git's settings of the machine and of the user name: git-config(1), FILES."""
    configuration = environment.get("XDG_CONFIG_HOME") or os.path.join(home, ".config")
    named = [environment.get(name, "") for name in ("GIT_CONFIG_SYSTEM", "GIT_CONFIG_GLOBAL")]
    files = [
        "/etc/gitconfig",
        *_beside_git(environment.get("PATH", "")),
        *filter(os.path.isabs, named),
        f"{home}/.gitconfig",
        f"{configuration}/git/config",
    ]
    return _added(_named_by_git(files), named_in(in_variables(environment)))


def _beside_git(path: str) -> list[str]:
    """The machine's settings of each git on ``path`` that lies elsewhere than in /usr: of conda, Homebrew, Nix."""
    programs = (folder for folder in path.split(os.pathsep) if os.path.isabs(folder))
    found = (os.path.realpath(os.path.join(folder, "git")) for folder in programs)
    return [
        os.path.join(os.path.dirname(os.path.dirname(git)), "etc/gitconfig") for git in found if os.path.isfile(git)
    ]


def own_places(settings: Named) -> Iterator[Place]:
    """What ``own_settings`` name by absolute paths."""
    yield from _of_settings(settings, "/", "what your settings of git name")


def places_named_in(folder: str, names: Iterable[str], own: Named) -> Iterator[Place]:
    """What is named by the closed things in ``folder``, which has these ``names``. ``own``: see ``own_settings``."""
    names = TELLING.intersection(names)
    if ".git" in names:
        yield from places_of_repository(os.path.join(folder, ".git"), own)
    for tool in _TOOLS:
        if tool.partition("/")[0] in names:
            path = os.path.join(folder, tool)
            yield from _of_script(path, (folder,), f"what {path} names")
            for word in folders_on_path(_text_of(path)):
                yield Place(os.path.join(folder, os.path.expanduser(word)), f"what {path} puts on PATH", True)
    for tool in names.intersection(_FOLDERS_OF_HOOKS):
        yield from _of_hooks(os.path.join(folder, tool), (folder,))


def places_of_repository(repository: str, own: Named) -> Iterator[Place]:
    """What the settings and hooks of ``repository``, a ``.git`` or a bare one, name. Relative paths start from where
    the hook or command is started: the top of the work tree, or the repository itself.
    """
    folder, common = _folders_of(repository)
    top = os.path.dirname(repository)
    settings = _named_by_git([f"{common}/config", f"{folder}/config.worktree", f"{common}/config.worktree"])
    hooks = [os.path.join(common, "hooks")]
    for named in (settings, own):
        for start in (top, repository):
            yield from _of_settings(named, start, f"what the settings of {repository} name")
            paths = (os.path.join(start, os.path.expanduser(path)) for path in named.paths)
            hooks += [path for path in paths if os.path.isdir(path)]
    for place in (common, os.path.join(common, "info")):
        for entry in _entries(place):
            if entry.is_symlink():
                yield Place(entry.path, f"where {entry.path} leads", entry.name == "hooks")
    for place in dict.fromkeys(hooks):
        yield from _of_hooks(place, (top, repository))


def _of_settings(named: Named, start: str, what: str) -> Iterator[Place]:
    for word in named.paths:
        yield Place(os.path.join(start, os.path.expanduser(word)), what, True)
    for word in named.words:
        path = os.path.join(start, os.path.expanduser(word))
        if os.path.isfile(path):
            yield from _of_file(path, (start,), what)
        elif "/" in word and not os.path.isdir(path):
            yield Place(path, what, False)
        yield from _of_modules(word, (start,), what)
    for word in named.files:
        path = os.path.join(start, os.path.expanduser(word))
        if os.path.isfile(path):
            yield from _of_file(path, (start,), what)


def _of_hooks(folder: str, starts: tuple[str, ...]) -> Iterator[Place]:
    """Links among them, and the files that they name."""
    for entry in _entries(folder):
        if entry.name.endswith(".sample"):
            continue
        what = f"what the hook {entry.path} runs"
        if entry.is_symlink():
            yield Place(entry.path, what, False)
        yield from _of_script(entry.path, (*starts, folder), what)


def _of_file(path: str, starts: tuple[str, ...], what: str) -> Iterator[Place]:
    """A file that is run. Beside a Python program lies what it imports, and would import first."""
    yield Place(path, what, False)
    if path.endswith(".py"):
        yield Place(os.path.dirname(path), what, False)
    yield from _of_script(path, (*starts, os.path.dirname(path)), what)


def _of_script(path: str, starts: tuple[str, ...], what: str) -> Iterator[Place]:
    """The files that a script names, those that they name, and so on. ``starts``: what relative paths start from."""
    waiting, seen = deque([path]), {os.path.realpath(path)}
    while waiting:
        place = waiting.popleft()
        text = without_comments(_text_of(place, _LONGEST_SCRIPT))
        if place.endswith((".yaml", ".yml")):
            text = without_selections(text)
        yield from _of_modules(text, starts, what)
        for word in words_in(text):
            for start in starts:
                found = os.path.join(start, os.path.expanduser(word))
                real = os.path.realpath(found) if os.path.isfile(found) else None
                if real is None or real in seen or len(seen) >= _MOST_SCRIPTS:
                    continue
                seen.add(real)
                waiting.append(found)
                yield Place(found, what, False)
                if is_started(text, word):
                    yield Place(os.path.dirname(found), what, False)


def _of_modules(text: str, starts: tuple[str, ...], what: str) -> Iterator[Place]:
    """The first of ``starts`` is the folder in which the program is started."""
    for name in modules_in(text):
        yield from (Place(os.path.join(start, name), what, False) for start in starts)
    if starts_python(text):
        yield Place(starts[0], what, False, frozenset(_importable(text)))


# Of no use to who would be imported in their place, and names of folders that people have.
_NOT_IMPORTED = frozenset({"antigravity", "idlelib", "test", "tests", "this", "turtle", "turtledemo"})


def _importable(text: str) -> Iterator[str]:
    """Names of modules that the Pythons in ``text`` may import: the standard library's, and what is installed there."""
    yield from sys.stdlib_module_names - _NOT_IMPORTED
    on_path = (f"{folder}/python3" for folder in os.environ.get("PATH", "").split(os.pathsep) if os.path.isabs(folder))
    for program in (*interpreters_in(text), next(filter(os.path.isfile, on_path), "/usr/bin/python3")):
        prefix = os.path.dirname(os.path.dirname(program))
        for library in [entry.path for entry in _entries(f"{prefix}/lib") if entry.name.startswith("python3")]:
            for packages in ("site-packages", "dist-packages"):
                with suppress(OSError):
                    found = {name.partition(".")[0] for name in os.listdir(f"{library}/{packages}")[:_MOST_PACKAGES]}
                    yield from (name for name in found - _NOT_IMPORTED if name.isidentifier())


_MOST_PACKAGES = 5000


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with suppress(OSError), os.scandir(folder) as listing:
        return list(islice(listing, _MOST_HOOKS))
    return []


def _folders_of(place: str) -> tuple[str, str]:
    """The repository's own folder, and the one in which its settings lie: a file in the stead of ``place``, a ``.git``
    or a bare repository, or in it, may name another one (gitrepository-layout(5)).
    """
    link = _text_of(place).strip()
    if link.startswith("gitdir:"):
        place = os.path.normpath(os.path.join(os.path.dirname(place), link[len("gitdir:") :].strip()))
    return place, os.path.normpath(os.path.join(place, _text_of(os.path.join(place, "commondir")).strip()))


def _named_by_git(files: Iterable[str]) -> Named:
    """What these settings name, and those that they include."""
    waiting, seen = deque(files), set[str]()
    found = Named((), (), ())
    while waiting and len(seen) < _MOST_FILES:
        path = os.path.realpath(waiting.popleft())
        if path in seen:
            continue
        seen.add(path)
        named = named_in(_text_of(path))
        beside = tuple(os.path.join(os.path.dirname(path), os.path.expanduser(each)) for each in named.included)
        waiting += beside
        found = _added(found, named._replace(paths=(*named.paths, *beside)))
    return found


def _added(one: Named, other: Named) -> Named:
    return Named(*(a + b for a, b in zip(one, other, strict=True)))


def _text_of(path: str, most: int = _MOST_SETTINGS) -> str:
    """Of a regular file; nothing of any other, which could hold up the start, and where there is none."""
    with suppress(OSError), open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return file.read(most).decode(errors="replace").replace("\0", "")
    return ""

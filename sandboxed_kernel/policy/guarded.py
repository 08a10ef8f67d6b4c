"""Pure: what stays closed in a folder that the sandbox works in: names, and what they are to programs outside.

A project holds more than its data: the environment that runs outside, ``.git`` with its hooks, settings that editors
and shells run by themselves, passwords. Landlock cannot take a part of a grant back. So a folder with such an entry is
*guarded*: its other entries are granted one by one, and the broker does what is to be done beside them.

What is listed as open can be written by code inside and must therefore mean nothing to a program outside: it is data,
or text that only people, git and servers after a push read.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import Literal, NamedTuple

from sandboxed_kernel.records import Record

Access = Literal["open", "read", "none"]  # what code inside may do with an entry

# How the names in a folder are judged: "plain", the user's home folder, a repository's ``.git`` and some folders in it,
# "free" (no name is closed), "shut" (all is read only).
# In "shut" secrets are closed too; an environment's own folder is judged so, but not what lies deeper ("library":
# packages bring certificates along).
Mode = Literal["plain", "home", "git", "git info", "git lfs", "git modules", "free", "shut", "environment", "library"]


class Judgement(NamedTuple):
    """``kind`` is one of the four classes of docs/policy.md; ``inner``: how names beneath the entry are judged."""

    access: Access
    kind: str
    inner: Mode = "plain"


class NameRow(Record):
    """``names`` are separated by blanks, each with at most one ``*`` in it."""

    access: Access
    kind: str
    reason: str
    names: str


OPEN, RUNS, SECRET, UNKNOWN = "open", "run by themselves outside", "secret", "unknown name with a dot"
HOME = "home folder: another program's"

# The first row that holds a name counts. Names in rows that are not open count in any case: on a file system that folds
# case, ``.GIT`` is ``.git``.
NAMES: tuple[NameRow, ...] = (
    NameRow("open", OPEN, "lists and samples that hold no secret, by agreement of the tools that read them",
            ".env.example .env.sample .env.template .env.dist"),
    NameRow("none", SECRET, "passwords and keys: what code inside reads it can send wherever it may connect", """
        .env* .envrc .netrc .pgpass .aws .ssh .gnupg .kube .docker *.pem *.key *.p12 *.pfx *.jks *.ppk *.kdbx id_rsa*
        id_dsa* id_ecdsa* id_ed25519* credentials*.json .git-credentials .pypirc .htpasswd .my.cnf .s3cfg .boto .kaggle
        .npmrc .yarnrc.yml .Renviron .goutputstream-* .mcp.json .codex .gemini secrets.toml"""),
    NameRow("open", OPEN, "text that only people, git and servers after a push read", """
        .gitignore .gitattributes .gitkeep .mailmap .git-blame-ignore-revs .github .gitlab-ci.yml .dockerignore
        .editorconfig"""),
    NameRow("open", OPEN, "what Python's tools, notebooks and editors keep beside the work", """
        .ipynb_checkpoints .cache .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* .jupyter_cache
        .virtual_documents .quarto .mlflow .ipython_history .Rhistory .nox .tox .eggs .DS_Store .~lock.* .nfs* .#*
        .*.swp .*.swo .*.swn .~*.ipynb .tmp*"""),
    NameRow("read", RUNS, "environments, and folders of packages that programs outside load",
            "node_modules renv __pypackages__ *-linux-gnu-library *-linux-musl-library"),
    NameRow("read", RUNS, "what makes a folder an environment; its Python is run outside", "pyvenv.cfg conda-meta"),
    NameRow("read", RUNS, "policies of sandboxes, of other ones too", "policy.toml *.policy.toml"),
    NameRow("read", RUNS, "commands that Jupyter runs", "kernel.json jupytext.py"),
    NameRow("read", RUNS, "a repository: its settings and hooks are commands; docs/policy.md has what of it is open",
            ".git"),
    NameRow("read", RUNS, "settings that shells, editors, agents and tools run when they meet the folder", """
        .vscode .idea .zed .fleet .devcontainer .husky .pre-commit-config.yaml .lefthook* lefthook.*
        lefthook-local.* .mise* mise.toml mise.*.toml *.code-workspace devbox.json devenv.nix flake.nix shell.nix
        default.nix packrat .tool-versions
        .python-version* .asdfrc .cursor .continue .aider* .nvim.lua .nvimrc .exrc .vimrc .dir-locals.el
        .gdbinit .lldbinit .pdbrc .pylintrc pylintrc pylintrc.toml .flake8 .Rprofile .yarnrc* .pnp.* .pnpmfile.cjs
        .cargo .bundle .mvn .bazelrc .jupytext.py .jupyter .ipython .streamlit .pixi .venv"""),
    NameRow("read", UNKNOWN, "nobody here knows what reads it", ".*"),
)  # fmt: skip

# A folder with one of these is an environment: programs outside run from there.
ENVIRONMENT_MARKERS = ("pyvenv.cfg", "conda-meta")
# What of one is run or imported, where notebooks lie in the folder too (``python -m venv .``).
ENVIRONMENT_PARTS = (
    "bin", "sbin", "lib", "lib32", "lib64", "libexec", "include", "share", "etc", "condabin",
    "Scripts", "Lib", "Library", "Include", "DLLs",
)  # fmt: skip
# Where packages and programs lie in one, which bring certificates along. Whatever else lies there may be a secret.
_OF_PACKAGES = frozenset({
    *ENVIRONMENT_PARTS, "aarch64-conda-linux-gnu", "compiler_compat", "conda-meta", "doc", "docs", "envs", "fonts",
    "man", "mkspecs", "phrasebooks", "pkgs", "plugins", "qml", "resources", "shell", "ssl", "translations", "var",
    "x86_64-conda-linux-gnu",
})  # fmt: skip
# A folder with all of these is a bare repository: git reads its hooks and settings as those of ``.git``.
REPOSITORY_MARKERS = ("HEAD", "objects", "refs")

# gitrepository-layout(5): what git writes in everyday work. All else in ``.git`` is closed: config, hooks, commondir,
# gitdir, worktrees, info/attributes ... are commands, or say where git finds some.
_GIT_FOLDERS: Mapping[str, Mode] = {
    "objects": "free", "refs": "free", "logs": "free", "rebase-merge": "free", "rebase-apply": "free",
    "sequencer": "free", "info": "git info", "lfs": "git lfs", "modules": "git modules",
}  # fmt: skip
_GIT_FILES = """
    HEAD ORIG_HEAD FETCH_HEAD MERGE_HEAD MERGE_MSG MERGE_MODE AUTO_MERGE CHERRY_PICK_HEAD REVERT_HEAD REBASE_HEAD
    MERGE_RR MERGE_AUTOSTASH BISECT_* COMMIT_EDITMSG SQUASH_MSG TAG_EDITMSG NOTES_EDITMSG ADD_EDIT.patch
    addp-hunk-edit.diff index index.stash.* next-index-* sharedindex.* sharedindex_* packed-refs packed-refs.new shallow
    gc.pid gc.log
"""
# Where new folders need a Landlock rule of their own, since Linux gives none later: a pool is made before the start.
POOL_PREFIX = ".sandboxed-kernel-pool-"


class _Names:
    """A set of names with at most one ``*`` each."""

    def __init__(self, names: str, *, fold: bool = False) -> None:
        words = (names.lower() if fold else names).split()
        self._fold = fold
        self._exact = frozenset(word for word in words if "*" not in word)
        self._parts = tuple(tuple(word.split("*")) for word in words if "*" in word)

    def __contains__(self, name: str) -> bool:
        if self._fold:
            name = name.lower()
        return name in self._exact or any(
            len(name) >= len(start) + len(end) and name.startswith(start) and name.endswith(end)
            for start, end in self._parts
        )


_ROWS = tuple((row, _Names(row.names, fold=row.access != "open")) for row in NAMES)
_GIT = _Names(_GIT_FILES)
# What is in every name that some row holds but ".*", or in a copy of one: folders have many names that none holds.
_PERHAPS = re.compile(
    "|".join(
        ["-checkpoint", *(re.escape(max(word.split("*"), key=len)) for row in NAMES[:-1] for word in row.names.split())]
    ),
    re.IGNORECASE,
)
_PLAIN = Judgement("open", OPEN)
_SHUT = Judgement("read", RUNS, "shut")
_FREE = Judgement("open", OPEN, "free")
_LIBRARY = Judgement("read", RUNS, "library")


@lru_cache(maxsize=4096)
def judge(mode: Mode, name: str) -> Judgement:
    """What code inside may do with the entry ``name`` of a folder that is judged by ``mode``."""
    judged = _judge(mode, name)
    plain = _folded(name)
    if plain not in ("", name):
        other = _judge(mode, plain)
        if other.kind != UNKNOWN and stricter(judged.access, other.access) != judged.access:
            return other
    return judged


def _folded(name: str) -> str:
    """The name that some file systems take ``name`` for. ext4 and APFS compare names without marks that nobody sees and
    with letters folded, vfat without dots and blanks at the end; to NTFS what follows a colon is a part of the file.
    """
    if not name.isascii():
        seen = (each for each in unicodedata.normalize("NFKD", name) if not _UNSEEN.match(each))
        name = "".join(each if each.isascii() else each.casefold() for each in seen)
    return name.partition(":")[0].rstrip(". ")


# Default_Ignorable_Code_Point: DerivedCoreProperties.txt of Unicode.
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)


def _judge(mode: Mode, name: str) -> Judgement:
    if mode == "free":
        return _judge_secret(name) or _FREE
    if mode == "library":
        return _LIBRARY
    if mode in ("shut", "environment"):
        inner: Mode = "library" if mode == "environment" and name in _OF_PACKAGES else "shut"
        return _judge_secret(name) or Judgement("read", RUNS, inner)
    if mode.startswith("git"):
        return _judge_secret(name) or _judge_git(mode, name)
    if mode == "home" and name.startswith("."):  # what lies there is every program's own
        return Judgement("none", HOME, "shut")
    if name == REPOSITORY_MARKERS[0]:  # with two folders of ordinary names it makes a repository
        return _SHUT
    if not name.startswith(".") and _PERHAPS.search(name) is None:
        return _PLAIN
    for row, names in _ROWS:
        if name in names:
            copied = _judge_secret(name) if row.access == "open" or row.kind == UNKNOWN else None
            return copied or Judgement(row.access, row.kind, _inner(row, name))
    return _judge_secret(name) or _PLAIN


def _inner(row: NameRow, name: str) -> Mode:
    if row.access == "open":
        return "plain"
    return "git" if name == ".git" else "library" if name.lower() == "node_modules" else "shut"


def _judge_secret(name: str) -> Judgement | None:
    """Of a secret, or of a copy that an editor or Jupyter keeps of one."""
    for each in {name, *_copied(name)}:
        for row, names in _ROWS:
            if each in names:
                if row.access == "none":
                    return Judgement("none", SECRET, "shut")
                break
    return None


def _copied(name: str) -> list[str]:
    """What a file is a copy of, by the names of vim, emacs, rsync, Jupyter and its checkpoints."""
    found = [name.removesuffix("~"), name.strip("#"), name.replace("-checkpoint", "")]
    if name.startswith(".") and name[-4:-1] == ".sw":
        found.append(name[1:-4])
    if name.startswith(".~"):
        found.append(name[2:])
    elif name.startswith(".") and name[-7:-6] == ".":
        found.append(name[1:-7])
    return [each for each in found if each and each != name]


def _judge_git(mode: Mode, name: str) -> Judgement:
    if mode == "git modules":
        return _judge_secret(name) or Judgement(
            "read", RUNS, "git"
        )  # one of its own, or a folder of such: "modules/a/b"
    if mode == "git info":
        return _FREE if name in ("exclude", "exclude.lock", "refs") or name.startswith("refs_") else _SHUT
    if mode == "git lfs":
        return _FREE if name in ("objects", "tmp", "incomplete") else _SHUT
    if name in _GIT_FOLDERS:
        inner = _GIT_FOLDERS[name]
        return _FREE if inner == "free" else Judgement("read", RUNS, inner)
    return _FREE if name.removesuffix(".lock") in _GIT else _SHUT


def marks_repository(mode: Mode, name: str) -> bool:
    """Whether a folder of ``mode`` is a repository by this entry of it, which git itself never removes."""
    return mode == "git" and name in REPOSITORY_MARKERS


# A name of eight and three letters that vfat and NTFS make for another one: GIT~1 is .git.
_SHORT = re.compile(r"[^.~]{1,6}~\d{1,2}(\.[^.]{1,3})?")


def may_be_another(name: str) -> bool:
    """Whether an entry that is found by ``name`` may be listed by another one."""
    return _SHORT.fullmatch(name) is not None


Wish = Literal["read", "write", "make", "remove"]

_WHY = {
    SECRET: "it holds passwords or keys, and what the notebook can read it can send wherever it may connect",
    RUNS: "programs outside run it, or obey it, by themselves",
    HOME: "what begins with a dot in a home folder holds other programs' keys and settings",
    UNKNOWN: "its name begins with a dot, and what reads it outside is not known here",
}


_ORDER: tuple[Access, ...] = ("none", "read", "open")


def stricter(one: Access, other: Access) -> Access:
    return min(one, other, key=_ORDER.index)


class No(NamedTuple):
    """``reason``: for people; None where no notice is wanted, since a plain program would be refused the same."""

    reason: str | None


def decide_entry(access: Access, kind: str, wish: Wish) -> No | None:
    """Of what is to be done with an entry, None for yes. ``kind`` is a class, or a reason of its own."""
    if access == "open" or (access == "read" and wish == "read"):
        return None
    return No(_WHY.get(kind, kind) or None)


def may_be_granted(kind: str, wish: Wish) -> bool:
    """Whether a notice may say how to open it: what programs outside run by themselves is changed outside."""
    return kind == UNKNOWN or (kind in (SECRET, HOME) and wish == "read")


def closed_on_the_way(path: str, root: str, mode: Mode, is_environment: Callable[[str], bool]) -> Closed | None:
    """What the broker would find closed on the way from ``root`` to ``path``, by its names. ``path`` is real."""
    place = root
    for name in path[len(root) :].split("/"):
        if not name:
            continue
        place = f"{place.rstrip('/')}/{name}"
        judged = judge(mode, name)
        if judged.access == "open" and mode in ("plain", "home") and is_environment(place):
            return Closed(place, "read", "it is an environment; programs outside run from there")
        if judged.access != "open" and not judged.inner.startswith("git"):
            return Closed(place, judged.access, _WHY.get(judged.kind, judged.kind))
        mode = judged.inner
    return None


def is_imported(path: str, folders: AbstractSet[str], modules: AbstractSet[str]) -> bool:
    """Whether a Python that is started in one of ``folders`` would take ``path`` for one of these ``modules``."""
    if not folders:
        return False
    folder, _, name = path.rpartition("/")
    stem, _, rest = name.partition(".")
    if rest.rpartition(".")[2] not in ("py", "pyc", "so"):
        return False
    if folder in folders:
        return stem in modules
    above, _, package = folder.rpartition("/")
    return stem == "__init__" and above in folders and package in modules


IMPORTED = "a Python that git or another program outside starts in this folder would import it"


class Closed(Record):
    """A path that must stay closed whatever its name: the policy, the Python that runs this kernel, keys ...

    Real, and beneath the guarded folder; it need not exist. ``what`` completes "... is".
    """

    path: str
    access: Access  # never "open"
    what: str
    inner: Mode = "shut"


def mode_of_workspace(parts: Iterable[tuple[str, frozenset[str]]]) -> Mode:
    """How the names in the sandbox's own folder are judged: it may lie in a repository, an environment or the like.

    ``parts``: the name of each folder on the way, the folder itself last, with the names in it.
    """
    mode: Mode = "plain"
    above: frozenset[str] = frozenset()
    for name, names in parts:
        judged = judge(mode, name)
        if mode == "plain" and name in ENVIRONMENT_PARTS and above & {*ENVIRONMENT_MARKERS}:
            mode = "library"
        elif mode != "plain" or judged.kind == RUNS:
            mode = judged.inner
        if mode in ("plain", "git modules") and names >= {*REPOSITORY_MARKERS}:
            mode = "git"
        above = names
    return "plain" if mode == "free" else mode


class Guard(Record):
    """A folder that the sandbox works in although not all of it is open. Paths are real and beneath ``root``.

    ``native``: folders and programs that Landlock opens for reading and writing; nothing in them is closed.
    ``readable``: for reading alone. ``closed``: see ``Closed``. ``found``: what was found closed by its name,
    ``holders``: folders that hold something closed, at any depth, which must stay where they are. ``not_seen``: folders
    that were not looked through in time, so that all of it goes through the broker.
    ``devices``: the file systems beneath ``root``, as in st_dev. ``pool``: a folder with empty folders that Landlock
    opens, or empty. ``whole``: what all of it is to programs outside, where it is not ``writable`` for that; or empty.
    """

    root: str
    named: str  # as the user's programs name it; links may be on the way
    mode: Mode
    writable: bool
    native: tuple[str, ...]
    readable: tuple[str, ...]
    closed: tuple[Closed, ...]
    found: tuple[str, ...]
    holders: frozenset[str]
    not_seen: tuple[str, ...]
    devices: frozenset[int]
    visible: tuple[str, ...]  # of a home folder: what does not begin with a dot, at its top
    pool: str = ""
    whole: str = ""
    started_in: frozenset[str] = frozenset()  # folders in which programs outside start a Python
    modules: frozenset[str] = frozenset()  # what that would import
    own_modules: frozenset[str] = frozenset()  # paths that were there at the start
    aliases: tuple[tuple[str, str], ...] = ()  # links in the private home: (where, to what in the folder)
    elsewhere: tuple[str, ...] = ()  # beneath the root, but none of it: what lasts of the private home

    @property
    def pooled(self) -> tuple[str, ...]:
        return (*self.pooled_folders, *self.pooled_files)

    @property
    def pooled_folders(self) -> tuple[str, ...]:
        return tuple(f"{self.pool}/{number}" for number in range(_POOLED_FOLDERS)) if self.pool else ()

    @property
    def pooled_files(self) -> tuple[str, ...]:
        """For programs: one that has no rule cannot be run."""
        return tuple(f"{self.pool}/f{number}" for number in range(_POOLED_FILES)) if self.pool else ()


_POOLED_FOLDERS, _POOLED_FILES = 32, 64


_SHOWN = 6


def sentence(guard: Guard) -> str:
    """For the first cell: what is closed in the notebook's folder."""
    names = list(dict.fromkeys(path[len(guard.root.rstrip("/")) + 1 :] for path in guard.found))
    parts = []
    if guard.mode == "home":
        parts.append("this notebook lies in your home folder: its entries whose names begin with a dot are closed.")
        names = [name for name in names if not name.startswith(".")]
    if guard.whole:
        parts.append(
            f"this folder is read only, since it is {guard.whole}: programs outside would run what is put there."
        )
    if names:
        more = f" and {len(names) - _SHOWN} more (%sandbox policy has all)" if len(names) > _SHOWN else ""
        parts.append(f"closed in this folder, or read only: {', '.join(names[:_SHOWN])}{more}.")
    if guard.not_seen:
        parts.append(
            f"{len(guard.not_seen)} folders were not looked through in time; files in them open more slowly, and"
            " programs in them do not run."
        )
    return " ".join(parts)

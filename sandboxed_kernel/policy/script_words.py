"""Pure: which words of a hook, a script or a tool's settings may be the name of a file that it runs.

No shell is understood here: each word is taken for a path, and whoever asks looks whether there is such a file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

_WORD = re.compile(r"[^\s;|&()<>`\"'=,\[\]]+")
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_MODULE = re.compile(r"\s-[a-zA-Z]*m[\s\"',]*([A-Za-z_]\w*)")
# "$PYTHON" -m NAME, python3 -c CODE: with -I and -P it does not look for modules where it is started.
_PYTHON = re.compile(r"python[^\s;|&]*[\"']?((?:[ \t]+-[a-zA-Z]+)*?)[ \t]+-([a-zA-Z]*)[mc]", re.IGNORECASE)
_INTERPRETER = re.compile(r"(?<![\w.])(/[^\s\"'=:]+/python[\d.]*)(?![\w.-])")
# direnv-stdlib(1), and settings of mise: folders on PATH from then on.
_ON_PATH = re.compile(r"PATH|\bload_prefix\b|_\.path\b")
_HERE = re.compile(r"(?:\bPATH_add|\bPATH=\S*?)[ \t:\"']*(?:\.|\$\{?PWD\}?|\$\(pwd\))(?=[\s:\"';]|$)")
_VARIABLE = re.compile(r"\$[^/]*|pwd|\w*PATH\w*|export|load_prefix|_\.path", re.IGNORECASE)


def words_in(text: str) -> list[str]:
    """Each word, and what of it remains where its beginning is a folder that only the program knows:
    ``$(dirname "$0")/../run``, ``${workspaceFolder}/run``.
    """
    found: dict[str, None] = {}
    for word in _WORD.findall(text):
        found[word] = None
        if word.startswith(("$", "/")) and "/" in word:
            found[word.partition("/")[2].lstrip("/")] = None
        elif word.startswith("@"):
            found[word[1:]] = None
    return [word for word in found if word not in ("", ".", "..")]


def modules_in(text: str) -> Iterator[str]:
    """Modules that a Python is told to run, and looks for in the folder in which it is started first: ``-m NAME``."""
    for name in _MODULE.findall(f" {text}"):
        yield from (name, f"{name}.py")


def starts_python(text: str) -> bool:
    """Whether a Python is started that imports from the folder it is started in before all others."""
    return any(not {*found[1], *found[2]} & {"I", "P"} for found in _PYTHON.finditer(text))


def interpreters_in(text: str) -> list[str]:
    """Pythons that are named by their paths."""
    return list(dict.fromkeys(_INTERPRETER.findall(text)))


def folders_on_path(text: str) -> Iterator[str]:
    """Folders that direnv or mise put on PATH when somebody enters the folder of these settings, there or not."""
    for line in without_comments(text).splitlines():
        if _ON_PATH.search(line):
            if _HERE.search(line):
                yield "."
            yield from (word for word in words_in(line.replace(":", " ")) if not _VARIABLE.fullmatch(word))


def is_started(text: str, word: str) -> bool:
    """Whether ``text`` starts the Python program ``word``, and does not only mention it."""
    if not word.endswith(".py"):
        return False
    return re.search(_START + re.escape(word), text) is not None


_START = r"(?:python[\w.]*|exec|entry:|run:|command[\"']?:)[ \t]*(?:-\S+[ \t]+)*[^\s;|&]*?"


def without_selections(text: str) -> str:
    """YAML without the lines that say of which files a hook is, or where it comes from, and what is indented below."""
    found, deeper = [], -1
    for line in text.splitlines():
        indentation = len(line) - len(line.lstrip(" -"))
        if deeper >= 0 and (not line.strip() or indentation > deeper):
            continue
        deeper = indentation if _SELECTION.match(line) else -1
        if deeper < 0:
            found.append(line)
    return "\n".join(found)


# pre-commit.com, lefthook.dev
_SELECTION = re.compile(
    r"[ \t-]*(?:exclude|exclude_types|files|glob|id|name|repo|rev|stages|tags|types|types_or|description)[ \t]*:"
)


def without_comments(text: str) -> str:
    return _COMMENT.sub("", text)

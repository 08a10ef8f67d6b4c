"""Pure: what a file of git's settings names that git runs, or reads as settings. Source: git-config(1).

Too much rather than too little: what is named is closed, whether git would come to run it or not.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_SECTION = re.compile(r"\[\s*([\w.-]+)\s*(?:\"(?:[^\"\\]|\\.)*\")?\s*\]\s*")
_KEY = re.compile(r"([A-Za-z][\w-]*)\s*=\s*(.*)", re.DOTALL)
_WORD = re.compile(r"[^\s;|&()<>`\"']+")
_HOME = re.compile(r"^\$\{?HOME\}?(?=/)")

_PATHS = frozenset({"hookspath", "path", "templatedir", "attributesfile"})
_COMMANDS = frozenset({
    "alternaterefscommand", "askpass", "cccmd", "clean", "cmd", "command", "defaultkeycommand", "difffilter", "driver",
    "editor", "external", "fsmonitor", "gitproxy", "headercmd", "helper", "packobjectshook", "pager", "process",
    "program", "receivepack", "sendmailcmd", "smtpserver", "smudge", "sshcommand", "textconv", "tocmd", "uploadpack",
})  # fmt: skip
_COMMAND_SECTIONS = frozenset({"alias", "pager"})


class Named(NamedTuple):
    """``paths`` mean a file or folder, there or not; ``words`` of commands may mean one. ``included``: further
    settings, from the file's own folder; they are among ``paths`` too.
    """

    paths: tuple[str, ...]
    words: tuple[str, ...]
    included: tuple[str, ...]


def named_in(text: str) -> Named:
    paths: list[str] = []
    words: list[str] = []
    included: list[str] = []
    section = ""
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        rest = line.strip()
        while (found := _SECTION.match(rest)) is not None:  # a value may follow on the same line
            section = found[1].lower().partition(".")[0]
            rest = rest[found.end() :]
        setting = _KEY.match(rest)
        if setting is None:
            continue
        key, value = setting[1].lower(), _value(setting[2])
        if key in _PATHS:
            paths.append(value)
            if key == "path" and section in ("include", "includeif"):
                included.append(value)
        elif key in _COMMANDS or section in _COMMAND_SECTIONS:
            command = value.removeprefix("!")
            words += [command, *_WORD.findall(command)]
    return Named(*(tuple(dict.fromkeys(map(_at_home, filter(None, found)))) for found in (paths, words, included)))


def _value(text: str) -> str:
    """Without quotes, escapes and a comment at the end."""
    found, quoted, letters = [], False, iter(text)
    for letter in letters:
        if letter == "\\":
            found.append(next(letters, ""))
        elif letter == '"':
            quoted = not quoted
        elif letter in "#;" and not quoted:
            break
        else:
            found.append(letter)
    return "".join(found).strip()


def _at_home(word: str) -> str:
    return _HOME.sub("~", word)

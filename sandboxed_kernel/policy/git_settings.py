"""Pure: what a file of git's settings names that git runs, or reads as settings. Source: git-config(1).

Too much rather than too little: what is named is closed, whether git would come to run it or not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from sandboxed_kernel.policy.script_words import words_in

_SECTION = re.compile(r"\[\s*([\w.-]+)\s*(?:\"(?:[^\"\\]|\\.)*\")?\s*\]\s*")
_KEY = re.compile(r"([A-Za-z][\w-]*)\s*=\s*(.*)", re.DOTALL)
_HOME = re.compile(r"^\$\{?HOME\}?(?=/)")

_PATHS = frozenset({"hookspath", "path", "templatedir", "attributesfile"})
_COMMANDS = frozenset({
    "alternaterefscommand", "askpass", "authorsprog", "cccmd", "clean", "cmd", "command", "defaultkeycommand",
    "difffilter", "driver", "editor", "external", "fsmonitor", "gitproxy", "headercmd", "helper", "httpd",
    "packobjectshook", "pager", "process", "program", "receivepack", "recentobjectshook", "sendmailcmd", "smtpserver",
    "smudge", "sshcommand", "textconv", "tocmd", "tunnel", "uploadpack",
})  # fmt: skip
_COMMAND_SECTIONS = frozenset({"alias", "pager"})
# Files that are only read, as data or as text for people.
_DATA = frozenset({"excludesfile", "ignorerevsfile", "file", "template"})


class Named(NamedTuple):
    """``paths`` mean a file or folder, there or not; ``words`` of commands may mean one; ``files`` are words of other
    settings, which new versions of git may run: what is no file is none of these. ``included``: further settings, from
    the file's own folder; they are among ``paths`` too.
    """

    paths: tuple[str, ...]
    words: tuple[str, ...]
    included: tuple[str, ...]
    files: tuple[str, ...] = ()


def named_in(text: str) -> Named:
    paths: list[str] = []
    words: list[str] = []
    included: list[str] = []
    files: list[str] = []
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
            paths.append(value.removeprefix(":(optional)"))
            if key == "path" and section in ("include", "includeif"):
                included.append(paths[-1])
        elif key in _COMMANDS or section in _COMMAND_SECTIONS or value.startswith("!"):
            command = value.removeprefix("!")
            words += [command, *words_in(command)]
        elif key not in _DATA:
            files += [value, *words_in(value)]
    return Named(
        *(tuple(dict.fromkeys(map(_at_home, filter(None, found)))) for found in (paths, words, included, files))
    )


def in_variables(environment: Mapping[str, str]) -> str:
    """The settings that git takes from the environment, as a file would say them: git-config(1), ENVIRONMENT."""
    count = environment.get("GIT_CONFIG_COUNT", "")
    lines = []
    for number in range(min(int(count), 1000) if count.isdecimal() else 0):
        section, _, key = environment.get(f"GIT_CONFIG_KEY_{number}", "").rpartition(".")
        value = environment.get(f"GIT_CONFIG_VALUE_{number}", "")
        lines += [f"[{section.partition('.')[0]}]", f"{key} = {_quoted(value)}"]
    return "\n".join(lines)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


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

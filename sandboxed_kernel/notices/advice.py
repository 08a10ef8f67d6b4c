"""Pure: what a person does so that the next start allows what was refused: a command, or lines of the policy.

A command is pasted into a shell. So it is shown only if nothing in it means anything to one, whoever chose the name.
"""

from __future__ import annotations

import re

from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.records import Record

_WORD = r"[A-Za-z0-9_.,:/@%+=~-]+"
_LONGEST = 200  # characters of a command
ALLOW = "sandboxed-kernel allow"  # alone it lists the last refusals, for choosing
_TABLE = r'\{ host = "([^"]+)", port = ([0-9]+)(, protocol = "udp")?(, private = true)?(, tls = "unchecked")? \}'

# Hosts of the presets that are one thing to people: who reaches the one will ask for the others next. As the presets
# have them (a test), since reading these takes longer than a refused call may wait.
PRESETS = {
    "pypi": ("pypi.org", "files.pythonhosted.org"),
    "data-science": ("conda.anaconda.org", "repo.anaconda.com", "github.com", "api.github.com", "codeload.github.com",
                     "raw.githubusercontent.com", "huggingface.co", "www.openml.org", "api.openml.org",
                     "data.openml.org", "archive.ics.uci.edu", "zenodo.org", "download.pytorch.org"),
    "llm-api": ("api.anthropic.com", "api.openai.com", "generativelanguage.googleapis.com", "api.mistral.ai",
                "api.cohere.com", "api.deepseek.com", "api.groq.com", "api.together.xyz", "api.x.ai", "openrouter.ai",
                "router.huggingface.co"),
}  # fmt: skip


class Place(Record):
    """Where the policy of this kernel stands."""

    file: str = ""  # empty: not known to whoever shows the notice
    options: tuple[str, ...] = ()  # by which a command finds it: ("--kernel", "exam")
    is_mine: bool = True  # the user may change it


def command(event: Event, place: Place) -> str | None:
    """The command that allows what ``event`` tells of; ALLOW alone where a name could mean something to a shell. None
    where no line can allow it.
    """
    if event.allow_line is None:
        return None
    words: tuple[str, ...]
    if event.kind == "file" or is_unix(event):
        word, _, entry = event.allow_line.partition(" = ")
        words = (f"--{word}", entry[2:-2])
    elif table := re.fullmatch(_TABLE, event.allow_line):
        options = (*(("--private",) if table[4] else ()), *(("--unchecked",) if table[5] else ()))
        words = (*options, f"{'udp://' if table[3] else ''}{table[1]}:{table[2]}")
    else:
        words = (event.allow_line[1:-1],)
    return _command(words, place) or _command((), place) or ALLOW


def is_unix(event: Event) -> bool:
    """Whether a line under ``[network] unix`` allows it."""
    return event.allow_line is not None and event.allow_line.startswith("unix = ")


def preset_command(event: Event, place: Place) -> tuple[str, str] | None:
    """A preset that has the host and what belongs to it, and the command for it."""
    if event.allow_line is None or event.port not in (None, 443):
        return None
    name = next((name for name, hosts in PRESETS.items() if event.host in hosts), None)
    line = None if name is None else _command(("--preset", name), place)
    return None if name is None or line is None else (name, line)


def variable_command(event: Event, place: Place) -> str | None:
    """For a refused ``.env``: the command for one variable of it, in which NAME is left to be written."""
    word, _, entry = (event.allow_line or "").partition(" = ")
    if event.kind != "file" or word != "read" or not re.search(r"/\.env(\.[^/]*)?$", entry[2:-2]):
        return None
    return _command(("--env", "NAME", "--from", entry[2:-2]), place)


def _command(words: tuple[str, ...], place: Place) -> str | None:
    words = (*words, *place.options)
    line = " ".join((ALLOW, *words))
    return line if all(re.fullmatch(_WORD, word) for word in words) and len(line) <= _LONGEST else None

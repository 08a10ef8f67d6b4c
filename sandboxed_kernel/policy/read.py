"""Does: reads policy files and presets. What they mean is ``file.py``'s."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from io import StringIO

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.file import Source, absolute, build, preset_source, unknown_extends
from sandboxed_kernel.policy.model import Policy, VariableFrom

MAX_BYTES = 1 << 20  # a policy is a page of text; more is a mistake, or somebody's data set

# By path: importlib.resources takes 20 ms to import, and a policy is read while a kernel starts.
_PRESETS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "presets")


def load(path: str, *, workspace: str, home: str, text: str | None = None, seen: list[Source] | None = None) -> Policy:
    """The Policy of the file at ``path`` and all that it extends. Raises PolicyError, nothing else.

    ``workspace`` and ``home`` are absolute paths: what the policy's relative paths and ``~`` start from. With ``text``
    this is taken for the file's, which is to be written. ``seen`` receives every text, what is extended first.
    """

    def open_extended(entry: str, by: Source, place: str) -> Source:
        if not entry.endswith(".toml"):
            known = presets()
            if entry not in known:
                raise unknown_extends(entry, place, known)
            return preset_source(entry, known[entry])
        if by.identity.startswith("preset:"):
            raise PolicyError(place, "a preset extends a file", "Extend presets only")
        return _source(absolute(entry, by.folder, home, place), place)

    return build(_source(path, path, text), workspace=workspace, home=home, open_extended=open_extended, seen=seen)


def presets() -> dict[str, str]:
    """The TOML text of each preset that comes with this package, by name."""
    names = sorted(name for name in os.listdir(_PRESETS) if name.endswith(".toml"))
    return {name.removesuffix(".toml"): _text(os.path.join(_PRESETS, name), name) for name in names}


def variables(named: Iterable[VariableFrom]) -> tuple[list[tuple[str, str]], list[str]]:
    """What the files under ``[environment] from`` give their variables: (name, value) of each, and for each that gets
    none a sentence. The form is that of python-dotenv; nothing is filled in.
    """
    found, said = [], []
    for each in named:
        try:
            found.append((each.name, _value(each)))
        except PolicyError as error:
            said.append(f"{each.name} is not set: {error.found} ({each.place}). {error.write}.")
    return found, said


def _value(wanted: VariableFrom) -> str:
    """Raises PolicyError."""
    from dotenv import dotenv_values  # only where a policy has such a line

    text = _text(wanted.path, wanted.place, "a file with lines NAME=VALUE")
    if len(text) > _MOST_OF_VARIABLES or _BLANKS.search(text):
        found = f"{wanted.path} holds more than {_MOST_OF_VARIABLES >> 10} KiB, or hundreds of blanks in a row"
        raise PolicyError(wanted.place, found, "Name a file with some lines NAME=VALUE")
    value = dotenv_values(stream=StringIO(text), interpolate=False).get(wanted.name)
    if value is None:
        found = f"{wanted.path} has no line {wanted.name}=..."
        raise PolicyError(wanted.place, found, "Add it, or remove the variable from the policy")
    at = value.find("${")  # what load_dotenv fills in
    if "\0" in value or (at >= 0 and "}" in value[at:]):
        found = f"its value in {wanted.path} refers to another variable, or holds a NUL"
        raise PolicyError(wanted.place, found, "Write the value itself there")
    return value


# python-dotenv takes an hour for a MiB of blanks, and a kernel's start waits for it.
_MOST_OF_VARIABLES = 1 << 16
_BLANKS = re.compile(r"[^\S\r\n]{200}")


def _source(path: str, place: str, text: str | None = None) -> Source:
    """The policy at ``path``; ``place`` is where an error about the file itself is the reader's to mend."""
    text = _text(path, place) if text is None else text.removeprefix("\ufeff")
    # Two spellings of one file are one file: a cycle is seen by where the links lead.
    return Source(path, text, os.path.dirname(os.path.abspath(path)), os.path.realpath(path))


def _text(path: str, place: str, wanted: str = "a policy file") -> str:
    what = "" if path == place else f"{path}: "
    if "\0" in path:
        raise PolicyError(place.replace("\0", "\\0"), "a NUL character in the file's name", "Write the name of a file")
    try:
        # Non-blocking: opening a FIFO must not wait for a writer that never comes.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        with open(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise PolicyError(place, f"{what}not a regular file", f"Name {wanted}")
            data = file.read(MAX_BYTES + 1)
    except IsADirectoryError:  # open() of a descriptor says so before fstat does
        raise PolicyError(place, f"{what}not a regular file", f"Name {wanted}") from None
    except (OSError, UnicodeEncodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "a name that is not text"
        raise PolicyError(place, f"{what}cannot be read ({reason})", f"Name {wanted} that you may read") from None
    if len(data) > MAX_BYTES:
        raise PolicyError(place, f"{what}more than {MAX_BYTES >> 20} MiB", f"Name {wanted}, some lines of text")
    try:
        return data.decode("utf-8-sig")  # with or without the mark that some Windows editors put first
    except UnicodeDecodeError as error:
        found = f"{what}byte {error.start + 1} is not UTF-8"
        raise PolicyError(place, found, "Save the file as UTF-8") from None

"""Pure: how a value from a policy is shown in an error, and what its writer probably meant."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

_LONGEST = 80  # characters of a value in an error; the place says where to find the rest

# TOML's own names for what tomllib returns (toml.io, "Types"); bool stands before int because it is one in Python.
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "a boolean"),
    (int, "an integer"),
    (float, "a float"),
    (str, "a string"),
    (list, "an array"),
    (dict, "a table"),
)


def shown(value: object) -> str:
    """``value`` as TOML would write it, on one line, printable, at most some 80 characters."""
    if isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, str):
        text = '"' + "".join(_escaped(character) for character in value[: _LONGEST + 1]) + '"'
    elif isinstance(value, list):
        text = "[" + ", ".join(shown(item) for item in value[:_LONGEST]) + "]"
    elif isinstance(value, dict):
        text = (
            "{ " + ", ".join(f"{key_name(key)} = {shown(item)}" for key, item in list(value.items())[:_LONGEST]) + " }"
        )
    elif isinstance(value, int) and abs(value) >= 10**_LONGEST:
        text = "a number of more than 80 digits"  # str() of more than 4,300 digits raises ValueError
    elif isinstance(value, datetime):
        text = value.isoformat()
    else:
        text = str(value)
    return text if len(text) <= _LONGEST + 2 else text[:_LONGEST] + "..."


def key_name(key: str) -> str:
    """A key as it stands in TOML: bare where it may be (toml.io, "Keys")."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]{1,80}", key) else shown(key)


def _escaped(character: str) -> str:
    """A character of a basic string (toml.io, "String"); what a terminal would act upon is escaped."""
    if character in '"\\':
        return "\\" + character
    if character.isprintable():
        return character
    return f"\\u{ord(character):04X}" if ord(character) < 0x10000 else f"\\U{ord(character):08X}"


def size_text(size: int) -> str:
    """Bytes as people write them and a policy takes them: ``1 GiB``, ``1.5 GiB``, ``100 MB``; exact."""
    for unit, name in ((1 << 30, "GiB"), (1 << 20, "MiB"), (10**9, "GB"), (10**6, "MB")):
        if size >= unit and size * 100 % unit == 0:
            return f"{size / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{size} B"


def type_name(value: object) -> str:
    """What TOML calls the type of ``value``, with its article."""
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "a date or time")


def closest(word: str, choices: Iterable[str]) -> str | None:
    """The one of ``choices`` that ``word`` is probably a misspelling of, or None."""
    from difflib import get_close_matches  # only errors need it; policies are read while a kernel starts

    matches = get_close_matches(word[:_LONGEST].lower(), list(choices), n=1, cutoff=0.6)
    return matches[0] if matches else None


def instead(word: str, choices: Iterable[str]) -> str:
    """What to write instead of the unknown ``word``: the closest choice, else all of them."""
    known = list(choices)
    match = closest(word, known)
    return f'Write "{match}"' if match else "Write one of: " + ", ".join(known)

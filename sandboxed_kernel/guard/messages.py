"""Pure: what the broker and the guard tell each other: one JSON object in each message of a SOCK_SEQPACKET pair.

The guard is trusted, and reads what hostile code writes: so what it says of that is checked again where it is decoded.
"""

from __future__ import annotations

import json
from typing import Any, Literal, get_args

from sandboxed_kernel.records import Record, as_dict

MAX_BYTES = 16384
MAX_NAMES = 16  # that are told with a connection; for any other name the guard asks

# What the guard asks about: a "name" that it was not told of, "none" at all; and what cannot be allowed: an "encrypted"
# greeting, a "greeting" that cannot be read, a server that speaks first, a "changed" second greeting, a "server" whose
# answer cannot be read, and one connection too many ("full").
Kind = Literal["name", "none", "encrypted", "greeting", "server-first", "changed", "server", "full"]
MAY_PASS: frozenset[Kind] = frozenset({"name", "none"})
_KINDS = frozenset(get_args(Kind))


class Opened(Record):
    """From the broker, with two descriptors: of the socket that the sandbox is connected to, and of the server's.

    ``names``: those that its TLS greeting may name without a question, at most MAX_NAMES.
    """

    id: int
    names: tuple[str, ...]


class Verdict(Record):
    """From the broker, on ``Asked``; where it is no, the user has been told."""

    id: int
    passes: bool


class Ready(Record):
    """From the guard: it has confined itself."""


class Passed(Record):
    """From the guard: the greeting is over, or the connection is, and nothing more is asked about it."""

    id: int


class Asked(Record):
    """From the guard. ``name``: as in the greeting; ``words``: what cannot be read, for people."""

    id: int
    kind: Kind
    name: str | None = None
    words: str = ""


ToGuard = Opened | Verdict
FromGuard = Ready | Passed | Asked

_TO_GUARD: dict[str, type[Opened | Verdict]] = {"opened": Opened, "verdict": Verdict}
_FROM_GUARD: dict[str, type[Ready | Passed | Asked]] = {"ready": Ready, "passed": Passed, "asked": Asked}
_WORD = {kind: word for word, kind in {**_TO_GUARD, **_FROM_GUARD}.items()}


def encode(message: ToGuard | FromGuard) -> bytes:
    return json.dumps({"what": _WORD[type(message)], **as_dict(message)}).encode()


def decode_to_guard(data: bytes) -> ToGuard:
    """Raises ValueError, KeyError, TypeError for what ``encode`` did not write."""
    fields = json.loads(data)
    kind = _TO_GUARD[fields.pop("what")]
    if kind is Opened:
        fields["names"] = tuple(map(str, fields["names"]))
    return kind(**fields)


def decode_from_guard(data: bytes) -> FromGuard:
    """Raises ValueError, KeyError, TypeError."""
    fields: dict[str, Any] = json.loads(data)
    message = _FROM_GUARD[fields.pop("what")](**fields)
    if isinstance(message, Ready):
        return message
    if not isinstance(message.id, int):
        raise ValueError("no number of a connection")
    if isinstance(message, Asked) and (message.kind not in _KINDS or not isinstance(message.name, str | None)):
        raise ValueError("a question of an unknown kind")
    return message

"""Pure: Jupyter messages as frames, signed and unsigned; two keys, one per side.

The wire format is "The wire protocol" of https://jupyter-client.readthedocs.io/en/stable/messaging.html :
``[identity..., <IDS|MSG>, signature, header, parent_header, metadata, content, buffer...]``.
Everything that came from the sandbox is parsed here and written anew, so what the rules saw is what a client gets:
duplicate keys, escapes and odd encodings do not survive.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from sandboxed_kernel.signing import Keyed, compare_digest

Frame = bytes | memoryview
Json = dict[str, Any]

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.3"  # what ipykernel 7 says of itself (ipykernel/_version.py)
MAX_HEADER_BYTES = 65536  # header, parent header, metadata: each; a deep or giant one is refused before it is parsed
MAX_IDENTITIES = 16  # a client has one; intermediaries add theirs
MAX_ID = 256  # characters of msg_id and the like; uuids have 36
_HEADER_KEYS = ("msg_id", "msg_type", "username", "date", "version", "subshell_id")


class Unusable(Exception):
    """A message that is not passed on; ``str()`` says why, for the log."""


class Signer:
    """HMAC over the four parts of a message. One per side; the keys never meet."""

    def __init__(self, key: bytes, digest: str) -> None:
        self._keyed = Keyed(key, digest)

    def sign(self, parts: Sequence[Frame]) -> bytes:
        return self._keyed.hexdigest(parts).encode()

    def verifies(self, signature: Frame, parts: Sequence[Frame]) -> bool:
        return compare_digest(bytes(signature), self.sign(parts))


class Message:
    """A message whose header has been read; the rest is as it came. ``parts`` are header, parent, metadata, content.

    ``parent`` is shared with other messages: not to be changed.
    """

    __slots__ = ("buffers", "header", "identities", "msg_id", "msg_type", "parent", "parent_id", "parts")

    def __init__(self, identities: list[Frame], parts: list[Frame], buffers: list[Frame]) -> None:
        """Raises Unusable."""
        self.identities, self.parts, self.buffers = identities, parts, buffers
        self.header = header = read_object(parts[0])
        self.parent = parent = _read_shared(bytes(parts[1]))
        self.msg_id, self.msg_type = _name_in(header, "msg_id"), _name_in(header, "msg_type")
        self.parent_id = _name_in(parent, "msg_id", "parent's msg_id") if parent else ""

    def content(self) -> Json:
        """Raises Unusable."""
        return read_object(self.parts[3])


def verify(frames: Sequence[Frame], signer: Signer) -> Message:
    """A message from the front whose signature is right. Raises Unusable."""
    identities, signature, parts, buffers = _split(frames)
    if not signer.verifies(signature, parts):
        raise Unusable("wrong signature")
    return Message(identities, parts, buffers)


def read(frames: Sequence[Frame]) -> Message:
    """A message from the sandbox. Its signature says nothing, as all code inside may have the key. Raises Unusable."""
    identities, _, parts, buffers = _split(frames)
    return Message(identities, parts, buffers)


def _split(frames: Sequence[Frame]) -> tuple[list[Frame], Frame, list[Frame], list[Frame]]:
    try:
        end = frames.index(DELIMITER, 0, MAX_IDENTITIES + 1)
    except ValueError:
        raise Unusable("no delimiter") from None
    if len(frames) < end + 6:
        raise Unusable("too few frames")
    if max(map(len, frames[end + 2 : end + 5])) > MAX_HEADER_BYTES:
        raise Unusable("a header is too long")
    return list(frames[:end]), frames[end + 1], list(frames[end + 2 : end + 6]), list(frames[end + 6 :])


def _name_in(values: Json, key: str, name: str = "") -> str:
    value = values.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise Unusable(f"no usable {name or key}")
    return value


def _no_constant(name: str) -> None:
    """NaN and the infinities are not JSON (RFC 8259, section 6) and stop the parser of every browser."""


# Made once: json.loads() and json.dumps() make one for each text that has options.
_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False).encode


def read_object(part: Frame) -> Json:
    """JSON that is UTF-8 and an object. Raises Unusable."""
    try:
        value = _decode(str(part, "utf-8"))
    except (ValueError, RecursionError) as error:
        raise Unusable(f"not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Unusable("not a JSON object")
    return value


def write_object(value: Json) -> bytes:
    """Raises Unusable for what is deeper or larger than JSON can say (1e999 was read as infinity)."""
    try:
        return _encode(value).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise Unusable(f"cannot be written as JSON: {error}") from error


@lru_cache(maxsize=4)
def _read_shared(part: bytes) -> Json:
    return read_object(part)


@lru_cache(maxsize=4)
def write_anew(part: bytes) -> bytes:
    """Read and written, for what many messages have in common: all of a cell the same parent, nearly all no metadata.
    Raises Unusable.
    """
    return write_object(_read_shared(part))


def own_header(header: Json, session: str) -> Json:
    """The child's header with our session.

    With another session id than ours JupyterLab would cancel queued messages of ours and of the child
    (``_assertCurrentMessage``, jupyterlab/services default.js).
    """
    kept = {name: header[name] for name in _HEADER_KEYS if isinstance(header.get(name), str)}
    return {**kept, "session": session}


def frames(identities: Sequence[Frame], parts: list[Frame], buffers: Sequence[Frame], signer: Signer) -> list[Frame]:
    """The message ready to be sent."""
    return [*identities, DELIMITER, signer.sign(parts), *parts, *buffers]

"""Pure: Jupyter messages as frames, signed and unsigned; two keys, one per side.

The wire format is "The wire protocol" of https://jupyter-client.readthedocs.io/en/stable/messaging.html :
``[identity..., <IDS|MSG>, signature, header, parent_header, metadata, content, buffer...]``.

A message is of one of two types, and mypy keeps them apart. ``Verified`` comes from a client: to hold one is to know
that the user's key signed it. ``Claimed`` comes from the sandbox: all that it says was chosen there. Whatever of it
reaches a client is parsed, checked (``schema.py``) and written anew, so duplicate keys, escapes and odd encodings do
not survive.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

from sandboxed_kernel.signing import Keyed, compare_digest

Frame = bytes | memoryview
Json = dict[str, Any]

DELIMITER = b"<IDS|MSG>"
PROTOCOL_VERSION = "5.3"  # what ipykernel 7 says of itself (ipykernel/_version.py)
MAX_HEADER_BYTES = 65536  # of header, parent header and metadata, each: refused before it is parsed
MAX_IDENTITIES = 16  # a client has one; intermediaries add theirs
MAX_ID = 256  # characters of msg_id, comm_id and the like; a uuid has 36
MAX_FRAMES = 10_016  # of one message: identities, six parts, and buffers
MAX_DEPTH = 100  # of containers in one another; plotly's figures have ten. Clients walk them with recursive functions

# In the place of a frame that was too large to be received (zmtp.py). No JSON, and no frame of anybody's.
TOO_LARGE = b"\0too large"

# What one content may cost while it is parsed, so that the launcher's memory is not the sandbox's to fill.
MAX_TEXT_BYTES = 128 << 20  # as a Python string, which has as many bytes a character as its widest one needs (PEP 393)
MAX_PARSED_BYTES = 192 << 20  # as objects, by the weights below
_VALUE, _KEY, _CONTAINER = 40, 40, 200  # bytes of CPython 3.11: a float in a list, an entry of a dict, a small dict


class Unusable(Exception):
    """A message that is not passed on. ``str()`` says why: our own words, which may be shown."""


class Signer:
    """HMAC over the four parts of a message. One per side; the keys never meet."""

    def __init__(self, key: bytes, digest: str) -> None:
        self._keyed = Keyed(key, digest)

    def sign(self, parts: Sequence[Frame]) -> bytes:
        return self._keyed.hexdigest(parts).encode()

    def verifies(self, signature: Frame, parts: Sequence[Frame]) -> bool:
        return compare_digest(bytes(signature), self.sign(parts))


class Verified:
    """A request of the user's. To make one is to verify it. ``parts``: header, parent header, metadata, content."""

    __slots__ = ("_content", "buffers", "header", "identities", "msg_id", "msg_type", "parts")

    def __init__(self, frames: Sequence[Frame], signer: Signer) -> None:
        """Raises Unusable, also for a wrong signature."""
        self.identities, signature, self.parts, self.buffers = _split(frames)
        if not signer.verifies(signature, self.parts):
            raise Unusable("wrong signature")
        self.header = read_object(self.parts[0])
        self.msg_id, self.msg_type = _name_in(self.header, "msg_id"), _name_in(self.header, "msg_type")
        self._content: Json | None = None

    def content(self) -> Json:
        """Parsed once. Raises Unusable."""
        if self._content is None:
            self._content = read_object(self.parts[3])
        return self._content


class Claimed:
    """A message from the sandbox. Its signature says nothing, as all code inside may have the key.

    ``parent_id`` is the ``msg_id`` of the parent header, "" for none. ``parent`` is shared with other messages: not to
    be changed.
    """

    __slots__ = ("buffers", "msg_type", "parent", "parent_id", "parts")

    def __init__(self, frames: Sequence[Frame]) -> None:
        """Raises Unusable."""
        _, _, self.parts, self.buffers = _split(frames)
        self.msg_type = _name_in(read_object(self.parts[0]), "msg_type")
        self.parent = parent = _read_shared(bytes(self.parts[1]))
        self.parent_id = _name_in(parent, "msg_id") if parent else ""

    def content(self) -> Json:
        """Raises Unusable, also for what would cost too much to parse."""
        return read_content(self.parts[3])

    def metadata(self) -> Json:
        """Shared with other messages: not to be changed. Raises Unusable."""
        return _read_shared(bytes(self.parts[2]))


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


def _name_in(values: Json, key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise Unusable(f"no usable {key}")
    return value


def _no_constant(name: str) -> None:
    """NaN and the infinities are not JSON (RFC 8259, section 6) and stop the parser of every browser."""


# Made once: json.loads() and json.dumps() make one for each text that has options.
_decode = json.JSONDecoder(parse_constant=_no_constant).decode
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":"), check_circular=False).encode


def read_object(part: Frame) -> Json:
    """JSON that is UTF-8 and an object. Raises Unusable."""
    try:
        return _object_of(str(part, "utf-8"))
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None


def _object_of(text: str) -> Json:
    try:
        value = _decode(text)
    except (ValueError, RecursionError):
        raise Unusable("not JSON") from None
    if not isinstance(value, dict):
        raise Unusable("not a JSON object")
    return value


def write_object(value: Json) -> bytes:
    """Raises Unusable for what is deeper or larger than JSON can say (1e999 was read as infinity)."""
    try:
        return _encode(value).encode("ascii")
    except (ValueError, RecursionError):
        raise Unusable("cannot be written as JSON") from None


@lru_cache(maxsize=4)
def _read_shared(part: bytes) -> Json:
    """For what many messages have in common: all of a cell the same parent, nearly all no metadata."""
    return read_object(part)


# --- contents of the sandbox's making --------------------------------------------------------------------------------

_WIDE, _WIDER = re.compile(rb"[\xc4-\xef]"), re.compile(rb"[\xf0-\xff]")  # characters of 2 and of 4 bytes (PEP 393)
_SURROGATE = re.compile("[\ud800-\udfff]")
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
# To the end where it has none: a search that failed there would begin again at each quote.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)


def read_content(part: Frame) -> Json:
    """As ``read_object``, within the limits above, and without lone surrogates, which no client can encode.

    Raises Unusable.
    """
    if part == TOO_LARGE:
        raise Unusable("larger than what is received")
    _limit_width(part)
    try:
        text = str(part, "utf-8")
    except UnicodeDecodeError:
        raise Unusable("not UTF-8") from None
    if _parsed_size(text) > MAX_PARSED_BYTES and _parsed_size(_STRING.sub("", text)) > MAX_PARSED_BYTES:
        raise Unusable("made of more values than are read")
    # Before the rules see it: two keys that become equal are one.
    surrogates = _SURROGATE_ESCAPE.search(text) is not None
    nested = text.count("[") + text.count("{") > MAX_DEPTH
    value = _object_of(text)
    del text
    if surrogates:
        value = _object_of(_SURROGATE.sub("\ufffd", json.dumps(value, ensure_ascii=False)))
    if nested and _depth(value) > MAX_DEPTH:
        raise Unusable("nested too deeply")
    return value


def _limit_width(part: Frame) -> None:
    width = 1
    if len(part) * 4 > MAX_TEXT_BYTES and _WIDER.search(part):
        width = 4
    elif len(part) * 2 > MAX_TEXT_BYTES and _WIDE.search(part):
        width = 2
    if len(part) * width > MAX_TEXT_BYTES:
        raise Unusable(f"larger than {MAX_TEXT_BYTES // width >> 20} MB")


def _parsed_size(text: str) -> int:
    """At most so many bytes of objects, strings aside; also counts what looks like a value within a string."""
    containers = text.count("{") + text.count("[")
    return (text.count(",") + containers) * _VALUE + text.count(":") * _KEY + containers * _CONTAINER


def _depth(value: Json) -> int:
    """Of containers in one another, no further than MAX_DEPTH + 1."""
    level: list[Json | list[Any]] = [value]
    depth = 0
    while level and depth <= MAX_DEPTH:
        depth += 1
        level = [inner for each in level for inner in _values(each) if isinstance(inner, (dict, list))]
    return depth


def _values(container: Json | list[Any]) -> Iterator[Any]:
    return iter(container.values() if isinstance(container, dict) else container)


def frames(identities: Sequence[Frame], parts: list[Frame], buffers: Sequence[Frame], signer: Signer) -> list[Frame]:
    """The message ready to be sent."""
    return [*identities, DELIMITER, signer.sign(parts), *parts, *buffers]

"""Pure: what a TLS client says in its greeting: the ClientHello of RFC 8446 section 4.1.2, and nothing beyond it.

Strict where servers are lenient: what they could read in two ways is refused, so that the name that is read here is the
one that the server reads. Nothing is decrypted.
"""

from __future__ import annotations

import re

from sandboxed_kernel.records import Record

MAX_HELLO = 65536  # bytes of one greeting with its records; those of today have 300 to 2,000
RECORD_HEADER = 5  # bytes: type, version (2), length (2); RFC 8446 section 5.1
MAX_RECORD = 16384  # bytes of plaintext, RFC 8446 section 5.1
CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
CLIENT_HELLO = 1
_MESSAGE_HEADER = 4  # bytes: type, length (3); RFC 8446 section 4
_SERVER_NAME = 0  # RFC 6066 section 3
_HOST_NAME = 0
# encrypted_client_hello (RFC 9849), of its drafts from 08 on and of 07, and what was there before it: the name that is
# seen is not the one that is meant.
_ENCRYPTED = frozenset({*range(0xFE08, 0xFE0E), 0xFF02, 0xFFCE})
_NAME = re.compile(rb"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z", re.IGNORECASE)


class NotTls(Exception):
    """These bytes are not the greeting of a TLS client; says why, for people."""


class Hello(Record):
    """``name`` is the server that it asks for, in lower case (RFC 6066: server_name), or None where it names none.

    ``encrypted``: it holds another greeting that cannot be read.
    """

    name: str | None
    encrypted: bool


class _Fields:
    """Reads vectors off the front of ``data``. Raises NotTls where there is less than it says."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def take(self, length: int) -> bytes:
        end = self._at + length
        if end > len(self._data):
            raise NotTls("its greeting ends too early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, length: int) -> int:
        return int.from_bytes(self.take(length), "big")

    def vector(self, length_bytes: int, *, least: int = 0) -> bytes:
        length = self.number(length_bytes)
        if length < least:
            raise NotTls("a part of its greeting is too short")
        return self.take(length)

    @property
    def is_over(self) -> bool:
        return self._at == len(self._data)

    def end(self) -> None:
        if not self.is_over:
            raise NotTls("its greeting holds more than it says")


class HelloReader:
    """For what comes in pieces: no record is looked at twice. A client chooses their sizes, and 64 KiB in records and
    pieces of one byte would else take minutes, in which nobody else is served.
    """

    def __init__(self) -> None:
        self._message, self._at = bytearray(), 0  # what the complete records hold, and where they end

    def read(self, data: bytes | bytearray) -> tuple[Hello, int] | None:
        """The greeting at the front of what a client sent, and how many bytes its records have; None where it is not
        complete yet. ``data``: what it was given before, with more behind it. Raises NotTls.
        """
        message = self._message
        while True:
            record = read_record(data, self._at)
            if record is None:
                if len(data) > MAX_HELLO:
                    raise NotTls("its greeting is too long")
                return None
            kind, start, self._at = record
            if kind != HANDSHAKE:
                raise NotTls("it does not begin with a TLS greeting")
            message += data[start : self._at]
            if message[0] != CLIENT_HELLO:
                raise NotTls("it begins with another message than a greeting")
            if self._at > MAX_HELLO:
                raise NotTls("its greeting is too long")
            if len(message) < _MESSAGE_HEADER:
                continue
            length = _MESSAGE_HEADER + int.from_bytes(message[1:_MESSAGE_HEADER], "big")
            if length > MAX_HELLO:
                raise NotTls("its greeting is too long")
            if len(message) > length:  # a second message in the same record: RFC 8446 section 5.1, key changes
                raise NotTls("its greeting holds more than it says")
            if len(message) == length:
                return _read_message(bytes(message[_MESSAGE_HEADER:])), self._at


def read_record(data: bytes | bytearray, at: int = 0) -> tuple[int, int, int] | None:
    """Type, start and end of the content of the record at ``at``; None where it is not complete. Raises NotTls, as soon
    as its beginning is no record's.
    """
    if len(data) <= at:
        return None
    kind = check_header(data[at : at + RECORD_HEADER])
    if len(data) < at + RECORD_HEADER:
        return None
    length = int.from_bytes(data[at + 3 : at + RECORD_HEADER], "big")
    end = at + RECORD_HEADER + length
    return (kind, at + RECORD_HEADER, end) if len(data) >= end else None


def check_header(header: bytes | bytearray) -> int:
    """The type that a record's header says, of which at least one byte is there. Raises NotTls."""
    kind = header[0]
    if not CHANGE_CIPHER_SPEC <= kind <= APPLICATION_DATA or header[1:2] not in (b"", b"\3"):
        raise NotTls("it does not speak TLS")
    if len(header) == RECORD_HEADER:
        length = int.from_bytes(header[3:], "big")
        # RFC 8446 section 5.2: an encrypted record may be 256 bytes longer, of TLS 1.2 (RFC 5246 6.2.3) 2,048.
        most = MAX_RECORD + 2048 if kind == APPLICATION_DATA else MAX_RECORD
        if not length <= most or (not length and kind != APPLICATION_DATA):
            raise NotTls("it does not speak TLS")
    return int(kind)


def _read_message(body: bytes) -> Hello:
    """RFC 8446 section 4.1.2; RFC 5246 section 7.4.1.2 for what has no extensions."""
    fields = _Fields(body)
    if fields.number(1) != 3:
        raise NotTls("its greeting is of another protocol")
    fields.take(1 + 32)  # the rest of legacy_version, random
    if len(fields.vector(1)) > 32:
        raise NotTls("the session that it goes on with has no proper name")
    if len(fields.vector(2, least=2)) % 2:
        raise NotTls("its list of ciphers is no list")
    fields.vector(1, least=1)  # legacy_compression_methods
    if fields.is_over:
        return Hello(None, encrypted=False)
    extensions = _read_extensions(fields.vector(2))
    fields.end()
    encrypted = not _ENCRYPTED.isdisjoint(extensions)
    named = extensions.get(_SERVER_NAME)
    return Hello(None if named is None else _read_name(named), encrypted=encrypted)


def _read_extensions(data: bytes) -> dict[int, bytes]:
    """By type. Each once, RFC 8446 section 4.2: of two, a server might take the other one."""
    fields, found = _Fields(data), dict[int, bytes]()
    while not fields.is_over:
        kind = fields.number(2)
        if kind in found:
            raise NotTls("its greeting says the same thing twice")
        found[kind] = fields.vector(2)
    return found


def _read_name(data: bytes) -> str:
    """RFC 6066 section 3: a list with one name; as servers take it, letters, digits and hyphens without a last dot."""
    fields = _Fields(data)
    names = _Fields(fields.vector(2, least=1))
    fields.end()
    if names.number(1) != _HOST_NAME:
        raise NotTls("the server that it asks for has no host name")
    name = names.vector(2, least=1)
    names.end()
    if len(name) > 253 or not _NAME.match(name):
        raise NotTls("what it asks for is no host name")
    return name.decode("ascii").lower()

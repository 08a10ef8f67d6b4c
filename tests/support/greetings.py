"""Does: real TLS greetings, and what OpenSSL makes of them; without sockets, by ``ssl.MemoryBIO``.

The reference is OpenSSL itself: the names that a server's callback is told are the ones that it would serve.
"""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.secure import Authority

P384 = "secp384r1"


class Client:
    """OpenSSL's client side."""

    def __init__(self, name: str | None, context: ssl.SSLContext | None = None) -> None:
        if context is None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=name)

    def says(self, heard: bytes = b"") -> bytes:
        """What it sends once it has heard that."""
        return _step(self.tls, self.incoming, self.outgoing, heard)


class Server:
    """OpenSSL's server side. ``names``: those that its callback was told, the last of which it serves."""

    def __init__(self, certificate: Path, curve: str | None = None) -> None:
        """``curve``: the only one that it takes; a client that guesses another one is asked to greet again."""
        self.names: list[str | None] = []
        context = server_context(certificate, curve, self.names.append)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_side=True)

    def says(self, heard: bytes) -> bytes:
        return _step(self.tls, self.incoming, self.outgoing, heard)


def server_context(certificate: Path, curve: str | None, told: Callable[[str | None], object]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    if curve is not None:
        context.set_ecdh_curve(curve)

    def callback(_tls: object, name: str | None, _context: object) -> None:
        told(name)

    context.sni_callback = callback
    return context


def _step(tls: ssl.SSLObject, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, heard: bytes) -> bytes:
    if heard:
        incoming.write(heard)
    try:
        tls.do_handshake()
    except (ssl.SSLWantReadError, ssl.SSLError):
        pass  # an error leaves its alert in what is sent
    return outgoing.read()


class Judge:
    """Many greetings for one certificate: what OpenSSL's server is told of each."""

    def __init__(self, folder: Path) -> None:
        self._told: list[str | None] = []
        self._context = server_context(Authority.create(folder, "good.example").server, None, self._told.append)

    def names(self, greeting: bytes) -> list[str | None]:
        """Empty where it refuses the greeting before it asks for its name."""
        self._told.clear()
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        hook, sys.unraisablehook = (
            sys.unraisablehook,
            lambda _: self._told.append("<not ASCII>"),
        )  # in place of the call
        try:
            _step(self._context.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing, greeting)
        finally:
            sys.unraisablehook = hook
        return list(self._told)


def in_records(message: bytes, size: int) -> bytes:
    """A handshake message (without records) in records of ``size`` bytes."""
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + len(part).to_bytes(2, "big") + part for part in parts)


def hello_with(*extensions: tuple[int, bytes], version: int = 0x0303, session: bytes = b"") -> bytes:
    """A greeting of our own making, in one record."""
    said = b"".join(_number(kind, 2) + _vector(data, 2) for kind, data in extensions)
    body = _number(version, 2) + bytes(32) + _vector(session, 1) + _vector(b"\x13\x01\x13\x02\xc0\x2f", 2) + b"\x01\x00"
    body += _vector(said, 2) if extensions else b""
    return in_records(b"\x01" + _vector(body, 3), 16384)


def server_name(*names: bytes, kind: int = 0) -> tuple[int, bytes]:
    """The extension server_name, RFC 6066 section 3."""
    return 0, _vector(b"".join(_number(kind, 1) + _vector(name, 2) for name in names), 2)


def _number(value: int, length: int) -> bytes:
    return value.to_bytes(length, "big")


def _vector(data: bytes, length_bytes: int) -> bytes:
    return _number(len(data), length_bytes) + data

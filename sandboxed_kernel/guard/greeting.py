"""Pure: one TLS connection up to the point where nothing said in the clear can change which server it is for.

    client        ClientHello ->  held back until it was judged
    server     <- ServerHello     the greeting is over
    server     <- HelloRetryRequest: a second ClientHello follows, and OpenSSL serves the name of the last one.
                                  So it is judged like the first, and names the same server.

Until then, what else the client says waits here. RFC 8446 sections 2, 4.1.2 to 4.1.4.
"""

from __future__ import annotations

from typing import Literal

from sandboxed_kernel.guard.hello import (
    APPLICATION_DATA,
    HANDSHAKE,
    MAX_HELLO,
    RECORD_HEADER,
    Hello,
    HelloReader,
    NotTls,
    check_header,
    read_record,
)

_GREETS = bytes([HANDSHAKE])
_SERVER_HELLO = 2
_HEAD = 4 + 2 + 32  # bytes: type and length of the message, legacy_version, random
# RFC 8446 section 4.1.3: the random of a ServerHello that asks for another greeting.
RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")


Kind = Literal["greeting", "server-first", "changed", "server"]  # see ``messages.Kind``


class Wrong(Exception):
    """It must end here; says why, for people."""

    def __init__(self, kind: Kind, words: str) -> None:
        super().__init__(words)
        self.kind = kind


class Greeting:
    """Feed it what each side says, send on what it gives. No call takes longer than its bytes; it holds 64 KiB of the
    client's, and of the server's the beginning of one message.
    """

    def __init__(self) -> None:
        self.hello: Hello | None = None  # waits to be judged: call ``accept``, or end the connection
        self.is_over = False  # from now on bytes are only passed on
        self._named: Hello | None = None  # the first, once it was accepted
        self._held = bytearray()  # of the client
        self._reader = HelloReader()  # of the greeting at its front
        self._size = 0  # of that, once it is complete
        self._server = _ServerSide()

    @property
    def takes_more(self) -> bool:
        """Whether the client should be read from."""
        return self.hello is None and len(self._held) <= MAX_HELLO

    @property
    def is_tls(self) -> bool:
        """Whether the client seems to understand an alert."""
        return self._held[:1] == _GREETS or self._named is not None

    @property
    def holds_back(self) -> bool:
        """Whether there is anything of the client that the server has not been sent."""
        return bool(self._held)

    @property
    def waits_for_client(self) -> bool:
        """Whether nothing goes on before it has said more: its first greeting, or the second one."""
        return self.hello is None and (self._named is None or self._server.wants_hello)

    def from_client(self, data: bytes | bytearray | memoryview) -> bytes:
        """What goes to the server now. Raises Wrong."""
        self._held += data
        return self._look()

    def accept(self) -> bytes:
        """The greeting names a server that it may name: what goes to the server now."""
        if self._named is None:
            self._named = self.hello
        else:
            self._server.retried()
        self.hello = None
        released = bytes(self._held[: self._size])
        del self._held[: self._size]
        self._reader = HelloReader()
        return released

    def from_server(self, data: bytes | bytearray | memoryview) -> bytes:
        """All of it goes to the client; what goes to the server now. Raises Wrong."""
        if self._named is None:
            raise Wrong("server-first", "the server speaks first, as no TLS server does")
        try:
            self._server.feed(bytes(data))
        except NotTls as error:
            raise Wrong("server", f"the server's answer cannot be read: {error}") from None
        if not self._server.is_over:
            return self._look()
        self.is_over = True
        released, self._held = bytes(self._held), bytearray()
        return released

    def _look(self) -> bytes:
        """Look for a greeting where one is due. What goes to the server now."""
        if self.hello is not None or (self._named is not None and not self._server.wants_hello):
            return b""
        released = b""
        try:
            if self._named is not None:
                released = self._pass_refused_early_data()
            if self._named is None or self._held[:1] == _GREETS:
                self._read()
        except NotTls as error:
            raise Wrong("greeting", str(error)) from None
        return released

    def _read(self) -> None:
        found = self._reader.read(self._held)
        if found is not None:
            self.hello, self._size = found
            if self._named not in (None, self.hello):
                raise Wrong("changed", "its second greeting is not for the same server as the first")

    def _pass_refused_early_data(self) -> bytes:
        """Before the second greeting: what an early client has sent already (RFC 8446 section 4.2.10), the one byte
        that makes it look like TLS 1.2 (appendix D.4), and the alert of one that gives up.
        """
        at = 0
        while (record := read_record(self._held, at)) is not None and record[0] != HANDSHAKE:
            at = record[2]
        released = bytes(self._held[:at])
        del self._held[:at]
        return released


class _ServerSide:
    """Reads the server's records as far as its first handshake message; a second one after HelloRetryRequest."""

    def __init__(self) -> None:
        self.is_over = False
        self.wants_hello = False  # a second one
        self._retried = False
        self._header = bytearray()  # of the record that begins
        self._kind, self._left = 0, 0  # of the record that goes on: its type, and bytes to come
        self._head = bytearray()  # of the handshake message that goes on
        self._skip = 0  # bytes of it to come that do not matter

    def retried(self) -> None:
        """The second greeting was accepted."""
        self.wants_hello, self._retried = False, True

    def feed(self, data: bytes) -> None:
        """Raises NotTls."""
        at = 0
        while at < len(data) and not self.is_over:
            if not self._left:
                at = self._begin_record(data, at)
                continue
            part = data[at : at + self._left]
            self._left -= len(part)
            at += len(part)
            if self._kind == HANDSHAKE:
                self._read_messages(part)
            elif self._kind == APPLICATION_DATA:
                raise NotTls("it encrypts before it has greeted")

    def _begin_record(self, data: bytes, at: int) -> int:
        """Where its content begins, or the end of what is there."""
        end = at + RECORD_HEADER - len(self._header)
        self._header += data[at:end]
        kind = check_header(self._header)
        if len(self._header) == RECORD_HEADER:
            self._kind, self._left = kind, int.from_bytes(self._header[3:], "big")
            self._header.clear()
        return min(end, len(data))

    def _read_messages(self, part: bytes) -> None:
        while part and not self.is_over:
            if self._skip:
                skipped = min(self._skip, len(part))
                self._skip -= skipped
                part = part[skipped:]
                continue
            if self.wants_hello:
                raise NotTls("it goes on before it has had the greeting that it asked for")
            missing = _HEAD - len(self._head)
            self._head += part[:missing]
            part = part[missing:]
            if self._head[0] != _SERVER_HELLO:
                raise NotTls("it answers a greeting with something else")
            if len(self._head) == _HEAD:
                self._understand()

    def _understand(self) -> None:
        length = int.from_bytes(self._head[1:4], "big")
        is_retry = self._head[-32:] == RETRY
        self._head.clear()
        if not is_retry:
            self.is_over = True
            return
        if self._retried or length < _HEAD - 4:
            raise NotTls("it asks for a third greeting" if self._retried else "its greeting is too short")
        self.wants_hello, self._skip = True, length - (_HEAD - 4)

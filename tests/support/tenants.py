"""Does: a TLS server with several tenants on one address, as a content delivery network has them: the receiver.

It notes the name of each greeting and the Host of each request, and answers both.
"""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from tests.support.greetings import server_context
from tests.support.secure import Authority
from tests.support.servers import DEADLINE, family_of


class Tenants:
    """``with Tenants(authority) as server: server.port, server.names``; ``curve``: see ``greetings.Server``.

    ``answer``: what a connection gets once it is greeted, in place of an HTTP answer.
    """

    def __init__(
        self,
        authority: Authority,
        address: str = "127.0.0.1",
        port: int = 0,
        *,
        curve: str | None = None,
        serve: Callable[[ssl.SSLSocket], None] | None = None,
    ) -> None:
        self.names: list[str | None] = []
        self.hosts: list[str] = []
        self.connections = 0
        self._context = server_context(authority.server, curve, self.names.append)
        self._serve = serve or self._answer
        self.sock = socket.create_server((address, port), family=family_of(address), backlog=128)
        self.address, self.port = address, int(self.sock.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._handlers: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(DEADLINE)
        self.sock.close()
        for handler in self._handlers:
            handler.join(DEADLINE)
            assert not handler.is_alive()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            self.connections += 1
            handler = threading.Thread(target=self._handle, args=(connection,), daemon=True)
            self._handlers.append(handler)
            handler.start()

    def _handle(self, connection: socket.socket) -> None:
        connection.settimeout(DEADLINE)
        with connection, suppress(OSError):
            # Of one that is reset before it says anything ``wrap_socket`` would lose the descriptor.
            if connection.recv(1, socket.MSG_PEEK):
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    self._serve(tls)

    def _answer(self, tls: ssl.SSLSocket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            data = tls.recv(65536)
            if not data:
                return
            head += data
        host = next((line[5:].strip() for line in head.split(b"\r\n") if line.lower().startswith(b"host:")), b"")
        self.hosts.append(host.decode())
        said = b"tenant " + host
        tls.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(said), said))

    def served(self, name: str) -> int:
        """How often it was asked for ``name`` in a greeting."""
        return self.names.count(name)

"""Does: services on this machine that write down what reaches them, the receiver's side of every promise.

``received()`` is exact, not a matter of waiting long enough: it sends a mark of its own through the same queue and
returns what arrived before the mark. (Queues of a listening or datagram socket on one machine are first in, first
out, and a send on loopback has been queued when it returns.)
"""

from __future__ import annotations

import secrets
import socket
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

DEADLINE = 10.0  # seconds; a wait that takes longer is a failure of the machine or of the harness, and says so

T = TypeVar("T")


@dataclass
class Contact:
    """One connection or datagram: who (an address as the socket module gives it), and what came."""

    peer: Any
    data: bytes = b""
    finished: bool = False


def wait_until(condition: Callable[[], T], what: str, within: float = DEADLINE) -> T:
    """The first true value of ``condition()``. AssertionError naming ``what`` after ``within`` seconds."""
    end = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > end:
            raise AssertionError(f"waited {within} s for {what}")
        time.sleep(0.005)
    return value


def endpoint_text(address: str, port: int) -> str:
    """As policies write it: ``127.0.0.1:80``, ``[::1]:80``."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def family_of(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ip_address(address).version == 6 else socket.AF_INET


class _Receiver:
    """A bound socket and a thread that serves it until the block ends."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.contacts: list[Contact] = []
        self._marks: set[bytes] = set()
        self._ending = False
        self._thread = threading.Thread(target=self._serve, name="receiver", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ending = True
        try:
            self._send_mark(b"the end")  # wakes the thread; it then sees that the block has ended
        except OSError:
            pass  # it did, and closed the connection before we had said everything
        self._thread.join(DEADLINE)
        self.sock.close()
        assert not self._thread.is_alive(), "the receiver's thread did not end"

    def received(self) -> list[Contact]:
        """Everything that arrived before this call, in order of arrival."""
        mark = secrets.token_bytes(16)
        self._marks.add(mark)
        self._send_mark(mark)
        wait_until(lambda: any(c.data == mark and c.finished for c in self.contacts), "the receiver's own mark")
        return [c for c in list(self.contacts) if c.data not in self._marks]

    def _client(self) -> socket.socket:
        client = socket.socket(self.sock.family, self.sock.type)
        client.settimeout(DEADLINE)
        end = time.monotonic() + DEADLINE
        while True:
            try:
                client.connect(self.sock.getsockname())
            except BlockingIOError:  # a unix socket's queue is full: connect(2) with a timeout does not wait for room
                if time.monotonic() > end:
                    client.close()
                    raise
                time.sleep(0.01)
            except BaseException:
                client.close()
                raise
            else:
                return client

    def _send_mark(self, mark: bytes) -> None:
        with self._client() as client:
            client.sendall(mark)
            if self.sock.type != socket.SOCK_DGRAM:
                # To the end: closing with the reply unread would reset the connection, the mark with it.
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass

    def _serve(self) -> None:
        raise NotImplementedError


class _StreamReceiver(_Receiver):
    """Accepts connections, says ``reply`` to each and reads it to its end."""

    def __init__(self, sock: socket.socket, reply: bytes) -> None:
        super().__init__(sock)
        self.reply = reply
        self._readers: list[threading.Thread] = []
        self._open: list[socket.socket] = []
        sock.listen(128)

    def received(self, *, finish_within: float = 2.0) -> list[Contact]:
        """As above; a connection still open after ``finish_within`` seconds is given with what it sent so far."""
        contacts = super().received()
        end = time.monotonic() + finish_within
        while time.monotonic() < end and not all(c.finished for c in contacts):
            time.sleep(0.005)
        return contacts

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        for connection in self._open:
            try:
                connection.shutdown(socket.SHUT_RDWR)  # wakes its reader
            except OSError:
                pass  # the other side was faster, or the reader has closed it
        for reader in self._readers:
            reader.join(DEADLINE)

    def _serve(self) -> None:
        while True:
            connection, peer = self.sock.accept()
            if self._ending:
                connection.close()
                return
            contact = Contact(peer)
            self.contacts.append(contact)
            self._open.append(connection)
            reader = threading.Thread(target=self._read, args=(connection, contact), daemon=True)
            self._readers.append(reader)
            reader.start()

    def _read(self, connection: socket.socket, contact: Contact) -> None:
        with connection:
            try:
                connection.sendall(self.reply)
            except OSError:
                pass  # a peer that is gone already may have said something before
            # A peer that resets the connection has still been here, and what it said may be there: of a unix socket
            # that was closed with our reply unread, Linux tells ECONNRESET first, once, and gives the data afterwards.
            for _ in range(2):
                with suppress(OSError):
                    while data := connection.recv(65536):
                        contact.data += data
                    break
        contact.finished = True


class _DatagramReceiver(_Receiver):
    def _serve(self) -> None:
        while not self._ending:
            data, peer = self.sock.recvfrom(65536)
            self.contacts.append(Contact(peer, data, finished=True))


class TcpListener(_StreamReceiver):
    """``with TcpListener("127.0.0.2") as server: server.port, server.endpoint, server.received()``."""

    def __init__(self, address: str = "127.0.0.1", port: int = 0, *, reply: bytes = b"hello from outside\n") -> None:
        sock = socket.socket(family_of(address), socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((address, port))
        except OSError:
            sock.close()
            raise
        super().__init__(sock, reply)
        self.address, self.port = address, int(sock.getsockname()[1])
        self.endpoint = endpoint_text(address, self.port)


class UdpListener(_DatagramReceiver):
    def __init__(self, address: str = "127.0.0.1", port: int = 0) -> None:
        sock = socket.socket(family_of(address), socket.SOCK_DGRAM)
        sock.bind((address, port))
        super().__init__(sock)
        self.address, self.port = address, int(sock.getsockname()[1])
        self.endpoint = endpoint_text(address, self.port)


UnixKind = Literal["stream", "seqpacket", "dgram"]


def unix_listener(name: Path | str, kind: UnixKind = "stream", *, reply: bytes = b"hello from outside\n") -> _Receiver:
    """A service on a path, or with a leading NUL character on an abstract name."""
    types = {"stream": socket.SOCK_STREAM, "seqpacket": socket.SOCK_SEQPACKET, "dgram": socket.SOCK_DGRAM}
    sock = socket.socket(socket.AF_UNIX, types[kind])
    sock.bind(str(name))
    return _DatagramReceiver(sock) if kind == "dgram" else _StreamReceiver(sock, reply)


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    host: str | None  # the Host header
    body: bytes


class InThread:
    """An HTTP server that serves in a thread of its own, between ``with`` and the end of the block."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self._server = server
        self.port = int(server.server_address[1])
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(DEADLINE)


class HttpServer(InThread):
    """A real HTTP server: path -> body, 404 for the rest. ``received()`` are the requests; ``connections`` counts.

    ``together``: paths that are answered when as many have asked as their barrier says.
    """

    def __init__(self, pages: Mapping[str, bytes], address: str = "127.0.0.1", port: int = 0) -> None:
        self.pages, self.requests, self.connections = dict(pages), list[Request](), 0
        self.together: dict[str, threading.Barrier] = {}
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                outer.requests.append(Request(self.command, self.path, self.headers.get("Host"), body))
                page = outer.pages.get(self.path)
                if barrier := outer.together.get(self.path):
                    barrier.wait()
                self.send_response(404 if page is None else 200)
                # A package index is not one for pip unless it says that it is HTML.
                self.send_header("Content-Type", "text/html" if self.path.endswith("/") else "application/octet-stream")
                self.send_header("Content-Length", str(len(page or b"")))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(page or b"")

            do_POST = do_GET  # noqa: N815 - the name is http.server's

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - likewise
                """Quiet: the test's output is not its log."""

        class Server(ThreadingHTTPServer):
            address_family = family_of(address)
            daemon_threads = False  # server_close() then waits for every handler

            def get_request(self) -> tuple[socket.socket, Any]:
                request: tuple[socket.socket, Any] = super().get_request()
                request[0].settimeout(DEADLINE)  # a peer that never asks ends here
                outer.connections += 1
                return request

        super().__init__(Server((address, port), Handler))
        self.address = address
        self.endpoint = endpoint_text(address, self.port)

    def url(self, path: str = "/", host: str | None = None) -> str:
        authority = self.endpoint if host is None else f"{host}:{self.port}"
        return f"http://{authority}{path}"

    def received(self) -> list[Request]:
        """Every request before this call whose answer has been asked for; a mark as above counts the connections."""
        mark = f"/{secrets.token_hex(8)}"
        with socket.create_connection((self.address, self.port), DEADLINE) as client:
            client.sendall(f"GET {mark} HTTP/1.0\r\n\r\n".encode())
            while client.recv(4096):
                pass
        wait_until(lambda: any(r.path == mark for r in self.requests), "the server's own mark")
        self.connections -= 1
        self.requests[:] = [r for r in self.requests if r.path != mark]
        return list(self.requests)

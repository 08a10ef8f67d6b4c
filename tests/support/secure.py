"""Does: an authority of the test's own, and an HTTPS server that it vouches for, with pages and git repositories.

    authority = Authority.create(folder, "allowed.test", "127.0.0.1")
    with SecureServer(authority, {"/": b"hello"}, repositories=folder) as server: server.url(host="allowed.test")

The certificates are the openssl program's, because every machine has it.
"""

from __future__ import annotations

import os
import socket
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import parse_headers
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Self

from tests.support.servers import DEADLINE, InThread, wait_until


@dataclass(frozen=True)
class Authority:
    """Whom clients are told to trust, and what a server needs to have its trust."""

    certificate: Path
    server: Path  # the server's certificate and key in one file

    @classmethod
    def create(cls, folder: Path, *hosts: str) -> Self:
        """For ``hosts``, names or addresses; the files lie in ``folder``. AssertionError with what openssl said."""
        own, key = folder / "authority.pem", folder / "authority.key"
        server, server_key = folder / "server.pem", folder / "server.key"
        _openssl("-subj", "/CN=authority", "-keyout", key, "-out", own, "-addext", "keyUsage=critical,keyCertSign")
        alternatives = ",".join(f"{'IP' if _is_address(host) else 'DNS'}:{host}" for host in hosts)
        usage = ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", f"subjectAltName={alternatives}"]
        _openssl("-subj", f"/CN={hosts[0]}", *usage, "-CA", own, "-CAkey", key, "-keyout", server_key, "-out", server)
        server.write_bytes(server.read_bytes() + server_key.read_bytes())
        return cls(own, server)


def _openssl(*words: str | Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"openssl 3 makes the certificates: {done.stderr}"


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class SecureServer(InThread):
    """``pages`` (path -> body), and beneath ``/git/`` a folder's repositories, as git-http-backend(1) gives them."""

    def __init__(self, authority: Authority, pages: Mapping[str, bytes], repositories: Path) -> None:
        self._peers: list[Any] = []
        peers = self._peers

        class Handler(_Handler):
            contents, root = pages, repositories

        class Server(ThreadingHTTPServer):
            daemon_threads = False  # server_close() then waits for every handler

            def get_request(self) -> tuple[socket.socket, Any]:
                connection, peer = super().get_request()
                connection.settimeout(DEADLINE)  # a peer that never asks ends here
                peers.append(peer)
                # The handshake is the handler's: one slow client must not hold up the next.
                return context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False), peer

            def handle_error(self, request: object, client_address: object) -> None:
                """Quiet: a client that ends within the handshake is what some tests are about."""

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.server)
        super().__init__(Server(("127.0.0.1", 0), Handler))

    def url(self, path: str = "/", host: str = "127.0.0.1") -> str:
        return f"https://{host}:{self.port}{path}"

    def connections(self) -> int:
        """How many came before this call, handshake or not: one of our own, accepted after them, marks the end."""
        with socket.create_connection(("127.0.0.1", self.port), DEADLINE) as client:
            mark = client.getsockname()
            wait_until(lambda: mark in self._peers, "the server's own mark")
        self._peers.remove(mark)
        return len(self._peers)


class _Handler(BaseHTTPRequestHandler):
    contents: Mapping[str, bytes]
    root: Path

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        if path.startswith("/git/"):
            self._git(path.removeprefix("/git"), query)
            return
        page = self.contents.get(path)
        # pip reads no index that is not said to be HTML.
        kind = "text/html" if path.endswith("/") else "application/octet-stream"
        self._answer(200 if page is not None else 404, {"Content-Type": kind}, page or b"")

    do_POST = do_GET  # noqa: N815 - the name is http.server's

    def _git(self, path: str, query: str) -> None:
        """CGI, RFC 3875; the variables are those that git-http-backend(1) names."""
        variables = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(self.root),
            "GIT_HTTP_EXPORT_ALL": "1",
            "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("Content-Type", ""),
            "HTTP_CONTENT_ENCODING": self.headers.get("Content-Encoding", ""),
        }
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        done = subprocess.run(
            ["git", "http-backend"], input=body, env=variables, capture_output=True, timeout=DEADLINE, check=True
        )
        said = BytesIO(done.stdout)
        headers = dict(parse_headers(said))
        self._answer(int(headers.pop("Status", "200").split()[0]), headers, said.read())

    def _answer(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))  # GnuTLS takes a connection that just ends for an attack
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - likewise
        """Quiet: the test's output is not its log."""

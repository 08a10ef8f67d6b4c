"""Does: the servers outside the sandbox, as the user who runs the tests, each on a port of its own."""

from __future__ import annotations

import random
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.servers import wait_until
from tests.workloads.heavy.machine import postgres_programs


@dataclass
class Services:
    """Ports. ``named`` are reached by the site's name: by cells under these names, upper case."""

    postgres: int
    redis: int
    named: dict[str, int]


@contextmanager
def running(certificate: Path) -> Iterator[Services]:
    """``certificate``: the site's, its key beside it, for the services that speak TLS."""
    with ExitStack() as stack:
        # Not below pytest's folder: the path of PostgreSQL's unix socket is too long there.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="db-")))
        ports = [free_port(), free_port()]
        stack.callback(stop, start_postgres(folder, ports[0]))
        stack.callback(stop, start_redis(folder, ports[1]))
        for port in ports:
            wait_until(lambda port=port: accepts(port), "a database", within=30)  # type: ignore[misc]
        grpc, grpcs = start_grpc(stack, certificate)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key_of(certificate))
        ws, wss = start_websockets(stack, None), start_websockets(stack, context)
        yield Services(ports[0], ports[1], {"grpc": grpc, "grpcs": grpcs, "ws": ws, "wss": wss})


def key_of(certificate: Path) -> Path:
    return certificate.with_name("key.pem")


def start_postgres(folder: Path, port: int) -> subprocess.Popen[bytes]:
    programs, data = postgres_programs(), folder / "data"
    assert programs is not None, "machine.py has said that PostgreSQL is there"
    init = [str(programs / "initdb"), "-D", str(data), "-U", "ann", "-A", "trust", "--no-sync"]
    done = subprocess.run(init, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr  # as root: it refuses. `make test-workloads` gives root up
    command = [str(programs / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-F"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL)


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("redis-server")
    assert program is not None, "machine.py has said that Redis is there"
    command = [program, "--port", str(port), "--save", "", "--dir", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


def start_grpc(stack: ExitStack, certificate: Path) -> tuple[int, int]:
    """``/test/Twice`` for one message, ``/test/Upper`` for a stream of them. The ports without and with TLS."""
    import grpc  # the tests' own interpreter has it only where these tests run

    class Service(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if details.method == "/test/Twice":
                return grpc.unary_unary_rpc_method_handler(lambda request, _: request * 2)
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: (request.upper() for request in requests))

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Service()])
    pair = [(key_of(certificate).read_bytes(), certificate.read_bytes())]
    plain = int(server.add_insecure_port("127.0.0.1:0"))
    secure = int(server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials(pair)))
    server.start()
    stack.callback(lambda: server.stop(0).wait())
    return plain, secure


def start_websockets(stack: ExitStack, context: ssl.SSLContext | None) -> int:
    """Every message comes back with its letters in upper case."""
    from websockets.sync.server import ServerConnection, serve  # likewise

    def answer(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message.upper())

    server = stack.enter_context(serve(answer, "127.0.0.1", 0, ssl=context))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    stack.callback(thread.join)
    stack.callback(server.shutdown)
    return int(server.socket.getsockname()[1])


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


def free_port() -> int:
    """Below the range that Linux hands out: there another program may get it before the server binds it."""
    while True:
        with socket.socket() as free, suppress(OSError):
            free.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
            return int(free.getsockname()[1])


def accepts(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except OSError:
        return False
    return True

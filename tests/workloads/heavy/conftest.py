"""Kernels with the policy that clusters and services want, and patience for a busy machine."""

from __future__ import annotations

import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support import kernels
from tests.support.servers import wait_until
from tests.support.workloads import NAME, Both, Site, side_by_side, text_of

_LARGE = 50 * 1024 * 1024


@pytest.fixture(scope="session", autouse=True)
def patience() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "DEADLINE", 110.0)
        yield


@dataclass
class Services:
    """Servers outside the sandbox, as the user who runs the tests; their ports."""

    postgres: int
    redis: int
    grpc: int


@pytest.fixture(scope="session")
def services() -> Iterator[Services]:
    with ExitStack() as stack:
        # Not below pytest's folder: the path of PostgreSQL's unix socket is too long there.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="db-")))
        ports = [free_port(), free_port()]
        stack.callback(stop, start_postgres(folder, ports[0]))
        stack.callback(stop, start_redis(folder, ports[1]))
        for port in ports:
            wait_until(lambda port=port: accepts(port), "a database", within=30)  # type: ignore[misc]
        yield Services(ports[0], ports[1], start_grpc(stack))


def start_postgres(folder: Path, port: int) -> subprocess.Popen[bytes]:
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    assert programs, "PostgreSQL is missing: apt-get install postgresql"
    data = folder / "data"
    # PostgreSQL refuses to run as root.
    demoted: dict[str, int] = {"user": 1000, "group": 1000} if os.geteuid() == 0 else {}
    if demoted:
        os.chown(folder, 1000, 1000)
    init = [str(programs[-1] / "initdb"), "-D", str(data), "-U", "ann", "-A", "trust", "--no-sync"]
    subprocess.run(init, check=True, capture_output=True, cwd=folder, extra_groups=[] if demoted else None, **demoted)  # type: ignore[call-overload]
    command = [str(programs[-1] / "postgres"), "-D", str(data), "-p", str(port), "-k", str(folder), "-F"]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, extra_groups=[] if demoted else None, **demoted)  # type: ignore[call-overload,no-any-return]


def start_grpc(stack: ExitStack) -> int:
    """``/test/Twice`` for one message, ``/test/Upper`` for a stream of them."""
    import grpc  # the tests' own interpreter has it only where these tests run

    class Service(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            if details.method == "/test/Twice":
                return grpc.unary_unary_rpc_method_handler(lambda request, _: request * 2)
            return grpc.stream_stream_rpc_method_handler(lambda requests, _: (request.upper() for request in requests))

    server = grpc.server(ThreadPoolExecutor(4), handlers=[Service()])
    port = int(server.add_insecure_port("127.0.0.1:0"))
    server.start()
    stack.callback(lambda: server.stop(0).wait())
    return port


def start_redis(folder: Path, port: int) -> subprocess.Popen[bytes]:
    program = shutil.which("redis-server")
    assert program, "Redis is missing: apt-get install redis-server"
    command = [program, "--port", str(port), "--save", "", "--dir", str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL)


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


@pytest.fixture(scope="session")
def both(tmp_path_factory: pytest.TempPathFactory, site: Site, services: Services) -> Iterator[Both]:
    site.pages["/large"] = os.urandom(_LARGE)
    allow = f'{site.allow}, "localhost:{services.postgres}", "localhost:{services.redis}"'
    allow += f', {{ host = "{NAME}", port = {services.grpc}, private = true }}'
    policy = f"""
[network]
allow = [{allow}]
[filesystem]
read = ["/sys/bus/pci/devices", "/sys/devices"]  # torch.distributed looks for its network card there
"""
    with side_by_side(tmp_path_factory.mktemp("h"), site, policy) as kernels_:
        kernels_.run(f"POSTGRES, REDIS = {services.postgres}, {services.redis}")
        for kernel, host in ((kernels_.plain, "127.0.0.1"), (kernels_.inside, NAME)):
            text_of(kernel.run(f"GRPC = '{host}:{services.grpc}'"))
        yield kernels_

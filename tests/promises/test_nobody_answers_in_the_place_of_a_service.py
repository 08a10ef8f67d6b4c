"""A port on which somebody outside listens is not had inside at any other address: clients of it meet nobody else.

A client of ``http://localhost:PORT`` tries ::1 and then 127.0.0.1, or the other way round. Where the service has only
one of them, whoever has the other answers in its place: with a page in the origin of a Jupyter server, say.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.attempts import TOOLS
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import LAUNCHER, launcher_command, run_inside, run_outside
from tests.support.servers import TcpListener, family_of

# The steps of each attempt; between "bind" and "listen" the service outside may begin.
SERVE = f"""
{TOOLS}
import time
host, port, waits = CASE
def bind(_):
    global s
    s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in host:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not host.startswith("::ffff"))
    s.bind((host, port))
def serve():
    while True:
        c, _ = s.accept()
        c.sendall(b"from inside")
        c.close()
came = [outcome(bind, b"")]
if waits and came == ["None"]:
    print("bound", flush=True)
    while not os.path.exists("go"):
        time.sleep(0.01)
came.append(outcome(lambda _: s.listen(), b"") if came == ["None"] else "")
threading.Thread(target=serve, daemon=True).start() if came[1] == "None" else None
print(json.dumps(came), flush=True)
time.sleep(30)
"""


def ask(port: int, hosts: tuple[str, ...]) -> bytes:
    """What a client of a name with these addresses gets: from the first that takes its connection."""
    for host in hosts:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as client:
            client.settimeout(5)
            if client.connect_ex((host, port)) == 0:
                return client.recv(100)
    return b""


@contextmanager
def program(command: list[str], workspace: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=workspace, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=20)


def attempt(command: list[str], code: str, workspace: Path, service: str, port: int) -> tuple[list[str], bytes]:
    """How far the code came, and what the client gets meanwhile. The service begins when the port is bound."""
    go = workspace / "go"
    go.unlink(missing_ok=True)
    hosts = ("::1", "127.0.0.1") if ":" not in service else ("127.0.0.1", "::1")
    with program([*command, sys.executable, "-c", code], workspace) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        with TcpListener(service, port, reply=b"from the service"):
            go.touch()
            came = json.loads(process.stdout.readline() if line == "bound\n" else line)
            return came, ask(port, hosts)


@contextmanager
def another_program(host: str, port: int) -> Iterator[None]:
    """That listens, and is not the launcher's parent as this one is."""
    code = (
        f"import socket, sys; s = socket.create_server(({host!r}, {port}), family={family_of(host)}); print(flush=True)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"{code}; sys.stdin.read()"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        yield
        other.communicate()


def free_port() -> int:
    for port in range(20_000 + os.getpid() % 5000, 32_000):
        with socket.socket() as v4, socket.socket(socket.AF_INET6) as v6:
            try:
                v4.bind(("0.0.0.0", port))
                v6.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                v6.bind(("::", port))
            except OSError:
                continue
            return port
    raise AssertionError("no free port")


# host of the service, host of the attempt
PAIRS = [("127.0.0.1", "::1"), ("0.0.0.0", "::1"), ("127.0.0.1", "::"), ("::1", "127.0.0.1"), ("::1", "0.0.0.0")]
PAIRS += [("::1", "::ffff:127.0.0.1")]


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback on this machine")
@pytest.mark.parametrize(("service", "host"), PAIRS)
def test_a_client_of_localhost_meets_the_service(service: str, host: str, workspace: Path) -> None:
    port = free_port()
    code = SERVE.replace("CASE", repr((host, port, True)))
    assert attempt([], code, workspace, service, port) == (["None", "None"], b"from inside")
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        command = launcher_command("", folder, workspace, Path(folder, "audit.jsonl"))
        # The service begins when the port is bound already ...
        assert attempt(command, code, workspace, service, port) == (["None", "EADDRINUSE"], b"from the service")
        # ... or was there before.
        with another_program(service, port):
            result = run_inside(code.removesuffix("time.sleep(30)\n"), workspace=workspace)
            assert result.json() == ["EADDRINUSE", ""]
            (event,) = result.refused(kind="bind", port=port)
            assert "another program of this machine listens on this port" in event.reason


# A launcher whose broker is not told of any listener when it looks for the first and the second time.
LAUNCH = """
import sys
from sandboxed_kernel import cli
from sandboxed_kernel.linux.diag import SocketDiag
look, count = SocketDiag.tcp_listeners, [0]
def blind(self, port=0):
    count[0] += bool(port)
    return [] if port and count[0] < 3 else look(self, port)
SocketDiag.tcp_listeners = blind
sys.exit(cli.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not has_ipv6(), reason="no IPv6 loopback on this machine")
def test_a_service_that_begins_in_between_is_met(workspace: Path) -> None:
    port = free_port()
    code = SERVE.replace("CASE", repr(("::1", port, True)))
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        arguments = launcher_command("", folder, workspace, Path(folder, "audit.jsonl"))[len(LAUNCHER) :]
        command = [sys.executable, "-c", LAUNCH, *arguments]
        assert attempt(command, code, workspace, "127.0.0.1", port) == (["None", "EADDRINUSE"], b"from the service")


def test_servers_of_the_sandbox_share_a_port_among_themselves(workspace: Path) -> None:
    code = f"""
{TOOLS}
import asyncio
async def both(port):
    hosts = ("127.0.0.1", "::1") if {has_ipv6()} else ("127.0.0.1", "127.0.0.2")
    servers = [await asyncio.start_server(lambda r, w: w.close(), host, port) for host in hosts]
    for host in hosts:
        reader, writer = await asyncio.open_connection(host, port)
        await reader.read()
        writer.close()
    for server in servers:
        server.close()
        await server.wait_closed()
print(json.dumps([outcome(lambda _: asyncio.run(both({free_port()})), b"") for _ in range(2)]))
"""
    assert run_outside(code, workspace=workspace).json() == ["None", "None"]
    inside = run_inside(code, workspace=workspace)
    assert inside.json() == ["None", "None"]
    assert inside.refused() == []


BIND = f"""
{TOOLS}
def bind(port):
    with socket.socket() as s:
        s.bind(("127.0.0.1", port))
        s.listen()
print(json.dumps([outcome(lambda _: bind(port), b"") for port in PORTS]))
"""


def test_a_port_of_jupyter_is_jupyters_while_nobody_listens_there(workspace: Path) -> None:
    """It restarts, and its clients come again. This test is the launcher's parent, as Jupyter's server is."""
    named, listening, free = 18_081, free_port(), 18_079
    env = {"JUPYTERHUB_API_URL": f"http://127.0.0.1:{named}/hub/api"}
    code = BIND.replace("PORTS", repr([named, listening, free]))
    assert run_outside(code, workspace=workspace, env=env).json() == ["None"] * 3
    # With its first socket it knows that the broker has looked around.
    ready = "import os, socket, time\nsocket.socket().close()\nprint('ready', flush=True)"
    code = f"{ready}\nwhile not os.path.exists('go'): time.sleep(0.01)\n{code}"
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        command = launcher_command("", folder, workspace, Path(folder, "audit.jsonl"))
        with TcpListener("127.0.0.1", listening):
            process = subprocess.Popen(
                [*command, sys.executable, "-c", code],
                stdout=subprocess.PIPE, text=True, cwd=workspace, env={**os.environ, **env},
            )  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        with process:
            (workspace / "go").touch()
            assert json.loads(process.stdout.readline()) == ["EADDRINUSE", "EADDRINUSE", "None"]

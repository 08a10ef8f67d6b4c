"""A server inside works by every local address, for its own clients, and no other machine can reach it.

What another machine would see is what a client on this machine sees at one of its own interface addresses: a server
that was bound to 0.0.0.0 answers there, one on loopback does not.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.attempts import TOOLS
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import launcher_command, run_inside, run_outside
from tests.support.servers import TcpListener

SERVE = f"""
{TOOLS}
def server(family=socket.AF_INET, where=None, options=(), backlog=5):
    s = socket.socket(family)
    for option in options:
        s.setsockopt(*option)
    if where is not None:
        s.bind(where)
    s.listen(backlog)
    return s
"""

# How a server is bound: an expression, and the hosts by which a client inside must then find it.
SERVERS = {
    "loopback": ("server(where=('127.0.0.1', 0))", ["127.0.0.1", "localhost", "::ffff:127.0.0.1"]),
    "any": ("server(where=('0.0.0.0', 0))", ["127.0.0.1", "localhost", "0.0.0.0", "OWN"]),
    "without bind": ("server()", ["127.0.0.1", "0.0.0.0", "localhost", "OWN"]),
    "own address": ("server(where=(OWN, 0))", ["OWN"]),
    "dual stack": ("server(socket.AF_INET6, ('::', 0))", ["127.0.0.1", "::1", "::", "localhost", "OWN"]),
    "ipv6 without bind": ("server(socket.AF_INET6)", ["::1", "127.0.0.1"]),
    "ipv6 loopback": ("server(socket.AF_INET6, ('::1', 0))", ["::1", "::"]),
    "ipv6 only": (
        "server(socket.AF_INET6, ('::', 0), [(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)])",
        ["::1", "::"],
    ),
    "ipv6 only without bind": ("server(socket.AF_INET6, None, [(41, 26, 1)])", ["::1"]),
    "mapped": ("server(socket.AF_INET6, ('::ffff:0.0.0.0', 0))", ["127.0.0.1", "::ffff:127.0.0.1"]),
    "unspecified family": (
        "(s := socket.socket(), syscall('bind', s.fileno(), bytes(16), 16), s.listen(5))[0]",
        ["127.0.0.1"],
    ),
    "another loopback address": ("server(where=('127.0.0.9', 0))", ["127.0.0.9"]),
    "port 0, then the same port": (
        "(s := server(), p := s.getsockname()[1], s.close(), server(where=('', p)))[-1]",
        [],
    ),
    "reuse": ("server(where=('', 0), options=[(1, 2, 1), (1, 15, 1)])", ["127.0.0.1"]),
    "other program": ("server(where=('', 0))", ["127.0.0.1", "OWN"]),
}


def expressions(own: str) -> dict[str, tuple[str, list[str]]]:
    servers = {
        name: (made.replace("OWN", repr(own)), [own if host == "OWN" else host for host in hosts])
        for name, (made, hosts) in SERVERS.items()
    }
    return servers if has_ipv6() else {name: row for name, row in servers.items() if "INET6" not in row[0]}


TALK = """
def talk(made, hosts):
    import subprocess
    with made:
        port = made.getsockname()[1]
        for host in hosts or ["127.0.0.1"]:
            code = f"import socket; c = socket.create_connection(({host!r}, {port}), 5); c.sendall(b'hello'); c.close()"
            client = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
            made.settimeout(5)
            try:
                peer, address = made.accept()
                peer.getpeername(), peer.getsockname()
                assert peer.recv(5, socket.MSG_WAITALL) == b"hello"
                peer.close()
            except TimeoutError:
                return f"{host}: {client.communicate()[1].splitlines()[-1:]}"
            if client.wait() != 0:
                return f"{host}: {client.communicate()[1]}"
    return "served"
"""


def test_a_server_inside_is_found_by_every_local_address(workspace: Path, own_address: str) -> None:
    rows = expressions(own_address)
    calls = ", ".join(
        f"{name!r}: outcome(lambda _: talk({made}, {hosts!r}), b'')" for name, (made, hosts) in rows.items()
    )
    code = f"{SERVE}\n{TALK}\nprint(json.dumps({{{calls}}}))"
    outside = run_outside(code, workspace=workspace).json()
    assert set(outside.values()) == {"'served'"}, outside
    inside = run_inside(code, workspace=workspace)
    assert set(inside.json().values()) == {"'served'"}, inside.json()
    assert inside.refused() == []


@contextmanager
def open_servers(policy: str, workspace: Path, rows: dict[str, tuple[str, list[str]]]) -> Iterator[dict[str, Any]]:
    """Where the servers of a sandboxed program say that they listen, as long as the block lasts."""
    made = ", ".join(f"{name!r}: {expression}" for name, (expression, _) in rows.items())
    code = f"""
{SERVE}
made = {{{made}}}
print(json.dumps({{name: s.getsockname()[:2] for name, s in made.items()}}), flush=True)
sys.stdin.read()
"""
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        command = launcher_command(policy, folder, workspace, Path(folder, "audit.jsonl"))
        with subprocess.Popen(
            [*command, sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=workspace,
        ) as process:
            assert process.stdout is not None
            try:
                yield json.loads(process.stdout.readline())
            finally:
                process.communicate(timeout=20)


def test_and_by_no_other_machine(workspace: Path, own_address: str) -> None:
    import socket

    everywhere = {name: row for name, row in expressions(own_address).items() if "'127.0.0." not in row[0]}

    def reached(address: str, port: int) -> bool:
        with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
            client.settimeout(10)
            return client.connect_ex((address, port)) == 0

    # Out here a server that is bound to every address is found at the machine's own.
    with socket.create_server(("0.0.0.0", 0)) as plain:
        assert reached(own_address, plain.getsockname()[1])
    with open_servers('[network]\nallow = ["0.0.0.0/0:*"]', workspace, everywhere) as places:
        assert places.keys() == everywhere.keys()
        for name, (host, port) in places.items():
            assert not reached(own_address, port), name
            assert host in ("127.0.0.1", "::1", "::ffff:127.0.0.1"), (name, host)
            # The user's own browser on this machine does reach it.
            assert reached("::1" if host == "::1" else "127.0.0.1", port), name


def test_a_listen_while_a_connect_is_under_way_binds_to_nothing(workspace: Path) -> None:
    """The connect gives the socket an address of an interface; were it to fail at the right moment, listen would stay
    there and be reached by everybody. listen(2) is for sockets in no state at all: EINVAL, as Linux says."""
    with TcpListener(reply=b"") as full:
        full.sock.listen(0)
        code = f"""
{TOOLS}
import socket
s = socket.socket()
s.setblocking(False)
print(json.dumps([outcome(lambda _: s.connect(("192.0.2.77", {full.port})), b""), outcome(lambda _: s.listen(), b"")]))
"""
        policy = f'[network]\nallow = ["192.0.2.77:{full.port}"]'
        connecting, listening = run_inside(code, workspace=workspace, policy=policy).json()
        assert (connecting, listening) in {("EINPROGRESS", "EINVAL"), ("ENETUNREACH", "None"), ("EHOSTUNREACH", "None")}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_somebody_outside_is_accepted_and_has_a_name(host: str, workspace: Path) -> None:
    """accept(2), getpeername(2) and the connection itself are Linux's own, for clients from outside too."""
    import socket

    if host == "::1" and not has_ipv6():
        pytest.skip("no IPv6 loopback on this machine")
    code = f"""
{SERVE}
s = server(socket.AF_INET6 if {host!r} == "::1" else socket.AF_INET, ({host!r}, 0))
print(json.dumps(s.getsockname()[1]), flush=True)
s.settimeout(10)
peer, address = s.accept()
again = outcome(lambda _: peer.connect(address), b"")
print(json.dumps([address[:2] == peer.getpeername()[:2], peer.recv(5).decode(), again]))
peer.sendall(b"back")
"""
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        command = launcher_command("", folder, workspace, Path(folder, "audit.jsonl"))
        with subprocess.Popen(
            [*command, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=workspace
        ) as process:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())
            with socket.create_connection((host, port), 10) as client:
                client.sendall(b"hello")
                assert client.recv(4, socket.MSG_WAITALL) == b"back"
            assert json.loads(process.stdout.readline()) == [True, "hello", "EISCONN"]

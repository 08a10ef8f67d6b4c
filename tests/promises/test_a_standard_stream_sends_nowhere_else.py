"""Standard input, output and error are the caller's; a socket among them that sends to anybody is refused at start."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox import launcher_command
from tests.support.servers import UdpListener, unix_listener

SEND = """
import socket
s = socket.socket(fileno=0)
to = {to!r}
print(s.type == socket.SOCK_DGRAM and s.sendmsg([b"payload"], [], 0, to), flush=True)
"""


def run(prefix: list[str], to: object, stdin: socket.socket, workspace: Path) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, "-c", SEND.format(to=to)]
    return subprocess.run(command, stdin=stdin.fileno(), cwd=workspace, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("family", ["inet", "unix"])
def test_a_standard_stream_sends_nowhere_else(family: str, workspace: Path, tmp_path: Path) -> None:
    inet, path = UdpListener(), str(tmp_path / "service")
    service = inet if family == "inet" else unix_listener(path, "dgram")
    to: object = (inet.address, inet.port) if family == "inet" else path
    given = socket.socket(service.sock.family, socket.SOCK_DGRAM)
    prefix = launcher_command("", tmp_path, workspace, tmp_path / "audit.jsonl")
    with inet.sock, service, given:
        assert run([], to, given, workspace).stdout == "7\n"
        assert len(service.received()) == 1
        refused = run(prefix, to, given, workspace)
        assert refused.returncode not in (0, 1)
        assert "standard input is a socket that can send to any address" in refused.stderr
        assert refused.stdout == ""
        assert len(service.received()) == 1


def test_a_connection_as_standard_input_works(workspace: Path, tmp_path: Path) -> None:
    """As servers start a program for each connection, and node for its children."""
    prefix = launcher_command("", tmp_path, workspace, tmp_path / "audit.jsonl")
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for command in ([], prefix):
            ours.sendall(b"a line\n")
            code = "import sys; print(sys.stdin.readline().strip())"
            done = subprocess.run(
                [*command, sys.executable, "-c", code],
                stdin=theirs.fileno(),
                cwd=workspace,
                capture_output=True,
                timeout=30,
            )
            assert done.stdout == b"a line\n", done.stderr

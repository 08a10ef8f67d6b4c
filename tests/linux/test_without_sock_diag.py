"""Where Linux's tcp_diag or unix_diag cannot be loaded: ``check`` and the refusals say so, and whose move it is.

The modules stay loaded. Instead the questions are asked about a protocol and a family that no module answers for; what
Linux then says is what it says without the module.
"""

from __future__ import annotations

import errno
import os
import re
import socket
import struct
import subprocess
import sys
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from sandboxed_kernel import check, cli
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.linux.diag import MODULES, SocketDiag, missing_modules
from tests.support.sandbox import LAUNCHER, launcher_command

NO_PROTOCOL = 253  # for experiments, RFC 3692
NO_FAMILY = 14  # AF_SECURITY, which Linux never had
# module -> the first two bytes of its question (family, protocol), and what is asked instead.
OTHER: dict[str, dict[bytes, bytes]] = {
    "tcp_diag": {bytes((family, 6)): bytes((family, NO_PROTOCOL)) for family in (socket.AF_INET, socket.AF_INET6)},
    "unix_diag": {bytes((socket.AF_UNIX, 0)): bytes((NO_FAMILY, 0))},
}
_ASK = SocketDiag._ask


def without(module: str, patch: pytest.MonkeyPatch) -> None:
    def ask(self: SocketDiag, request: bytes) -> bytes | None:
        return _ASK(self, OTHER[module].get(request[:2], request[:2]) + request[2:])

    patch.setattr(SocketDiag, "_ask", ask)


@pytest.fixture(params=MODULES)
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    name: str = request.param
    without(name, monkeypatch)
    return name


def error_of(request: bytes) -> int:
    """The errno of Linux's answer, 0 for none: netlink(7), struct nlmsgerr."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as sock:
        sock.settimeout(5)
        sock.sendto(struct.pack("=IHHII", 16 + len(request), 20, 1, 1, 0) + request, (0, 0))
        reply = sock.recv(4096)
    (kind,) = struct.unpack_from("=H", reply, 4)
    return -int(struct.unpack_from("=i", reply, 16)[0]) if kind == 2 else 0


def test_linux_answers_as_if_there_were_no_such_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []

    def ask(_: SocketDiag, request: bytes) -> None:
        asked.append(request)

    monkeypatch.setattr(SocketDiag, "_ask", ask)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        found = SocketDiag()
        found.tcp_listener(IPv4Address("127.0.0.1"), tcp.getsockname()[1])
        found.unix_socket(os.fstat(unix.fileno()).st_ino)
        found.close()
        for question, name in zip(asked, MODULES, strict=True):
            assert error_of(question) == 0
            assert error_of(OTHER[name][question[:2]] + question[2:]) == errno.ENOENT


def test_nothing_is_missing_here() -> None:
    assert missing_modules() == ()


def test_what_is_missing_is_found(module: str) -> None:
    assert missing_modules() == (module,)


def test_check_says_what_to_do(
    module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(check, "_attempts", lambda: [check.CheckResult("own servers", False, "ECONNREFUSED")])
    assert cli.main(["check"]) == HostError.exit_code
    said = capsys.readouterr().out
    assert re.search(rf"^MISSING +questions about sockets +Linux's {module} cannot be loaded", said, re.MULTILINE)
    assert said.count("modprobe -a tcp_diag unix_diag") == 1
    assert "/etc/modules-load.d/" in said
    assert "An administrator" in said
    assert "best_effort" not in said


def test_check_says_when_netlink_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    original = socket.socket

    def refuse(family: int = -1, *arguments: int, **more: int) -> socket.socket:
        if family == socket.AF_NETLINK:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        return original(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", refuse)
    (row,) = (row for row in check._features() if row.name == "questions about sockets")
    assert not row.holds
    assert "refuses netlink sockets" in row.detail
    assert "Operation not permitted" in row.detail


CODE = """
import errno, socket
for server in (socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)):
    if server.family == socket.AF_UNIX:
        server.bind(places.pop())
        server.listen()
    with socket.socket(server.family) as client:
        try:
            client.connect(server.getsockname())
            print("connected")
        except OSError as error:
            print(errno.errorcode[error.errno])
    server.close()
# A server that is gone is nobody's fault.
with socket.create_server(("127.0.0.1", 0)) as server:
    port = server.getsockname()[1]
with socket.socket() as client:
    print(errno.errorcode[client.connect_ex(("127.0.0.1", port))])
"""

# A launcher whose broker asks as above.
LAUNCH = """
import sys
from sandboxed_kernel import cli
from sandboxed_kernel.linux.diag import SocketDiag
ask, other = SocketDiag._ask, OTHER
SocketDiag._ask = lambda self, request: ask(self, other.get(request[:2], request[:2]) + request[2:])
sys.exit(cli.main(sys.argv[1:]))
"""


def start(other: dict[bytes, bytes], workspace: Path, tmp_path: Path) -> tuple[list[str], str]:
    """What the program printed, word by word, and what the sandbox said."""
    arguments = launcher_command("", tmp_path, workspace, tmp_path / "audit.jsonl")[len(LAUNCHER) :]
    places = ["path", f"\0sandboxed-kernel-{os.urandom(8).hex()}"]
    code = f"{places=}\n{CODE}"
    launch = [sys.executable, "-c", LAUNCH.replace("OTHER", repr(other))]
    command = [*launch, *arguments, sys.executable, "-c", code]
    done = subprocess.run(command, cwd=workspace, capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
    (workspace / "path").unlink()
    return done.stdout.split(), done.stderr


def test_own_sockets_are_refused_and_it_is_said_why(workspace: Path, tmp_path: Path) -> None:
    printed, said = start({}, workspace, tmp_path)
    assert printed == ["connected", "connected", "connected", "ECONNREFUSED"]
    assert "modprobe" not in said

    printed, said = start(OTHER["tcp_diag"], workspace, tmp_path)
    assert printed == ["ECONNREFUSED", "connected", "connected", "ECONNREFUSED"]
    assert "An administrator can load it: modprobe tcp_diag" in said
    assert "unix_diag" not in said

    printed, said = start(OTHER["unix_diag"], workspace, tmp_path)
    assert printed == ["connected", "ECONNREFUSED", "EACCES", "ECONNREFUSED"]
    assert said.count("An administrator can load it: modprobe unix_diag") == 2
    assert "tcp_diag" not in said

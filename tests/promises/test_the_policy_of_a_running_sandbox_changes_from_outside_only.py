"""What is saved in the policy holds for new connections, more and less; the code inside can change none of it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import ANY

import pytest

from sandboxed_kernel.errors import PolicyError
from tests.support.dns_server import DnsServer
from tests.support.sandbox import launcher_command
from tests.support.servers import Contact, TcpListener

# Each line of the input is Python; its answer is one line.
PROGRAM = """
import os, socket, sys
def tcp(address, port):
    socket.create_connection((address, port), 5).close()
def udp(address, port):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.connect((address, port))
for line in sys.stdin:
    try:
        exec(line)
        print("done", flush=True)
    except OSError as error:
        print(type(error).__name__, flush=True)
"""


class Inside:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().strip()


@contextmanager
def sandbox(workspace: Path, folder: Path, policy: str, resolv_conf: Path | None = None) -> Iterator[Inside]:
    folder.mkdir(exist_ok=True)
    command = launcher_command(policy, folder, workspace, folder / "audit.jsonl", resolv_conf)
    command += [sys.executable, "-c", PROGRAM]
    pipe = subprocess.PIPE
    with (
        (folder / "said").open("w") as said,
        subprocess.Popen(command, cwd=workspace, stdin=pipe, stdout=pipe, stderr=said, text=True) as process,
    ):
        yield Inside(process)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(30) == 0


def allowing(*servers: TcpListener) -> str:
    return f"[network]\nallow = {[server.endpoint for server in servers]}\n".replace("'", '"')


def test_more_holds_at_the_next_call(workspace: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p" / "policy.toml"
    with TcpListener() as server, sandbox(workspace, tmp_path / "p", "") as inside:
        connect = f"tcp({server.address!r}, {server.port})"
        assert inside.do(connect) == "PermissionError"
        assert not server.received()
        policy.write_text(allowing(server))
        assert inside.do(connect) == "done"
        assert len(server.received()) == 1


def test_a_datagrams_destination_too(workspace: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p" / "policy.toml"
    with sandbox(workspace, tmp_path / "p", "") as inside:
        assert inside.do("udp('127.0.0.1', 999)") == "OSError"
        policy.write_text('[network]\nallow = ["udp://127.0.0.1:999"]\n')
        assert inside.do("udp('127.0.0.1', 999)") == "done"


def test_fewer_hold_within_a_second_and_what_stands_stays(workspace: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p" / "policy.toml"
    with TcpListener() as server, TcpListener() as other:
        with sandbox(workspace, tmp_path / "p", allowing(server)) as inside:
            assert inside.do(f"stands = socket.create_connection(({server.address!r}, {server.port}), 5)") == "done"
            policy.write_text(allowing(other))
            time.sleep(1.1)
            assert inside.do(f"tcp({server.address!r}, {server.port})") == "PermissionError"
            assert inside.do(f"tcp({other.address!r}, {other.port})") == "done"
            assert inside.do("stands.sendall(b'still here')") == "done"
        assert server.received() == [Contact(ANY, b"still here", finished=True)]


def test_datagrams_have_no_connection_that_could_stand(workspace: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p" / "policy.toml"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(5)
        port = server.getsockname()[1]
        allowed = f'[network]\nallow = ["udp://127.0.0.1:{port}"]\n'
        with sandbox(workspace, tmp_path / "p", allowed) as inside:
            assert inside.do("one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)") == "done"
            assert inside.do(f"one.connect(('127.0.0.1', {port}))") == "done"
            assert inside.do("one.send(b'first')") == "done"
            assert server.recv(9) == b"first"
            policy.write_text("# nothing\n")
            time.sleep(1.1)
            assert inside.do("one.send(b'may still pass')") == "done"
            time.sleep(0.5)
            assert inside.do("one.send(b'too late')") == "done"
            assert inside.do(f"one.sendto(b'too late', ('127.0.0.1', {port}))") == "OSError"
            time.sleep(0.5)
            policy.write_text(allowed)
            assert inside.do(f"one.connect(('127.0.0.1', {port}))") == "done"
            assert inside.do("one.send(b'again')") == "done"
            assert server.recv(99) == b"may still pass"
            assert server.recv(99) == b"again"
    assert "the policy has changed" in (tmp_path / "p" / "said").read_text()


def test_each_save_holds_for_the_next_connect(workspace: Path, tmp_path: Path) -> None:
    """Saved quickly after one another, in place and by an editor's rename."""
    policy = tmp_path / "p" / "policy.toml"
    with TcpListener() as one, TcpListener() as other:
        with sandbox(workspace, tmp_path / "p", allowing(one)) as inside:
            for number in range(50):
                now, before = (other, one) if number % 2 == 0 else (one, other)
                saved = policy if number % 3 else policy.with_suffix(".new")
                saved.write_text(allowing(now))
                saved.replace(policy)
                assert inside.do(f"tcp({now.address!r}, {now.port})") == "done"
                assert inside.do(f"tcp({before.address!r}, {before.port})") == "PermissionError"
        assert len(one.received()) == len(other.received()) == 25


def test_a_name_is_answered_and_reached_once_it_is_allowed(workspace: Path, tmp_path: Path) -> None:
    policy = tmp_path / "p" / "policy.toml"
    with TcpListener() as server, DnsServer({"later.example": [server.address]}) as names:
        resolv_conf = Path(names.write_resolver_config(tmp_path))
        with sandbox(workspace, tmp_path / "p", "", resolv_conf) as inside:
            assert inside.do(f"tcp('later.example', {server.port})") == "gaierror"
            assert not names.queries
            rule = f'{{ host = "later.example", port = {server.port}, private = true }}'
            policy.write_text(f"[network]\nallow = [{rule}]\n")
            assert inside.do(f"tcp('later.example', {server.port})") == "done"
            policy.write_text("")
            policy.write_text("# nothing any more\n")
            time.sleep(1.1)
            assert inside.do(f"tcp({server.address!r}, {server.port})") == "PermissionError"
            assert inside.do(f"tcp('later.example', {server.port})") == "gaierror"
        assert len(server.received()) == 1


def test_a_file_that_the_code_may_write_is_not_taken(workspace: Path, tmp_path: Path) -> None:
    """A link, by a careless hand or a program of the user's: into the notebook's folder."""
    policy = tmp_path / "p" / "policy.toml"
    with TcpListener() as server, sandbox(workspace, tmp_path / "p", "") as inside:
        connect = f"tcp({server.address!r}, {server.port})"
        text = allowing(server)
        assert inside.do(f"open('mine.toml', 'w').write({text!r})") == "done"
        assert (workspace / "mine.toml").read_text() == text
        assert inside.do(f"open({str(policy)!r}, 'a').write({text!r})") == "PermissionError"
        policy.unlink()
        policy.symlink_to(workspace / "mine.toml")
        assert inside.do(connect) == "PermissionError"
        policy.unlink()
        policy.write_text(f'extends = ["{workspace / "mine.toml"}"]\n')
        assert inside.do(connect) == "PermissionError"
        assert not server.received()
        policy.write_text(text)
        time.sleep(1.1)
        assert inside.do(connect) == "done"
    said = (tmp_path / "p" / "said").read_text()
    assert "lies where the code inside may write" in said or "mine.toml" in said


# What the code inside does while the user's editor has the new policy under an open name.
HOLDS = {
    "a descriptor": ("kept = open('new', 'r+')", "kept.seek(0); kept.write({text!r}); kept.truncate(); kept.flush()"),
    "a mapping": (
        "import mmap; kept = mmap.mmap(os.open('new', os.O_RDWR), 4096)", "kept.write({text!r}.ljust(4096).encode())"),
    "a further name": ("os.link('new', 'x')", "open('x', 'w').write({text!r})"),
}  # fmt: skip


@pytest.mark.parametrize("hold", HOLDS)
def test_a_policy_in_the_notebooks_folder_is_not_held_by_the_code(hold: str, workspace: Path, tmp_path: Path) -> None:
    take, change = HOLDS[hold]
    policy = workspace / "policy.toml"
    with TcpListener() as server:
        text = allowing(server)
        with sandbox(workspace, workspace, "") as inside:
            assert inside.do(f"open('policy.toml', 'w').write({text!r})") == "PermissionError"
            (workspace / "new").write_text("# nothing".ljust(4096))
            assert inside.do(take) == "done"
            (workspace / "new").rename(policy)
            assert inside.do(change.format(text=text)) == "done"
            assert policy.read_text().strip() == text.strip(), "the attack shows nothing"
            time.sleep(1.1)
            assert inside.do(f"tcp({server.address!r}, {server.port})") == "PermissionError"
            assert not server.received()
            (workspace / ".new").write_text(text)  # by a name that is closed
            (workspace / ".new").rename(policy)
            time.sleep(1.1)
            assert inside.do(f"tcp({server.address!r}, {server.port})") == "done"
            policy.write_text(allowing(server) + "# in place\n")
            assert inside.do(f"tcp({server.address!r}, {server.port})") == "done"
        assert len(server.received()) == 2


def test_a_policy_with_another_name_in_the_notebooks_folder_starts_nothing(workspace: Path) -> None:
    with sandbox(workspace, workspace, ""):
        pass
    os.link(workspace / "policy.toml", workspace / "x")
    command = launcher_command("", workspace, workspace, workspace / "audit.jsonl")
    done = subprocess.run([*command, "true"], cwd=workspace, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == PolicyError.exit_code
    assert "it has another name" in done.stderr


def test_nor_from_another_sandbox_in_the_same_folder(workspace: Path, tmp_path: Path) -> None:
    """Whose own policy is another one."""
    with TcpListener() as server:
        text = allowing(server)
        with sandbox(workspace, workspace, "") as one, sandbox(workspace, tmp_path / "p", "") as other:
            assert other.do(f"open('policy.toml', 'w').write({text!r})") == "PermissionError"
            assert other.do("os.rename('policy.toml', 'x')") == "PermissionError"
            assert other.do(f"open('exam.policy.toml', 'w').write({text!r})") == "PermissionError"
            assert one.do(f"tcp({server.address!r}, {server.port})") == "PermissionError"
        assert not server.received()
    assert (workspace / "policy.toml").read_text() == ""

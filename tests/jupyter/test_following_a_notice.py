"""What a notice says, done literally, leads on: the command or the lines in the file, then a restart, and it works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.kernels import DEADLINE, REAL, Kernel, Outcome, running
from tests.support.servers import TcpListener

PROGRAM = Path(sys.executable).with_name("sandboxed-kernel")


@pytest.fixture
def policy(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the policy of a new user would be."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(short_path / "config"))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(short_path / "data"))
    monkeypatch.setenv("XDG_STATE_HOME", str(short_path / "state"))
    monkeypatch.chdir(short_path)
    return short_path / "config" / "sandboxed-kernel" / "policy.toml"


def notice(outcome: Outcome) -> str:
    (text,) = [
        message["content"]["data"]["text/plain"]
        for message in outcome.of("display_data")
        if "[sandbox]" in message["content"]["data"].get("text/plain", "")
    ]
    return str(text)


def restart(kernel: Kernel) -> None:
    kernel.manager.restart_kernel(now=True)
    kernel.client.wait_for_ready(timeout=DEADLINE)


def run_command(text: str) -> None:
    """The command of the notice, by a shell as a person has it."""
    command = re.search(r"in a terminal: (sandboxed-kernel allow .*)", text)
    assert command is not None, text
    env = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command[1]], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    assert "Restart the kernel" in done.stdout


def paste(text: str, policy: Path) -> None:
    """The lines of the notice, into the file that it names."""
    named = re.search(r"Or in (.*):\n", text)
    assert named is not None, text
    assert named[1] == str(policy)
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.strip() == "[network]")
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text("\n".join(line.strip() for line in lines[first : first + 2]) + "\n")


@pytest.mark.parametrize("by", ["command", "lines"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_connection(host: str, by: str, policy: Path, short_path: Path) -> None:
    with TcpListener() as server, running(REAL, short_path) as kernel:
        code = f"import socket; socket.create_connection(({host!r}, {server.port})).close(); print('reached')"
        refused = kernel.run(code)
        assert "reached" not in refused.text
        text = notice(refused)
        run_command(text) if by == "command" else paste(text, policy)
        assert len(server.received()) == 0
        restart(kernel)
        assert kernel.run(code).text.endswith("reached\n")
        assert len(server.received()) == 1


def test_a_name(policy: Path, short_path: Path) -> None:
    """Refused before the port is known: both that it may be."""
    with running(REAL, short_path) as kernel:
        text = notice(kernel.run("import socket\ntry: socket.getaddrinfo('a.example', None)\nexcept OSError: pass"))
        assert "The port was not asked for yet" in text
        run_command(text)
        assert tomllib.loads(policy.read_text()) == {"network": {"allow": ["a.example:80,443"]}}
        restart(kernel)
        assert "a.example:80,443" in kernel.run("%sandbox policy").text
        text = notice(kernel.run("import socket\ntry: socket.getaddrinfo('pypi.org', 443)\nexcept OSError: pass"))
        assert "sandboxed-kernel allow --preset pypi" in text


def test_a_kernel_of_another_name_is_named_in_the_command(policy: Path, short_path: Path) -> None:
    command = [*REAL[:-2], "--kernel", "exam", *REAL[-2:]]
    (short_path / "data" / "kernels" / "exam").mkdir(parents=True)
    spec = '{"argv": ["python", "-I", "-m", "sandboxed_kernel", "--kernel", "exam"]}'
    (short_path / "data" / "kernels" / "exam" / "kernel.json").write_text(spec)
    with TcpListener() as server, running(command, short_path) as kernel:
        code = f"import socket; socket.create_connection(('127.0.0.1', {server.port})).close(); print('reached')"
        run_command(notice(kernel.run(code)))
        assert not policy.exists()
        restart(kernel)
        assert kernel.run(code).text.endswith("reached\n")

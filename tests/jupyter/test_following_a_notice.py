"""What a notice says, done literally, leads on: the command or the lines in the file, then the cell once more."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.kernels import REAL, Outcome, running
from tests.support.servers import TcpListener, unix_listener

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


def run_command(text: str) -> None:
    """The command of the notice, by a shell as a person has it."""
    command = re.search(r"in a terminal: (sandboxed-kernel allow .*)", text)
    assert command is not None, text
    assert "run the cell again" in by_shell(command[1])


def by_shell(command: str) -> str:
    env = {**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"}
    done = subprocess.run(["sh", "-c", command], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done
    return done.stdout


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
        assert "Then run the cell again." in text
        assert len(server.received()) == 0
        assert kernel.run(code).text == "reached\n"
        assert len(server.received()) == 1


def test_a_name(policy: Path, short_path: Path) -> None:
    """Refused before the port is known: both that it may be."""
    with running(REAL, short_path) as kernel:
        text = notice(kernel.run("import socket\ntry: socket.getaddrinfo('a.example', None)\nexcept OSError: pass"))
        assert "The port was not asked for yet" in text
        run_command(text)
        assert tomllib.loads(policy.read_text()) == {"network": {"allow": ["a.example:80,443"]}}
        kernel.run("import time; time.sleep(0.5)")
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
        assert kernel.run(code).text == "reached\n"


def test_what_waits_for_a_restart_is_said_and_a_mistake_too(policy: Path, short_path: Path) -> None:
    with running(REAL, short_path) as kernel:
        kernel.run("pass")
        policy.parent.mkdir(parents=True, exist_ok=True)
        policy.write_text('[limits]\nmemory = "4 GiB"\n')
        said = kernel.run("import time; time.sleep(0.5)").text
        assert "[limits] holds when the kernel is restarted" in said
        policy.write_text('[network]\nallow = ["no port"]\n')
        said = kernel.run("time.sleep(0.5)").text
        assert "allow[0]" in said
        assert "the rules from before hold" in said
        assert kernel.run("time.sleep(0.5)").text == ""


def hinted(outcome: Outcome, words: str) -> str:
    """The command in the hint under a traceback that has ``words``."""
    (error,) = outcome.of("error")
    hint = "\n".join(error["content"]["traceback"][-2:])
    command = re.search(rf"sandboxed-kernel allow --{words} \S+( --from \S+)?", hint)
    assert command is not None, hint
    return command[0]


def test_a_file_of_the_project(policy: Path, short_path: Path) -> None:
    notebooks = short_path / "project" / "notebooks"
    notebooks.mkdir(parents=True)
    (notebooks.parent / "pyproject.toml").write_text("")
    (notebooks.parent / "data.csv").write_text("a,b")
    code = "print(open('../data.csv').read())"
    with running(REAL, short_path, cwd=notebooks) as kernel:
        command = hinted(kernel.run(code), "read")
        assert "Restart the kernel for the folders" in by_shell(hinted(kernel.run(code), "project"))
    with running(REAL, short_path, cwd=notebooks) as kernel:
        assert "a,b" in kernel.run(code).text
        assert "wrote 3" in kernel.run("print('wrote', open('../out.txt', 'w').write('out'))").text
    policy.unlink()
    by_shell(command)
    with running(REAL, short_path, cwd=notebooks) as kernel:
        assert "a,b" in kernel.run(code).text
        assert "PermissionError" in kernel.run("open('../out.txt', 'w')").error


def test_a_variable_of_a_dotenv(policy: Path, short_path: Path) -> None:
    (short_path / "notebook").mkdir()
    (short_path / "notebook" / ".env").write_text("API_KEY=k1\n")
    with running(REAL, short_path) as kernel:
        command = hinted(kernel.run("open('.env')"), "env").replace("NAME", "API_KEY")
        assert "Restart the kernel for the variables" in by_shell(command)
    with running(REAL, short_path) as kernel:
        assert "'k1'" in kernel.run("import os; print(repr(os.environ['API_KEY']))").text
        assert "PermissionError" in kernel.run("open('.env')").error
        assert "k1" not in kernel.run("%sandbox policy").text


# By the name of what is refused: the code, which says "reached" where it was not. "{port}" is of a server outside.
NETWORK = {
    "IPv4": "socket.create_connection(('127.0.0.1', {port}))",
    "IPv6": "socket.create_connection(('::1', {port}))",
    "a name": "socket.create_connection(('localhost', {port}))",
    "http": "urllib.request.urlopen('http://127.0.0.1:{port}', timeout=5)",
    "connect_ex": "error = socket.socket().connect_ex(('127.0.0.1', {port}))\nif error: raise OSError(error)",
    "asyncio": "await asyncio.open_connection('127.0.0.1', {port})",
    "a thread": "with futures.ThreadPoolExecutor() as pool:"
    " pool.submit(socket.create_connection, ('127.0.0.1', {port})).result()",
    "a child": "subprocess.run([sys.executable, '-c', 'import socket;"
    ' socket.create_connection(("127.0.0.1", {port}))\'], check=True)',
    "another process": "with futures.ProcessPoolExecutor(1) as pool:"
    " pool.submit(socket.getfqdn).result(); pool.submit(connect, {port}).result()",
}
FILES = {
    "a file elsewhere": "open('{elsewhere}/a.csv').read()",
    "a folder elsewhere": "os.listdir('{elsewhere}')",
    "pathlib": "pathlib.Path('{elsewhere}/a.csv').read_text()",
    "a key": "open('server.pem').read()",
    "a file in the home folder": "open('{elsewhere}/deep/er/b.csv').read()",
    "a name with a dot": "open('.unheard-of', 'w')",
    "a database": "socket.socket(socket.AF_UNIX).connect('{elsewhere}/.s.PGSQL.5432')",
    "a folder of the project": "open('../data.csv').read()",
}
IMPORTS = """
import asyncio, os, pathlib, socket, subprocess, sys, urllib.request
from concurrent import futures
def connect(port):
    socket.create_connection(('127.0.0.1', port)).close()
"""


def to_go_on(outcome: Outcome) -> str:
    """What the end of the error, or the hint there, says is to be written in a terminal."""
    (error,) = outcome.of("error")
    assert outcome.reply["content"]["traceback"] == error["content"]["traceback"]
    said = "\n".join(error["content"]["traceback"][-2:])
    found = re.search(r"(?:To go on|In a terminal): (sandboxed-kernel allow(?: [^\s(]\S*)+)", said)
    assert found is not None, said
    return found[1]


@pytest.mark.parametrize("what", NETWORK)
def test_the_end_of_the_error_leads_on_at_once(what: str, policy: Path, short_path: Path) -> None:
    address = "::1" if what == "IPv6" else "127.0.0.1"
    with TcpListener(address, reply=b"HTTP/1.0 200 OK\r\n\r\n") as server:
        with running(REAL, short_path) as kernel:
            code = IMPORTS + NETWORK[what].format(port=server.port) + "\nprint('reached')"
            refused = kernel.run(code)
            assert "reached" not in refused.text
            assert len(server.received()) == 0
            by_shell(to_go_on(refused))
            assert kernel.run(code).text.splitlines()[-1] == "reached"
        assert len(server.received()) == 1


@pytest.mark.parametrize("what", FILES)
def test_the_end_of_the_error_leads_on_after_a_restart(what: str, policy: Path, short_path: Path) -> None:
    elsewhere, notebooks = short_path / "elsewhere", short_path / "project" / "notebooks"
    (elsewhere / "deep" / "er").mkdir(parents=True)
    notebooks.mkdir(parents=True)
    for file in (elsewhere / "a.csv", elsewhere / "deep" / "er" / "b.csv", notebooks / "server.pem"):
        file.write_text("there")
    for file in (notebooks / ".unheard-of", notebooks.parent / "pyproject.toml", notebooks.parent / "data.csv"):
        file.write_text("there")
    code = IMPORTS + FILES[what].format(elsewhere=elsewhere) + "\nprint('reached')"
    with unix_listener(elsewhere / ".s.PGSQL.5432"):
        with running(REAL, short_path, cwd=notebooks) as kernel:
            refused = kernel.run(code)
            assert "reached" not in refused.text
            by_shell(to_go_on(refused))
        with running(REAL, short_path, cwd=notebooks) as kernel:
            again = kernel.run(code)
            assert again.text.splitlines()[-1] == "reached", again.error

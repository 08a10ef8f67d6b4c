"""``run_inside`` and ``attack`` against launchers that are known to leak, to hold, or to hang.

The harness must tell them apart; whether the real launcher holds is for tests/promises.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.support import sandbox
from tests.support.sandbox import attack, run_command_inside, run_inside
from tests.support.servers import TcpListener

# A launcher's command line without a launcher: it runs the command if the policy says so, and writes one event.
FAKE = """
import json, os, sys
options = dict(zip(sys.argv[2::2], sys.argv[3::2]))
command = sys.argv[sys.argv.index("--") + 1:]
event = dict(version=1, kind="connect", verdict="refused", reason="not in the policy", protocol="tcp", when=0.0, pid=1,
             process="python3", host=None, address="127.0.0.1", port=7, rule=None, allow_line=None, count=1, cell=None)
with open(options["--audit"], "w") as log:
    print(json.dumps(event), file=log)
os.chdir(options["--workspace"])
policy = open(options["--policy"]).read()
if "break" in policy:
    sys.exit("the launcher does not start")
if "leak" not in policy:
    command[2] = "import socket; socket.create_connection = lambda *_: exit(print('refused'))\\n" + command[2]
os.execvp(command[0], command)
"""


@pytest.fixture(autouse=True)
def fake_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "launcher.py"
    script.write_text(FAKE)
    monkeypatch.setattr(sandbox, "LAUNCHER", (sys.executable, str(script)))


def connect(server: TcpListener) -> str:
    return f"import socket; socket.create_connection(({server.address!r}, {server.port}), 5).close()"


def test_a_launcher_that_leaks_is_found_out_at_the_receiver(workspace: Path) -> None:
    with TcpListener() as server, pytest.raises(AssertionError, match="the attack worked inside: 1 became 2"):
        attack(connect(server), seen=lambda: len(server.received()), workspace=workspace, policy="# leak")


def test_a_launcher_that_holds_passes_and_its_events_are_read(workspace: Path) -> None:
    with TcpListener() as server:
        inside = attack(connect(server), seen=lambda: len(server.received()), workspace=workspace)
    assert inside.check().stdout == "refused\n"
    assert [event.port for event in inside.refused(kind="connect")] == [7]
    assert inside.refused(kind="connect", port=8) == []


def test_a_launcher_that_does_not_start_refuses_nothing(workspace: Path) -> None:
    with TcpListener() as server, pytest.raises(AssertionError, match="did not run inside"):
        attack(connect(server), seen=lambda: len(server.received()), workspace=workspace, policy="# break")


def test_code_command_input_and_environment_arrive(workspace: Path) -> None:
    code = "import json, os, sys; print(json.dumps([os.getcwd(), os.environ['A'], sys.stdin.read()]))"
    result = run_inside(code, workspace=workspace, policy="# leak", env={"A": "b"}, stdin="typed")
    assert result.json() == [str(workspace), "b", "typed"]
    assert run_command_inside(["sh", "-c", "exit 3"], workspace=workspace, policy="# leak").returncode == 3


def test_what_hangs_is_ended_and_shown(workspace: Path) -> None:
    began = time.monotonic()
    code = "print('so far', flush=True); import time; time.sleep(60)"
    with pytest.raises(pytest.fail.Exception, match=r"(?s)not done after 1.*so far"):
        run_inside(code, workspace=workspace, policy="# leak", timeout=1)
    assert time.monotonic() - began < 30


def test_a_program_that_failed_is_not_taken_for_one_that_was_refused(workspace: Path) -> None:
    result = run_inside("raise SystemExit('broken')", workspace=workspace, policy="# leak")
    with pytest.raises(AssertionError, match=r"(?s)exit code 1.*broken"):
        result.check()

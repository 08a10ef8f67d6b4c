"""What a program ends with is what its caller sees; a signal's number comes as a shell has it."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.living import Living
from tests.support.sandbox import run_command_inside, run_outside

ENDINGS = {
    "import sys; sys.exit(0)": 0,
    "import sys; sys.exit(3)": 3,
    "import os; os._exit(255)": 255,
    "1/0": 1,
    "import os; os.kill(os.getpid(), 9)": -9,
    "import ctypes; ctypes.string_at(0)": -11,
    "import os; os.abort()": -6,
}


@pytest.mark.parametrize("code", ENDINGS)
def test_the_exit_code_is_the_programs_own(code: str, workspace: Path) -> None:
    assert run_outside(code, workspace=workspace).returncode == ENDINGS[code]
    # No shell in between, and no Python of ours: the command is what runs.
    inside = run_command_inside(["/usr/bin/python3", "-c", code], workspace=workspace)
    assert inside.returncode == (ENDINGS[code] if ENDINGS[code] >= 0 else 128 - ENDINGS[code])


def test_a_command_that_does_not_exist(workspace: Path) -> None:
    result = run_command_inside(["no-such-command"], workspace=workspace)
    assert result.returncode not in (0, 1)
    assert "no-such-command" in result.stderr


WAITING = """
import os, signal, sys, time
def end(number, frame):
    os.write(1, b"caught %d\\n" % number); sys.exit(40 + number)
if len(sys.argv) > 1:
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT): signal.signal(number, end)
print("ready", flush=True)
while True: time.sleep(10)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT], ids=str)
def test_signals_reach_the_program(number: signal.Signals, workspace: Path) -> None:
    with Living(["/usr/bin/python3", "-c", WAITING, "catch"], workspace=workspace) as program:
        assert program.line() == "ready"
        program.launcher.send_signal(number)
        assert program.line() == f"caught {number:d}"
        assert program.wait() == 40 + number
    with Living(["/usr/bin/python3", "-c", WAITING], workspace=workspace) as program:
        assert program.line() == "ready"
        program.launcher.send_signal(number)
        assert program.wait() == 128 + number

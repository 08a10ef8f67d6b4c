"""Refusals are counted: a flood is answered, told once and kept in few lines, whether or not anybody listens."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.living import Living, resident_bytes
from tests.support.servers import TcpListener, wait_until

FLOOD = """
import socket, sys
address = REFUSED
count = 0
s = socket.socket()
for _ in range(TIMES):
    count += s.connect_ex(address) == 13
print(count, flush=True)
import time; time.sleep(30)
"""
TIMES = 100_000


def flood(server: TcpListener, times: int) -> str:
    return FLOOD.replace("REFUSED", repr((server.address, server.port))).replace("TIMES", str(times))


def test_a_flood_of_refusals_is_counted(workspace: Path) -> None:
    with TcpListener() as server:
        with Living(flood(server, TIMES), workspace=workspace) as program:
            assert program.line(60) == str(TIMES)
            wait_until(lambda: program.events()[-1].count >= TIMES // 10, "the count in the audit log")
            assert resident_bytes(program.broker) < 60 << 20
            assert program.errors().count(str(server.port)) < 10
            program.launcher.terminate()
            program.wait()
            assert program.events()[-1].count == TIMES
            assert len(program.events()) < 10, (
                "a line each time that the count is ten times as large, and one at the end"
            )
        assert server.received() == []


def test_a_launcher_that_is_stopped_delays_no_answer_for_long(workspace: Path) -> None:
    """A second stopped would be 300 answers of 50 ms: the notice is waited for once, not at each refusal."""
    code = 'import os, time\nprint("ready", flush=True)\nwhile not os.path.exists("go"): time.sleep(0.01)\n'
    with TcpListener() as server:
        with Living(code + flood(server, 300), workspace=workspace) as program:
            assert program.line() == "ready"
            program.launcher.send_signal(signal.SIGSTOP)
            (workspace / "go").touch()
            assert program.line() == "300"
        assert server.received() == []


@pytest.mark.parametrize("place", ["/dev/full", "/proc/no such folder/audit"])
def test_a_log_that_cannot_be_written_stops_nothing(place: str, workspace: Path) -> None:
    with TcpListener() as server:
        with Living(flood(server, 300), workspace=workspace, audit=Path(place)) as program:
            assert program.line() == "300"
            wait_until(lambda: "audit log cannot be written" in program.errors(), "words about the log")
        assert server.received() == []

"""Code inside can keep the broker waiting in Linux, beyond any signal. The end and an interrupt come all the same."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import freezers
from tests.support.living import Living, is_running, threads_in_linux
from tests.support.servers import TcpListener, wait_until

AT_ONCE = 2.0  # seconds, the promise

# A detached process speaks to the server all the time; another one keeps the broker waiting.
CODE = """
FREEZERS
import signal, socket
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    with socket.create_connection(SERVER) as client:
        while True:
            client.sendall(b".")
            time.sleep(0.01)
folder = os.environ["HOME"]
name = f"/dev/shm/sandboxed-kernel-test-{os.getpid()}"
file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.unlink(name)
print(folder, flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
start_hogs()
time.sleep(0.1)
FREEZE
while True:
    CALL
"""
FREEZES = {
    "a file's lock": ("hold_inode(file)", "os.fchmod(file, 0o600)"),
    "a lock of its memory": ("hold_memory()", "socket.socket().connect_ex(('127.0.0.1', 1))"),
}


def end_politely(program: Living) -> None:
    program.launcher.terminate()


def kill_launcher(program: Living) -> None:
    program.launcher.kill()


def kill_both(program: Living) -> None:
    """At one instant: neither has time to do anything about the other's end."""
    for pid in (program.launcher.pid, program.broker):
        os.kill(pid, signal.SIGSTOP)
    for pid in (program.launcher.pid, program.broker):
        os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [kill_launcher, kill_both])
@pytest.mark.parametrize("freeze", FREEZES)
def test_everything_inside_ends_at_once(freeze: str, end: Callable[[Living], None], workspace: Path) -> None:
    hold, call = FREEZES[freeze]
    with TcpListener() as server:
        code = CODE.replace("FREEZERS", Path(freezers.__file__).read_text()).replace("FREEZE", hold)
        code = code.replace("CALL", call).replace("SERVER", repr((server.address, server.port)))
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{server.endpoint}"]') as program:
            private = Path(program.line()).parent
            wait_until(lambda: server.contacts and server.contacts[0].data, "the first word from inside")
            (workspace / "go").touch()
            wait_until(lambda: threads_in_linux(program.broker), "the broker to wait in Linux", within=20.0)
            program.note()
            broker = program.broker
            began = time.monotonic()
            end(program)
            wait_until(program.is_gone, "the end of everything inside", within=AT_ONCE)
            wait_until(lambda: server.contacts[0].finished, "the end of the connection", within=AT_ONCE)
            assert time.monotonic() - began < AT_ONCE
            wait_until(lambda: not is_running(broker), "the end of the broker")
            if end is kill_both:
                wait_until(lambda: not private.exists(), "the removal of the private folder")

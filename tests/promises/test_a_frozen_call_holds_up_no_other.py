"""Whatever code inside makes the broker wait for in Linux, the calls of other processes are answered, and told.

The freeze is real: threads of the broker are seen to wait where no signal reaches them, before and after. Meanwhile
another process connects to an allowed and to a refused server.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from tests.support import freezers
from tests.support.living import Living, threads_in_linux
from tests.support.servers import TcpListener, wait_until

ROUNDS = 50
MAX_THREADS = 64 + 4  # of the broker: docs/decisions/threads.md

CODE = f"""
{Path(freezers.__file__).read_text()}
import json, signal, socket, sys
allowed, refused = SERVERS
os.sched_setaffinity(0, {{os.cpu_count() - 1}})
def children(count, work):
    for _ in range(count):
        if os.fork() == 0:
            while True:
                work()
def threads(count, work):
    if os.fork() == 0:
        threading.stack_size(65536)
        for _ in range(count):
            threading.Thread(target=lambda: [work() for _ in range(1000000)]).start()
        time.sleep(LASTS)
        os._exit(0)
name = f"/dev/shm/sandboxed-kernel-test-{{os.getpid()}}"
file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
os.unlink(name)
def change():
    os.fchmod(file, 0o600)
start_hogs()
time.sleep(0.1)
FREEZE
print("frozen", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
heard, times = [], []
for _ in range({ROUNDS}):
    began = time.monotonic()
    with socket.create_connection(allowed, 5) as connection:
        heard.append(connection.recv(5).decode())
    try:
        socket.create_connection(refused, 5)
    except PermissionError as error:
        heard.append("refused")
    times.append(time.monotonic() - began)
print(json.dumps(heard), flush=True)
print(json.dumps(sorted(times)[len(times) // 2]), flush=True)
time.sleep(LASTS)
"""

IN_LINUX = {
    "a file's lock": "hold_inode(file); children(1, change)",
    "a file's lock, 50 processes": "hold_inode(file); children(50, change)",
    "a file's lock, 1,000 threads": "hold_inode(file); threads(1000, change)",
    "a lock of its memory": """
if os.fork() == 0:
    hold_memory()
    while True:
        socket.socket().connect_ex(("127.0.0.1", 1))
""",
    "a page that is taken out": """
if os.fork() == 0:
    address, mine = hold_page(), socket.socket()
    while True:
        time.sleep(1)  # for the thread that takes it out
        _libc.connect(ctypes.c_int(mine.fileno()), ctypes.c_void_p(address), ctypes.c_int(16))
""",
}
STARVED = "[starved_process(lambda: socket.socket().close()) for _ in range(COUNT)]"


def run(freeze: str, workspace: Path, *, in_linux: bool) -> bool:
    """False where the freeze did not come about, or not for long enough, as on a busy machine."""
    with TcpListener(reply=b"hello") as allowed, TcpListener() as refused:
        places = [(server.address, server.port) for server in (allowed, refused)]
        code = CODE.replace("SERVERS", repr(places)).replace("FREEZE", freeze)
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{allowed.endpoint}"]') as program:
            assert program.line(60) == "frozen"
            if in_linux and not is_waiting(program, within=10.0):
                return False
            (workspace / "go").touch()
            assert json.loads(program.line(60)) == ["hello", "refused"] * ROUNDS
            print(f"{freeze.strip()}: {1e6 * json.loads(program.line()):.0f} us for both")
            assert len(os.listdir(f"/proc/{program.broker}/task")) <= MAX_THREADS
            if in_linux and not is_waiting(program, within=5.0):
                return False
            wait_until(lambda: any(event.port == refused.port for event in program.events()), "the line of the log")
            program.note()
            program.launcher.kill()
            wait_until(program.is_gone, "the end of everything inside")
        assert refused.received() == []
    return True


def is_waiting(program: Living, within: float) -> bool:
    end = time.monotonic() + within
    while time.monotonic() < end:
        if threads_in_linux(program.broker):
            return True
    return False


@pytest.mark.parametrize("freeze", IN_LINUX)
def test_others_are_answered_while_calls_wait_in_linux(freeze: str, workspace: Path) -> None:
    for _ in range(5):
        (workspace / "go").unlink(missing_ok=True)
        if run(IN_LINUX[freeze], workspace, in_linux=True):
            return
    raise AssertionError("the broker was never seen to wait in Linux")


@pytest.mark.parametrize("processes", [1, 30])
def test_others_are_answered_while_descriptors_are_handed_to_whoever_gets_no_time(
    processes: int, workspace: Path
) -> None:
    run(STARVED.replace("COUNT", str(processes)), workspace, in_linux=False)

"""A connect that hangs keeps nobody waiting but its own thread: no other call, no Ctrl-C, and never the broker."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.support.living import Living, resident_bytes
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import TcpListener
from tests.support.silent import silent_listener

HANGING = 1000
MAX_MEMORY = 60 << 20  # bytes of the broker, while so many wait

MANY = """
import os, signal, socket, statistics, sys, threading, time
silent, server, refused = SILENT, SERVER, REFUSED
ended = []
def hang():
    s = socket.socket()
    try: s.connect(silent)
    except OSError as error: ended.append(error)
threading.stack_size(65536)
for _ in range(HANGING):
    threading.Thread(target=hang, daemon=True).start()
def answered(address):
    s, before = socket.socket(), time.perf_counter()
    s.connect_ex(address)
    return time.perf_counter() - before
times = [answered(refused) for _ in range(50)]
print(f"{len(ended)} of {HANGING} ended; others are answered in {1e6 * statistics.median(times):.0f} us", flush=True)
with socket.create_connection(server, 10) as s:
    print(s.recv(5).decode(), flush=True)
try:
    print("hanging", flush=True)
    hang()
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
with socket.create_connection(server, 10) as s:
    print(s.recv(5).decode(), flush=True)
os._exit(0)
"""

# Another process clears O_NONBLOCK of the socket that the broker connects at this moment.
TRICK = """
import fcntl, os, socket, threading, time
silent = SILENT
def clear(fd):
    end = time.monotonic() + 2
    while time.monotonic() < end:
        for _ in range(1000): fcntl.fcntl(fd, fcntl.F_SETFL, os.O_RDWR)
    os._exit(0)
sockets = [socket.socket() for _ in range(40)]
fds = [s.fileno() for s in sockets]
def connect(s):
    try: s.connect(silent)
    except OSError: pass
worst = 0
for s in sockets:
    child = os.fork()
    if child == 0:
        clear(s.fileno())
    time.sleep(0.003)
    threading.Thread(target=connect, args=(s,), daemon=True).start()
    time.sleep(0.003)
    before = time.monotonic()
    socket.socket().close()
    worst = max(worst, time.monotonic() - before)
    os.kill(child, 9)
    os.waitpid(child, 0)
print(f"worst {worst:.3f} s", flush=True)
os._exit(0)
"""


def test_others_are_answered_while_a_thousand_hang(workspace: Path) -> None:
    with TcpListener() as server, TcpListener() as refused, silent_listener() as silent:
        places = {"SILENT": silent, "SERVER": (server.address, server.port), "REFUSED": (refused.address, refused.port)}
        code = MANY.replace("HANGING", str(HANGING))
        for name, place in places.items():
            code = code.replace(name, repr(place), 1)
        policy = f'[network]\nallow = ["{server.endpoint}", "{silent[0]}:{silent[1]}"]'
        with Living(code, workspace=workspace, policy=policy) as program:
            said = program.line(60)
            print(said)
            assert said.startswith(f"0 of {HANGING} ended")
            assert program.line() == "hello"
            assert resident_bytes(program.broker) < MAX_MEMORY
            assert program.line() == "hanging"
            program.launcher.send_signal(signal.SIGINT)  # Ctrl-C
            assert program.line() == "KeyboardInterrupt"
            assert program.line() == "hello"
            assert program.wait() == 0
        assert refused.received() == []


def test_the_broker_never_waits_for_a_host_whatever_the_flags_become(workspace: Path) -> None:
    with silent_listener() as silent:
        code = TRICK.replace("SILENT", repr(silent), 1)
        assert "worst" in run_outside(code, workspace=workspace).check().stdout
        policy = f'[network]\nallow = ["{silent[0]}:{silent[1]}"]'
        # A broker that waits does so for two minutes, longer than a program of the harness may take.
        print(run_inside(code, workspace=workspace, policy=policy).check().stdout)

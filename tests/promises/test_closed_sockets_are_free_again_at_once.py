"""The broker keeps nothing that a program has closed: ports, descriptors and connections end as they do outside."""

from __future__ import annotations

from pathlib import Path

from tests.support.living import Living, open_descriptors
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import TcpListener

PORTS = """
import json, socket
def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    with socket.socket() as s:
        s.bind(("127.0.0.1", port)); s.listen()
        with socket.create_connection(("127.0.0.1", port), 5): return True
def restart(reuse):
    port = 0
    for _ in range(4):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
            s.bind(("127.0.0.1", port)); s.listen(); port = s.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), 5) as c:
                a = s.accept()[0]
                if not reuse: c.close(); a.recv(1)   # the client closes first, or its port waits in TIME_WAIT
                a.close()
    return 3
print(json.dumps([sum(free_port() for _ in range(20)), restart(1), restart(0)]))
"""

MANY = """
import socket
for number in range(10_000):
    kind = number % 3
    family = socket.AF_UNIX if kind == 2 else socket.AF_INET
    s = socket.socket(family, socket.SOCK_DGRAM if kind == 1 else socket.SOCK_STREAM)
    s.close()
    if number == 500: print("early", flush=True)
print("late", flush=True)
import time; time.sleep(30)
"""

ENDS = """
import socket, struct
for linger in (False, True):
    s = socket.create_connection(SERVER, 5); s.recv(100); s.sendall(b"reset" if linger else b"end")
    if linger: s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
print("closed", flush=True)
import time; time.sleep(30)
"""


def test_a_port_that_was_closed_can_be_bound(workspace: Path) -> None:
    assert run_outside(PORTS, workspace=workspace).json() == [20, 3, 3]
    assert run_inside(PORTS, workspace=workspace).json() == [20, 3, 3]


def test_ten_thousand_sockets_leave_nothing_in_the_broker(workspace: Path) -> None:
    with Living(MANY, workspace=workspace) as program:
        assert program.line() == "early"
        assert program.line(30) == "late"
        assert open_descriptors(program.broker) < 400


def test_the_other_side_sees_the_end_while_the_program_goes_on(workspace: Path) -> None:
    with TcpListener() as server:
        code = ENDS.replace("SERVER", repr((server.address, server.port)), 1)
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{server.endpoint}"]') as program:
            assert program.line() == "closed"
            contacts = server.received()
            assert [contact.finished for contact in contacts] == [True, True]
            assert contacts[0].data == b"end"

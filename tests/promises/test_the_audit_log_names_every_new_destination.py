"""The audit log has a line for each allowed destination the first time, and for each refused one with its count."""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import attack, run_inside
from tests.support.servers import TcpListener, UdpListener

TALK = """
import os, socket
def connect(port):
    s = socket.socket()
    s.connect_ex(("127.0.0.1", port))
    s.close()
for _ in range(3):
    if os.fork() == 0:
        for _ in range(5):
            connect(ALLOWED)
            connect(REFUSED)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
                s.sendto(b"hello", ("127.0.0.1", DATAGRAMS))
        os._exit(0)
    os.wait()
"""

# The line of an allowed destination is to drown in lines about calls that mean nothing.
DROWN = """
import ctypes, socket
libc = ctypes.CDLL(None)
s = socket.socket()
for number in range(11000):
    libc.connect(s.fileno(), ctypes.c_void_p(4096 + number), 16)
s.connect(("127.0.0.1", ALLOWED))
"""


def test_the_audit_log_names_every_new_destination(workspace: Path) -> None:
    with TcpListener() as allowed, TcpListener() as refused, UdpListener() as datagrams:
        policy = f'[network]\nallow = ["{allowed.endpoint}", "udp://{datagrams.endpoint}"]'
        code = TALK.replace("ALLOWED", str(allowed.port)).replace("REFUSED", str(refused.port))
        code = code.replace("DATAGRAMS", str(datagrams.port))
        result = attack(code, seen=lambda: len(refused.received()), workspace=workspace, policy=policy)
        assert (len(allowed.received()), len(datagrams.received())) == (30, 30)
    lines = [event for event in result.events if event.verdict == "allowed"]
    named = [(event.kind, event.protocol, event.port) for event in lines]
    assert named == [("connect", "tcp", allowed.port), ("datagram", "udp", datagrams.port)]
    assert ["network.allow[0]" in str(lines[0].rule), "network.allow[1]" in str(lines[1].rule)] == [True, True]
    counts = [event.count for event in result.refused(kind="connect", port=refused.port)]
    assert (counts[0], counts[-1]) == (1, 15)
    assert counts == sorted(set(counts))


def test_lines_about_other_things_do_not_push_it_out(workspace: Path) -> None:
    with TcpListener() as allowed:
        policy = f'[network]\nallow = ["{allowed.endpoint}"]'
        result = run_inside(DROWN.replace("ALLOWED", str(allowed.port)), workspace=workspace, policy=policy)
        result.check()
        assert len(allowed.received()) == 1
    assert [event.port for event in result.events if event.verdict == "allowed"] == [allowed.port]
    assert len(result.refused(kind="malformed")) == 1000

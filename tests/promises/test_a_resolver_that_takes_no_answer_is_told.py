"""A program with a resolver of its own gets no names inside, and the user learns why; everyday DNS says nothing.

What c-ares and musl do is done here by hand, call by call.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from sandboxed_kernel.broker.notifier import OWN_RESOLVER
from sandboxed_kernel.notices.render import MAX_SHOWN
from tests.support.dns_server import DnsServer
from tests.support.sandbox import run_inside

SERVER = "192.0.2.53"
QUESTION = """
import os, socket, time
question = bytes.fromhex("1234 0100 0001 0000 0000 0000") + b"\\4data\\4test\\0\\0\\1\\0\\1"
there, kind = ("192.0.2.53", 53), socket.SOCK_DGRAM | socket.SOCK_NONBLOCK
def take(sock):
    for _ in range(500):
        try:
            return sock.recvfrom(512)
        except BlockingIOError:
            time.sleep(0.01)
"""
C_ARES = """
with socket.socket(socket.AF_INET, kind) as sock:
    sock.connect(there)
    assert sock.getsockname() == ""
time.sleep(0.2)
"""
MUSL = """
with socket.socket(socket.AF_INET, kind) as sock:
    sock.bind(("0.0.0.0", 0))
    for _ in range(2):
        sock.sendto(question, there)
        answer, address = take(sock)
        assert answer[:2] == question[:2] and not address
time.sleep(0.2)
"""
EVERYDAY = """
with socket.socket(socket.AF_INET, kind) as sock:
    sock.connect(there)
    sock.send(question)
    assert take(sock)
    sock.send(question)  # as glibc asks again, which takes every answer
with socket.socket(socket.AF_INET, kind) as sock:
    sock.sendto(question, there)
    assert take(sock)
    sock.sendto(question.replace(b"\\0\\1\\0\\1", b"\\0\\x1c\\0\\1"), there)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # as Ray, to learn its own address
    sock.connect(there)
    sock.getsockname()
socket.getaddrinfo("data.test", 443)
socket.getaddrinfo("data.test", 53)
time.sleep(0.2)
"""


@pytest.mark.parametrize(("code", "told"), [(C_ARES, 1), (MUSL, 1), (EVERYDAY, 0)], ids=["c-ares", "musl", "everyday"])
def test_it_is_told(code: str, told: int, workspace: Path, tmp_path: Path) -> None:
    with DnsServer({"data.test": ["127.0.0.1", "127.0.0.2"]}) as names:
        policy = '[network]\nallow = [{ host = "data.test", port = 443, private = true }]'
        resolver = Path(names.write_resolver_config(tmp_path))
        result = run_inside(QUESTION + code, workspace=workspace, policy=policy, resolv_conf=resolver).check()
    assert len(result.refused(kind="datagram", address=SERVER, port=53, reason=OWN_RESOLVER)) == told
    assert len(result.refused()) == told
    assert result.stderr.count("a resolver of its own") == told


def test_the_whole_of_it_is_shown() -> None:
    assert len(OWN_RESOLVER) <= MAX_SHOWN

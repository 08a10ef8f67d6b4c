"""Does: what the programs connect to, outside of every sandbox, on 127.0.0.1."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_HOST = "127.0.0.1"
_BACKLOG = 4096  # Linux's own limit, net.core.somaxconn


@contextmanager
def silent(backlog: int = _BACKLOG) -> Iterator[int]:
    """A port that completes up to ``backlog`` connections and accepts none: no receiver takes processor time."""
    with socket.create_server((_HOST, 0), backlog=backlog) as server:
        yield int(server.getsockname()[1])


@contextmanager
def full() -> Iterator[int]:
    """A port whose queue is full: whoever connects hangs, as with a host that does not answer."""
    with socket.create_server((_HOST, 0), backlog=0) as server:
        port = int(server.getsockname()[1])
        fillers = [socket.socket() for _ in range(3)]
        try:
            for filler in fillers:
                filler.setblocking(False)
                filler.connect_ex((_HOST, port))
            yield port
        finally:
            for filler in fillers:
                filler.close()


@contextmanager
def peer() -> Iterator[int]:
    """The port of a process of its own that takes in blocks and echoes single bytes: ``programs/peer.py``."""
    command = [sys.executable, "-m", "benchmarks.programs.peer"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def endpoint(port: int) -> str:
    return f"{_HOST}:{port}"

"""Does: a guard with a broker that the test is, and connections through it whose two ends the test holds."""

from __future__ import annotations

import os
import signal
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Self

from sandboxed_kernel.guard.messages import Asked, FromGuard, Opened, Passed, Ready, Verdict, decode_from_guard, encode
from sandboxed_kernel.guard.start import start_guard
from tests.support.servers import DEADLINE


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a connection on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        one = socket.create_connection(server.getsockname(), DEADLINE)
        other, _ = server.accept()
    other.settimeout(DEADLINE)
    return one, other


class GuardInTest:
    """``with GuardInTest() as guard: client, server = guard.connect("good.example")``."""

    def __init__(self) -> None:
        self.pid, self.channel = start_guard()
        self.channel.settimeout(DEADLINE)
        self._open: list[socket.socket] = []
        self._next = 0

    def __enter__(self) -> Self:
        assert self.hears() == Ready()
        return self

    def __exit__(self, *raised: object) -> None:
        for sock in self._open:
            sock.close()
        self.channel.close()
        end = time.monotonic() + DEADLINE
        while os.waitpid(self.pid, os.WNOHANG)[0] == 0:
            if time.monotonic() > end:
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise AssertionError("the guard has outlived its broker")
            time.sleep(0.005)

    def hears(self) -> FromGuard:
        return decode_from_guard(self.channel.recv(65536))

    def asks(self) -> Asked:
        """What it asks next, whatever has passed before."""
        while not isinstance(said := self.hears(), Asked):
            assert isinstance(said, Passed)
        return said

    def answer(self, asked: Asked, *, passes: bool) -> None:
        self.channel.send(encode(Verdict(asked.id, passes)))

    def connect(self, *names: str) -> tuple[socket.socket, socket.socket]:
        """The client's end and the server's; the greeting may name ``names``."""
        client, near = tcp_pair()
        far, server = tcp_pair()
        with near, far:
            for sock in (near, far):
                sock.setblocking(False)
            socket.send_fds(self.channel, [encode(Opened(self._next, names))], [near.fileno(), far.fileno()])
        self._next += 1
        self._open += [client, server]
        return client, server

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident(self) -> int:
        """Bytes."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def receive_all(sock: socket.socket) -> bytes:
    """Up to the end of file."""
    found = b""
    while data := sock.recv(1 << 20):
        found += data
    return found

"""What the broker sets on a socket that it shares with the sandbox: that its close waits for nobody."""

from __future__ import annotations

import signal
import socket
import struct
import time

import pytest

from sandboxed_kernel.broker.sockets import Reference
from sandboxed_kernel.linux import sockets

LONG, RESET = struct.pack("ii", 1, 30), struct.pack("ii", 1, 0)


def connection(lingering: bytes) -> tuple[socket.socket, socket.socket]:
    """A sending end with more to send than the other takes, and the other."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    far.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, lingering)
    near.setblocking(False)
    try:
        while near.send(bytes(1 << 20)):
            pass
    except BlockingIOError:
        pass
    near.setblocking(True)
    return near, far


def receive_all(sock: socket.socket) -> None:
    while sock.recv(1 << 20):
        pass


def test_such_a_close_waits_of_itself() -> None:
    near, far = connection(LONG)
    signal.signal(signal.SIGALRM, lambda _number, _frame: None)
    signal.setitimer(signal.ITIMER_REAL, 1)  # ends the wait
    begin = time.monotonic()
    near.close()
    assert time.monotonic() - begin > 0.9
    far.close()


def test_a_dropped_reference_does_not_linger() -> None:
    near, far = connection(LONG)
    begin = time.monotonic()
    Reference(near, 1, socket.AF_INET).close()
    assert time.monotonic() - begin < 1
    assert near.fileno() == -1
    far.close()


def test_a_reset_that_was_asked_for_is_sent() -> None:
    near, far = connection(RESET)
    sockets.stop_lingering(near)
    near.close()
    far.settimeout(5)
    with pytest.raises(ConnectionResetError):
        receive_all(far)
    far.close()

"""Does: the guard's life: it confines itself, serves the connections that the broker hands in, and ends with it.

``python -I -m sandboxed_kernel.guard.serve``, with its end of the pair to the broker as standard input. It never names
an address, opens nothing and connects nowhere: whatever a client writes, its bytes go to the server of its own
connection, or nowhere.
"""

from __future__ import annotations

import collections
import gc
import heapq
import itertools
import math
import os
import select
import socket
import time
from collections.abc import Callable

from sandboxed_kernel.guard.confine import confine
from sandboxed_kernel.guard.messages import (
    MAX_BYTES,
    Asked,
    FromGuard,
    Opened,
    Ready,
    ToGuard,
    Verdict,
    decode_to_guard,
    encode,
)
from sandboxed_kernel.guard.passing import BUFFER, Connection
from sandboxed_kernel.linux import processes

NAME = b"sandbox-guard"
MAX_CONNECTIONS = 1024  # at once; of each at most 64 KiB are held here in each direction, and as much of its greeting
_LAST_BYTES = 1.0  # second, for what everything inside had sent when it ended
_AT_ONCE = 64  # messages of the broker, then connections have their turn

_Callback = Callable[[int], None]


class Guard:
    """Serves all connections in one thread."""

    def __init__(self, broker: socket.socket) -> None:
        self.buffer = memoryview(bytearray(BUFFER))
        self._broker = broker
        self._epoll = select.epoll()
        self._callbacks: dict[int, tuple[int, _Callback]] = {}  # by descriptor: events, and who is told
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._connections: dict[int, Connection] = {}
        self._to_tell: collections.deque[bytes] = collections.deque()
        self._over = False

    def run(self) -> None:
        """Until the broker is gone; what was sent by then still goes on, as Linux does it for who has ended."""
        self.tell(Ready())
        while not self._over:
            self._turn(math.inf)
        self.watch(self._broker, 0, self._broker_ready)
        end = time.monotonic() + _LAST_BYTES
        while (left := end - time.monotonic()) > 0 and any(one.has_more() for one in self._connections.values()):
            self._turn(left)

    def _turn(self, longest: float) -> None:
        """Wait, at most that many seconds, and do what is due."""
        if self._timers:
            longest = min(longest, max(0.0, self._timers[0][0] - time.monotonic()))
        for descriptor, events in self._epoll.poll(-1.0 if longest == math.inf else longest):
            if descriptor in self._callbacks:  # an earlier one of this round may have ended it
                self._callbacks[descriptor][1](events)
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    # --- for connections -------------------------------------------------------------------------------------------

    def watch(self, sock: socket.socket, events: int, callback: _Callback) -> None:
        descriptor = sock.fileno()
        before = self._callbacks.get(descriptor)
        if not events:
            if before is not None:
                del self._callbacks[descriptor]
                self._epoll.unregister(descriptor)
            return
        self._callbacks[descriptor] = (events, callback)
        if before is None:
            self._epoll.register(descriptor, events)
        elif before[0] != events:
            self._epoll.modify(descriptor, events)

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._order), callback))

    def tell(self, message: FromGuard) -> None:
        self._to_tell.append(encode(message))
        self._drain_told()

    def ended(self, ident: int) -> None:
        self._connections.pop(ident, None)

    # --- the broker ------------------------------------------------------------------------------------------------

    def _drain_told(self) -> None:
        """What it does not take now waits: a few messages for each connection."""
        while self._to_tell and not self._over:
            try:
                self._broker.send(self._to_tell[0])
            except BlockingIOError:
                break
            except OSError:
                self._over = True
                break
            self._to_tell.popleft()
        if self._over:
            return
        self.watch(self._broker, select.EPOLLIN | (select.EPOLLOUT if self._to_tell else 0), self._broker_ready)

    def _broker_ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._drain_told()
        for _ in range(_AT_ONCE):
            try:
                data, descriptors, _flags, _address = socket.recv_fds(self._broker, MAX_BYTES, 2)
            except BlockingIOError:
                return
            except OSError:
                data, descriptors = b"", []
            if not data:
                self._over = True
                return
            self._obey(decode_to_guard(data), [_take(descriptor) for descriptor in descriptors])

    def _has_room(self) -> bool:
        """Where there is none, one makes room that its client has left and whose server does not end it."""
        if len(self._connections) < MAX_CONNECTIONS:
            return True
        now = time.monotonic()
        left = next((one for one in self._connections.values() if one.is_left(now)), None)
        if left is not None:
            left.reset()
        return left is not None

    def _obey(self, message: ToGuard, sockets: list[socket.socket]) -> None:
        match message:
            case Verdict(ident, passes):
                connection = self._connections.get(ident)
                if connection is not None:
                    connection.answered(passes=passes)
            case Opened(ident, names):
                if len(sockets) == 2 and self._has_room():
                    near, far = sockets
                    self._connections[ident] = Connection(self, ident, frozenset(names), near, far)
                    return
                for sock in sockets:
                    sock.close()  # what the client has sent already is not read: a reset
                self.tell(Asked(ident, "full"))


def _take(descriptor: int) -> socket.socket:
    """The family does not matter to what is done with it; asking for it would be a system call more."""
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=descriptor)


def main() -> None:
    broker = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=0)
    broker.setblocking(False)
    processes.rename(NAME)
    guard = Guard(broker)
    confine()
    gc.freeze()
    guard.run()
    os._exit(0)


if __name__ == "__main__":
    main()

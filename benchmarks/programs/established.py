"""Inside: throughput and ping-pong of a connection to programs/peer.py."""

from __future__ import annotations

import json
import socket
import sys
from time import perf_counter, perf_counter_ns

from benchmarks.programs.peer import BLOCK, ECHO, TAKE
from benchmarks.programs.timing import microseconds


def connected(port: int, kind: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.sendall(kind)
    return sock


def throughput(port: int, blocks: int) -> float:
    """Megabytes (10^6) a second, until the peer has all of them."""
    block = bytes(BLOCK)
    with connected(port, TAKE) as sock:
        begin = perf_counter()
        for _ in range(blocks):
            sock.sendall(block)
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)
        return blocks * BLOCK / 1e6 / (perf_counter() - begin)


def ping_pong(port: int, times: int) -> list[int]:
    samples = []
    with connected(port, ECHO) as sock:
        for _ in range(times):
            begin = perf_counter_ns()
            sock.send(b"x")
            sock.recv(1)
            samples.append(perf_counter_ns() - begin)
    return samples


def main() -> None:
    options = json.loads(sys.argv[1])
    found = microseconds("ping_pong", ping_pong(options["port"], options["times"]))
    found["throughput"] = throughput(options["port"], options["blocks"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""Inside: connects one after the other, each on a new socket, and times socket(), connect() and close()."""

from __future__ import annotations

import json
import socket
import sys
from time import perf_counter_ns

from benchmarks.programs.timing import microseconds


def connects(port: int, times: int, *, refused: bool = False) -> list[int]:
    """Nanoseconds of each connect that ended as it should: refused with whatever errno, or else connected."""
    samples = []
    for _ in range(times):
        with socket.socket() as sock:
            begin = perf_counter_ns()
            try:
                sock.connect(("127.0.0.1", port))
                was_refused = False
            except OSError:
                was_refused = True
            taken = perf_counter_ns() - begin
        if was_refused == refused:
            samples.append(taken)
    return samples


def sockets(times: int) -> list[int]:
    """socket() and close() together."""
    samples = []
    for _ in range(times):
        begin = perf_counter_ns()
        socket.socket().close()
        samples.append(perf_counter_ns() - begin)
    return samples


def main() -> None:
    options = json.loads(sys.argv[1])
    times = options["times"]
    connects(options["allowed"], times // 10)  # warm
    found = microseconds("allowed", connects(options["allowed"], times))
    # Where nothing is refused it is an ordinary connect: plain's is what a refusal is compared with.
    refused = connects(options["refused"], times, refused=True) or connects(options["refused"], times)
    found.update(microseconds("refused", refused))
    found.update(microseconds("socket", sockets(times)))
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as server:
        found.update(microseconds("own", connects(server.getsockname()[1], times)))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

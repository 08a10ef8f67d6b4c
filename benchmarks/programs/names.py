"""Inside: getaddrinfo() of one name, again and again; the C library keeps no answers."""

from __future__ import annotations

import json
import socket
import sys
from time import perf_counter_ns

from benchmarks.programs.timing import microseconds


def main() -> None:
    options = json.loads(sys.argv[1])
    samples = []
    for _ in range(options["times"]):
        begin = perf_counter_ns()
        socket.getaddrinfo(options["name"], 443, type=socket.SOCK_STREAM)
        samples.append(perf_counter_ns() - begin)
    print(json.dumps(microseconds("lookup", samples)))


if __name__ == "__main__":
    main()

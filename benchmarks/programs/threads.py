"""Inside: threads that connect at the same time; connects a second, together."""

from __future__ import annotations

import json
import socket
import sys
import threading
from time import perf_counter


def connects(port: int, times: int, begin: threading.Barrier) -> None:
    begin.wait()
    for _ in range(times):
        with socket.socket() as sock:
            sock.connect(("127.0.0.1", port))


def main() -> None:
    options = json.loads(sys.argv[1])
    number, times = options["threads"], options["times"]
    barrier = threading.Barrier(number + 1)
    threads = [threading.Thread(target=connects, args=(options["port"], times, barrier)) for _ in range(number)]
    for thread in threads:
        thread.start()
    barrier.wait()
    begin = perf_counter()
    for thread in threads:
        thread.join()
    print(json.dumps({"rate": number * times / (perf_counter() - begin)}))


if __name__ == "__main__":
    main()

"""Inside: threads whose connect hangs; then one that connects elsewhere. Waits to be killed."""

from __future__ import annotations

import json
import resource
import socket
import sys
import threading
import time

from benchmarks.programs.connect import connects
from benchmarks.programs.timing import microseconds

_STACK = 256 * 1024  # bytes: a thousand of the default size are 8 GB of address space


def hang(port: int, sockets: list[socket.socket]) -> None:
    sock = socket.socket()
    sockets.append(sock)
    sock.connect(("127.0.0.1", port))


def main() -> None:
    options = json.loads(sys.argv[1])
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    print("alone", flush=True)
    sys.stdin.readline()
    threading.stack_size(_STACK)
    sockets: list[socket.socket] = []
    for _ in range(options["threads"]):
        threading.Thread(target=hang, args=(options["hanging"], sockets), daemon=True).start()
    while len(sockets) < options["threads"]:
        time.sleep(0.01)
    time.sleep(0.5)  # the last connects begin
    print(json.dumps(microseconds("meanwhile", connects(options["other"], options["times"]))), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

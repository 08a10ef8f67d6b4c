"""Runs in the sandbox, for ``sandboxed-kernel check``: attempts what must be refused, and prints what came of it.

    PYTHON probe.py JSON

The argument is an object: ``port`` and ``abstract`` of listeners outside, ``allowed`` (a port that the policy names),
``secret`` (a file outside), ``pid`` (a process outside). One JSON object is printed: attempt -> errno name, or "" where
it was possible. The checker believes its own listeners and files rather than this.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
from collections.abc import Callable
from typing import Any


def _attempt(action: Callable[[], object]) -> str:
    try:
        action()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, type(error).__name__)
    return ""


def _send_datagram(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(b"sandboxed-kernel check", ("127.0.0.1", port))


def _connect_abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect("\0" + name)


def _write(path: str) -> None:
    with open(path, "a", encoding="utf-8") as file:
        file.write("changed")


def _own_server() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 5):
        pass


def main(order: dict[str, Any]) -> dict[str, str]:
    return {
        "allowed": _attempt(lambda: socket.create_connection(("127.0.0.1", order["allowed"]), 5).close()),
        "tcp": _attempt(lambda: socket.create_connection(("127.0.0.1", order["port"]), 5).close()),
        "udp": _attempt(lambda: _send_datagram(order["port"])),
        "abstract": _attempt(lambda: _connect_abstract(order["abstract"])),
        "name": _attempt(lambda: socket.getaddrinfo("sandboxed-kernel-check.example", 443)),
        "own": _attempt(_own_server),
        "read": _attempt(lambda: open(order["secret"], encoding="utf-8").close()),
        "write": _attempt(lambda: _write(order["secret"])),
        "chmod": _attempt(lambda: os.chmod(order["secret"], 0o777)),  # noqa: S103  # to be refused
        "workspace": _attempt(lambda: _write("written-inside")),
        "signal": _attempt(lambda: os.kill(order["pid"], 0)),
    }


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))  # noqa: T201  # its answer

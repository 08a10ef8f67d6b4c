"""Inside: connects, requests over TLS and downloads from two servers in turn."""

from __future__ import annotations

import json
import socket
import ssl
import sys
from time import perf_counter, perf_counter_ns

from benchmarks.programs.timing import microseconds

Server = tuple[str, int, str]  # address, port, name


def context() -> ssl.SSLContext:
    found = ssl.create_default_context()
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found


def secure(server: Server, tls: ssl.SSLContext) -> ssl.SSLSocket:
    address, port, name = server
    return tls.wrap_socket(socket.create_connection((address, port)), server_hostname=name)


def connect(server: Server, _tls: ssl.SSLContext) -> None:
    socket.create_connection(server[:2]).close()


def request(server: Server, tls: ssl.SSLContext) -> None:
    with secure(server, tls) as sock:
        sock.sendall(b"100")
        sock.recv(100)


def download(server: Server, tls: ssl.SSLContext, megabytes: int) -> float:
    """Megabytes a second."""
    with secure(server, tls) as sock:
        left = megabytes * 1_000_000
        sock.sendall(b"%d" % left)
        begin = perf_counter()
        while left > 0:
            left -= len(sock.recv(1 << 16))
        return megabytes / (perf_counter() - begin)


def main() -> None:
    options, tls = json.loads(sys.argv[1]), context()
    servers: dict[str, Server] = {name: tuple(options[name]) for name in ("free", "checked")}
    found: dict[str, float] = {}
    for act, times in ((connect, options["connects"]), (request, options["requests"])):
        samples: dict[str, list[int]] = {name: [] for name in servers}
        for _ in range(times):
            for name, server in servers.items():
                begin = perf_counter_ns()
                act(server, tls)
                samples[name].append(perf_counter_ns() - begin)
        for name, values in samples.items():
            found |= microseconds(f"{act.__name__}_{name}", values)
    for name, server in servers.items():
        found[f"download_{name}"] = download(server, tls, options["megabytes"])
    print(json.dumps(found))


if __name__ == "__main__":
    main()

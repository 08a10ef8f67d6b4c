"""Outside: answers TLS on some addresses, and sends as many bytes as a client asks for; prints its ports.

python -m benchmarks.programs.secure_peer CERTIFICATE ADDRESS ...
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import sys
import threading

BLOCK = bytes(1 << 16)


def serve(connection: socket.socket, context: ssl.SSLContext) -> None:
    with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
        while asked := tls.recv(100):
            left = int(asked)
            while left > 0:
                tls.sendall(BLOCK[:left])
                left -= len(BLOCK)


def accept(server: socket.socket, context: ssl.SSLContext) -> None:
    while True:
        connection, _ = server.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection, context), daemon=True).start()


def main() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[1])
    servers = [socket.create_server((address, 0), backlog=512) for address in sys.argv[2:]]
    for server in servers:
        threading.Thread(target=accept, args=(server, context), daemon=True).start()
    print(*(server.getsockname()[1] for server in servers), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()

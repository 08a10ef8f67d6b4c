"""Outside: the other end of programs/established.py. Prints its port; a connection's first byte says what is asked."""

from __future__ import annotations

import socket

BLOCK = 65536
TAKE, ECHO = b"t", b"e"  # take everything until the end and then say one byte; give back each byte


def serve(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if connection.recv(1) == TAKE:
        buffer = bytearray(BLOCK)
        while connection.recv_into(buffer):
            pass
        connection.sendall(TAKE)
    else:
        while data := connection.recv(1):
            connection.sendall(data)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            with connection:
                serve(connection)


if __name__ == "__main__":
    main()

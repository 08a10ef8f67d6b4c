"""What Python's socket module cannot say: disconnect, non-blocking for one call, the way of a packet."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from sandboxed_kernel.linux import libc

_CONNECT = {"x86_64": 42, "aarch64": 203}


def disconnect(sock: socket.socket) -> int:
    """connect(2) with AF_UNSPEC: dissolve the association; an errno, 0 for done."""
    nothing = libc.buffer_from(bytes(16))
    try:
        libc.syscall(_CONNECT[libc.MACHINE], sock.fileno(), nothing, 16)
    except OSError as error:
        return error.errno or errno.EIO
    return 0


@contextmanager
def non_blocking(sock: socket.socket) -> Iterator[bool]:
    """O_NONBLOCK for the calls within; yields whether it was set already.

    The flag belongs to the open file, which the sandbox shares: it is set for microseconds only.
    """
    fd = sock.fileno()
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    if flags & os.O_NONBLOCK:
        yield True
        return
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_NONBLOCK)
    try:
        yield False
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)


def is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def send_timeout(sock: socket.socket) -> float | None:
    """SO_SNDTIMEO in seconds, None for no limit; it also bounds a blocking connect, socket(7)."""
    seconds, microseconds = struct.unpack("=qq", sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, 16))
    return seconds + microseconds / 1e6 if seconds or microseconds else None


def is_own_interface(address: str, family: int) -> bool:
    """Whether packets to this numeric address stay on this machine: the route's source address is the address itself.

    Nothing is sent: connecting a datagram socket only asks the routing table.
    """
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as probe:
        try:
            probe.connect((address, 9))  # discard, RFC 863: any port will do
            return bool(probe.getsockname()[0] == address)
        except OSError:
            return False

"""Does: which TCP ports of this machine a server of the sandbox may have, so that it answers in nobody's place.

A client asks for a host name and a port, and tries the addresses of that name in its own order: browsers take ::1 for
``localhost`` before 127.0.0.1. So a port that somebody outside listens on, at whatever address, is taken.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Container, Iterable, Iterator

from sandboxed_kernel.broker import decisions
from sandboxed_kernel.linux.diag import SocketDiag

_DEFAULT_EPHEMERAL = range(32768, 61000)  # ip(7)
_TRIES = 64  # random ports for one bind(2) to port 0


class Ports:
    def __init__(self, diag: SocketDiag, reserved: Iterable[int], listening: Container[int]) -> None:
        """``reserved``: ports that are somebody else's also while nobody listens there; and those on which the sockets
        with the inodes ``listening`` listen now are, too.
        """
        self._diag = diag
        self.reserved = frozenset(reserved) | {port for _, port, inode in diag.tcp_listeners() if inode in listening}
        self.ephemeral = _ephemeral_ports()
        self.given = decisions.ports_to_give(self.ephemeral, int.from_bytes(os.urandom(4), "big"))

    def taken(
        self, port: int, own: Container[int] = (), bound: decisions.IpAddress | None = None
    ) -> decisions.PortsOfOthers:
        """What is not the sandbox's. ``own``: the inodes of its listeners on this port; ``bound``: where the socket in
        question is bound to it.
        """
        return decisions.PortsOfOthers(self.ephemeral, self.reserved, tuple(self._listening(port, own, bound)))

    def _listening(
        self, port: int, own: Container[int], bound: decisions.IpAddress | None
    ) -> Iterator[decisions.IpAddress]:
        if not port:
            return
        if self._diag.lacks("tcp_diag"):
            yield from _taken_addresses(port, bound)
            return
        for address, _, inode in self._diag.tcp_listeners(port):
            if inode not in own:
                yield address

    def choose(self) -> Iterator[int]:
        """For bind(2) to port 0: ports that may be free, in a random order."""
        for _ in range(_TRIES):
            port = self.given[int.from_bytes(os.urandom(4), "big") % len(self.given)]
            if decisions.decide_port(decisions.LOOPBACK4, port, self.taken(port)) is None:
                yield port


def _taken_addresses(port: int, bound: decisions.IpAddress | None) -> list[decisions.IpAddress]:
    """Where Linux cannot be asked: what cannot be bound in either family is taken, be it by the sandbox itself. The
    family of ``bound`` has been tried, then.
    """
    found: list[decisions.IpAddress] = []
    for family, address in ((socket.AF_INET, decisions.ANY4), (socket.AF_INET6, decisions.ANY6)):
        if bound is not None and bound.version == address.version:
            continue
        try:
            with socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as trial:
                if family == socket.AF_INET6:
                    trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                trial.bind((str(address), port))
        except OSError as error:
            if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):  # no IPv6 here
                found.append(address)
    return found


def _ephemeral_ports() -> range:
    """The ports that Linux hands out, ip(7). Where they cannot be read, Linux's default."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            first, last = map(int, file.read().split())
    except (OSError, ValueError):
        return _DEFAULT_EPHEMERAL
    return range(first, last + 1)

"""Does: lets a socket of the sandbox meet one of ours, once the server has answered, by TCP's simultaneous open.

    the sandbox's A                   this process
    connect(A, 127.0.0.1:P) ->        connect(far, the server); B is bound to P, and nobody listens there
       A waits, as for a slow host
                                      the server has answered: connect(B, A's own address)
       A <-- both SYNs cross --> B    RFC 9293 section 3.5: A is connected, to B

So the caller's connect has Linux's own behaviour (pending, errors, time-outs), and there is no listener that anybody
else could reach. While A waits it takes only packets that bear the token of ``linux.sockets`` (a TTL of 255), so who
else sends from P meets nobody, and what Linux itself answers for a port without a listener (a reset, with the default
TTL) is dropped. P is held by a socket without SO_REUSEADDR: nobody binds it or listens there, whoever they are. Our own
B join it because that option is set on both for the moment of their bind(2).
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address

from sandboxed_kernel.broker.decisions import IpAddress
from sandboxed_kernel.linux.sockets import show_token
from sandboxed_kernel.records import Record

_TURN = 4096  # meetings at one port, then at the next: an address and port of A's is not soon used again
_PORTS = 4  # of one family
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
# E14 of the design: what the client sets on its own socket ends at ours, so a server that is gone is found out here.
_IDLE, _EVERY, _TIMES = 30, 10, 4  # seconds, seconds


class MeetingPlaces:
    """The ports P of one IP version (4 or 6). Each is made when it is needed; owns them."""

    def __init__(self, version: int) -> None:
        self.version = version
        self._keepers: list[socket.socket] = []
        self._meetings = 0

    def bind_one(self) -> socket.socket:
        """A new B. Raises OSError: where this machine has no such loopback, or nothing is left."""
        turn = self._meetings // _TURN % _PORTS
        if turn >= len(self._keepers):
            self._keepers.append(_new(self.version, 0))
        keeper = self._keepers[turn]
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            near = _new(self.version, keeper.getsockname()[1], joins=True)
        finally:
            keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        self._meetings += 1
        return near

    def close(self) -> None:
        for keeper in self._keepers:
            keeper.close()


def _new(version: int, port: int, *, joins: bool = False) -> socket.socket:
    sock = socket.socket(_FAMILY[version], socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(joins))
        sock.bind((_LOOPBACK[version], port))
        if joins:
            show_token(sock, version)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    except BaseException:
        sock.close()
        raise
    return sock


def begin_far(address: IpAddress, port: int, scope: int) -> socket.socket:
    """A socket that connects to the server, and does not wait. Raises OSError."""
    far = socket.socket(_FAMILY[address.version], socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        far.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        far.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, _IDLE),
            (socket.TCP_KEEPINTVL, _EVERY),
            (socket.TCP_KEEPCNT, _TIMES),
        ):
            far.setsockopt(socket.IPPROTO_TCP, option, value)
        error = far.connect_ex((str(address), port) if address.version == 4 else (str(address), port, 0, scope))
        if error not in (0, errno.EINPROGRESS):
            raise OSError(error, "connect")
    except BaseException:
        far.close()
        raise
    return far


class Attempt(Record, frozen=False):
    """One connect of the sandbox's that is under way. Owns both sockets; once they are handed on it is over.

    ``tid``: who called. ``caller``: A's own address and port, once it waits.
    """

    near: socket.socket
    far: socket.socket
    version: int  # of the IP that is spoken between A and ``near``
    address: IpAddress  # the server's, as it was judged
    port: int
    tid: int
    caller: tuple[IpAddress, int] | None = None

    @property
    def meets_at(self) -> tuple[IpAddress, int]:
        host, port, *_ = self.near.getsockname()
        return ip_address(host), port

    def target(self, family: int) -> tuple[str | int, ...]:
        """Where A of this family connects to."""
        address, port = self.meets_at
        if family == socket.AF_INET6:
            return (f"::ffff:{address}" if self.version == 4 else str(address), port, 0, 0)
        return (str(address), port)

    def approach(self) -> int:
        """The server has answered: go and meet A; an errno, EINPROGRESS while A's packets wait for its lock."""
        if self.caller is None:
            return errno.EINVAL
        return self.near.connect_ex((str(self.caller[0]), self.caller[1]))

    def close(self) -> None:
        self.near.close()
        self.far.close()

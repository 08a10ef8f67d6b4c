"""Pure: from bytes copied out of the calling process to what they mean, or Malformed with Linux's errno for them."""

from __future__ import annotations

import errno
import struct
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from sandboxed_kernel.records import Record

AF_UNSPEC, AF_UNIX, AF_INET, AF_INET6, AF_NETLINK = 0, 1, 2, 10, 16
SOCK_STREAM, SOCK_DGRAM, SOCK_RAW, SOCK_SEQPACKET = 1, 2, 3, 5
SOCK_NONBLOCK, SOCK_CLOEXEC = 0o4000, 0o2000000
IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP = 0, 6, 17
NETLINK_ROUTE = 0

MAX_ADDRESS = 128  # sizeof(struct sockaddr_storage): Linux refuses more with EINVAL
_MIN_INET, _MIN_INET6 = 16, 24  # sizeof(struct sockaddr_in), SIN6_LEN_RFC2133
_UNIX_PATH_OFFSET, _MAX_UNIX = 2, 110

_WORD, _INT = 0xFFFFFFFF, 0x80000000


class Malformed(Exception):
    """Arguments that mean nothing. ``error`` is the errno that Linux gives for them."""

    def __init__(self, error: int, what: str) -> None:
        super().__init__(what)
        self.error = error


Arguments = tuple[int, int, int, int, int, int]


class Call:
    """One system call that waits for an answer. ``tid`` is the calling thread; ``args`` are the six raw registers.

    ``copied``: what was copied from where a pointer among them points, once it has been; Linux does not tell that.
    ``cell``: the one that was running when the call came, at ``when`` (of time.monotonic()). ``waited``: it has waited
    for unix paths that were being bound when it came. ``tries``: connects to a full backlog. ``pid``: its process, or 0
    while nobody has asked for it.
    """

    __slots__ = ("args", "cell", "copied", "id", "nr", "pid", "tid", "tries", "waited", "when")

    def __init__(
        self, ident: int, tid: int, nr: int, args: Arguments, cell: str | None = None, when: float = 0.0
    ) -> None:
        self.id, self.tid, self.nr, self.args, self.cell, self.when = ident, tid, nr, args, cell, when
        self.copied: bytes | None = None
        self.waited = False
        self.pid = self.tries = 0

    def __repr__(self) -> str:
        return f"<Call {self.nr} of thread {self.tid}, {self.id:#x}>"


class InetAddress(Record):
    """An IPv4 or IPv6 endpoint as the caller wrote it; a mapped IPv4 address stays IPv6 here."""

    address: IPv4Address | IPv6Address
    port: int
    flow: int = 0
    scope: int = 0


class UnixPath(Record):
    path: bytes


class UnixAbstract(Record):
    name: bytes  # with its leading NUL


class UnixUnnamed(Record):
    """Only a family: bind(2) then picks an abstract name (autobind), unix(7)."""


class NetlinkAddress(Record):
    port: int
    groups: int


class Unspecified(Record):
    """AF_UNSPEC. For connect(2): dissolve the association. ``rest`` is what follows the family, for bind(2)."""

    rest: bytes


Address = InetAddress | UnixPath | UnixAbstract | UnixUnnamed | NetlinkAddress | Unspecified


def as_int(register: int) -> int:
    """The signed 32-bit int that Linux reads from a 64-bit register: the upper half is ignored, as Linux does."""
    word = register & _WORD
    return word - (1 << 32) if word & _INT else word


@lru_cache(maxsize=1024)
def parse_address(data: bytes) -> Address:
    """A struct sockaddr of ``len(data)`` bytes. Raises Malformed. Source: ip(7), ipv6(7), unix(7), netlink(7)."""
    if len(data) < 2:
        raise Malformed(errno.EINVAL, f"an address of {len(data)} bytes")
    (family,) = struct.unpack_from("=H", data)
    parse = _PARSERS.get(family)
    if parse is None:
        raise Malformed(errno.EAFNOSUPPORT, f"an address of family {family}")
    return parse(data)


def _parse_inet(data: bytes) -> InetAddress:
    if len(data) < _MIN_INET:
        raise Malformed(errno.EINVAL, f"an IPv4 address of {len(data)} bytes")
    port, address = struct.unpack_from("!HI", data, 2)
    return InetAddress(IPv4Address(address), port)


def _parse_inet6(data: bytes) -> InetAddress:
    if len(data) < _MIN_INET6:
        raise Malformed(errno.EINVAL, f"an IPv6 address of {len(data)} bytes")
    (port,) = struct.unpack_from("!H", data, 2)
    (flow,) = struct.unpack_from("!I", data, 4)
    scope = struct.unpack_from("=I", data, 24)[0] if len(data) >= 28 else 0
    return InetAddress(IPv6Address(data[8:24]), port, flow & 0xFFFFF, scope)


def _parse_unix(data: bytes) -> UnixPath | UnixAbstract | UnixUnnamed:
    if len(data) > _MAX_UNIX:
        raise Malformed(errno.EINVAL, f"a unix address of {len(data)} bytes")
    rest = data[_UNIX_PATH_OFFSET:]
    if not rest:
        return UnixUnnamed()
    if rest[0] == 0:
        return UnixAbstract(rest)
    return UnixPath(rest.split(b"\0", 1)[0])


def _parse_netlink(data: bytes) -> NetlinkAddress:
    if len(data) < 12:
        raise Malformed(errno.EINVAL, f"a netlink address of {len(data)} bytes")
    port, groups = struct.unpack_from("=II", data, 4)
    return NetlinkAddress(port, groups)


_PARSERS = {
    AF_UNSPEC: lambda data: Unspecified(data[2:]),
    AF_UNIX: _parse_unix,
    AF_INET: _parse_inet,
    AF_INET6: _parse_inet6,
    AF_NETLINK: _parse_netlink,
}

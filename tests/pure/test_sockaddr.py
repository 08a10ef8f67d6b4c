"""From the bytes of a struct sockaddr to what they mean: every family, every length, and Linux's errno for the rest."""

from __future__ import annotations

import errno
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.broker import calls
from sandboxed_kernel.broker.calls import (
    AF_INET,
    AF_INET6,
    AF_NETLINK,
    AF_UNIX,
    AF_UNSPEC,
    MAX_ADDRESS,
    InetAddress,
    Malformed,
    NetlinkAddress,
    UnixAbstract,
    UnixPath,
    UnixUnnamed,
    Unspecified,
    as_int,
    parse_address,
)
from tests.support.effort import SHARE

SHORTEST = {AF_UNSPEC: 2, AF_UNIX: 2, AF_INET: 16, AF_INET6: 24, AF_NETLINK: 12}
LONGEST = {AF_UNIX: 110}


def sockaddr(family: int, rest: bytes = b"") -> bytes:
    return struct.pack("=H", family) + rest


def error_of(data: bytes) -> int:
    with pytest.raises(Malformed) as raised:
        parse_address(data)
    return raised.value.error


@pytest.mark.parametrize("family", SHORTEST)
def test_every_length_is_read_or_refused_as_linux_does(family: int) -> None:
    for length in range(2, MAX_ADDRESS + 1):
        data = sockaddr(family, b"\0" * (length - 2))
        if SHORTEST[family] <= length <= LONGEST.get(family, MAX_ADDRESS):
            parse_address(data)
        else:
            assert error_of(data) == errno.EINVAL, length


def test_the_numbers_are_those_of_this_system() -> None:
    names = "AF_UNSPEC AF_UNIX AF_INET AF_INET6 AF_NETLINK SOCK_STREAM SOCK_DGRAM SOCK_RAW SOCK_SEQPACKET SOCK_NONBLOCK"
    for name in f"{names} SOCK_CLOEXEC IPPROTO_IP IPPROTO_TCP IPPROTO_UDP".split():
        assert getattr(calls, name) == getattr(socket, name), name
    assert calls.NETLINK_ROUTE == 0  # linux/netlink.h; Python has no name for it
    assert MAX_ADDRESS == 128  # sizeof(struct sockaddr_storage)


def test_less_than_a_family_is_no_address() -> None:
    assert error_of(b"") == error_of(b"\2") == errno.EINVAL


def test_no_other_family_is_read() -> None:
    for family in {*range(256), *range(256, 65536, SHARE), *(1 << bit for bit in range(16)), 65535}:
        if family not in SHORTEST:
            assert error_of(sockaddr(family, b"\0" * 126)) == errno.EAFNOSUPPORT


@given(port=st.integers(0, 65535), address=st.ip_addresses(v=4), rest=st.binary(max_size=112))
def test_an_ipv4_address(port: int, address: IPv4Address, rest: bytes) -> None:
    data = sockaddr(AF_INET, struct.pack("!H", port) + address.packed + b"\0" * 8 + rest)
    assert parse_address(data) == InetAddress(address, port)


@given(
    port=st.integers(0, 65535),
    flow=st.integers(0, 0xFFFFFFFF),
    address=st.ip_addresses(v=6),
    scope=st.integers(0, 0xFFFFFFFF),
)
def test_an_ipv6_address(port: int, flow: int, address: IPv6Address, scope: int) -> None:
    """``scope`` is in the machine's byte order, the others in the network's. An old sockaddr_in6 has none (ipv6(7))."""
    old = sockaddr(AF_INET6, struct.pack("!HI", port, flow) + address.packed)
    plain = IPv6Address(address.packed)
    assert parse_address(old) == InetAddress(plain, port, flow & 0xFFFFF, 0)
    for length in range(25, 28):
        assert parse_address(old + b"\1" * (length - 24)) == InetAddress(plain, port, flow & 0xFFFFF, 0)
    assert parse_address(old + struct.pack("=I", scope)) == InetAddress(plain, port, flow & 0xFFFFF, scope)


@given(st.binary(min_size=1, max_size=108))
def test_a_unix_address(rest: bytes) -> None:
    """A path ends at its first NUL; an abstract name has NULs like other bytes, and all that was said (unix(7))."""
    expected = UnixAbstract(rest) if rest[0] == 0 else UnixPath(rest.partition(b"\0")[0])
    assert parse_address(sockaddr(AF_UNIX, rest)) == expected
    assert parse_address(sockaddr(AF_UNIX)) == UnixUnnamed()


@given(port=st.integers(0, 0xFFFFFFFF), groups=st.integers(0, 0xFFFFFFFF), padding=st.binary(min_size=2, max_size=2))
def test_a_netlink_address(port: int, groups: int, padding: bytes) -> None:
    data = sockaddr(AF_NETLINK, padding + struct.pack("=II", port, groups))
    assert parse_address(data) == NetlinkAddress(port, groups)


@given(st.binary(max_size=126))
def test_no_family(rest: bytes) -> None:
    assert parse_address(sockaddr(AF_UNSPEC, rest)) == Unspecified(rest)


@given(st.integers(0, (1 << 64) - 1))
def test_an_int_is_the_lower_half_of_a_register(register: int) -> None:
    """SYSCALL_DEFINE of an ``int`` argument: what stands in the upper half is not looked at."""
    assert as_int(register) == struct.unpack("=i", struct.pack("=I", register & 0xFFFFFFFF))[0]


def test_the_edges_of_an_int() -> None:
    edges = {0: 0, 0x7FFFFFFF: 2**31 - 1, 0x80000000: -(2**31), 0xFFFFFFFF: -1, 1 << 32: 0, (1 << 64) - 1: -1}
    assert {register: as_int(register) for register in edges} == edges

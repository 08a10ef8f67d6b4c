"""Pure: what kind of place a numeric address is.

Our own table, because ``ipaddress.is_private`` and its kin changed their minds between Python versions
(cpython gh-113171) and know no cloud. It asks no interface of this host: that an address outside
127.0.0.0/8 is our own is the broker's to know.
"""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Kind(Enum):
    """What an address is; a higher value is the stricter one, which wins where an address is two things."""

    PUBLIC = 0
    PRIVATE = 1  # some network that is not the internet: the office, the cluster, the lab
    LOOPBACK = 2  # this machine
    LINK_LOCAL = 3  # this wire
    MULTICAST = 4
    UNSPECIFIED = 5  # Linux takes a connect to 0.0.0.0 or :: for one to loopback
    RESERVED = 6  # nobody may be there
    METADATA = 7  # the cloud's own services, which hand out credentials to whoever asks


class Range(NamedTuple):
    """One row: every address of ``network`` is of this ``kind``, because."""

    network: Network
    kind: Kind
    reason: str


def _row(network: str, kind: Kind, reason: str) -> Range:
    return Range(ip_network(network), kind, reason)


# The first row that holds an address decides, so the narrower row stands above the wider one (a test says so).
# "special" is the IANA special-purpose registry of RFC 6890, as of 2025.
RANGES: tuple[Range, ...] = (
    # Metadata services. Those inside 169.254.0.0/16 would be refused as link-local too; here they have a name.
    _row("169.254.169.254/32", Kind.METADATA, "AWS, Google, Azure, Oracle, OpenStack, DigitalOcean, Hetzner"),
    _row("169.254.170.2/32", Kind.METADATA, "AWS ECS task credentials"),
    _row("169.254.170.23/32", Kind.METADATA, "AWS EKS Pod Identity credentials"),
    _row("169.254.42.42/32", Kind.METADATA, "Scaleway"),
    _row("169.254.0.23/32", Kind.METADATA, "Tencent Cloud"),
    _row("100.100.100.200/32", Kind.METADATA, "Alibaba Cloud; lies in the shared range 100.64.0.0/10"),
    _row("168.63.129.16/32", Kind.METADATA, "Azure WireServer; looks like a public address"),
    _row("192.0.0.192/32", Kind.METADATA, "Oracle Cloud Infrastructure Classic"),
    _row("fd00:ec2::/32", Kind.METADATA, "AWS over IPv6: metadata ::254, EKS Pod Identity ::23, DNS ::253, time ::123"),
    _row("fd20:ce::254/128", Kind.METADATA, "Google Cloud over IPv6"),
    _row("fd00:42::42/128", Kind.METADATA, "Scaleway over IPv6"),
    # IPv4
    _row("0.0.0.0/8", Kind.UNSPECIFIED, "this network, RFC 791 section 3.2; a connect to 0.0.0.0 reaches loopback"),
    _row("10.0.0.0/8", Kind.PRIVATE, "RFC 1918"),
    _row("100.64.0.0/10", Kind.PRIVATE, "shared by carriers, clouds and overlay networks, RFC 6598"),
    _row("127.0.0.0/8", Kind.LOOPBACK, "RFC 1122 section 3.2.1.3"),
    _row("169.254.0.0/16", Kind.LINK_LOCAL, "RFC 3927"),
    _row("172.16.0.0/12", Kind.PRIVATE, "RFC 1918"),
    _row("192.0.0.0/24", Kind.RESERVED, "IETF protocol assignments, RFC 6890 section 2.1; no server has a name there"),
    _row("192.0.2.0/24", Kind.PUBLIC, "documentation, RFC 5737: nobody is there, so there is nothing to protect"),
    _row("192.88.99.0/24", Kind.RESERVED, "6to4 relays, withdrawn by RFC 7526"),
    _row("192.168.0.0/16", Kind.PRIVATE, "RFC 1918"),
    _row("198.18.0.0/15", Kind.PRIVATE, "benchmarks, RFC 2544; in use inside labs and by local proxies"),
    _row("198.51.100.0/24", Kind.PUBLIC, "documentation, RFC 5737"),
    _row("203.0.113.0/24", Kind.PUBLIC, "documentation, RFC 5737"),
    _row("224.0.0.0/4", Kind.MULTICAST, "RFC 5771"),
    _row("240.0.0.0/4", Kind.RESERVED, "future use, RFC 1112 section 4, and the broadcast address"),
    _row("0.0.0.0/0", Kind.PUBLIC, "the rest of IPv4"),
    # IPv6. Only 2000::/3 has been given out to the internet (RFC 4291 section 2.4); the rest is nobody's.
    _row("::/128", Kind.UNSPECIFIED, "RFC 4291 section 2.5.2"),
    _row("::1/128", Kind.LOOPBACK, "RFC 4291 section 2.5.3"),
    _row("::/96", Kind.PUBLIC, "IPv4-compatible: judged by the IPv4 address inside"),
    _row("::ffff:0:0/96", Kind.PUBLIC, "IPv4-mapped: judged by the IPv4 address inside"),
    _row("::ffff:0:0:0/96", Kind.PUBLIC, "IPv4-translated, RFC 2765: judged by the IPv4 address inside"),
    _row("64:ff9b::/96", Kind.PUBLIC, "NAT64, RFC 6052: judged by the IPv4 address inside"),
    _row("64:ff9b:1::/48", Kind.PRIVATE, "NAT64 of this site, RFC 8215; where the IPv4 lies only its operator knows"),
    _row("2001::/23", Kind.RESERVED, "IETF protocol assignments: Teredo tunnels, benchmarks, ORCHID; RFC 2928"),
    _row("2001:db8::/32", Kind.PUBLIC, "documentation, RFC 3849"),
    _row("2002::/16", Kind.PUBLIC, "6to4, RFC 3056: judged by the IPv4 address inside"),
    _row("3fff::/20", Kind.PUBLIC, "documentation, RFC 9637"),
    _row("2000::/3", Kind.PUBLIC, "global unicast"),
    _row("fc00::/7", Kind.PRIVATE, "unique local, RFC 4193"),
    _row("fe80::/10", Kind.LINK_LOCAL, "RFC 4291 section 2.5.6"),
    _row("fec0::/10", Kind.PRIVATE, "site-local, withdrawn by RFC 3879, still routed where it is in use"),
    _row("ff00::/8", Kind.MULTICAST, "RFC 4291 section 2.7"),
    _row("::/0", Kind.RESERVED, "not given out by IANA: discard-only 100::/64, segment routing 5f00::/16, the rest"),
)

# IPv6 prefixes that carry an IPv4 address, and how far to shift it down.
_EMBEDDED: tuple[tuple[IPv6Network, int], ...] = (
    (IPv6Network("::ffff:0:0/96"), 0),  # IPv4-mapped, RFC 4291 section 2.5.5.2
    (IPv6Network("::/96"), 0),  # IPv4-compatible, RFC 4291 section 2.5.5.1
    (IPv6Network("::ffff:0:0:0/96"), 0),  # IPv4-translated, RFC 2765 section 2.1
    (IPv6Network("64:ff9b::/96"), 0),  # NAT64, RFC 6052 section 2.1
    (IPv6Network("64:ff9b:1::/48"), 0),  # NAT64 of this site, taken as the /96 form, RFC 8215
    (IPv6Network("2002::/16"), 80),  # 6to4, RFC 3056 section 2
)

# Compared as integers: ``address in network`` costs a microsecond per row, and every new address passes here.
_BOUNDS: dict[int, tuple[tuple[int, int, Range], ...]] = {
    version: tuple(
        (int(row.network.network_address), int(row.network.broadcast_address), row)
        for row in RANGES
        if row.network.version == version
    )
    for version in (4, 6)
}
_EMBEDDED_BOUNDS = tuple((int(n.network_address), int(n.broadcast_address), shift) for n, shift in _EMBEDDED)
_MAPPED_PREFIX = 0xFFFF  # the upper 96 bits of ::ffff:0:0/96


def plain(address: Address) -> Address:
    """``address`` as one value per place: IPv4-mapped becomes IPv4, a scope id (``fe80::1%eth0``) goes.

    This is what may be compared with an allowed address: Linux itself treats the mapped form as IPv4 (ipv6(7)).
    """
    if isinstance(address, IPv4Address):
        return address
    value = int(address)
    if value >> 32 == _MAPPED_PREFIX:
        return IPv4Address(value & 0xFFFFFFFF)
    return IPv6Address(value) if address.scope_id is not None else address


def canonical(address: Address) -> Address:
    """``plain``, and IPv4-compatible, IPv4-translated, NAT64 and 6to4 addresses become the IPv4 address inside.

    For judging what lies behind an address, that is for *refusing*: never compare the result with an allowed address.
    A 6to4 address is not its IPv4 address, and where a site's NAT64 prefix keeps the IPv4 is the site's choice
    (RFC 6052 section 2.2), so sandboxed code could write an allowed address into the part that nobody reads.
    """
    address = plain(address)
    value = int(address)
    if address.version == 4 or value <= 1:  # :: and ::1 are themselves, although they lie in ::/96
        return address
    for first, last, shift in _EMBEDDED_BOUNDS:
        if first <= value <= last:
            return IPv4Address(value >> shift & 0xFFFFFFFF)
    return address


def find_range(address: Address) -> Range:
    """The row that says what ``address`` is: the stricter of its own and that of the IPv4 address it carries."""
    address = plain(address)
    own, inside = _own_range(address), _own_range(canonical(address))
    return inside if inside.kind.value > own.kind.value else own


def classify(address: Address) -> Kind:
    """What kind of place ``address`` is; any form of it, with or without a scope id."""
    return find_range(address).kind


def _own_range(address: Address) -> Range:
    value = int(address)
    return next(row for first, last, row in _BOUNDS[address.version] if first <= value <= last)


def is_localhost(name: str) -> bool:
    """Whether the normalised ``name`` is loopback by definition, RFC 6761 section 6.3."""
    return name == "localhost" or name.endswith(".localhost")

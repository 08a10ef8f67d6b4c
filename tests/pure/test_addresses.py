"""What kind of place a numeric address is: every row, every embedding, both edges of every range."""

from __future__ import annotations

import subprocess
import sys
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.hostnames.addresses import RANGES, Kind, Range, canonical, classify, find_range, plain

EMBEDDINGS = {
    "mapped": lambda v4: IPv6Address(0xFFFF << 32 | int(v4)),
    "compatible": lambda v4: IPv6Address(int(v4)),
    "translated": lambda v4: IPv6Address(0xFFFF << 48 | int(v4)),
    "nat64": lambda v4: IPv6Address(int(IPv6Address("64:ff9b::")) | int(v4)),
    "6to4": lambda v4: IPv6Address(0x2002 << 112 | int(v4) << 80 | 0x1234),
}

EXAMPLES = [
    ("8.8.8.8", Kind.PUBLIC),
    ("192.0.2.7", Kind.PUBLIC),
    ("203.0.113.9", Kind.PUBLIC),
    ("2606:4700::1111", Kind.PUBLIC),
    ("2001:db8::1", Kind.PUBLIC),
    ("64:ff9b::8.8.8.8", Kind.PUBLIC),
    ("10.1.2.3", Kind.PRIVATE),
    ("172.16.0.1", Kind.PRIVATE),
    ("172.32.0.1", Kind.PUBLIC),
    ("192.168.1.1", Kind.PRIVATE),
    ("100.64.0.1", Kind.PRIVATE),
    ("100.128.0.1", Kind.PUBLIC),
    ("fd12:3456::1", Kind.PRIVATE),
    ("fec0::1", Kind.PRIVATE),
    ("64:ff9b:1::8.8.8.8", Kind.PRIVATE),
    ("127.0.0.1", Kind.LOOPBACK),
    ("127.255.255.254", Kind.LOOPBACK),
    ("::1", Kind.LOOPBACK),
    ("169.254.1.1", Kind.LINK_LOCAL),
    ("fe80::1", Kind.LINK_LOCAL),
    ("fe80::1%eth0", Kind.LINK_LOCAL),
    ("0.0.0.0", Kind.UNSPECIFIED),
    ("0.1.2.3", Kind.UNSPECIFIED),
    ("::", Kind.UNSPECIFIED),
    ("::2", Kind.UNSPECIFIED),  # IPv4-compatible 0.0.0.2
    ("224.0.0.251", Kind.MULTICAST),
    ("ff02::fb", Kind.MULTICAST),
    ("255.255.255.255", Kind.RESERVED),
    ("240.0.0.1", Kind.RESERVED),
    ("2001::1", Kind.RESERVED),  # Teredo
    ("4000::1", Kind.RESERVED),
    ("100::1", Kind.RESERVED),
    ("169.254.169.254", Kind.METADATA),
    ("169.254.170.2", Kind.METADATA),
    ("100.100.100.200", Kind.METADATA),
    ("168.63.129.16", Kind.METADATA),
    ("192.0.0.192", Kind.METADATA),
    ("fd00:ec2::254", Kind.METADATA),
    ("fd20:ce::254", Kind.METADATA),
    ("64:ff9b:1::169.254.169.254", Kind.METADATA),
]


@pytest.mark.parametrize(("text", "kind"), EXAMPLES)
def test_examples(text: str, kind: Kind) -> None:
    assert classify(ip_address(text)) is kind


@pytest.mark.parametrize("row", RANGES, ids=lambda row: str(row.network))
def test_no_row_is_hidden_by_a_wider_one_above_it_and_every_row_has_a_reason(row: Range) -> None:
    for other in RANGES[: RANGES.index(row)]:
        wider = other.network.version == row.network.version and other.network.prefixlen <= row.network.prefixlen
        assert not (wider and row.network.network_address in other.network)
    assert row.reason


@pytest.mark.parametrize("row", [r for r in RANGES if r.network.version == 4 and r.network.prefixlen], ids=str)
@pytest.mark.parametrize("form", EMBEDDINGS)
def test_an_embedded_address_is_judged_like_the_address_inside(row: Range, form: str) -> None:
    for v4 in (row.network.network_address, row.network.broadcast_address):
        if form == "compatible" and int(v4) <= 1:
            continue  # :: and ::1 are themselves
        carried = EMBEDDINGS[form](v4)
        assert canonical(carried) == v4
        assert classify(carried) is classify(v4)


@given(st.ip_addresses())
def test_every_address_has_a_kind_and_canonical_is_idempotent(address: IPv4Address | IPv6Address) -> None:
    assert isinstance(classify(address), Kind)
    assert canonical(canonical(address)) == canonical(address)
    assert classify(canonical(address)).value <= classify(address).value


@given(st.ip_addresses(v=6), st.sampled_from(["%eth0", "%1", "%x y"]))
def test_a_scope_id_changes_nothing(address: IPv6Address, scope: str) -> None:
    scoped = IPv6Address(f"{address}{scope}")
    assert find_range(scoped) == find_range(address)
    assert plain(scoped) == plain(address)


@given(st.ip_addresses(v=6))
def test_only_the_mapped_form_is_the_same_place_as_its_ipv4(address: IPv6Address) -> None:
    assert (plain(address).version == 4) == (address in IPv6Network("::ffff:0:0/96"))


@given(st.ip_addresses(v=4))
def test_what_python_calls_global_is_public_or_metadata_or_withdrawn(address: IPv4Address) -> None:
    # A second opinion, in the direction in which Python's versions agree.
    if address.is_global and not address.is_multicast:
        assert classify(address) in (Kind.PUBLIC, Kind.METADATA, Kind.RESERVED)
    if address.is_loopback or address.is_link_local:
        assert classify(address) is not Kind.PUBLIC


def test_it_loads_nothing_heavy() -> None:
    heavy = "print({'socket', 'dns', 'dataclasses'} & set(sys.modules))"
    code = "import sys, sandboxed_kernel.hostnames.addresses; " + heavy
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"

"""A value of the policy is legal from birth: what means nothing cannot be made."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest

from sandboxed_kernel.policy.model import Destination, Ports
from sandboxed_kernel.records import replace

NAME = Destination("a.example", False, None, (Ports(443, 443),), "tcp", False, "a.example:443", "policy.toml")
NETWORK = replace(NAME, name=None, network=ip_network("192.0.2.0/24"))


@pytest.mark.parametrize(
    ("of", "change"),
    [
        (NAME, {"name": None}),
        (NAME, {"network": ip_network("192.0.2.0/24")}),
        (NAME, {"name": ""}),
        (NAME, {"name": "A.example"}),
        (NAME, {"name": "a.example."}),
        (NAME, {"name": ".example"}),
        (NAME, {"ports": ()}),
        (NETWORK, {"network": None}),
        (NETWORK, {"wildcard": True}),
    ],
)
def test_no_illegal_destination(of: Destination, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        replace(of, **change)


@pytest.mark.parametrize(("first", "last"), [(0, 1), (2, 1), (1, 65536), (-1, 5)])
def test_no_illegal_ports(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="no ports"):
        Ports(first, last)


def test_wildcards_and_names_match() -> None:
    wildcard = replace(NAME, wildcard=True)
    assert wildcard.matches_name("b.a.example")
    assert not wildcard.matches_name("a.example")
    assert NAME.matches_name("a.example")
    assert not NETWORK.matches_name("a.example")

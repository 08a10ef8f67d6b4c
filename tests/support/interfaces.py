"""Does: an address of this machine that is not a loopback one, since services often listen there too."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess

import pytest

ADDED = "198.51.100.7"  # TEST-NET-2, RFC 5737: nobody's


def local_addresses() -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Every address of every interface that is up, link-local ones left out (they need a scope to be used)."""
    links = json.loads(subprocess.run(["ip", "-json", "address", "show", "up"], capture_output=True, check=True).stdout)
    found = [ipaddress.ip_address(info["local"]) for link in links for info in link.get("addr_info", ())]
    return [address for address in found if not address.is_link_local]


def own_interface_address(version: int = 4) -> str:
    """An own address outside 127.0.0.0/8 and ::1. Fails the test where there is none; root adds one to ``lo``."""
    for address in local_addresses():
        if address.version == version and not address.is_loopback:
            return str(address)
    if version == 4 and os.geteuid() == 0:
        add_own_address()
        return ADDED
    pytest.fail(
        f"no IPv{version} address outside loopback on this machine. "
        f"Start the suite as root (it adds one), or: ip address add {ADDED}/32 dev lo"
    )


def add_own_address() -> None:
    """Also called by the suite's runner before it gives up root. Needs CAP_NET_ADMIN."""
    subprocess.run(["ip", "address", "replace", f"{ADDED}/32", "dev", "lo"], check=True)


def has_ipv6() -> bool:
    return any(address == ipaddress.IPv6Address("::1") for address in local_addresses())

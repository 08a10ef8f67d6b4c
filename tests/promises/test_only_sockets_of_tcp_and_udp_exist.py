"""Of all address families, types and protocols, a socket exists inside for TCP, unix streams and netlink questions.

What looks like a UDP socket is a unix pair with the broker. Everything else could reach further than the policy says.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attempts import TOOLS
from tests.support.sandbox import IN_CONTAINER, attack, run_inside, run_outside
from tests.support.servers import unix_listener

# Families, types and protocols around everything that Linux has: include/linux/socket.h, linux/in.h.
FAMILIES = range(-1, 50)
TYPES = (*range(12), 0x10, 0x1000)
PROTOCOLS = (0, 1, 2, 6, 17, 33, 58, 132, 136, 255, 256, 262, 0x0300, -1)

ALLOWED = (
    [[family, 1, protocol] for family in (2, 10) for protocol in (0, 6)]
    + [[family, 2, protocol] for family in (2, 10) for protocol in (0, 17)]
    + [[1, kind, 0] for kind in (1, 2, 5)]
    + [[16, kind, 0] for kind in (2, 3)]
)

TRY_ALL = f"""
{TOOLS}
import itertools
made = []
for wanted in itertools.product({FAMILIES!r}, {TYPES!r}, {PROTOCOLS!r}):
    for high in (0, HIGH):
        try:
            os.close(syscall("socket", *(number % (1 << 32) | high for number in wanted)))
        except OSError:
            continue
        made.append(list(wanted))
        break
print(json.dumps(made))
"""


def test_only_sockets_of_tcp_and_udp_exist(workspace: Path) -> None:
    outside = run_outside(TRY_ALL, workspace=workspace).json()
    # More than ours exist out there, so that the refusals below are not this machine's.
    assert all(wanted in outside for wanted in ALLOWED)
    assert [1, 3, 0] in outside  # AF_UNIX, SOCK_RAW: a datagram socket
    assert [16, 3, 6] in outside or IN_CONTAINER  # netlink of IPsec
    result = run_inside(TRY_ALL, workspace=workspace)
    assert sorted(result.json()) == sorted(ALLOWED)
    assert result.refused(kind="socket")


# By name what each would be good for; the outside step says what this user may, and what this machine lacks.
SPECIAL = {
    "MPTCP": (2, 1, 262),
    "SCTP, one to one": (2, 1, 132),
    "SCTP, one to many": (2, 5, 132),
    "SMC": (43, 1, 0),
    "vsock": (40, 1, 0),
    "vsock datagrams": (40, 2, 0),
    "raw IPv4": (2, 3, 6),
    "raw IPv6": (10, 3, 58),
    "raw, own headers": (2, 3, 255),
    "ping": (2, 2, 1),
    "ping6": (10, 2, 58),
    "UDP-Lite": (2, 2, 136),
    "DCCP": (2, 6, 33),
    "packets": (17, 3, 0x0300),
    "packets, cooked": (17, 2, 0x0300),
    "netlink: sock_diag": (16, 3, 4),
    "netlink: netfilter": (16, 3, 12),
    "netlink: generic": (16, 3, 16),
    "netlink: uevent": (16, 3, 15),
    "netlink: audit": (16, 3, 9),
    "AF_ALG": (38, 5, 0),
    "XDP": (44, 3, 0),
    "bluetooth": (31, 3, 1),
    "CAN": (29, 3, 1),
    "TIPC": (30, 5, 0),
    "RDS": (21, 5, 0),
    "key management": (15, 3, 2),
    "QIPCRTR": (42, 2, 0),
}

ASK = f"""
{TOOLS}
print(json.dumps({{n: outcome(lambda _: os.close(syscall("socket", *w)), b"") for n, w in {SPECIAL!r}.items()}}))
"""


def test_each_special_socket_is_refused_whatever_the_machine_has(workspace: Path) -> None:
    outside = run_outside(ASK, workspace=workspace).json()
    lacking = {"EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "EINVAL", "ENODEV"}  # not built into this Linux
    privileged = {"EPERM", "EACCES"}  # this user (or the container's profile) may not
    assert {name for name, became in outside.items() if became not in {"None", *lacking, *privileged}} == set()
    assert "None" in outside.values()
    inside = run_inside(ASK, workspace=workspace).json()
    # A container's profile may refuse it before us, in its own words: Linux takes the stricter of two filters.
    refused = {"EACCES", "EAFNOSUPPORT"}
    unrefused = {name: became for name, became in inside.items() if became not in refused}
    assert {name: became for name, became in unrefused.items() if became not in privileged & {outside[name]}} == {}


PAIRS = f"""
{TOOLS}
made = []
for family in range(50):
    for kind in range(12):
        for high in (0, HIGH):
            ends = array.array("i", [0, 0])
            try:
                syscall("socketpair", family | high, kind | high, high, ends.buffer_info()[0])
            except OSError:
                continue
            made.append([family, kind])
            os.close(ends[0]), os.close(ends[1])
            break
print(json.dumps(made))
"""


def test_pairs_are_streams_and_sequences_of_packets_only(workspace: Path) -> None:
    outside = run_outside(PAIRS, workspace=workspace).json()
    assert [1, 2] in outside
    assert [1, 3] in outside
    assert run_inside(PAIRS, workspace=workspace).json() == [[1, 1], [1, 5]]


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_RAW"])
def test_a_datagram_pair_does_not_reach_an_outside_service(kind: str, workspace: Path) -> None:
    with unix_listener(workspace / "service", "dgram") as service:
        code = f"""
import socket
try:
    one, two = socket.socketpair(socket.AF_UNIX, socket.{kind})
    one.sendto(b"hello", {str(workspace / "service")!r})
except OSError as error:
    print(error.errno)
"""
        assert attack(code, seen=lambda: len(service.received()), workspace=workspace).check().stdout.strip() == "93"

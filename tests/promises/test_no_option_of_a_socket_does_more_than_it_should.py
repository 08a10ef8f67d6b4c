"""Of all the options of setsockopt(2) those take effect inside that concern timing and buffering of the socket itself.

Source routes, foreign addresses, devices, marks, filters, Fast Open, repair and the like are refused, and stay unset.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.attempts import TOOLS
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import run_inside, run_outside

# name: (level, option, value, whether any user may set it outside). An int, or the bytes of a structure.
NEVER: dict[str, tuple[int, int, int | bytes, bool]] = {
    "SO_DONTROUTE": (1, 5, 1, True),
    "SO_BINDTODEVICE": (1, 25, b"lo\0", True),
    "SO_BINDTOIFINDEX": (1, 62, 1, True),
    "SO_LOCK_FILTER": (1, 44, 1, True),
    "SO_MARK": (1, 36, 7, False),
    "SO_SNDBUFFORCE": (1, 32, 4096, False),
    "SO_RCVBUFFORCE": (1, 33, 4096, False),
    "SO_BUSY_POLL": (1, 46, 1, False),
    "SO_INCOMING_CPU": (1, 49, 0, True),
    "SO_MAX_PACING_RATE": (1, 47, 1000, True),
    "SO_ZEROCOPY": (1, 60, 1, True),
    "SO_TXTIME": (1, 61, b"\x01\0\0\0\0\0\0\0", False),
    "SO_RESERVE_MEM": (1, 73, 4096, False),
    "IP_OPTIONS": (0, 4, b"\x83\x07\x04\x7f\x00\x00\x01\x00", False),
    "IP_FREEBIND": (0, 15, 1, True),
    "IP_TRANSPARENT": (0, 19, 1, False),
    "IP_UNICAST_IF": (0, 50, b"\0\0\0\1", True),
    "IP_LOCAL_PORT_RANGE": (0, 51, 0x00500050, True),
    "IP_MINTTL": (0, 21, 5, True),
    "IPV6_MINHOPCOUNT": (41, 73, 5, True),
    "IPV6_FREEBIND": (41, 78, 1, True),
    "IPV6_TRANSPARENT": (41, 75, 1, False),
    "IPV6_UNICAST_IF": (41, 76, b"\0\0\0\1", True),
    "IPV6_PKTINFO": (41, 50, bytes(15) + b"\1" + bytes(4), True),
    "IPV6_2292PKTINFO": (41, 2, 1, True),
    "IPV6_RTHDR": (41, 57, b"\0\4\4\1\1\0\0\0" + (bytes(15) + b"\1") * 2, False),
    "IPV6_HOPOPTS": (41, 54, b"\0\0\1\4\0\0\0\0", False),
    "IPV6_DSTOPTS": (41, 59, b"\0\0\1\4\0\0\0\0", False),
    "IPV6_ADDRFORM": (41, 1, 2, False),
    "IPV6_FLOWINFO_SEND": (41, 33, 1, True),
    "IPV6_AUTOFLOWLABEL": (41, 70, 1, True),
    "IPV6_ROUTER_ALERT": (41, 22, 1, False),
    "TCP_FASTOPEN": (6, 23, 5, True),
    "TCP_FASTOPEN_CONNECT": (6, 30, 1, True),
    "TCP_FASTOPEN_NO_COOKIE": (6, 34, 1, True),
    "TCP_REPAIR": (6, 19, 1, False),
    "TCP_REPAIR_QUEUE": (6, 20, 1, False),
    "TCP_ULP": (6, 31, b"tls\0", False),
    "TCP_SAVE_SYN": (6, 27, 1, True),
    "TCP_CONGESTION": (6, 13, b"reno", True),
    "TCP_TX_DELAY": (6, 37, 1, False),
}

SET = """
def value_of(s, level, option):
    try:
        return s.getsockopt(level, option, 64)
    except OSError:
        return b""

def set_option(level, option, value):
    s = socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET)
    before = value_of(s, level, option)
    s.setsockopt(level, option, value)
    return value_of(s, level, option) != before

print(json.dumps({name: outcome(lambda _: set_option(*row[:3]), b"") for name, row in never.items()}))
"""


def test_no_option_of_a_socket_does_more_than_it_should(workspace: Path) -> None:
    never = {name: row for name, row in NEVER.items() if has_ipv6() or row[0] != 41}
    code = f"{TOOLS}\nnever = {never!r}\n{SET}"
    outside = run_outside(code, workspace=workspace).json()
    for name, (_, _, _, by_anybody) in never.items():
        if by_anybody:  # "False": set, and no getsockopt(2) that would show it
            assert outside[name] in ("True", "False", "ENOPROTOOPT"), (name, outside[name])
    assert sum(came == "True" for came in outside.values()) >= 10, outside
    inside = run_inside(code, workspace=workspace).json()
    assert {name: came for name, came in inside.items() if came != "ENOPROTOOPT"} == {}


# Every option by number, on every kind of socket there is inside. SO_RCVTIMEO and the like take a structure: EINVAL.
SWEEP = """
import collections
kinds = [(2, 1, 0), (10, 1, 0), (2, 2, 0), (10, 2, 0), (1, 1, 0), (1, 5, 0), (16, 3, 0)]
if not ipv6:
    kinds = [kind for kind in kinds if kind[0] != 10]
took = collections.defaultdict(set)
value = ctypes.create_string_buffer(struct.pack("=i", 1) + bytes(60), 64)
for kind in kinds:
    s = socket.socket(*kind)
    for level in levels:
        for option in range(140):
            try:
                before = s.getsockopt(level, option, 64)
            except OSError:
                before = None
            if _libc.setsockopt(s.fileno(), level, option, value, 4) == 0:
                took[level, option].add(before is not None and s.getsockopt(level, option, 64) != before)
            elif ctypes.get_errno() not in (errno.ENOPROTOOPT,):
                took[level, option].add(False)
print(json.dumps([[level, option, any(changed)] for (level, option), changed in took.items()]))
"""
LEVELS = (0, 1, 6, 17, 41, 58, 132, 136, 255, *range(256, 290))  # bits/socket.h, netinet/in.h

# What may change: SO_REUSEADDR, SO_BROADCAST, SO_SNDBUF, SO_RCVBUF, SO_KEEPALIVE, SO_OOBINLINE, SO_LINGER, SO_PASSCRED,
# SO_RCVLOWAT, the timeouts, the time stamps; TCP's timing and buffering; IPV6_V6ONLY.
MAY_CHANGE = {1: {2, 6, 7, 8, 9, 10, 13, 16, 18, 20, 21, 29, 35, 37, 40, 63, 64, 65, 66, 67}, 41: {26}}
MAY_CHANGE[6] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 18, 25, 36}


def test_and_every_other_number_is_unknown_or_without_effect(workspace: Path) -> None:
    code = f"{TOOLS}\nlevels, ipv6 = {LEVELS!r}, {has_ipv6()}\n{SWEEP}"
    outside = run_outside(code, workspace=workspace).json()
    changed = {(level, option) for level, option, effect in outside if effect}
    assert {(1, 5), (0, 15), (0, 1), (1, 15)} <= changed  # it does see what changes: SO_DONTROUTE, IP_FREEBIND ...
    inside = run_inside(code, workspace=workspace).json()
    changed = {(level, option) for level, option, effect in inside if effect}
    assert {(1, 2), (1, 9), (6, 1)} <= changed
    assert {row for row in changed if row[1] not in MAY_CHANGE.get(row[0], set())} == set()


TOKEN = """
def stays(level, option):
    with socket.socket(socket.AF_INET6 if level == 41 else socket.AF_INET) as s:
        before = s.getsockopt(level, option)
        try:
            s.setsockopt(level, option, 255)
        except OSError:
            pass
        return s.getsockopt(level, option) == before != 255
print(json.dumps([stays(0, 2), stays(0, 21), *([stays(41, 16), stays(41, 73)] if ipv6 else [])]))
"""


def test_the_token_of_own_listeners_cannot_be_given_or_taken_back(workspace: Path) -> None:
    """IP_TTL and IPV6_UNICAST_HOPS, IP_MINTTL and IPV6_MINHOPCOUNT: docs/decisions/loopback.md."""
    code = f"{TOOLS}\nipv6 = {has_ipv6()}\n{TOKEN}"
    assert set(run_outside(code, workspace=workspace).json()) == {False}
    assert set(run_inside(code, workspace=workspace).json()) == {True}

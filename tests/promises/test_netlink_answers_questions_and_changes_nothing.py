"""What the machine's interfaces are may be asked; addresses and routes stay as they are, also where root starts it.

And nothing is overheard: no group of notices is joined.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.attempts import TOOLS, make_all
from tests.support.sandbox import run_inside, run_outside

ASK = """
import ctypes.util, subprocess
def names_of(_):
    return socket.if_nameindex()
def shown_by_ip(what):
    told = subprocess.run(["ip", "-json", what, "show"], capture_output=True, text=True)
    rows = json.loads(told.stdout or "[]")
    return [told.returncode, [[row.get("ifname"), row.get("dst"), sorted(a["local"] for a in row.get("addr_info", []))]
                              for row in rows]]
print(json.dumps([outcome(names_of, b""), shown_by_ip("address"), shown_by_ip("link"), shown_by_ip("route")]))
"""


def test_what_the_interfaces_are_may_be_asked(workspace: Path) -> None:
    code = f"{TOOLS}\n{ASK}"
    outside = run_outside(code, workspace=workspace).json()
    inside = run_inside(code, workspace=workspace)
    assert inside.json() == outside
    assert inside.refused() == []
    assert "lo" in outside[0]
    assert ["lo", None] in [row[:2] for row in outside[1][1]]


# Each adds an address 127.77.N.1 of its own, or a route to 127.78.N.0/24, that everybody on this machine sees.
CHANGING = """
RTM_NEWLINK, RTM_NEWADDR, RTM_NEWROUTE = 16, 20, 24
REQUEST_CREATE = 1 | 4 | 0x400

def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data

def request(kind, body):
    return struct.pack("=IHHII", 16 + len(body), kind, REQUEST_CREATE, 1, 0) + body

def place(payload):
    return names.index(payload.decode())

def new_address(payload, kind=RTM_NEWADDR):
    where = bytes([127, 77, place(payload), 1])
    return request(kind, struct.pack("=BBBBI", 2, 32, 0, 254, 1) + attribute(1, where) + attribute(2, where))

def new_route(payload):
    route = struct.pack("=BBBBBBBBI", 2, 24, 0, 0, 254, 3, 254, 1, 0)
    return request(RTM_NEWROUTE, route + attribute(1, bytes([127, 78, place(payload), 0])) +
                   attribute(4, struct.pack("=I", 1)))

def netlink(protocol=0):
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)

def acknowledged(s):
    s.settimeout(3)
    error = -struct.unpack_from("=i", s.recv(65536), 16)[0]
    if error:
        raise OSError(error, os.strerror(error))
    return "done"

QUESTION = struct.pack("=IHHII", 20, 18, 0x301, 1, 0) + struct.pack("=Bxxx", 0)
"""

WAYS = {
    "sendto": "s = netlink(); s.sendto(new_address(payload), (0, 0)); return acknowledged(s)",
    "send": "s = netlink(); s.bind((0, 0)); s.send(new_address(payload)); return acknowledged(s)",
    "connected": "s = netlink(); s.connect((0, 0)); s.send(new_address(payload)); return acknowledged(s)",
    "sendmsg": "s = netlink(); s.sendmsg([new_address(payload)], [], 0, (0, 0)); return acknowledged(s)",
    "sendmmsg": """
        s = netlink()
        header, parts = message(new_address(payload), struct.pack("=HHII", 16, 0, 0, 0))
        syscall("sendmmsg", s.fileno(), header + bytes(8), 1, 0)
        return acknowledged(s)
    """,
    "write": "s = netlink(); os.write(s.fileno(), new_address(payload)); return acknowledged(s)",
    "writev": "s = netlink(); os.writev(s.fileno(), [new_address(payload)]); return acknowledged(s)",
    "behind a question": """
        s = netlink()
        s.sendto(QUESTION + new_address(payload), (0, 0))
        time.sleep(0.2)
        return "sent"
    """,
    "behind a question, by send": "s = netlink(); s.send(QUESTION + new_address(payload)); time.sleep(0.2)",
    "as datagram socket": """
        s = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, 0)
        s.sendto(new_address(payload), (0, 0))
        return acknowledged(s)
    """,
    "high bits": """
        fd, data = syscall("socket", HIGH | 16, HIGH | 3, HIGH), new_address(payload)
        to = struct.pack("=HHII", 16, 0, 0, 0)
        syscall("sendto", HIGH | fd, data, len(data), HIGH, to, HIGH | len(to))
        return acknowledged(socket.socket(fileno=fd))
    """,
    "while the bytes change": """
        # The broker copies the message once; a question when it looks, a change when Linux reads?
        change = new_address(payload)
        ask = QUESTION + bytes(len(change) - len(QUESTION))
        ask = struct.pack("=I", len(change)) + ask[4:]
        buffer, to = ctypes.create_string_buffer(change, len(change)), struct.pack("=HHII", 16, 0, 0, 0)
        going = True
        def flip():
            while going:
                buffer.raw = ask
                buffer.raw = change
        thread = threading.Thread(target=flip)
        thread.start()
        s = netlink()
        for _ in range(300):
            try:
                syscall("sendto", s.fileno(), pointer(buffer), len(change), 0, to, len(to))
            except OSError:
                pass
        going = False
        thread.join()
    """,
    "a route": "s = netlink(); s.sendto(new_route(payload), (0, 0)); return acknowledged(s)",
    "a route by write": "s = netlink(); os.write(s.fileno(), new_route(payload)); return acknowledged(s)",
    "an ioctl": """
        import fcntl
        where = socket.inet_aton(f"127.77.{place(payload)}.1")
        name = f"lo:{place(payload)}".encode()
        request = struct.pack("=16sHH4s8x8x", name, 2, 0, where)
        return fcntl.ioctl(socket.socket(), 0x8916, request) and "set"   # SIOCSIFADDR, netdevice(7)
    """,
}


def added() -> list[int]:
    """The N of every address 127.77.N.1 and route to 127.78.N.0/24 on this machine."""
    shown = subprocess.run(["ip", "-json", "address", "show", "dev", "lo"], capture_output=True, check=True).stdout
    routes = subprocess.run(["ip", "-json", "route", "show", "table", "254"], capture_output=True, check=True).stdout
    addresses = [info["local"] for link in json.loads(shown) for info in link["addr_info"]]
    places = addresses + [route["dst"] for route in json.loads(routes)]
    return [int(text.split(".")[2]) for text in places if text.startswith(("127.77.", "127.78."))]


@pytest.fixture
def as_it_was() -> Iterator[None]:
    yield
    for number in added():
        for undo in (
            ("address", "delete", f"127.77.{number}.1", "dev", "lo"),
            ("route", "delete", f"127.78.{number}.0/24"),
        ):
            subprocess.run(["ip", *undo], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.root
@pytest.mark.usefixtures("as_it_was")
def test_netlink_changes_nothing_where_root_starts_it(workspace: Path) -> None:
    names = list(WAYS)
    made = make_all(
        WAYS,
        arrived=lambda: [names[number] for number in added()],
        workspace=workspace,
        setting=f"names = {names!r}\n{CHANGING}",
    )
    assert "'done'" not in made.inside.values()
    assert not {name for name, came in made.inside.items() if came == "'set'"}


# RTMGRP_LINK: whoever is in the group hears of every change. Any user may join it outside.
OVERHEAR = """
def bound(groups):
    s = netlink()
    s.bind((0, groups))
    return s.getsockname()[1]
def member(_):
    s = netlink()
    s.setsockopt(270, 1, 1)   # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
    return s.getsockname()[1]
def named(_):
    s = netlink()
    s.bind((4711, 0))
    return s.getsockname()[0]
def bound_twice(_):
    s = netlink()
    s.bind((0, 0))
    s.bind((s.getsockname()[0], 1))
    return s.getsockname()[1]
def connected(_):
    s = netlink()
    s.connect((0, 1))
    return s.getsockname()[1]
def every_protocol(_):
    made = []
    for protocol in range(1, 32):
        try:
            netlink(protocol)
            made.append(protocol)
        except OSError:
            pass
    return made
tries = [lambda _: bound(1), lambda _: bound(1 << 31), member, named, bound_twice, connected, every_protocol]
print(json.dumps([outcome(attempt, b"") for attempt in tries]))
"""


def test_no_group_is_joined_and_no_other_netlink_exists(workspace: Path) -> None:
    code = f"{TOOLS}\n{CHANGING}\n{OVERHEAR}"
    first, last, member, named, twice, _, protocols = run_outside(code, workspace=workspace).json()
    assert (first, last, member, named, twice) == ("1", str(1 << 31), "1", "4711", "1")
    assert len(json.loads(protocols)) > 1
    inside = run_inside(code, workspace=workspace).json()
    first, last, member, named, twice, connected, protocols = inside
    assert (first, last, member, named, twice) == ("EPERM", "EPERM", "ENOPROTOOPT", "EPERM", "EPERM"), inside
    assert connected in ("0", "EAFNOSUPPORT", "EPERM"), inside
    assert protocols == "[]"

"""However the address of an outside service is written, and however long: it is the service's, and refused."""

from __future__ import annotations

from pathlib import Path

from tests.support.attempts import TOOLS, make_all, program
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import TcpListener

# Forms that reach a listener on 127.0.0.1 (or, for v6, on ::1) out there.
FORMS_OF_V4 = {
    "zero": "connect(sockaddr('0.0.0.0', port))",
    "mapped": "connect(sockaddr('::ffff:127.0.0.1', port))",
    "mapped-zero": "connect(sockaddr('::ffff:0.0.0.0', port))",
    "long": "connect(sockaddr('127.0.0.1', port).ljust(128, b'x'))",
    "filled-tail": "connect(sockaddr('127.0.0.1', port)[:8] + b'12345678')",
    "scope-and-flow": "connect(struct.pack('=H', 10) + struct.pack('!HI', port, 0xfffff) + "
    "socket.inet_pton(10, '::ffff:127.0.0.1') + struct.pack('=I', 1))",
    "without-scope": "connect(sockaddr('::ffff:127.0.0.1', port)[:24])",
}
FORMS_OF_V6 = {
    "v6": "connect(sockaddr('::1', port))",
    "v6-unspecified": "connect(sockaddr('::', port))",
    "v6-scope": "connect(sockaddr('::1', port)[:24] + struct.pack('=I', 1))",
    "v6-flow": "connect(sockaddr('::1', port)[:4] + b'\\x00\\x0f\\xff\\xff' + sockaddr('::1', port)[8:])",
    "v6-long": "connect(sockaddr('::1', port).ljust(128, b'x'))",
}
CONNECT = """
def connect(raw):
    s = socket.socket(socket.AF_INET6 if raw[:1] == b"\\x0a" else socket.AF_INET)
    syscall("connect", s.fileno(), raw, len(raw))
    s.sendall(sys._getframe(1).f_locals["payload"])
"""


def test_no_form_of_an_address_is_a_way_around(workspace: Path) -> None:
    with TcpListener("127.0.0.1") as wanted, TcpListener("127.0.0.1") as other:
        made = make_all(
            FORMS_OF_V4,
            arrived=lambda: [contact.data.decode() for contact in other.received()],
            workspace=workspace,
            setting=f"port = {other.port}\n{CONNECT}",
            policy=f'[network]\nallow = ["{wanted.endpoint}"]',
        )
        assert set(made.inside.values()) == {"EACCES"}
        # Told as the address that it is, so that the line which is offered is the right one.
        events = made.result.refused(kind="connect")
        assert {(event.address, event.port) for event in events} == {("127.0.0.1", other.port)}

        # And each form of an allowed address is allowed.
        code = program(FORMS_OF_V4, f"port = {wanted.port}\n{CONNECT}")
        allowed = run_inside(code, workspace=workspace, policy=f'[network]\nallow = ["{wanted.endpoint}"]').json()
        assert set(allowed.values()) == {"None"}, allowed
        assert {contact.data.decode() for contact in wanted.received()} == set(FORMS_OF_V4)


def test_nor_of_an_ipv6_address(workspace: Path) -> None:
    if not has_ipv6():
        # Nothing listens on ::1 then; what is left to show is that the calls are refused.
        made = run_inside(program(FORMS_OF_V6, f"port = 9\n{CONNECT}"), workspace=workspace).json()
        assert "None" not in made.values()
        return
    with TcpListener("::1") as other:
        made_all = make_all(
            FORMS_OF_V6,
            arrived=lambda: [contact.data.decode() for contact in other.received()],
            workspace=workspace,
            setting=f"port = {other.port}\n{CONNECT}",
        )
        assert set(made_all.inside.values()) == {"EACCES"}


# An IPv6 address that carries an allowed IPv4 address is not that address, and one that carries 127.0.0.1 is not ours.
CARRIERS = {
    "NAT64": "64:ff9b::{0}",
    "NAT64 of the site": "64:ff9b:1::{0}",
    "6to4": "2002:{1:02x}{2:02x}:{3:02x}{4:02x}::1",
    "IPv4-compatible": "::{0}",
    "IPv4-translated": "::ffff:0:{0}",
    "Teredo": "2001:0:{1:02x}{2:02x}:{3:02x}{4:02x}::",
}


def test_an_address_that_carries_another_is_not_that_one(workspace: Path) -> None:
    with TcpListener("127.0.0.1") as wanted, TcpListener("127.0.0.1") as other:
        places = [
            (form.format(address, *map(int, address.split("."))), port)
            for form in CARRIERS.values()
            for address in ("127.0.0.1", "169.254.169.254", "10.0.0.1")
            for port in (wanted.port, other.port, 80)
        ]
        code = f"""
{TOOLS}
def go(place):
    s = socket.socket(socket.AF_INET6)
    s.setblocking(False)
    s.connect(place)
print(json.dumps([outcome(go, tuple(place)) for place in {places!r}]))
"""
        # Public and private IPv4 are allowed here, IPv6 is not.
        policy = f'[network]\nallow = ["{wanted.endpoint}", "0.0.0.0/0:*", "10.0.0.0/8:*"]'
        result = run_inside(code, workspace=workspace, policy=policy)
        # The forms of 127.0.0.1 count as this machine, where nobody of ours listens.
        assert set(result.json()) <= {"EACCES", "ECONNREFUSED"}
        assert not wanted.received()
        assert not other.received()


# Every length from none to more than Linux takes, and every family, for addresses that mean the outside service.
LENGTHS = """
def lengths(payload):
    made = {}
    for family, address in ((2, "127.0.0.1"), (10, "::ffff:127.0.0.1")):
        for size in (*range(130), 1 << 16, 1 << 31, -1, HIGH | 5, HIGH | 16):
            s = socket.socket(family)
            s.setblocking(False)
            raw = sockaddr(address, port).ljust(130, b"\\0")
            made[f"{family} {size}"] = outcome(lambda _: syscall("connect", s.fileno(), raw, size), b"")
    return made

def families(payload):
    made = {}
    for kind in (2, 10):
        for family in (*range(1, 60), 255, 256, 258, 512, 0x0200, 0xFFFF):
            if family != kind:
                s = socket.socket(kind)
                s.setblocking(False)
                raw = struct.pack("=H", family) + sockaddr("127.0.0.1", port)[2:].ljust(126, b"\\0")
                made[f"{kind} as {family}"] = outcome(lambda _: syscall("connect", s.fileno(), raw, 28), b"")
    return made
print(json.dumps({**lengths(b""), **families(b"")}))
"""
PENDING = ("EINPROGRESS", "0")


def test_every_length_and_every_family_is_refused_or_wrong(workspace: Path) -> None:
    with TcpListener("127.0.0.1") as other:
        code = f"port = {other.port}\n{TOOLS}\n{LENGTHS}"
        outside = run_outside(code, workspace=workspace).json()
        reached = {case for case, became in outside.items() if became in PENDING}
        # Linux takes an address that is long enough, up to 128 bytes, and looks at the lower half of the length alone.
        assert {"2 16", "2 128", "10 24", "10 28", "10 128", f"2 {1 << 32 | 16}"} <= reached
        before = len(other.received())
        inside = run_inside(code, workspace=workspace).json()
        assert len(other.received()) == before
        assert {case: became for case, became in inside.items() if became in PENDING} == {}
        assert {inside[case] for case in reached} == {"EACCES"}
        # What is wrong out there is wrong in the same way in here, apart from lengths that would never mean anything.
        wrong = {case: (outside[case], inside[case]) for case in outside if case not in reached}
        differing = {case: both for case, both in wrong.items() if both[0] != both[1]}
        assert set(differing.values()) <= {("EAFNOSUPPORT", "EINVAL"), ("EINVAL", "EAFNOSUPPORT")}, differing


def test_port_zero_is_nobody_and_stays_so(workspace: Path) -> None:
    code = f"""
{TOOLS}
def go(place):
    s = socket.socket(socket.AF_INET6 if ":" in place else socket.AF_INET)
    s.settimeout(5)
    s.connect((place, 0))
print(json.dumps([outcome(go, place) for place in ("127.0.0.1", "0.0.0.0", "::1", "::ffff:127.0.0.1")]))
"""
    inside = run_inside(code, workspace=workspace, policy='[network]\nallow = ["localhost:*"]').json()
    assert set(inside) <= {"ECONNREFUSED", "EADDRNOTAVAIL", "EACCES"}, inside

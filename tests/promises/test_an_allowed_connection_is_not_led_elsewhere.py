"""A connection to an allowed host stays with that host: no option of the socket sends its packets by way of another.

IPv6 routing headers and IPv4 source routes are options of a socket that any user may set, before or after connect(2).
Seen on the wire.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.attempts import make_all, program
from tests.support.sandbox import run_inside
from tests.support.wire import Wire

SETTING = """
def routing(kind):
    # RFC 6275 section 6.4 (type 2) and RFC 8754 (type 4): first this host, then the one that was asked for.
    hosts = [socket.inet_pton(10, h) for h in ((forbidden6,) if kind == 2 else (allowed6, forbidden6))]
    left = struct.pack("=BI", 1, 0) if kind == 2 else struct.pack("=BBBH", 1, 1, 0, 0)
    return bytes([0, 2 * len(hosts), kind]) + left + b"".join(hosts)

def lead_by_routing(set_it):
    try:
        set_it(routing(4))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        set_it(routing(2))  # Linux without segment routing

def lead(s, level=socket.IPPROTO_IPV6, option=57, high=0):
    lead_by_routing(lambda r: syscall("setsockopt", high | s.fileno(), high | level, high | option, r, high | len(r)))

def source_route(s, kind):
    value = bytes([kind, 7, 4]) + socket.inet_aton(forbidden4) + b"\\0"
    syscall("setsockopt", s.fileno(), socket.IPPROTO_IP, 4, value, len(value))

def go(s, host, payload, within=5):
    s.settimeout(within)
    s.connect((host, names.index(payload.decode()) + 7700))
    return s

def say(s):
    s.send(b"hello")
"""

ATTEMPTS = {
    "routing header, connected": "s = go(socket.socket(10), allowed6, payload); lead(s); say(s)",
    "routing header, before": "s = socket.socket(10); lead(s); go(s, allowed6, payload)",
    "routing header, high bits": "s = go(socket.socket(10), allowed6, payload); lead(s, high=HIGH); say(s)",
    "routing header, from another process": """
        s = go(socket.socket(10), allowed6, payload)
        if (pid := os.fork()) == 0:
            try:
                lead(s)
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        say(s)
    """,
    "loose source route": "s = socket.socket(); source_route(s, 0x83); go(s, allowed4, payload, 0.5)",
    "strict source route": "s = socket.socket(); source_route(s, 0x89); go(s, allowed4, payload, 0.5)",
}


@pytest.mark.root
def test_an_allowed_connection_is_not_led_elsewhere(workspace: Path) -> None:
    names = list(ATTEMPTS)
    ports = range(7700, 7700 + len(names))
    with Wire(ports) as wire:
        hosts = {name: getattr(wire, name) for name in ("allowed4", "allowed6", "forbidden4", "forbidden6")}
        setting = f"names = {names!r}\nglobals().update({hosts!r})\n{SETTING}"
        span = f"{ports[0]}-{ports[-1]}"
        policy = f'[network]\nallow = ["{wire.allowed4}:{span}", "[{wire.allowed6}]:{span}"]'

        def led() -> list[str]:
            found = wire.ports_of(wire.forbidden4) | wire.ports_of(wire.forbidden6)
            return [names[port - ports[0]] for port in found if port in ports]

        made = make_all(ATTEMPTS, arrived=led, workspace=workspace, setting=setting, policy=policy)
        refused = {name: came for name, came in made.inside.items() if "another process" not in name}
        assert set(refused.values()) == {"ENOPROTOOPT"}, made.inside

        # The same connections without the option go where they were allowed to.
        plain = {name: f"say(go(socket.socket({4 * ('6' in host) * 2 + 2}), {host}, payload))" for name, host in
                 zip(names[:2], ("allowed6", "allowed4"), strict=True)}  # fmt: skip
        came = run_inside(program(plain, setting), workspace=workspace, policy=policy).json()
        assert set(came.values()) == {"None"}
        assert {ports[0]} <= wire.ports_of(wire.allowed6)
        assert {ports[1]} <= wire.ports_of(wire.allowed4)

"""Where the name in the TLS greeting is checked, by the lines of a policy and by what their names mean."""

from __future__ import annotations

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from sandboxed_kernel.broker.greetings import decide_greeting
from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.guard.messages import MAY_PASS, Kind
from sandboxed_kernel.hostnames.pins import MAX_DECISIONS, Checked, Pins, Resolution
from sandboxed_kernel.notices.advice import Place, command
from sandboxed_kernel.notices.events import Event
from sandboxed_kernel.policy.change import entry_for, entry_of
from sandboxed_kernel.policy.destination import parse_destination
from sandboxed_kernel.policy.explain import allow_line, explain_endpoint
from sandboxed_kernel.policy.file import parse
from sandboxed_kernel.policy.model import Destination, Policy, asks_for_check

HERE, THERE = ip_address("93.184.216.34"), ip_address("2606:2800:220:1::1")
OFFICE = ip_address("10.0.0.7")


def rule(entry: object) -> Destination:
    return parse_destination(entry, "")


def table(host: str, tls: str | None = None, *, port: Any = 443, **more: Any) -> dict[str, Any]:
    return {"host": host, "port": port, **({} if tls is None else {"tls": tls}), **more}


def policy_of(text: str) -> Policy:
    return parse(text, place="policy.toml", workspace="/work", home="/home/user")


# --- lines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "port", "checked"),
    [
        (["a.test:443"], 443, True),
        (["a.test:*"], 443, True),
        (["a.test:*"], 8443, False),
        (["a.test:80,443"], 80, False),
        (["*.test:443"], 443, None),  # a whole top-level domain is no line
        (["*.b.test:443"], 443, True),
        ([table("a.test", "checked", port=8443)], 8443, True),
        ([table("a.test", "checked", port="*")], 5432, True),
        ([table("a.test", "unchecked")], 443, False),
        (["a.test:443", table("a.test", "unchecked")], 443, False),
        ([table("a.test", "checked"), table("a.test", "unchecked")], 443, True),
        (["*.b.test:443", table("a.b.test", "unchecked")], 443, False),
        (["a.b.test:443", table("*.b.test", "unchecked")], 443, True),
        ([table("*.b.test", "unchecked")], 443, False),
        (["*.b.test:443", table("*.b.test", "unchecked")], 443, False),
        (["a.test:443", table("a.test", "unchecked", port=8443)], 443, True),
        (["udp://a.test:443"], 443, False),
        (["a.test:80"], 443, False),
    ],
)
def test_the_lines_for_one_name(lines: list[object], port: int, checked: bool | None) -> None:
    if checked is None:
        with pytest.raises(PolicyError):
            [rule(entry) for entry in lines]
        return
    for order in itertools.permutations(lines):
        assert asks_for_check([rule(entry) for entry in order], port) is checked


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (table("a.test", "on"), 'tls is "on". Write tls = "checked" or tls = "unchecked"'),
        ({"host": "a.test", "port": 443, "tls": True}, 'tls is true. Write tls = "checked" or tls = "unchecked"'),
        (table("192.0.2.1", "checked"), "tls beside an address: there is no name to be checked"),
        (table("192.0.2.0/24", "unchecked"), "Write the host's name, or remove tls"),
        (table("a.test", "checked", protocol="udp"), "tls beside udp: what QUIC says is not looked at"),
        (table("localhost", "checked"), "tls beside localhost"),
        ({"host": "a.test", "port": 443, "tsl": "checked"}, 'Write "tls"'),
    ],
)
def test_a_line_that_means_nothing_says_what_to_write(entry: object, words: str) -> None:
    with pytest.raises(PolicyError) as raised:
        rule(entry)
    assert words in str(raised.value)


def test_one_array_does_not_say_both() -> None:
    both = '{ host = "a.test", port = 443, tls = "checked" }, { host = "a.test", ports = [80, 443], tls = "unchecked" }'
    text = f"[network]\nallow = [{both}]"
    with pytest.raises(PolicyError, match="Remove one of the two"):
        policy_of(text)


def test_a_value_is_legal_from_birth() -> None:
    for entry in ("192.0.2.1:443", "udp://a.test:443"):
        plain = rule(entry)
        with pytest.raises(ValueError, match="only names"):
            Destination(plain.name, False, plain.network, plain.ports, plain.transport, False, "", "", tls="checked")


# --- what names mean -----------------------------------------------------------------------------------------------

KINDS: dict[str, list[object]] = {
    "checked": ["{}.test:443"],
    "said": [{"host": "{}.test", "port": 443, "tls": "checked"}],
    "unchecked": [{"host": "{}.test", "port": 443, "tls": "unchecked"}],
    "another port": ["{}.test:80"],
    "network": [f"{HERE}:443"],
    "wide network": ["0.0.0.0/0:443"],
}
STRICT = {"checked", "said"}


def lines_of(kind: str, name: str) -> list[Destination]:
    def named(entry: Any) -> Any:
        if isinstance(entry, str):
            return entry.format(name)
        return {**entry, "host": entry["host"].format(name)}

    return [rule(named(entry)) for entry in KINDS[kind]]


@pytest.mark.parametrize(("one", "other"), list(itertools.product(KINDS, repeat=2)))
def test_the_strictest_line_of_any_name_on_an_address_decides(one: str, other: str) -> None:
    names = {"one": one, "other": other}
    allow = tuple(line for name, kind in names.items() for line in lines_of(kind, name))
    pinned = [name for name, kind in names.items() if "network" not in kind]
    for order in itertools.permutations(pinned):
        pins = Pins(allow, "ttl")
        for number, name in enumerate(order):
            pins.record(f"{name}.test", Resolution((HERE,), 60), now=0.0)
            known = {names[each] for each in order[: number + 1]}
            assert (pins.check_for(HERE, 443) is not None) is bool(known & STRICT)
        found = pins.check_for(HERE, 443)
        if found is not None:  # whoever has a line for the port may be asked for
            assert set(found.names) == {f"{name}.test" for name in pinned if names[name] != "another port"}
        assert pins.check_for(THERE, 443) is None
        assert pins.check_for(HERE, 80) is None
        assert pins.may_be_checked(443) is bool({one, other} & STRICT)
        assert not pins.may_be_checked(80)


def test_an_address_that_becomes_shared_is_checked_from_then_on() -> None:
    pins = Pins((rule(table("free.test", "unchecked")), rule("strict.test:443")), "ttl")
    pins.record("free.test", Resolution((HERE,), 60), now=0.0)
    assert pins.check_for(HERE, 443) is None
    pins.record("strict.test", Resolution((THERE,), 60), now=1.0)
    assert pins.check_for(HERE, 443) is None
    pins.record("strict.test", Resolution((HERE,), 60), now=100.0)
    assert pins.check_for(HERE, 443) == Checked(("free.test", "strict.test"), False)
    pins.replace((rule(table("free.test", "unchecked")),))
    assert pins.check_for(HERE, 443) is None


@pytest.mark.parametrize(
    ("entries", "address", "may"),
    [
        (["gitlab:443"], HERE, True),
        (["a.test:443"], HERE, False),
        ([table("a.test", private=True)], OFFICE, True),
        ([table("a.test", private=True)], HERE, False),  # of the internet, whatever the line says
        (["gitlab:443", "minio:443"], HERE, False),
        ([table("a.test", private=True), table("b.test", private=True)], OFFICE, False),
    ],
)
def test_only_one_name_of_an_own_network_may_be_left_out(
    entries: list[object], address: IPv4Address | IPv6Address, may: bool
) -> None:
    pins = Pins(tuple(map(rule, entries)))
    for entry in entries:
        pins.record(rule(entry).name or "", Resolution((address,), 60), now=0.0)
    found = pins.check_for(address, 443)
    assert found is not None
    assert found.may_name_none is may


def test_a_name_that_may_not_mean_an_address_does_not_count_there() -> None:
    pins = Pins((rule("a.test:443"), rule(table("b.test", "unchecked", private=True))))
    for name in ("a.test", "b.test"):
        pins.record(name, Resolution((OFFICE,), 60), now=0.0)
    assert pins.check_for(OFFICE, 443) is None


def test_localhost_may_be_named_where_a_line_says_so() -> None:
    loopback = ip_address("127.0.0.1")
    pins = Pins((rule("localhost:8443"), rule(table("a.test", "checked", port=8443, private=True))))
    assert pins.check_for(loopback, 8443) is None
    pins.record("a.test", Resolution((loopback,), 60), now=0.0)
    assert pins.check_for(loopback, 8443) == Checked(("a.test", "localhost"), False)


def test_what_is_remembered_has_a_bound() -> None:
    pins = Pins((rule("a.test:443"),))
    for number in range(MAX_DECISIONS + 10):
        pins.check_for(ip_address(number + 2**30), 443)
    assert len(pins._checks) <= MAX_DECISIONS


# --- what is answered ----------------------------------------------------------------------------------------------

ONE, TWO = Checked(("good.test",), False), Checked(("good.test", "other.test"), False)


def decide(kind: Kind, name: str | None = None, checked: Checked | None = ONE, **more: bool) -> Any:
    more = {"allowed": True, "elsewhere": False, **more}
    return decide_greeting(kind, name, "its words", checked, **more)


def test_what_may_pass_and_what_is_said() -> None:
    assert decide("name", "good.test") is None
    assert decide("name", "evil.test").line == "host"
    assert decide("name", "evil.test").host == "evil.test"
    assert decide("name", "evil.test", elsewhere=True).line is None
    assert decide("none").line == "unchecked"
    assert decide("none", checked=Checked(("gitlab",), True)) is None
    unreadable: tuple[Kind, ...] = ("encrypted", "greeting", "server-first")
    for kind in unreadable:
        assert decide(kind).line == "unchecked"
        assert decide(kind, checked=TWO).line is None
        assert "good.test, other.test" in decide(kind, checked=TWO).reason
    wrong: tuple[Kind, ...] = ("changed", "server", "full")
    for kind in wrong:
        assert decide(kind).line is None
    # Other lines hold by now.
    assert decide("name", "evil.test", None) is None
    assert decide("name", "good.test", None, allowed=False) is not None


@pytest.mark.parametrize("kind", ["encrypted", "greeting", "server-first", "changed", "server", "full"])
@pytest.mark.parametrize("checked", [ONE, TWO, Checked(("gitlab",), True), None])
def test_what_cannot_be_read_is_never_answered_with_yes(kind: Kind, checked: Checked | None) -> None:
    assert kind not in MAY_PASS
    for allowed, name in itertools.product((False, True), (None, "good.test")):
        assert decide(kind, name, checked, allowed=allowed) is not None


# --- what is written -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("private", "unchecked"), list(itertools.product((False, True), repeat=2)))
def test_the_line_of_a_notice_is_read_back_and_is_a_command(private: bool, unchecked: bool) -> None:
    line = allow_line("a.test", 443, private=private, unchecked=unchecked)
    assert line is not None
    parsed = policy_of(f"[network]\nallow = [{line}]").allow[0]
    assert (parsed.name, parsed.private, parsed.tls == "unchecked") == ("a.test", private, unchecked)
    event = Event("tls", "refused", "", "tcp", 0.0, 1, "x", "a.test", str(HERE), 443, None, line)
    options = f"{'--private ' if private else ''}{'--unchecked ' if unchecked else ''}"
    assert command(event, Place()) == f"sandboxed-kernel allow {options}a.test:443"
    entry = entry_for("a.test:443", private=private, unchecked=unchecked)
    assert entry_of("a.test", str(HERE), 443, "tcp", line) == entry
    again = rule(entry)
    assert (again.private, again.tls) == (parsed.private, parsed.tls)


def test_an_address_cannot_be_left_unchecked() -> None:
    with pytest.raises(PolicyError):
        entry_for("192.0.2.1:443", unchecked=True)


@pytest.mark.parametrize(
    ("entry", "host", "port", "words"),
    [
        ("a.test:443", "a.test", 443, "is checked, so it has to be TLS"),
        ("a.test:*", "a.test", 8443, "is not checked there"),
        (table("a.test", "unchecked"), "a.test", 443, "is not checked there"),
        ("localhost:8000", "localhost", 8000, "may be reached on port 8000"),
    ],
)
def test_explain_says_what_is_looked_at(entry: object, host: str, port: int, words: str) -> None:
    said = explain_endpoint(Policy(allow=(rule(entry),)), host, port)
    assert said.allowed
    assert words in said.reason


def test_explain_says_that_quic_is_not_looked_at() -> None:
    said = explain_endpoint(Policy(allow=(rule("udp://a.test:443"),)), "a.test", 443, "udp")
    assert "QUIC" in said.reason

"""One entry of ``[network] allow``: what it means, and what is said where it means nothing."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from ipaddress import ip_network
from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.hostnames.addresses import RANGES
from sandboxed_kernel.policy.destination import ALL_PORTS, NEVER, normal_name, parse_address, parse_destination
from sandboxed_kernel.policy.model import Destination, Ports

PLACE = "policy.toml: network.allow[2]"


def name(
    name: str, *ports: Ports, wildcard: bool = False, private: bool = False, udp: bool = False
) -> tuple[object, ...]:
    return (name, wildcard, None, ports, "udp" if udp else "tcp", private)


def net(network: str, *ports: Ports, private: bool = False, udp: bool = False) -> tuple[object, ...]:
    return (None, False, ip_network(network), ports, "udp" if udp else "tcp", private)


def one(port: int) -> Ports:
    return Ports(port, port)


GOOD: list[tuple[object, tuple[object, ...]]] = [
    ("pypi.org:443", name("pypi.org", one(443))),
    ("PyPI.Org.:443", name("pypi.org", one(443))),
    ("tcp://pypi.org:443", name("pypi.org", one(443))),
    ("db:5432", name("db", one(5432))),
    ("localhost:5432", name("localhost", one(5432), private=True)),
    ("_grpc.corp.example:1", name("_grpc.corp.example", one(1))),
    ("3com.example:65535", name("3com.example", one(65535))),
    ("bücher.example:443", name("xn--bcher-kva.example", one(443))),
    ("*.pythonhosted.org:443", name("pythonhosted.org", one(443), wildcard=True)),
    ("a.example:80,443", name("a.example", one(80), one(443))),
    ("a.example:8000-8010", name("a.example", Ports(8000, 8010))),
    ("a.example:80,8000-8010", name("a.example", one(80), Ports(8000, 8010))),
    ("a.example:*", name("a.example", ALL_PORTS)),
    ("udp://stats.example:8125", name("stats.example", one(8125), udp=True)),
    ("UDP://10.0.0.5:8125", net("10.0.0.5/32", one(8125), udp=True)),
    ("10.0.0.0/8:5432", net("10.0.0.0/8", one(5432))),
    ("127.0.0.1:5432", net("127.0.0.1/32", one(5432))),
    ("[::1]:80", net("::1/128", one(80))),
    ("[2001:DB8::/32]:443", net("2001:db8::/32", one(443))),
    ("[::ffff:10.0.0.1]:80", net("10.0.0.1/32", one(80))),
    ("0.0.0.0/0:443", net("0.0.0.0/0", one(443))),
    ("[::/0]:443", net("::/0", one(443))),
    ("100.64.0.0/10:443", net("100.64.0.0/10", one(443))),
    ({"host": "db.corp", "port": 5432, "private": True}, name("db.corp", one(5432), private=True)),
    ({"host": "db.corp", "ports": [80, "90-91"]}, name("db.corp", one(80), Ports(90, 91))),
    (
        {"host": "*.corp.example", "ports": "*", "protocol": "udp"},
        name("corp.example", ALL_PORTS, wildcard=True, udp=True),
    ),
    ({"host": "::1", "port": 80}, net("::1/128", one(80))),
    ({"host": "[fd00::]", "port": "80"}, net("fd00::/128", one(80))),
    ({"host": "fd00:1::/32", "port": 80}, net("fd00:1::/32", one(80))),
    ({"host": "0.0.0.0/0", "port": 443, "private": True}, net("0.0.0.0/0", one(443), private=True)),
]

_PORT = "is not a port. Write a number from 1 to 65535, a range 8000-8010, or *"
_STAR = '"*" stands only for a whole first label. Write "*.example.org:443"'
_EXAMPLE = 'Write "host:port", for example "pypi.org:443"'
_TABLE = 'Write { host = "db.corp", port = 5432, private = true }'
_NEVER = "addresses are never allowed. Remove the entry, or name the service's own host"
_LETTERS = "not a host name. Write letters, digits and hyphens between dots"
_XN = 'Write the name in its "xn--" form'

BAD: list[tuple[object, str]] = [
    # shape
    ("", f'"": empty. {_EXAMPLE}'),
    ("pypi.org", '"pypi.org": no port. Write "pypi.org:443"'),
    ("pypi.org:", f'"pypi.org:": no port. {_EXAMPLE}'),
    (":443", f'":443": no host. {_EXAMPLE}'),
    ("udp://a.example", '"udp://a.example": no port. Write "udp://a.example:443"'),
    ("https://pypi.org/simple", '"https://pypi.org/simple": a URL; rules name a host and a port. Write "pypi.org:443"'),
    ("http://x/", '"http://x/": a URL; rules name a host and a port. Write "x:80"'),
    ("postgres://u:p@db:6432/x", '"postgres://u:p@db:6432/x": a URL; rules name a host and a port. Write "db:6432"'),
    (
        "pypi.org:443/x",
        '"pypi.org:443/x": a path; rules name a host and a port, paths are not seen. Write "pypi.org:443"',
    ),
    ("pypi.org/simple", '"pypi.org/simple": no port. Write "pypi.org:443"'),
    ("git@github.com:22", '"git@github.com:22": a user name; rules name a host and a port. Write "github.com:22"'),
    (" a.example:1", '" a.example:1": white space around it. Write "a.example:1"'),
    ("a.example:1\n", '"a.example:1\\u000A": white space around it. Write "a.example:1"'),
    (3, f"3: an integer, not a destination. {_EXAMPLE}"),
    (True, f"true: a boolean, not a destination. {_EXAMPLE}"),
    (["a:1"], f'["a:1"]: an array, not a destination. {_EXAMPLE}'),
    # ports
    ("a.example:0", f'"a.example:0": "0" {_PORT}'),
    ("a.example:65536", f'"a.example:65536": "65536" {_PORT}'),
    ("a.example:443,", '"a.example:443,": "" is not a port. Write "a.example:443"'),
    ("a.example:-1", f'"a.example:-1": "-1" {_PORT}'),
    ("a.example:https", f'"a.example:https": "https" {_PORT}'),
    ("a.example:\N{FULLWIDTH DIGIT ONE}", f'"a.example:\N{FULLWIDTH DIGIT ONE}": "\N{FULLWIDTH DIGIT ONE}" {_PORT}'),
    ("a.example:9-8", '"a.example:9-8": a range of ports that ends before it begins. Write the ports as 8-9'),
    (
        "8.8.8.8:53",
        '"8.8.8.8:53": port 53: names are answered from the policy, no name server is reached. Remove the entry',
    ),
    # names
    ("*:443", '"*:443": every host there is. Write each host, or a domain such as "*.example.org:443"'),
    ("*.com:443", '"*.com:443": a whole top-level domain. Write the domain too, for example "*.example.com:443"'),
    ("a.*.org:1", f'"a.*.org:1": {_STAR}'),
    ("*a.org:1", f'"*a.org:1": {_STAR}'),
    ("*.*.org:1", f'"*.*.org:1": {_STAR}'),
    ("a..b:1", '"a..b:1": not a host name. Write each dot between two labels'),
    ("a.example..:1", '"a.example..:1": not a host name. Write each dot between two labels'),
    ("-a.b:1", f'"-a.b:1": {_LETTERS}'),
    ("a b.c:1", f'"a b.c:1": {_LETTERS}'),
    ("a.com,b.com:443", f'"a.com,b.com:443": {_LETTERS}'),
    ("x" * 64 + ":1", f'"{"x" * 64}:1": {_LETTERS}'),
    ("straße.de:443", f'"straße.de:443": a letter that programs translate differently. {_XN}'),
    ("a\N{ZERO WIDTH JOINER}b.de:1", f'"a\\u200Db.de:1": a letter that programs translate differently. {_XN}'),
    ("é..x:1", f'"é..x:1": not a host name (IDNA). {_XN}'),
    # numbers that are no addresses
    ("127.1:80", '"127.1:80": not written in full; programs read 127.0.0.1. Write "127.0.0.1:80"'),
    ("0x7f.1:80", '"0x7f.1:80": not written in full; programs read 127.0.0.1. Write "127.0.0.1:80"'),
    ("1.2.3:80", '"1.2.3:80": not written in full; programs read 1.2.0.3. Write "1.2.0.3:80"'),
    ("2130706433:80", '"2130706433:80": not written in full; programs read 127.0.0.1. Write "127.0.0.1:80"'),
    ("010.0.0.1:80", '"010.0.0.1:80": not written in full; programs read 8.0.0.1. Write "8.0.0.1:80"'),
    ("256.1.1.1:80", f'"256.1.1.1:80": neither a host name nor an IP address or network. {_EXAMPLE}'),
    ("a.0x:80", '"a.0x:80": a number that is no IPv4 address. Write four numbers, for example "192.0.2.1:443"'),
    ("*.1.2.3.4:80", '"*.1.2.3.4:80": not written in full; programs read 1.2.3.4. Write "1.2.3.4:80"'),
    # addresses and networks
    ("10.0.0.1/8:80", '"10.0.0.1/8:80": bits are set behind the prefix. Write "10.0.0.0/8:80"'),
    ("10.0.0.0/33:80", f'"10.0.0.0/33:80": neither a host name nor an IP address or network. {_EXAMPLE}'),
    ("::1", '"::1": an IPv6 address without brackets. Write "[::1]:443"'),
    ("::1:8080", '"::1:8080": an IPv6 address without brackets. Write "[::1]:8080"'),
    ("a:1:2", '"a:1:2": more than one colon; IPv6 addresses stand in brackets. Write "[2001:db8::1]:443"'),
    ("[::1]", '"[::1]": no port. Write "[::1]:443"'),
    ("[fd00::]/64:80", '"[fd00::]/64:80": the prefix length stands outside the brackets. Write "[fd00::/64]:80"'),
    ("[10.0.0.1]:80", '"[10.0.0.1]:80": brackets are for IPv6 addresses, and only for them. Write "10.0.0.1:80"'),
    ("[a.example]:80", f'"[a.example]:80": neither a host name nor an IP address or network. {_EXAMPLE}'),
    (
        "[::ffff:0:0/96]:80",
        '"[::ffff:0:0/96]:80": a network of IPv4 addresses inside IPv6. Write the IPv4 network itself',
    ),
    ("169.254.169.254:80", f'"169.254.169.254:80": metadata {_NEVER}'),
    ("[64:ff9b::a9fe:a9fe]:80", f'"[64:ff9b::a9fe:a9fe]:80": metadata {_NEVER}'),
    ("169.254.0.0/17:80", f'"169.254.0.0/17:80": link-local {_NEVER}'),
    ("[fe80::1]:80", f'"[fe80::1]:80": link-local {_NEVER}'),
    ("[fe80::1%eth0]:80", '"[fe80::1%eth0]:80": a scope id; link-local addresses are never allowed. Remove the entry'),
    ("0.0.0.0:80", f'"0.0.0.0:80": unspecified {_NEVER}'),
    ("224.0.0.1:80", f'"224.0.0.1:80": multicast {_NEVER}'),
    # tables
    ({}, f"{{  }}: no host. {_TABLE}"),
    ({"host": "a"}, f'{{ host = "a" }}: no port. {_TABLE}'),
    ({"host": 3, "port": 1}, f"{{ host = 3, port = 1 }}: no host. {_TABLE}"),
    ({"host": "a:1", "port": 1}, f'{{ host = "a:1", port = 1 }}: the host holds a port or a URL. {_TABLE}'),
    ({"host": "a", "port": 1, "ports": [2]}, f'{{ host = "a", port = 1, ports = [2] }}: both port and ports. {_TABLE}'),
    ({"host": "a", "ports": []}, '{ host = "a", ports = [] }: an empty list of ports. Write ports = [80, 443]'),
    (
        {"host": "a", "port": True},
        '{ host = "a", port = true }: a port is a boolean. Write port = 443 or ports = [80, 443]',
    ),
    (
        {"host": "a", "port": 1, "privat": True},
        '{ host = "a", port = 1, privat = true }: unknown key "privat". Write "private"',
    ),
    (
        {"host": "a", "port": 1, "private": "yes"},
        '{ host = "a", port = 1, private = "yes" }: private is a string. Write private = true or private = false',
    ),
    (
        {"host": "a", "port": 1, "protocol": "sctp"},
        '{ host = "a", port = 1, protocol = "sctp" }: protocol is "sctp". Write protocol = "tcp" or protocol = "udp"',
    ),
    (
        {"host": "127.1", "port": 1},
        '{ host = "127.1", port = 1 }: not written in full; programs read 127.0.0.1. Write host = "127.0.0.1"',
    ),
]


@pytest.mark.parametrize(("entry", "meaning"), GOOD, ids=lambda value: str(value)[:40])
def test_an_entry_means_exactly_this(entry: object, meaning: tuple[object, ...]) -> None:
    rule = parse_destination(entry, PLACE)
    assert (rule.name, rule.wildcard, rule.network, rule.ports, rule.transport, rule.private) == meaning
    assert rule.place == PLACE


@pytest.mark.parametrize(("entry", "message"), BAD, ids=lambda value: str(value)[:40])
def test_an_unusable_entry_says_where_what_and_what_to_write(entry: object, message: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse_destination(entry, PLACE)
    assert str(caught.value) == f"{PLACE}: {message}"


@pytest.mark.parametrize("row", [row for row in RANGES if row.kind in NEVER and row.network.prefixlen], ids=str)
def test_no_range_that_is_never_reachable_can_be_written(row: object) -> None:
    network = row.network  # type: ignore[attr-defined]
    hosts = {network, ip_network(network.network_address), ip_network(network.broadcast_address)}
    for host in hosts:
        with pytest.raises(PolicyError, match="never allowed"):
            parse_destination({"host": str(host), "port": 80}, PLACE)


# --- over everything -------------------------------------------------------------------------------------------------

_labels = st.from_regex(r"[a-zA-Z0-9_]([a-zA-Z0-9_-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
_names = st.builds(".".join, st.lists(_labels, min_size=1, max_size=4))
_addresses = st.one_of(
    st.ip_addresses(v=4).map(str), st.ip_addresses(v=6).map("[{}]".format), st.ip_addresses(v=6).map(str)
)
_networks = st.tuples(st.ip_addresses(v=4), st.integers(0, 32)).map(lambda pair: str(ip_network(pair, strict=False)))
_port = st.integers(-1, 65537).map(str)
_ports = st.one_of(
    _port,
    st.just("*"),
    st.lists(_port, min_size=1, max_size=3).map(",".join),
    st.tuples(_port, _port).map("-".join),
)
_texts = st.builds(
    "{}{}{}:{}".format,
    st.sampled_from(["", "", "udp://", "tcp://", "http://"]),
    st.sampled_from(["", "", "*."]),
    st.one_of(_names, _addresses, _networks),
    _ports,
)
_scalars = st.one_of(st.text(max_size=20), _texts, _names, _addresses, st.integers(), st.booleans(), st.floats())
_tables = st.dictionaries(
    st.sampled_from(["host", "port", "ports", "protocol", "private", "x"]), st.one_of(_scalars, st.lists(_scalars))
)
_entries = st.one_of(_texts, st.text(max_size=40), _tables, st.lists(_scalars), _scalars)


def _parsed(entry: object) -> Destination | PolicyError:
    try:
        return parse_destination(entry, PLACE)
    except PolicyError as error:
        return error


def _again(rule: Destination) -> Destination:
    if rule.text.startswith("{"):
        return parse_destination(tomllib.loads(f"entry = {rule.text}")["entry"], PLACE)
    return parse_destination(rule.text, PLACE)


@given(_entries)
@example({"host": "a", "port": 10**5000})
@example("[::1%1]:1")
@example("a" * 300 + ".b:1")
@example("\ud800:1")
@example({"host": "fe80::1%25eth0", "port": 1})
def test_any_entry_is_a_destination_that_reads_back_or_a_policy_error(entry: object) -> None:
    rule = _parsed(entry)
    if isinstance(rule, PolicyError):
        assert rule.place == PLACE
        assert rule.write
        assert str(rule).isprintable()
    else:
        assert _again(rule) == rule
        assert (rule.name is None) != (rule.network is None)
        assert all(1 <= ports.first <= ports.last <= 65535 for ports in rule.ports)


@given(st.one_of(_names, st.text(max_size=30)))
def test_a_normal_name_is_its_own_normal_form(text: str) -> None:
    normal = normal_name(text)
    if normal is not None:
        assert normal_name(normal) == normal == normal.lower()
        assert parse_address(normal) is None
        assert not normal.endswith(".")


@given(st.one_of(st.ip_addresses(), st.ip_addresses(v=4)))
def test_an_address_is_never_a_name(address: object) -> None:
    assert normal_name(str(address)) is None
    assert parse_address(str(address)) is not None


def test_a_rule_may_end() -> None:
    rule = parse_destination(
        tomllib.loads('a = { host = "a.example", port = 1, until = 2030-01-02T03:04:05Z }')["a"], "p"
    )
    assert rule.until == datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert rule.text == '{ host = "a.example", port = 1, until = 2030-01-02T03:04:05+00:00 }'
    assert parse_destination("a.example:1", "p").until == inf


@pytest.mark.parametrize(
    "until", ["2030-01-02T03:04:05", "2030-01-02", "03:04:05", '"2030-01-02T03:04:05Z"', "5", "true"]
)
def test_when_it_ends_is_a_time_that_is_the_same_everywhere(until: str) -> None:
    entry = tomllib.loads(f'a = {{ host = "a.example", port = 1, until = {until} }}')["a"]
    with pytest.raises(PolicyError, match=r"without a time zone\. Write until = 2030-12-31T18:00:00Z"):
        parse_destination(entry, "p")

"""What a name means, asked from a real DNS server on loopback and from hosts files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import dns.rcode
import pytest

from sandboxed_kernel.hostnames.pins import Resolution
from sandboxed_kernel.hostnames.upstream import addresses_in_hosts_file, resolve
from tests.support.dns_server import DnsServer, Query

RECORDS = {
    "both.test": ["127.0.0.5", "127.0.0.6", "2001:db8::5"],
    "v4.test": ["127.0.0.5"],
    "v6.test": ["2001:db8::5"],
    "www.test": ["CNAME cdn.test"],
    "cdn.test": ["CNAME both.test"],
    "broken.test": ["CNAME nowhere.test"],
    "text.test": ["TXT hello"],
    "many.test": [f"127.0.1.{n}" for n in range(100)],
    "db.corp.example": ["10.0.0.5"],
    "db.other.corp.example": ["10.0.0.6"],
}


@pytest.fixture
def server() -> Iterator[DnsServer]:
    with DnsServer(RECORDS, ttl=77) as server:
        yield server


def ask(server: DnsServer, folder: Path, name: str, *lines: str, hosts: str = "", lifetime: float = 5.0) -> Resolution:
    hosts_file = folder / "hosts"
    hosts_file.write_text(hosts)
    config = server.write_resolver_config(folder, *lines)
    return resolve(name, resolver_config=config, hosts_file=str(hosts_file), lifetime=lifetime)


def texts(resolution: Resolution) -> list[str]:
    assert resolution.error is None
    return [str(address) for address in resolution.addresses]


@pytest.mark.parametrize(
    ("name", "addresses"),
    [
        ("both.test", ["127.0.0.5", "127.0.0.6", "2001:db8::5"]),
        ("BOTH.test.", ["127.0.0.5", "127.0.0.6", "2001:db8::5"]),
        ("v4.test", ["127.0.0.5"]),
        ("v6.test", ["2001:db8::5"]),
        ("www.test", ["127.0.0.5", "127.0.0.6", "2001:db8::5"]),
    ],
)
def test_every_address_of_a_name(server: DnsServer, tmp_path: Path, name: str, addresses: list[str]) -> None:
    resolution = ask(server, tmp_path, name)
    assert sorted(texts(resolution)) == sorted(addresses)
    assert (resolution.ttl, resolution.from_hosts_file) == (77, False)


def test_a_name_that_does_not_exist(server: DnsServer, tmp_path: Path) -> None:
    resolution = ask(server, tmp_path, "nobody.test")
    assert resolution == Resolution(
        error=f"nobody.test does not exist, says 127.0.0.1 port {server.port}", no_such_name=True
    )
    assert server.queries == [Query("nobody.test", "A", False)]  # and AAAA is not asked


@pytest.mark.parametrize("name", ["text.test", "broken.test"])
def test_a_name_without_addresses(server: DnsServer, tmp_path: Path, name: str) -> None:
    resolution = ask(server, tmp_path, name)
    assert resolution.addresses == ()
    assert resolution.error


def test_a_long_answer_comes_over_tcp(server: DnsServer, tmp_path: Path) -> None:
    server.truncate = True
    assert len(texts(ask(server, tmp_path, "many.test"))) == 100
    assert Query("many.test", "A", True) in server.queries


def test_a_dead_server_is_named_within_the_lifetime(server: DnsServer, tmp_path: Path) -> None:
    server.silent = True
    started = time.monotonic()
    resolution = ask(server, tmp_path, "v4.test", lifetime=0.3)
    assert time.monotonic() - started < 1.5
    assert resolution == Resolution(error=f"no answer for v4.test within 0.3 s from 127.0.0.1 port {server.port}")


def test_a_slow_server_is_waited_for(server: DnsServer, tmp_path: Path) -> None:
    server.delay = 0.1
    assert texts(ask(server, tmp_path, "v4.test")) == ["127.0.0.5"]


def test_a_server_that_is_silent_on_one_family_only_costs_that_family(server: DnsServer, tmp_path: Path) -> None:
    server.silent_types = {"AAAA"}
    assert texts(ask(server, tmp_path, "v4.test", lifetime=0.3)) == ["127.0.0.5"]


@pytest.mark.parametrize("rcode", [dns.rcode.SERVFAIL, dns.rcode.REFUSED, dns.rcode.FORMERR])
def test_a_server_that_fails_is_no_statement_about_the_name(
    server: DnsServer, tmp_path: Path, rcode: dns.rcode.Rcode
) -> None:
    server.rcode = rcode
    resolution = ask(server, tmp_path, "v4.test", lifetime=0.5)
    assert resolution.error
    assert f"127.0.0.1 port {server.port}" in resolution.error
    assert not resolution.no_such_name


# --- search domains --------------------------------------------------------------------------------------------------

CORP = "search elsewhere.example corp.example"


def test_a_name_without_a_dot_is_tried_with_the_search_domains(server: DnsServer, tmp_path: Path) -> None:
    assert texts(ask(server, tmp_path, "db", CORP)) == ["10.0.0.5"]
    assert texts(ask(server, tmp_path, "db", "domain corp.example")) == ["10.0.0.5"]


def test_a_name_with_a_dot_means_what_it_says(server: DnsServer, tmp_path: Path) -> None:
    server.records["v4.test.corp.example"] = ["10.0.0.66"]
    assert texts(ask(server, tmp_path, "v4.test", CORP, "options ndots:5")) == ["127.0.0.5"]
    assert not server.asked("corp.example")


def test_it_is_tried_with_the_search_domains_where_ndots_says_so(server: DnsServer, tmp_path: Path) -> None:
    assert ask(server, tmp_path, "db.other", CORP).no_such_name
    assert not server.asked("corp.example")
    assert texts(ask(server, tmp_path, "db.other", CORP, "options ndots:5")) == ["10.0.0.6"]


# --- the hosts file --------------------------------------------------------------------------------------------------

HOSTS = """\
127.0.0.1 localhost
10.0.0.7\tdb.corp  DB db.internal. # the database: v4.test
10.0.0.8 db.corp
10.0.0.7 db.corp
nonsense db.corp
fd00::7 db.corp
fe80::7%eth0 scoped.test
0.0.0.0 blocked.test
lonely
"""


def test_the_hosts_file_comes_first_with_every_address_and_alias(server: DnsServer, tmp_path: Path) -> None:
    server.records["db.corp"] = ["203.0.113.9"]
    addresses = (ip_address("10.0.0.7"), ip_address("10.0.0.8"), ip_address("fd00::7"))
    assert ask(server, tmp_path, "DB.corp.", hosts=HOSTS) == Resolution(addresses, from_hosts_file=True)
    for alias in ("db", "db.internal"):
        assert texts(ask(server, tmp_path, alias, hosts=HOSTS)) == ["10.0.0.7"]
    assert server.queries == []
    assert texts(ask(server, tmp_path, "v4.test", hosts=HOSTS)) == ["127.0.0.5"]  # a comment is no alias


def test_a_hosts_file_that_is_missing_or_not_text_says_nothing(tmp_path: Path) -> None:
    assert addresses_in_hosts_file("db", str(tmp_path / "absent")) == ()
    (tmp_path / "hosts").write_bytes(b"\xff\xfe\0\n10.0.0.1 db\n")
    assert addresses_in_hosts_file("db", str(tmp_path / "hosts")) == (ip_address("10.0.0.1"),)


# --- it never raises -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "a..b", "x" * 64 + ".test", "a." * 200, "\udcff.test", "p\u00fc.test", "a\0b"]
)
def test_no_name_raises(server: DnsServer, tmp_path: Path, name: str) -> None:
    assert ask(server, tmp_path, name).error


@pytest.mark.parametrize(
    "config",
    ["", "nameserver\n", "nameserver nonsense\n", "nameserver 127.0.0.1\noptions port:x\n", "\0\xff", "search a..b\n"],
)
def test_a_configuration_that_names_no_server_is_said_so(tmp_path: Path, config: str) -> None:
    path = tmp_path / "resolv.conf"
    path.write_text(config, encoding="latin-1")
    started = time.monotonic()
    error = resolve("v4.test", resolver_config=str(path), hosts_file="/dev/null").error
    assert error is not None
    assert str(path) in error
    assert time.monotonic() - started < 0.5


def test_no_configuration_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / "absent"
    assert str(path) in (resolve("v4.test", resolver_config=str(path), hosts_file="/dev/null").error or "")


def test_nobody_listening_is_said_so(tmp_path: Path) -> None:
    with DnsServer() as server:
        config = server.write_resolver_config(tmp_path)
    resolution = resolve("v4.test", resolver_config=config, hosts_file="/dev/null", lifetime=0.4)
    assert str(server.port) in (resolution.error or "")

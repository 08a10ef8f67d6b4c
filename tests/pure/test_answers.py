"""Every DNS question gets the right answer, dnspython reads it the same way, and no bytes disturb anything."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import product

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sandboxed_kernel.hostnames.answers import Answer, answer
from sandboxed_kernel.hostnames.pins import Known, Pins, Resolution
from sandboxed_kernel.policy.model import Destination, Ports
from tests.support.effort import examples
from tests.support.rules import rule

KUBERNETES = ("ns.svc.cluster.local", "svc.cluster.local", "cluster.local")
A, AAAA = dns.rdatatype.A, dns.rdatatype.AAAA
OTHER_TYPES = ["HTTPS", "SVCB", "MX", "TXT", "SRV", "ANY", "CNAME", "NS", "SOA", "PTR", "CAA", "TYPE65280"]


def make_pins() -> Pins:
    names = (
        "pypi.org",
        "v4.test",
        "v6.test",
        "many.test",
        "gone.test",
        "dead.test",
        "*.example.org",
        "new.test",
        "db.corp",
    )
    pins = Pins(tuple(rule(name, 443) for name in names))
    for name, addresses in {
        "pypi.org": ["198.51.100.7", "198.51.100.8", "2001:db8::7"],
        "v4.test": ["198.51.100.4"],
        "v6.test": ["2001:db8::6"],
        "many.test": [f"198.51.100.{n}" for n in range(100)],
        "db.corp": ["203.0.113.5"],
    }.items():
        assert not pins.record(name, Resolution(tuple(map(ip_address, addresses))), 0)
    pins.record("gone.test", Resolution(error="no such name", no_such_name=True), 0)
    pins.record("dead.test", Resolution(error="nobody answered"), 0)
    return pins


PINS = make_pins()


def ask(
    name: str, rdtype: dns.rdatatype.RdataType | str = "A", search: tuple[str, ...] = (), pins: Pins = PINS
) -> tuple[Answer, dns.message.Message | None]:
    """Our answer, and dnspython's reading of it."""
    query = dns.message.make_query(dns.name.from_text(name), rdtype)
    given = answer(query.to_wire(), pins, own_hostname="Box", search_domains=search, now=0.5)
    if given.reply is None:
        return given, None
    reply = dns.message.from_wire(given.reply)
    assert query.is_response(reply)
    assert reply.flags & dns.flags.RA
    assert not reply.flags & (dns.flags.AA | dns.flags.AD | dns.flags.TC)
    return given, reply


def read(reply: dns.message.Message | None) -> tuple[str, list[str]]:
    assert reply is not None
    records = [(rrset.rdtype, rdata.to_text()) for rrset in reply.answer for rdata in rrset]
    assert all(rrset.name == reply.question[0].name and rrset.ttl == 30 for rrset in reply.answer)
    return dns.rcode.to_text(reply.rcode()), [text for _, text in records]


# --- what is answered ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rdtype", "rcode", "records"),
    [
        ("pypi.org", "A", "NOERROR", ["198.51.100.7", "198.51.100.8"]),
        ("PyPI.ORG", "AAAA", "NOERROR", ["2001:db8::7"]),
        ("v4.test", "AAAA", "NOERROR", []),
        ("v6.test", "A", "NOERROR", []),
        ("gone.test", "A", "NXDOMAIN", []),
        ("dead.test", "A", "SERVFAIL", []),
        ("dead.test", "TXT", "NOERROR", []),
        ("new.test", "TXT", "NOERROR", []),
        ("localhost", "A", "NOERROR", ["127.0.0.1"]),
        ("localhost", "AAAA", "NOERROR", ["::1"]),
        ("a.localhost", "A", "NOERROR", ["127.0.0.1"]),
        ("box", "A", "NOERROR", ["127.0.0.1"]),
        ("BOX", "AAAA", "NOERROR", ["::1"]),
        ("box", "TXT", "NOERROR", []),
        ("7.100.51.198.in-addr.arpa", "PTR", "NOERROR", ["pypi.org."]),
        ("7.100.51.198.in-addr.arpa", "TXT", "NOERROR", []),
        (ip_address("2001:db8::6").reverse_pointer, "PTR", "NOERROR", ["v6.test."]),
        ("1.0.0.127.in-addr.arpa", "PTR", "NOERROR", ["localhost."]),
        ("9.9.9.9.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("x.9.9.9.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("9.in-addr.arpa", "PTR", "NXDOMAIN", []),
        ("0.ip6.arpa", "PTR", "NXDOMAIN", []),
        ("wpad", "A", "NXDOMAIN", []),
    ],
)
def test_what_needs_no_notice(name: str, rdtype: str, rcode: str, records: list[str]) -> None:
    given, reply = ask(name, rdtype)
    assert read(reply) == (rcode, records)
    assert given.refused_name is None


@pytest.mark.parametrize(("name", "rdtype"), list(product(["pypi.org", "x.example.org"], OTHER_TYPES)))
def test_an_allowed_name_has_no_other_records_and_nobody_is_asked(name: str, rdtype: str) -> None:
    given, reply = ask(name, rdtype)
    assert read(reply) == ("NOERROR", [])
    assert (given.refused_name, given.ask_upstream) == (None, None)


@pytest.mark.parametrize("rdtype", ["A", "AAAA", *OTHER_TYPES])
@pytest.mark.parametrize(
    "name", ["evil.com", "a.pypi.org", "example.org", "db", "_dmarc.evil.com", "qjxkwz", "nas.home.arpa"]
)
def test_any_other_name_does_not_exist_and_is_told(name: str, rdtype: str) -> None:
    given, reply = ask(name, rdtype)
    assert read(reply) == ("NXDOMAIN", [])
    assert given.refused_name == name
    assert given.ask_upstream is None


@pytest.mark.parametrize("rdtype", [A, AAAA])
@pytest.mark.parametrize("name", ["x.example.org", "New.TEST"])
def test_a_name_seen_for_the_first_time_is_asked_upstream(name: str, rdtype: dns.rdatatype.RdataType) -> None:
    assert ask(name, rdtype)[0] == Answer(None, None, name.lower())


def test_the_same_question_is_answered_after_the_lookup() -> None:
    pins = make_pins()
    assert ask("x.example.org", pins=pins)[0].ask_upstream == "x.example.org"
    pins.record("x.example.org", Resolution((ip_address("198.51.100.9"),)), 0)
    assert read(ask("x.example.org", pins=pins)[1]) == ("NOERROR", ["198.51.100.9"])


def test_the_policy_may_give_the_own_hostname_another_meaning() -> None:
    pins = Pins((rule("box", 443),))
    pins.record("box", Resolution((ip_address("198.51.100.9"),)), 0)
    assert read(ask("box", pins=pins)[1]) == ("NOERROR", ["198.51.100.9"])


@pytest.mark.parametrize("label", [b"pypi.org", b"x\0.example", b"a b", b"\xff\xfe", b"\\", b"\n", b"-.", b"p\\ypi"])
def test_odd_bytes_in_a_label_never_make_an_allowed_name(label: bytes) -> None:
    for labels in ((label, b""), (label, b"example", b"org", b"")):
        query = dns.message.make_query(dns.name.Name(labels), A).to_wire()
        given = answer(query, PINS, own_hostname="box", search_domains=(), now=0.5)
        assert given.reply is not None
        assert dns.message.from_wire(given.reply).rcode() == dns.rcode.NXDOMAIN
        assert given.refused_name is not None
        assert given.refused_name.isprintable()


# --- exactly one notice ----------------------------------------------------------------------------------------------


def questions_of(written: str, search: tuple[str, ...], ndots: int) -> Iterator[str]:
    """What glibc asks for a name as written, in its order, as long as every answer is NXDOMAIN (res_nsearch)."""
    as_is_first = written.count(".") >= ndots
    yield from [written] * as_is_first
    yield from (f"{written}.{domain}" for domain in search)
    yield from [written] * (not as_is_first)


@pytest.mark.parametrize("ndots", [1, 2, 5])
@pytest.mark.parametrize("search", [(), ("corp.example",), KUBERNETES], ids=str)
@pytest.mark.parametrize(
    "written",
    [
        *("telemetry.evil.com", "db", "db.other", "db.other.svc", "db.other.svc.cluster.local", "db.corp.example"),
        *("a.b.corp.example", "svc.cluster.local", "box.ns.svc.cluster.local", "corp.example"),
    ],
)
def test_a_refused_name_is_told_under_one_name(written: str, search: tuple[str, ...], ndots: int) -> None:
    told = {ask(question, search=search)[0].refused_name for question in questions_of(written, search, ndots)}
    assert told - {None} == {written}


@pytest.mark.parametrize("ndots", [1, 5])
@pytest.mark.parametrize("written", ["pypi.org", "db.corp", "localhost", "box", "gone.test"])
@pytest.mark.parametrize("search", [("corp",), ("corp.example", "org"), KUBERNETES], ids=str)
def test_an_allowed_name_is_not_told_in_any_form(written: str, search: tuple[str, ...], ndots: int) -> None:
    for question in questions_of(written, search, ndots):
        assert ask(question, search=search)[0].refused_name is None


# --- the message -----------------------------------------------------------------------------------------------------


def raw(query: bytes, over_tcp: bool = False) -> bytes | None:
    return answer(query, PINS, own_hostname="box", search_domains=(), now=0.5, over_tcp=over_tcp).reply


def test_number_question_and_recursion_flag_come_back_as_they_were() -> None:
    for number, recursion in product([0, 1, 65535], [0, dns.flags.RD]):
        query = dns.message.make_query("PyPi.oRg", "A", id=number, flags=recursion)
        reply = dns.message.from_wire(raw(query.to_wire()) or b"")
        assert reply.id == number
        assert reply.flags & dns.flags.RD == recursion
        assert reply.question[0].name.labels == query.question[0].name.labels  # case too, which == ignores


@pytest.mark.parametrize(
    ("size", "over_tcp", "truncated"),
    [
        *((None, False, True), (0, False, True), (512, False, True), (1232, False, True), (4096, False, False)),
        *((None, True, False), (512, True, False)),
    ],
)
def test_an_answer_that_is_too_long_is_asked_again_over_tcp(size: int | None, over_tcp: bool, truncated: bool) -> None:
    query = dns.message.make_query("many.test", "A", payload=size)
    wire = raw(query.to_wire(), over_tcp) or b""
    reply = dns.message.from_wire(wire)
    assert bool(reply.flags & dns.flags.TC) is truncated
    assert sum(len(rrset) for rrset in reply.answer) == (0 if truncated else 100)
    assert over_tcp or len(wire) <= max(size or 0, 512)
    assert (reply.edns >= 0) is (size is not None)


def test_options_of_the_question_are_accepted_and_not_returned() -> None:
    options: list[dns.edns.Option] = [dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")]  # dig sends it
    reply = dns.message.from_wire(raw(dns.message.make_query("v4.test", "A", options=options).to_wire()) or b"")
    assert read(reply) == ("NOERROR", ["198.51.100.4"])
    assert reply.options == ()


def test_another_version_of_edns_is_refused_as_rfc_6891_says() -> None:
    reply = dns.message.from_wire(raw(dns.message.make_query("v4.test", "A", use_edns=1).to_wire()) or b"")
    assert reply.rcode() == dns.rcode.BADVERS


HEADER = bytes.fromhex("1234 0100 0001 0000 0000 0000")
QUESTION = b"\4pypi\3org\0\0\1\0\1"


@pytest.mark.parametrize(
    ("query", "rcode"),
    [
        (HEADER, dns.rcode.FORMERR),
        (HEADER + b"\4pypi\3org", dns.rcode.FORMERR),
        (HEADER + b"\4pypi\3org\0\0\1\0", dns.rcode.FORMERR),
        (HEADER + b"\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),  # a pointer to itself
        (HEADER + b"\4pypi\xc0\x0c\0\1\0\1", dns.rcode.FORMERR),
        (HEADER + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", dns.rcode.FORMERR),
        (HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", dns.rcode.FORMERR),  # 257 bytes
        (HEADER[:4] + b"\0\2" + HEADER[6:] + QUESTION * 2, dns.rcode.FORMERR),
        (HEADER[:4] + b"\0\0" + HEADER[6:], dns.rcode.FORMERR),
        (HEADER[:10] + b"\0\1" + QUESTION + b"\0\0\x29\4\xd0\0\0\0\0\0\xff", dns.rcode.FORMERR),  # options cut off
        (HEADER + b"\4pypi\3org\0\0\1\0\3", dns.rcode.REFUSED),  # CHAOS
        (HEADER + b"\4pypi\3org\0\0\1\0\xff", dns.rcode.REFUSED),  # any class
        (HEADER + b"\0\0\2\0\1", dns.rcode.REFUSED),  # the root
        (b"\x12\x34\x28\0" + HEADER[4:] + QUESTION, dns.rcode.NOTIMP),  # an update
    ],
)
def test_a_message_that_is_no_question_is_turned_down(query: bytes, rcode: dns.rcode.Rcode) -> None:
    given = answer(query, PINS, own_hostname="box", search_domains=(), now=0.5)
    assert given.reply is not None
    reply = dns.message.from_wire(given.reply)
    assert (reply.id, reply.rcode(), reply.answer) == (0x1234, rcode, [])
    assert (given.refused_name, given.ask_upstream) == (None, None)


@pytest.mark.parametrize("query", [b"", HEADER[:11], b"\x12\x34\x81\x80" + HEADER[4:] + QUESTION])
def test_what_cannot_be_a_question_gets_no_answer(query: bytes) -> None:
    assert answer(query, PINS, own_hostname="box", search_domains=(), now=0.5) == Answer(None)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A good question with some bytes changed, cut or added."""
    name = draw(st.sampled_from(["pypi.org", "evil.com", "x.example.org", "many.test", "9.9.9.9.in-addr.arpa"]))
    query = bytearray(dns.message.make_query(name, draw(st.sampled_from(["A", "TXT"])), use_edns=0).to_wire())
    for position, byte in draw(st.lists(st.tuples(st.integers(2, len(query) - 1), st.integers(0, 255)), max_size=3)):
        query[position] = byte
    return bytes(query[: draw(st.integers(12, len(query)))]) + draw(st.binary(max_size=8))


@settings(max_examples=examples(200))
@given(st.one_of(st.binary(max_size=300), damaged()), st.booleans(), st.lists(st.text(max_size=8), max_size=2))
@example(HEADER + b"\1\xdf\0\0\1\0\1", False, ["\u00df"])
def test_no_bytes_raise_and_every_answer_is_sound(query: bytes, over_tcp: bool, search: list[str]) -> None:
    given = answer(query, PINS, own_hostname="box", search_domains=tuple(search), now=0.5, over_tcp=over_tcp)
    assert given.ask_upstream is None or given.ask_upstream.endswith(".example.org") or given.ask_upstream == "new.test"
    if given.reply is None:
        return
    reply = dns.message.from_wire(given.reply)
    assert reply.flags & dns.flags.QR
    assert reply.id == int.from_bytes(query[:2])
    for rrset in reply.answer:
        known = PINS.look_up(str(rrset.name), 0.5)
        if rrset.rdtype in (A, AAAA) and str(rrset.name).lower() != "box.":
            assert isinstance(known, Known)
            assert {ip_address(rdata.to_text()) for rdata in rrset} <= set(known.addresses)


@settings(max_examples=examples(200))
@given(damaged())
def test_what_we_answer_dnspython_reads_as_the_same_question(query: bytes) -> None:
    given = answer(query, PINS, own_hostname="box", search_domains=(), now=0.5)
    if given.reply is None or dns.message.from_wire(given.reply).rcode() in (dns.rcode.FORMERR, dns.rcode.NOTIMP):
        return
    theirs = dns.message.from_wire(
        query[:12] + query[12:], one_rr_per_rrset=True, ignore_trailing=True, continue_on_error=True
    )
    assert theirs.question == dns.message.from_wire(given.reply).question


@pytest.mark.figures
def test_an_answer_takes_microseconds() -> None:
    query = dns.message.make_query("telemetry.evil.com.ns.svc.cluster.local", "A").to_wire()
    started = time.perf_counter()
    for _ in range(300):
        answer(query, PINS, own_hostname="box", search_domains=KUBERNETES, now=0.5)
    assert (time.perf_counter() - started) / 300 < 300e-6  # about 15 us


def test_networks_of_the_policy_have_no_names() -> None:
    pins = Pins((Destination(None, False, ip_network("10.0.0.0/8"), (Ports(1, 9),), "tcp", False, "", ""),))
    assert read(ask("1.0.0.10.in-addr.arpa", "PTR", pins=pins)[1]) == ("NXDOMAIN", [])
    assert ask("10.0.0.1", pins=pins)[0].refused_name == "10.0.0.1"

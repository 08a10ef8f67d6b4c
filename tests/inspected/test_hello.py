"""What a greeting asks for is read as OpenSSL reads it, or not at all."""

from __future__ import annotations

import random
import ssl
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.guard.hello import MAX_HELLO, Hello, HelloReader, NotTls
from tests.support.effort import few
from tests.support.greetings import Client, Judge, hello_with, in_records, server_name

GOOD = Client("good.example").says()


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    return Judge(tmp_path_factory.mktemp("judge"))


def plain(name: str | None) -> Hello:
    return Hello(name, encrypted=False)


def read_hello(data: bytes) -> tuple[Hello, int] | None:
    """All in one piece."""
    return HelloReader().read(data)


def test_the_name_of_a_real_greeting_is_read() -> None:
    assert read_hello(GOOD) == (plain("good.example"), len(GOOD))
    assert read_hello(Client("GOOD.Example").says()) == (plain("good.example"), len(GOOD))


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("name", ["good.example", "a", "under_score.example", "xn--strae-oqa.example", None])
def test_every_version_of_tls_is_read(name: str | None, version: ssl.TLSVersion) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.minimum_version = context.maximum_version = version
    greeting = Client(name, context).says()
    assert read_hello(greeting) == (plain(name), len(greeting))


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100, 16384])
def test_the_size_of_records_does_not_matter(size: int) -> None:
    records = in_records(GOOD[5:], size)
    assert read_hello(records) == (plain("good.example"), len(records))
    assert read_hello(records + b"what comes next") == (plain("good.example"), len(records))


@pytest.mark.parametrize("size", [1, 7, 16384])
def test_what_is_not_complete_is_waited_for(size: int) -> None:
    records = in_records(GOOD[5:], size)
    for end in range(len(records)):
        assert read_hello(records[:end]) is None


def test_a_greeting_without_a_name() -> None:
    assert read_hello(hello_with()) == (plain(None), len(hello_with()))
    assert read_hello(hello_with((0x2B, b"\x02\x03\x04"))) is not None


@pytest.mark.parametrize("kind", [0xFE0D, 0xFFCE, 0xFF02, *range(0xFE08, 0xFE0D)])
def test_an_encrypted_greeting_says_so(kind: int) -> None:
    found = read_hello(hello_with(server_name(b"good.example"), (kind, b"\0" * 100)))
    assert found is not None
    assert found[0] == Hello("good.example", encrypted=True)


WRONG: dict[str, bytes] = {
    "HTTP": b"GET / HTTP/1.1\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "SSLv2": b"\x80\x2e\x01\x00\x02",
    "PostgreSQL": b"\x00\x00\x00\x08\x04\xd2\x16\x2f",
    "an alert first": b"\x15\x03\x01\x00\x02\x02\x28",
    "another record first": b"\x14\x03\x03\x00\x01\x01" + GOOD,
    "another record between": in_records(GOOD[5:100], 95) + b"\x14\x03\x03\x00\x01\x01" + in_records(GOOD[100:], 999),
    "an empty record": b"\x16\x03\x01\x00\x00" + GOOD,
    "a record that is too long": b"\x16\x03\x01\x40\x01",
    "another version": b"\x16\x02\x01\x00\x05",
    "another message": in_records(b"\x02" + GOOD[6:], 16384),
    "two messages in a record": in_records(GOOD[5:] + GOOD[5:], 16384),
    "a message that is too long": in_records(b"\x01\x01\x00\x00" + bytes(100), 16384),
    "a message of 16 MB": in_records(b"\x01\xff\xff\xff", 16384),
    "two names": hello_with(server_name(b"good.example", b"evil.example")),
    "a name of another kind": hello_with(server_name(b"good.example", kind=1)),
    "an empty name": hello_with(server_name(b"")),
    "an empty list": hello_with((0, b"\0\0")),
    "an empty extension": hello_with((0, b"")),
    "a name with a NUL": hello_with(server_name(b"good.example\0.evil.example")),
    "a name with a last dot": hello_with(server_name(b"good.example.")),
    "a name with a space": hello_with(server_name(b"good example")),
    "a name that is not ASCII": hello_with(server_name(b"g\xc3\xb6\xc3\xb6d.example")),
    "a name of 254 bytes": hello_with(server_name(b"a." * 126 + b"aa")),
    "a label of 64 bytes": hello_with(server_name(b"a" * 64 + b".example")),
    "the extension twice": hello_with(server_name(b"good.example"), server_name(b"evil.example")),
    "any extension twice": hello_with((0x1234, b""), server_name(b"good.example"), (0x1234, b"")),
    "SSLv2 in a record of TLS": hello_with(server_name(b"good.example"), version=0x0200),
    "a session of 33 bytes": hello_with(server_name(b"good.example"), session=bytes(33)),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_two_could_read_in_two_ways_is_refused(case: str) -> None:
    with pytest.raises(NotTls):
        read_hello(WRONG[case])


def test_a_greeting_without_end_is_refused_before_it_is_large() -> None:
    with pytest.raises(NotTls):
        read_hello(in_records(b"\x01\x00\xff\xf0" + bytes(0xFFF0), 1))
    with pytest.raises(NotTls):
        read_hello(in_records(b"\x01\x00\xff\xf0" + bytes(0xFFF0), 1)[: MAX_HELLO + 1])


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    for start in (b"", GOOD[:5], GOOD[:80]):
        try:
            read_hello(start + data)
        except NotTls:
            pass


def _changed(data: bytes, lot: random.Random) -> bytes:
    """``data`` with a few bytes changed, taken out, put in or repeated."""
    found = bytearray(data)
    for _ in range(lot.randint(1, 4)):
        at = lot.randrange(len(found))
        match lot.randrange(6):
            case 0:
                found[at] = lot.randrange(256)
            case 1:
                found[at] = (found[at] + lot.choice((-1, 1))) % 256
            case 2:
                del found[at : at + lot.randint(1, 8)]
            case 3:
                found[at:at] = lot.randbytes(lot.randint(1, 8))
            case 4:
                end = at + lot.randint(1, 60)
                found[at:at] = found[at:end]
            case 5:
                found[at : at + 12] = lot.choice((b"evil.example", b"good.exampl\0", b"GOOD.EXAMPLE"))
        if not found:
            return data
    return bytes(found)


def _with_length(message: bytes) -> bytes:
    """In one record, its length and the message's made right: what was changed lies deeper."""
    body = message[4:]
    return in_records(b"\x01" + len(body).to_bytes(3, "big") + body, 16384)


def _greetings() -> list[bytes]:
    """Handshake messages, as different clients have them."""
    old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    made = hello_with((0x1234, b"abc"), server_name(b"good.example"), (0x2B, b"\x02\x03\x04"), (0x0A, b"\0\2\0\x1d"))
    short = hello_with(server_name(b"good.example"), (0x0A, b"\0\2\0\x1d"), (0x0D, b"\0\2\x08\x04"))
    return [said[5:] for said in (GOOD, Client("good.example", old).says(), Client(None).says(), made, short)]


def mutations(number: int, seed: int) -> Iterator[bytes]:
    lot, whole = random.Random(seed), _greetings()
    frames: tuple[Callable[[bytes], bytes], ...] = (_with_length, lambda m: in_records(m, 16384))
    for _ in range(number):
        message = lot.choice(whole)
        if lot.random() < 0.2:
            yield _changed(in_records(message, lot.choice((1, 40, 16384))), lot)
        else:
            changed = _changed(message, lot)
            yield lot.choice(frames)(changed) if len(changed) > 4 else in_records(message, 16384)


def check(judge: Judge, number: int, seed: int) -> tuple[int, int]:
    """How many of ``number`` mutated greetings both take, and how many OpenSSL alone."""
    both = only = 0
    for greeting in mutations(number, seed):
        served = judge.names(greeting)
        try:
            found = read_hello(greeting)
        except NotTls:
            found = None
        if found is None or found[0].encrypted:
            only += bool(served)
        elif served:
            both += 1
            assert [None if name is None else name.lower() for name in served] == [found[0].name], greeting.hex()
    return both, only


def test_whatever_is_passed_under_a_name_openssl_serves_under_it(judge: Judge) -> None:
    both, _ = check(judge, few(40_000), 13)
    assert both > few(40_000) // 20

"""A connection up to its last greeting: whoever names a server once cannot name another one afterwards."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.guard import hello
from sandboxed_kernel.guard.greeting import RETRY, Greeting, Wrong
from sandboxed_kernel.guard.hello import MAX_HELLO, Hello, read_record
from tests.support.greetings import P384, Client, Server, hello_with, in_records, server_name
from tests.support.secure import Authority

NAME = Hello("good.example", encrypted=False)
GOOD, EVIL = (hello_with(server_name(name), (0x2B, b"\x02\x03\x04")) for name in (b"good.example", b"evil.example"))


def server_says(random: bytes = bytes(32), *, more: int = 40) -> bytes:
    body = b"\x03\x03" + random + bytes(more)
    return in_records(b"\x02" + len(body).to_bytes(3, "big") + body, 16384)


ANSWER, AGAIN = server_says(), server_says(RETRY)
CHANGE, EARLY, GIVES_UP = (
    b"\x14\x03\x03\x00\x01\x01",
    b"\x17\x03\x03\x01\x00" + bytes(256),
    b"\x15\x03\x03\x00\x02\x02\x2f",
)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Authority.create(tmp_path_factory.mktemp("greeting"), "good.example").server


def begun(first: bytes = GOOD) -> Greeting:
    """Its first greeting was accepted."""
    greeting = Greeting()
    assert greeting.from_client(first) == b""
    assert greeting.hello == NAME
    assert greeting.accept() == GOOD
    return greeting


def test_nothing_passes_before_it_was_judged() -> None:
    greeting = Greeting()
    for byte in GOOD[:-1]:
        assert greeting.from_client(bytes([byte])) == b""
        assert greeting.takes_more
    assert greeting.from_client(GOOD[-1:]) == b""
    assert greeting.hello == NAME
    assert not greeting.takes_more
    assert greeting.accept() == GOOD
    assert not greeting.is_over


def test_what_follows_waits_for_the_servers_answer() -> None:
    greeting = Greeting()
    greeting.from_client(GOOD + EARLY)
    assert greeting.accept() == GOOD
    assert greeting.from_client(b"more") == b""
    assert greeting.from_server(ANSWER[:20]) == b""
    assert greeting.from_server(ANSWER[20:]) == EARLY + b"more"
    assert greeting.is_over


def test_a_client_that_does_not_wait_is_read_no_further() -> None:
    greeting = begun()
    while greeting.takes_more:
        greeting.from_client(bytes(9999))
    assert len(greeting.from_server(ANSWER)) <= MAX_HELLO + 9999


def test_a_second_greeting_for_the_same_server_passes() -> None:
    greeting = begun()
    assert greeting.from_server(AGAIN + CHANGE) == b""
    assert greeting.from_client(CHANGE + EARLY) == CHANGE + EARLY
    assert greeting.from_client(GOOD) == b""
    assert greeting.hello == NAME
    assert greeting.accept() == GOOD
    assert greeting.from_client(EARLY) == b""
    assert greeting.from_server(ANSWER) == EARLY
    assert greeting.is_over


SECOND = {
    "another name": EVIL,
    "no name": hello_with((0x2B, b"\x02\x03\x04")),
    "an encrypted one": hello_with(server_name(b"good.example"), (0xFE0D, bytes(100))),
    "after refused early data": CHANGE + EARLY + EARLY + EVIL,
    "before the server has asked": b"",
}


@pytest.mark.parametrize("case", SECOND)
def test_a_second_greeting_for_another_server_is_refused(case: str) -> None:
    greeting = begun()
    early = SECOND[case] or EVIL
    if not SECOND[case]:
        greeting.from_client(early)
        with pytest.raises(Wrong, match="not for the same server"):
            greeting.from_server(AGAIN)
        return
    greeting.from_server(AGAIN)
    for byte in early[:-1]:
        assert b"evil" not in greeting.from_client(bytes([byte]))
    with pytest.raises(Wrong, match="not for the same server") as raised:
        greeting.from_client(early[-1:])
    assert raised.value.kind == "changed"


def test_early_data_in_pieces_passes_and_does_not_end_the_watch() -> None:
    greeting = begun()
    greeting.from_server(AGAIN)
    passed = b"".join(greeting.from_client(bytes([byte])) for byte in CHANGE + EARLY * 3)
    assert passed == CHANGE + EARLY * 3
    with pytest.raises(Wrong):
        greeting.from_client(EVIL)


def test_an_alert_of_the_client_passes() -> None:
    greeting = begun()
    greeting.from_server(AGAIN)
    assert greeting.from_client(GIVES_UP) == GIVES_UP


def test_no_third_greeting() -> None:
    greeting = begun()
    greeting.from_server(AGAIN)
    greeting.from_client(GOOD)
    greeting.accept()
    with pytest.raises(Wrong, match="third greeting"):
        greeting.from_server(AGAIN)


def test_an_alert_before_the_answer_does_not_end_the_watch() -> None:
    greeting = begun()
    warning = b"\x15\x03\x03\x00\x02\x01\x70"  # unrecognized_name, RFC 6066
    assert greeting.from_server(warning + AGAIN) == b""
    with pytest.raises(Wrong):
        greeting.from_client(EVIL)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request", b"\x17\x03\x03\x00\x10" + bytes(16), in_records(b"\x04" + bytes(60), 99)]
)
def test_a_server_that_cannot_be_read_ends_it(answer: bytes) -> None:
    with pytest.raises(Wrong, match="cannot be read") as raised:
        begun().from_server(answer)
    assert raised.value.kind == "server"


def test_a_server_that_goes_on_without_the_second_greeting_ends_it() -> None:
    greeting = begun()
    with pytest.raises(Wrong, match="cannot be read"):
        greeting.from_server(AGAIN + ANSWER)


def test_a_server_that_speaks_first() -> None:
    with pytest.raises(Wrong) as raised:
        Greeting().from_server(b"SSH-2.0-OpenSSH_9.2\r\n")
    assert raised.value.kind == "server-first"


@given(st.lists(st.integers(1, 60), min_size=1, max_size=20))
def test_where_the_bytes_are_cut_does_not_matter(sizes: list[int]) -> None:
    greeting = begun()
    said, at = AGAIN + CHANGE + GIVES_UP[:0], 0
    for size in [*sizes, len(said)]:
        assert greeting.from_server(said[at : at + size]) == b""
        at += size
    said, at, passed = CHANGE + EARLY + GOOD, 0, b""
    for size in [*sizes, len(said)]:
        passed += greeting.from_client(said[at : at + size])
        at += size
    assert passed == CHANGE + EARLY
    assert greeting.hello == NAME


@given(st.binary(max_size=300), st.booleans())
def test_no_bytes_of_either_side_raise_anything_else(data: bytes, asks_again: bool) -> None:
    greeting = begun()
    try:
        if asks_again:
            greeting.from_server(AGAIN)
            greeting.from_client(data)
        greeting.from_server(data)
    except Wrong:
        pass


def test_openssl_serves_the_name_of_the_second_greeting(certificate: Path) -> None:
    """The attack: a first greeting with a curve that the server does not take, a second one with another name."""
    client, server = Client("good.example"), Server(certificate, P384)
    asked = server.says(client.says())
    second = client.says(asked).replace(b"good.example", b"evil.example")
    server.says(second)
    assert server.names == ["good.example", "evil.example"]


@pytest.mark.parametrize("evil", [False, True])
def test_a_real_second_greeting(certificate: Path, evil: bool) -> None:
    client, server, greeting = Client("good.example"), Server(certificate, P384), Greeting()
    assert greeting.from_client(client.says()) == b""
    asked = server.says(greeting.accept())
    assert greeting.from_server(asked) == b""
    second = client.says(asked)
    if evil:
        with pytest.raises(Wrong):
            greeting.from_client(second.replace(b"good.example", b"evil.example"))
        assert server.names == ["good.example"]
        return
    passed = greeting.from_client(second)
    assert greeting.hello == NAME
    answer = server.says(passed + greeting.accept())
    server.says(greeting.from_server(answer) + client.says(answer))
    assert greeting.is_over
    assert client.tls.version() == "TLSv1.3"
    assert server.names == ["good.example", "good.example"]


def test_no_record_is_looked_at_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client chooses the size of its records and of what arrives at once. The guard has one thread for all: when
    each byte had it read all records anew, 64 KiB took it minutes, and nobody else was served.
    """
    looks = 0

    def counted(data: bytes | bytearray, at: int = 0) -> tuple[int, int, int] | None:
        nonlocal looks
        looks += 1
        return read_record(data, at)

    monkeypatch.setattr(hello, "read_record", counted)
    first = hello_with(server_name(b"good.example"), (0x15, bytes(2000)))
    pieces = in_records(first[5:], 1)
    for second in (False, True):
        greeting, before = Greeting(), looks
        if second:
            greeting.from_client(GOOD)
            greeting.accept()
            greeting.from_server(AGAIN)
            before = looks
        for byte in pieces:
            greeting.from_client(bytes([byte]))
        assert greeting.hello == NAME
        assert looks - before <= len(pieces) + len(first)  # each byte is a look, and each record another one

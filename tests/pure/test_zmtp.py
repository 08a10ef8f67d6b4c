"""ZMTP as the relay reads it: what was sent, in whatever pieces it comes; and no more memory than the limit."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.relay import zmtp
from sandboxed_kernel.relay.messages import MAX_FRAMES, TOO_LARGE
from sandboxed_kernel.relay.zmtp import GREETING, Decoder, ProtocolError

HELLO = GREETING + zmtp.ready("ROUTER", b"id")
MESSAGES = st.lists(st.lists(st.binary(max_size=300) | st.just(b"x" * 70_000), min_size=1, max_size=4), max_size=4)


def written(messages: list[list[bytes]]) -> bytes:
    return HELLO + b"".join(bytes(piece) for message in messages for piece in zmtp.encode(message))


def read(decoder: Decoder, data: bytes, step: int) -> list[list[bytes]]:
    found = []
    for start in range(0, len(data), step):
        decoder.feed(data[start : start + step])
        while (message := decoder.take()) is not None:
            found.append([bytes(frame) for frame in message])
    return found


@given(MESSAGES, st.sampled_from([1, 2, 7, 64, 65, 1000, 65536, 1 << 20]))
def test_what_was_written_is_read_in_whatever_pieces_it_comes(messages: list[list[bytes]], step: int) -> None:
    if step < 64 and any(len(frame) > 300 for message in messages for frame in message):
        step *= 1000
    decoder = Decoder(1 << 20)
    assert read(decoder, written(messages), step) == messages
    assert decoder.is_ready
    assert not decoder.has_more


@given(st.binary(max_size=200), st.integers(1, 70))
def test_no_bytes_do_more_than_end_the_connection(garbage: bytes, step: int) -> None:
    for start in (b"", GREETING, HELLO):
        try:
            read(Decoder(1000), start + garbage, step)
        except ProtocolError:
            pass


@pytest.mark.parametrize(
    "wrong",
    [
        b"\xff" + bytes(8) + b"\x7f\x01\x00" + bytes(52),  # ZMTP 1
        GREETING.replace(b"NULL", b"CURV"),
        GREETING + b"\x00\x01x",  # a message before READY
        GREETING + b"\x04\x06\x05ERROR",
        HELLO + b"\x04\x06\x05READY",
        HELLO + b"\x08\x00",
    ],
)
def test_what_is_no_zmtp_is_refused(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(Decoder(1000), wrong, 1000)


def test_a_frame_beyond_the_limit_is_skipped_and_the_next_message_read() -> None:
    messages = [[b"head", b"x" * 5000, b"tail"], [b"next"]]
    for step in (10, 10_000):
        first, second = read(Decoder(1000), written(messages), step)
        assert first == [b"head", TOO_LARGE, TOO_LARGE]
        assert second == [b"next"]


def test_frames_without_end_take_no_memory() -> None:
    """Neither the number of frames, nor one that is announced with 2^63 bytes."""
    decoder = Decoder(1 << 20)
    decoder.feed(HELLO + b"\x01\x01x" * (MAX_FRAMES + 1))
    with pytest.raises(ProtocolError):
        decoder.take()
    decoder = Decoder(1 << 20)
    decoder.feed(HELLO + b"\x03" + b"\x7f" + b"\xff" * 7)
    tracemalloc.start()
    for _ in range(100):
        decoder.feed(b"x" * 65536)
        assert decoder.take() is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20

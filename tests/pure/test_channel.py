"""Broker and relay understand each other's every word."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.errors import Bug
from sandboxed_kernel.notices import channel
from sandboxed_kernel.notices.events import Event

EVENTS = st.builds(
    Event, kind=st.just("name"), verdict=st.just("refused"), host=st.none() | st.text(), when=st.floats(allow_nan=False)
)
WORDS = st.one_of(
    st.builds(channel.Reported, event=EVENTS),
    *(st.builds(word) for word in channel._TYPES.values() if word is not channel.Reported),
)


@given(WORDS)
def test_a_word_is_read_as_it_was_written(word: channel.FromBroker | channel.FromRelay) -> None:
    assert channel.decode(channel.encode(word)) == word


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'["End"]', b'["Begin", {}]', b'["End", {"x": 1}]', b"1"])
def test_anything_else_is_a_bug(data: bytes) -> None:
    with pytest.raises(Bug):
        channel.decode(data)

"""Broker and relay understand each other's every word."""

from __future__ import annotations

from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.errors import Bug
from sandboxed_kernel.notices import channel
from sandboxed_kernel.notices.events import Event

KNOWN: dict[type, Any] = {float: st.floats(allow_nan=False)}


def values_of(kind: type) -> Any:
    """Values of ``kind`` with anything in every field."""
    hints = get_type_hints(kind)
    return st.builds(kind, **{name: KNOWN.get(hint, st.from_type(hint)) for name, hint in hints.items()})


KNOWN[Event] = values_of(Event)
WORDS = st.one_of([values_of(word) for word in channel._TYPES.values()])


@given(WORDS)
def test_a_word_is_read_as_it_was_written(word: channel.FromBroker | channel.FromRelay) -> None:
    assert channel.decode(channel.encode(word)) == word


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"{}", b'["End"]', b'["Begin", {}]', b'["End", {"x": 1}]', b"1"])
def test_anything_else_is_a_bug(data: bytes) -> None:
    with pytest.raises(Bug):
        channel.decode(data)

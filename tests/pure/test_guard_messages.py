"""What the broker and the guard tell each other is what arrives, or an error."""

from __future__ import annotations

import json

import pytest

from sandboxed_kernel.guard.messages import (
    MAX_BYTES,
    MAX_NAMES,
    Asked,
    FromGuard,
    Opened,
    Passed,
    Ready,
    ToGuard,
    Verdict,
    decode_from_guard,
    decode_to_guard,
    encode,
)

NAMES = tuple(f"{number}{'a' * 250}" for number in range(MAX_NAMES))


@pytest.mark.parametrize("message", [Opened(7, ("a.example",)), Opened(8, NAMES), Verdict(7, True), Verdict(9, False)])
def test_to_the_guard(message: ToGuard) -> None:
    assert len(encode(message)) <= MAX_BYTES
    assert decode_to_guard(encode(message)) == message


@pytest.mark.parametrize(
    "message", [Ready(), Passed(3), Asked(4, "name", "b.example"), Asked(5, "none"), Asked(6, "full")]
)
def test_from_the_guard(message: FromGuard) -> None:
    assert decode_from_guard(encode(message)) == message


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b"{}",
        b'{"what": "opened", "id": 1, "names": []}',
        b'{"what": "passed"}',
        b'{"what": "passed", "id": "x"}',
        b'{"what": "asked", "id": 1, "kind": "else", "name": null, "words": ""}',
        json.dumps({"what": "asked", "id": 1, "kind": "name", "name": 5, "words": ""}).encode(),
        b'{"what": "ready", "more": 1}',
    ],
)
def test_what_it_did_not_say_is_no_message(wrong: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_from_guard(wrong)

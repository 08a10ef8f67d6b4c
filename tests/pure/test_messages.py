"""Frames from the sandbox or a stranger: a message that can be passed on, or Unusable; never anything else."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel.notices.board import COMM_TARGET, ID_PREFIX
from sandboxed_kernel.notices.render import MIME
from sandboxed_kernel.relay import messages, rules, schema
from sandboxed_kernel.relay.messages import DELIMITER, Claimed, Json, Signer, Unusable, Verified

SIGNER = Signer(b"key", "sha256")
HEADER = {"msg_id": "1", "msg_type": "status", "session": "theirs", "username": "x", "date": "d", "version": "5.3"}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.just(MIME), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.sampled_from(["msg_id", "msg_type", "target_name", "comm_id", "data", "transient"]), JSON)
PARTS = st.one_of(
    st.binary(max_size=40), OBJECTS.map(lambda each: json.dumps(each).encode()), st.just(json.dumps(HEADER).encode())
)
FRAMES = st.lists(st.one_of(st.just(DELIMITER), PARTS), max_size=12)


def frames(header: Json, content: bytes = b"{}", parent: Json | None = None) -> list[bytes]:
    parts = [json.dumps(header).encode(), json.dumps(parent or {}).encode(), b"{}", content]
    return [b"client", DELIMITER, SIGNER.sign(parts), *parts, b"buffer"]


@given(st.sampled_from(list(rules.FROM_KERNEL)), FRAMES)
def test_whatever_comes_is_a_message_or_unusable(channel: str, given_frames: list[bytes]) -> None:
    try:
        message = Claimed(given_frames)
        content = message.content()
        rules.judge(channel, message)
        rules.is_forged(content)
        rules.drop_our_mime(content, message.parts[3])
    except Unusable:
        return
    assert MIME not in messages.write_object(content).decode()


def test_a_message_is_what_was_signed() -> None:
    message = Verified(frames(HEADER, b'{"a": 1}'), SIGNER)
    assert (message.msg_id, message.msg_type, message.content()) == ("1", "status", {"a": 1})
    assert (message.identities, message.buffers) == ([b"client"], [b"buffer"])
    for changed in range(2, 7):
        stolen = frames(HEADER, b'{"a": 1}')
        stolen[changed] = stolen[changed].replace(b"1", b"2") if b"1" in stolen[changed] else b'{"b": 1}'
        with pytest.raises(Unusable):
            Verified(stolen, SIGNER)


@pytest.mark.parametrize(
    "content", [b"[]", b"1e999x", b"\xff", b'{"a": ' + b"[" * 100_000, b'{"a": ' + b"9" * 10_000 + b"}", b"", b'"{}"']
)
def test_content_that_cannot_be_read_is_unusable(content: bytes) -> None:
    with pytest.raises(Unusable):
        Claimed(frames(HEADER, content)).content()


@pytest.mark.parametrize("header", [{}, {**HEADER, "msg_type": ""}, {**HEADER, "x": "y" * 70_000}])
def test_a_header_that_cannot_be_used_is_unusable(header: Json) -> None:
    with pytest.raises(Unusable):
        Claimed(frames(header))


def test_what_is_read_says_each_thing_once() -> None:
    message = Claimed(frames(HEADER, b'{"target_name": "a", "target_name": "sandboxed\\u005fkernel", "n": NaN}'))
    content = message.content()
    assert content == {"target_name": COMM_TARGET, "n": None}
    assert rules.is_forged(content)


def test_a_parent_is_what_was_written_last() -> None:
    said = b' {"msg_id": "a", "msg_id": "\\u0062", "n": NaN}'
    for _ in range(2):
        message = Claimed([DELIMITER, b"", json.dumps(HEADER).encode(), said, b"{}", b"{}"])
        assert (message.parent_id, schema.check_parent(message.parent)) == ("b", {"msg_id": "b"})


@pytest.mark.parametrize(
    "content",
    [{"target_name": COMM_TARGET}, {"comm_id": f"{ID_PREFIX}1"}, {"transient": {"display_id": f"{ID_PREFIX}1"}}],
)
def test_who_speaks_for_us_is_told(content: Json) -> None:
    assert rules.is_forged(content)
    assert not rules.is_forged(dict.fromkeys(content, "other"))


def test_our_type_is_dropped_at_every_depth() -> None:
    content = {"data": {"text/plain": "x", MIME.upper(): 1}, "list": [{"deep": [{MIME: 1, "kept": 2}]}]}
    rules.drop_our_mime(content, json.dumps(content).encode())
    assert content == {"data": {"text/plain": "x"}, "list": [{"deep": [{"kept": 2}]}]}


@pytest.mark.parametrize("before", range(rules._STEP - len(MIME) - 30, rules._STEP + 3, 3))
@pytest.mark.parametrize("values", [0, rules._FEW])
def test_our_type_is_dropped_wherever_in_a_large_output_it_stands(before: int, values: int) -> None:
    data: Json = {"text/plain": "x" * before, MIME: 1, "text/html": "x" * rules._STEP, "application/json": [0] * values}
    rules.drop_our_mime({"data": data}, memoryview(json.dumps({"data": data}).encode()))
    assert MIME not in data


@pytest.mark.parametrize("letter", range(len(MIME)))
def test_our_type_is_dropped_however_its_letters_are_written(letter: int) -> None:
    written = f"{MIME[:letter]}\\u{ord(MIME[letter]):04X}{MIME[letter + 1 :]}"
    part = f'{{"data": {{"{written}": 1, "text/plain": "x"}}}}'.encode()
    content = json.loads(part)
    assert MIME in content["data"]
    rules.drop_our_mime(content, part)
    assert content == {"data": {"text/plain": "x"}}


def test_what_is_in_no_table_does_not_pass() -> None:
    for channel, table in rules.FROM_KERNEL.items():
        for msg_type in {name for each in rules.FROM_KERNEL.values() for name in each} | {"new_thing"}:
            message = Claimed(frames({**HEADER, "msg_type": msg_type}))
            if msg_type in table:
                assert rules.judge(channel, message) == table[msg_type]
            else:
                with pytest.raises(Unusable):
                    rules.judge(channel, message)

"""Answers to calls that a signal took away: who has them, and who has not."""

from __future__ import annotations

from typing import Any

import pytest

from sandboxed_kernel.broker.calls import Call
from sandboxed_kernel.broker.outcomes import Answer
from sandboxed_kernel.broker.repeats import Repeats

CONNECT, SENDTO, INODE = 42, 44, 7
ADDRESS, ANOTHER = bytes(16), bytes(15) + b"\1"
REFUSED = Answer(error=111, inode=INODE)


def call(ident: int, *, said: bytes | None = ADDRESS, **changed: Any) -> Call:
    first: dict[str, Any] = {"tid": 100, "nr": CONNECT, "args": (3, 0x1000, 16, 0, 0, 0)}
    made = Call(ident, **{**first, **changed})
    made.copied = said
    return made


@pytest.fixture
def repeats() -> Repeats:
    return Repeats(once={CONNECT})


@pytest.mark.parametrize("other", [{"tid": 101}, {"nr": SENDTO}, {"said": ANOTHER}])
def test_what_nobody_heard_is_for_no_other_call(repeats: Repeats, other: dict[str, Any]) -> None:
    repeats.answered(call(1), REFUSED, delivered=False)
    assert repeats.find(call(2, **other), INODE) is None


def test_nor_for_another_socket(repeats: Repeats) -> None:
    repeats.answered(call(1), REFUSED, delivered=False)
    assert repeats.find(call(2), INODE + 1) is None


def test_the_repeat_may_have_its_address_elsewhere(repeats: Repeats) -> None:
    repeats.answered(call(1), REFUSED, delivered=False)
    assert repeats.find(call(2, args=(4, 0x2000, 16, 9, 9, 9)), INODE) == REFUSED
    assert repeats.find(call(3), INODE) is None, "once"


def test_a_success_that_linux_lost_is_given_again_and_a_failure_is_tried_again(repeats: Repeats) -> None:
    repeats.answered(call(1), Answer(inode=INODE), delivered=True)
    assert repeats.find(call(2), INODE) == Answer(inode=INODE)
    repeats.answered(call(3), REFUSED, delivered=True)
    assert repeats.find(call(4), INODE) is None


def test_what_may_succeed_twice_is_done_twice(repeats: Repeats) -> None:
    repeats.answered(call(1, nr=SENDTO, said=b""), Answer(10, inode=INODE), delivered=True)
    assert repeats.find(call(2, nr=SENDTO, said=b""), INODE) is None


def test_what_comes_after_an_answer_is_not_done_for_the_repeat(repeats: Repeats) -> None:
    repeats.answered(call(1), Answer(inode=INODE, after=list), delivered=False)
    assert repeats.find(call(2), INODE) == Answer(inode=INODE)


def test_the_answer_of_a_call_without_anything_to_name_it_is_not_kept(repeats: Repeats) -> None:
    repeats.answered(call(1), Answer(error=111), delivered=False)
    assert repeats.find(call(2), 0) is None

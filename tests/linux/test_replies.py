"""The broker's answers to calls that a signal took away, with a listener that says when."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.linux.seccomp import Gone, Listener, Notification

CONNECT, SENDTO, INODE = 42, 44, 7
ADDRESS, ANOTHER = bytes(16), bytes(15) + b"\1"


@dataclass
class Fake:
    answered: list[tuple[int, int, int]] = field(default_factory=list)
    gone: bool = False

    def answer(self, ident: int, value: int, error: int) -> None:
        if self.gone:
            raise Gone
        self.answered.append((ident, value, error))


def call(ident: int, **changed: Any) -> Notification:
    first: dict[str, Any] = {"tid": 100, "nr": CONNECT, "args": (3, 0x1000, 16, 0, 0, 0), "said": ADDRESS}
    return Notification(ident, **{**first, **changed})


def replies() -> tuple[Replies, Fake]:
    fake = Fake()
    return Replies(cast(Listener, fake), once={CONNECT}), fake


def test_what_nobody_heard_is_told_to_the_repeat_and_to_no_other_call() -> None:
    others: list[dict[str, Any]] = [{"tid": 101}, {"nr": SENDTO}, {"said": ANOTHER}]
    for other in others:
        told, fake = replies()
        fake.gone = True
        assert not told.answer(call(1), error=111, inode=INODE)
        fake.gone = False
        assert not told.repeat(call(2, **other), INODE)
        assert fake.answered == []
    told, fake = replies()
    fake.gone = True
    told.answer(call(1), error=111, inode=INODE)
    fake.gone = False
    assert not told.repeat(call(2), INODE + 1)


def test_the_repeat_may_have_its_address_elsewhere() -> None:
    told, fake = replies()
    fake.gone = True
    told.answer(call(1), error=111, inode=INODE)
    fake.gone = False
    assert told.repeat(call(2, args=(4, 0x2000, 16, 9, 9, 9)), INODE)
    assert fake.answered == [(2, 0, 111)]
    assert not told.repeat(call(3), INODE), "told once"


def test_a_success_that_linux_lost_is_told_again_and_a_failure_is_tried_again() -> None:
    told, fake = replies()
    assert told.answer(call(1), inode=INODE)
    assert told.repeat(call(2), INODE)
    assert fake.answered == [(1, 0, 0), (2, 0, 0)]
    assert not told.repeat(call(3, said=ANOTHER), INODE)
    told.answer(call(3, said=ANOTHER), error=111, inode=INODE)
    assert not told.repeat(call(4, said=ANOTHER), INODE)


def test_what_may_succeed_twice_is_done_twice() -> None:
    told, _fake = replies()
    told.answer(call(1, nr=SENDTO, said=b""), 10, inode=INODE)
    assert not told.repeat(call(2, nr=SENDTO, said=b""), INODE)

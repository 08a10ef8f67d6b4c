"""What is written aside is written in its order; a place that takes nothing keeps nobody waiting."""

from __future__ import annotations

import threading
import time

import pytest

from sandboxed_kernel.broker import aside
from sandboxed_kernel.broker.aside import Aside
from tests.support.servers import wait_until


def test_it_is_done_in_its_order_and_waited_for() -> None:
    done: list[int] = []
    writer = Aside()
    for number in range(1000):
        writer.do(lambda number=number: done.append(number))  # type: ignore[misc]
    writer.finish(5.0)
    assert done == list(range(1000))
    assert writer.lost == 0


def test_beyond_a_bound_it_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "_MAX_QUEUED", 10)
    stuck, begun, done = threading.Event(), threading.Event(), list[int]()
    writer = Aside()

    def wait() -> None:
        begun.set()
        stuck.wait()

    writer.do(wait)
    wait_until(begun.is_set, "the first")
    before = time.monotonic()
    for number in range(25):
        writer.do(lambda number=number: done.append(number))  # type: ignore[misc]
    writer.finish(0.05)
    assert time.monotonic() - before < 5
    assert writer.lost == 15
    stuck.set()
    wait_until(lambda: done == list(range(10)), "what was kept")

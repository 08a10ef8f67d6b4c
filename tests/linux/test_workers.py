"""The broker's threads: whatever keeps one of them in Linux, the others go on, and nothing is lost or out of order."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from sandboxed_kernel.broker import process, workers
from sandboxed_kernel.broker.calls import Call
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.errors import Bug
from tests.support.servers import wait_until

WHERE = (0, 0, 0, 0, 0, 0)


class Machine:
    """Calls come from a queue. The thread 103 is one of process 100; a call whose number is in ``frozen`` waits."""

    def __init__(self) -> None:
        self.queue: queue.SimpleQueue[Call | None] = queue.SimpleQueue()
        self.handled: list[tuple[int, int]] = []  # (thread inside, number of the call)
        self.by: dict[int, str] = {}  # number of the call -> name of our thread
        self.frozen: dict[int, threading.Event] = {}
        self.quiet = True  # nobody else takes the lock
        self.workers = Workers(threading.Lock())
        with self.workers.lock:
            self.workers.start(self.queue.get, self.handle)

    def handle(self, call: Call) -> None:
        waiting = self.frozen.get(call.nr)
        self.workers.may_wait(waiting.wait if waiting is not None else lambda: None)
        self.by[call.nr] = threading.current_thread().name
        self.handled.append((call.tid, call.nr))

    def call(self, tid: int, *numbers: int) -> None:
        for number in numbers:
            self.queue.put(Call(number, tid, number, WHERE, when=time.monotonic()))

    def freeze(self, tid: int, number: int) -> threading.Event:
        self.frozen[number] = threading.Event()
        self.call(tid, number)
        return self.frozen[number]

    def post(self, job: Callable[..., object], *arguments: object) -> None:
        self.quiet = False
        with self.workers.lock:
            self.workers.post(job, *arguments)

    def wait_for(self, *expected: tuple[int, int]) -> None:
        wait_until(lambda: set(expected) <= set(self.handled), f"{expected}, beside {self.handled}")


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    made, locked = Machine(), list[bool]()

    def process_of(tid: int) -> int:
        lock = made.workers.lock  # which the standby takes for microseconds
        if lock.locked():
            time.sleep(0.005)
        locked.append(made.quiet and lock.locked())
        return tid // 100 * 100

    monkeypatch.setattr(process, "process_of", process_of)
    yield made
    assert not any(locked), "a folder of /proc was looked at with the lock"
    for frozen in made.frozen.values():
        frozen.set()
    made.queue.put(None)


def test_calls_are_handled_in_their_order_by_one_thread(machine: Machine) -> None:
    machine.call(100, *range(100))
    machine.wait_for((100, 99))
    assert [number for _, number in machine.handled] == list(range(100))
    assert len(set(machine.by.values())) == 1


def test_another_thread_takes_over_from_each_that_waits(machine: Machine) -> None:
    for pid in range(100, 1100, 100):
        machine.freeze(pid, pid)
    machine.call(2000, 1)
    machine.wait_for((2000, 1))
    assert machine.handled == [(2000, 1)]


def test_the_calls_of_a_process_wait_behind_its_own_and_keep_their_order(machine: Machine) -> None:
    frozen = machine.freeze(100, 1)
    machine.call(103, 2, 3)
    machine.call(200, 4)
    machine.call(107, 5)
    machine.call(200, 6)
    machine.wait_for((200, 6))
    assert machine.handled == [(200, 4), (200, 6)]
    threads = machine.workers.threads
    frozen.set()
    machine.wait_for((107, 5))
    assert machine.handled[2:] == [(100, 1), (103, 2), (103, 3), (107, 5)]
    wait_until(lambda: machine.workers.threads == threads - 1, "the end of the thread that waited")


def test_a_process_that_was_slow_holds_up_nobody_for_a_while(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen = machine.freeze(100, 1)
    machine.call(200, 2)
    machine.wait_for((200, 2))
    time.sleep(0.05)
    frozen.set()
    machine.wait_for((100, 1))
    machine.call(100, 3)
    machine.call(200, 4)
    machine.wait_for((100, 3), (200, 4))
    assert machine.by[2] == machine.by[4] != machine.by[3]
    monkeypatch.setattr(workers, "_SLOW", 0.0)
    machine.freeze(300, 5)
    machine.call(400, 6)
    machine.wait_for((400, 6))
    time.sleep(0.05)
    machine.frozen[5].set()
    machine.wait_for((300, 5))
    machine.call(300, 7)
    machine.call(400, 8)
    machine.wait_for((300, 7), (400, 8))
    assert machine.by[7] == machine.by[8]


def test_with_all_threads_waiting_calls_wait_too_and_none_is_lost(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "MAX_THREADS", 6)
    for pid in range(100, 1100, 100):
        machine.freeze(pid, pid)
    machine.call(2000, 1)
    time.sleep(0.3)
    assert machine.handled == []
    assert machine.workers.threads == 6
    for frozen in machine.frozen.values():
        frozen.set()
    machine.wait_for((2000, 1), *[(pid, pid) for pid in range(100, 1100, 100)])


def test_no_thread_to_be_had_is_no_end(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> threading.Thread:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading, "Thread", none)
    frozen = machine.freeze(100, 1)
    machine.call(200, 2)
    time.sleep(0.1)
    assert machine.handled == []
    done: list[int] = []
    machine.post(done.append, 1)
    wait_until(lambda: done, "the job")  # one thread for jobs is always there
    frozen.set()
    machine.wait_for((100, 1), (200, 2))


def test_jobs_are_done_whatever_one_of_them_raises(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    done: list[int] = []

    def job(number: int) -> None:
        if number % 2:
            raise ValueError(number)
        done.append(number)

    for number in range(50):
        machine.post(job, number)
    wait_until(lambda: len(done) == 25, "all jobs")
    assert capsys.readouterr().err.count("Traceback") == 10


def test_a_job_that_waits_keeps_no_other(machine: Machine) -> None:
    forever, done = threading.Event(), list[int]()

    def job(wait: Callable[[], object], number: int) -> None:
        machine.workers.may_wait(wait)
        done.append(number)

    for number in range(5):
        machine.post(job, forever.wait, number)
    machine.post(job, lambda: None, 9)
    wait_until(lambda: done == [9], "the last one")
    forever.set()
    wait_until(lambda: len(done) == 6, "all of them")


def test_a_thread_with_other_rules_starts_none_of_ours(machine: Machine) -> None:
    said: list[str] = []

    def foreign() -> None:
        try:
            machine.post(lambda: None)
        except Bug as bug:
            said.append(str(bug))

    thread = threading.Thread(target=foreign)
    thread.start()
    thread.join()
    assert "another kind" in said[0]


def test_the_main_thread_cannot_wait(machine: Machine) -> None:
    with machine.workers.lock, pytest.raises(Bug, match="main thread"):
        machine.workers.may_wait(time.sleep, 0.0)


def test_it_ends_where_nobody_is_left_to_call(machine: Machine) -> None:
    threads = machine.workers.threads
    machine.queue.put(None)
    wait_until(lambda: machine.workers.threads == threads - 1, "the end of the leader")

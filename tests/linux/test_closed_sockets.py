"""What is closed is found by a bounded number of looks, however many sockets, processes and threads the sandbox has."""

from __future__ import annotations

import errno
import math
import os
import socket
import threading
from collections.abc import Iterator

import pytest

from sandboxed_kernel.broker import sockets
from sandboxed_kernel.broker.decisions import CreateSocket
from sandboxed_kernel.broker.sockets import Processes, Reference, Sockets, device_of_sockets
from sandboxed_kernel.linux.processes import tables_of_descendants
from tests.support.directly import directly

TCP = CreateSocket(socket.AF_INET, socket.SOCK_STREAM, 0, non_blocking=False, close_on_exec=True)


class Counted:
    """A sandbox: what each process has open, how many threads each has, and how often it was looked at."""

    def __init__(self, processes: int = 1, threads: int = 0) -> None:
        self.started, self.gone = [0.0] * processes, set[int]()
        self.open: list[dict[int, int]] = [{} for _ in range(processes)]  # number -> inode
        self.threads, self.looks = threads, 0

    def has(self, tid: int, number: int, inode: int) -> bool:
        self.looks += 1
        return 1 <= tid <= len(self.open) and self.open[tid - 1].get(number) == inode

    def is_there(self, tid: int) -> bool:
        self.looks += 1
        return tid not in self.gone

    def walk(self) -> Iterator[tuple[int, float] | None]:
        for index, started in enumerate(self.started):
            for step in ((index + 1, started), *[None] * (1 + self.threads)):
                self.looks += 1
                yield step


def table_of(holders: Counted) -> Sockets:
    return Sockets(holders, device_of_sockets(), directly, directly)


def create(table: Sockets, holders: Counted, tid: int = 1, number: int | None = None) -> Reference:
    reference = table.create(TCP)
    number = 3 + len(holders.open[tid - 1]) if number is None else number
    table.keep(reference)
    table.handed_over(reference, tid, number)
    holders.open[tid - 1][number] = reference.inode
    return reference


def close_all(table: Sockets) -> None:
    for reference in list(table._by_inode.values()):
        table.forget(reference)()


def test_the_table_stays_small_where_sockets_are_closed() -> None:
    holders = Counted(processes=50)
    table = table_of(holders)
    kept = [create(table, holders) for _ in range(20)]
    for _ in range(2000):
        create(table, holders, number=500)
        del holders.open[0][500]
    assert len(table) < 200
    assert all(table.find(table.device, one.inode) is one for one in kept)
    assert holders.looks < 2000 * (4 + 100 / 16)
    close_all(table)


@pytest.mark.parametrize(("processes", "threads"), [(1, 0), (1, 20_000), (1000, 0), (1000, 20)])
def test_no_step_looks_further_than_it_may(processes: int, threads: int) -> None:
    holders = Counted(processes, threads)
    table = table_of(holders)
    for index in range(600):
        before = holders.looks
        create(table, holders, tid=1 + index % processes)
        assert holders.looks - before <= sockets._MAX_LOOKS + 4 * sockets._LOOKED_AT
        if index % 2:  # half of them are closed, so that they are looked for everywhere
            holders.open[index % processes].popitem()
    assert holders.looks < 600 * (4 + sockets._NEW_FOR_LOOKS) + sockets._MAX_LOOKS
    close_all(table)


def test_a_copy_that_fork_made_is_found() -> None:
    holders = Counted(processes=3)
    table = table_of(holders)
    reference = create(table, holders)
    holders.open[2], holders.started[2] = dict(holders.open[0]), math.inf
    holders.open[0].clear()
    reference.port = 5000
    assert not table.free_port(5000)
    assert reference.tid == 3
    holders.open[2].clear()
    assert table.free_port(5000)
    assert len(table) == 0


def test_a_thread_that_has_ended_leaves_its_sockets_to_its_process() -> None:
    holders = Counted(processes=2)
    table = table_of(holders)
    reference = create(table, holders, tid=2)
    reference.port, reference.tid = 5000, 77
    holders.gone.add(77)
    assert not table.free_port(5000)
    assert reference.tid == 2
    holders.open[1].clear()
    assert table.free_port(5000)


def test_only_the_port_that_is_asked_for_is_freed() -> None:
    holders = Counted()
    table = table_of(holders)
    for port in (5000, 5001):
        create(table, holders).port = port
    holders.open[0].clear()
    assert table.free_port(5000)
    assert len(table) == 1
    close_all(table)


def test_a_full_table_says_so_and_takes_more_once_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sockets, "_MAX_REFERENCES", 100)
    holders = Counted(processes=2, threads=10_000)  # more than can be looked at
    table = table_of(holders)
    for _ in range(100):
        create(table, holders)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        table.create(TCP)
    holders.open[0].clear()
    for _ in range(30):
        create(table, holders)
    assert len(table) < 100
    close_all(table)


def test_what_another_process_has_open_is_seen() -> None:
    with socket.socket() as sock:
        inode = os.fstat(sock.fileno()).st_ino
        os.set_inheritable(sock.fileno(), True)
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:  # the first thread ends, another goes on
            os.close(writing)
            threading.Thread(target=lambda: (os.read(reading, 1), os._exit(0))).start()
            import ctypes

            ctypes.CDLL(None).pthread_exit(None)
        os.close(reading)
        try:
            found = Processes(os.getpid())
            seen: list[int] = []
            for _ in range(1000):
                seen = [step[0] for step in found.walk() if step and found.has(step[0], sock.fileno(), inode)]
                if seen and seen[0] != pid:
                    break
            assert seen
            assert seen[0] != pid, "the first thread has not ended"
            assert not found.has(os.getpid(), sock.fileno() + 1, inode)
            assert list(tables_of_descendants(pid)) == [None, None]  # of the two threads
        finally:
            os.close(writing)
            os.waitpid(pid, 0)

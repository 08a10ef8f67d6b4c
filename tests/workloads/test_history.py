"""IPython's history: what a plain kernel says of this session's inputs, the sandboxed one says too, database or not."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import kernels
from tests.support.kernels import PLAIN, REAL, Kernel, Message
from tests.support.workloads import Both, sandboxed, text_of

LOADED = "import sys, threading; ('sqlite3' in sys.modules, any('History' in t.name for t in threading.enumerate()))"
CELLS = ("a = 1", "a + 1", "%time a + 2", "!echo three", "print('a', In[1], _i, sep='|')")

FROM_MEMORY = ("%history", "%history 1-3", "%history -t -o", "%rerun 5", "%macro again 2")

# Each asks for the database of a session whose inputs came before there was one.
QUESTIONS = {
    "tail": {"hist_access_type": "tail", "n": 4},
    "search": {"hist_access_type": "search", "pattern": "*a*", "n": 10},
    "session": {"hist_access_type": "range", "session": 1, "start": 1, "stop": 4},
}
FROM_DATABASE = (
    "%history -l 3", "%history -p -o -u -g a", "%rerun -g print", "%recall 2",
    "get_ipython().history_manager.db.execute('select * from history where line < 6').fetchall()",
    "m = get_ipython().history_manager; m.enabled, m.session_number, m.get_session_info()[0], len(list(m.search()))",
    "get_ipython().reset(); get_ipython().history_manager.session_number",
)  # fmt: skip


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Both]:
    """A plain kernel with an IPython folder that nobody had before, as the sandboxed one has; a few cells."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    policy = getattr(request, "param", "")
    for name in ("plain", "inside"):
        (tmp_path / name).mkdir()
    with kernels.running(PLAIN, tmp_path / "plain") as plain, sandboxed(tmp_path / "inside", policy) as inside:
        for cell in CELLS:
            for kernel in (plain, inside):
                assert kernel.run(cell).status == "ok"
        yield Both(plain, inside)


def asked(kernel: Kernel, question: Message) -> object:
    reply = kernel.request("shell", "history_request", {"output": False, "raw": True, **question})
    return reply["content"]["history"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_client_is_told_what_a_plain_kernel_tells(fresh: Both, name: str) -> None:
    plain = asked(fresh.plain, QUESTIONS[name])
    assert plain, "nothing was compared"
    assert asked(fresh.inside, QUESTIONS[name]) == plain
    fresh.run("'one more'")  # which is in it now
    assert asked(fresh.inside, QUESTIONS[name]) == asked(fresh.plain, QUESTIONS[name])


@pytest.mark.parametrize("cell", FROM_DATABASE)
def test_a_cell_is_told_what_it_is_told_outside(fresh: Both, cell: str) -> None:
    fresh.run(cell)
    fresh.run("%history -g -n")


def test_it_can_be_switched_off_before_there_is_one(fresh: Both) -> None:
    fresh.run("m = get_ipython().history_manager; m.enabled = False; m.enabled, list(m.search('!echo*'))")


@pytest.mark.parametrize("fresh", ["[home]\nkeep = false"], indirect=True)
def test_a_session_that_nobody_reads_later_needs_no_database(fresh: Both) -> None:
    for cell in FROM_MEMORY:
        fresh.run(cell)
    assert text_of(fresh.plain.run(LOADED)) == "(True, True)"
    assert text_of(fresh.inside.run(LOADED)) == "(False, False)"


def test_forked_children_end_as_outside(fresh: Both) -> None:
    fork = "import multiprocessing as m; m.get_context('fork').Pool(2).map(abs, [-1, 2])"
    fresh.run(fork)
    fresh.run("%history -g fork")
    fresh.run(fork)
    fresh.run("%history -g fork")


def test_a_file_that_somebody_chose_has_every_input(tmp_path: Path) -> None:
    """It may be one that outlives the kernel."""
    with kernels.running([*REAL, "--HistoryManager.hist_file=chosen.sqlite"], tmp_path) as kernel:
        assert text_of(kernel.run("'kept'")) == "'kept'"
        assert kernel.run("exit").status == "ok"
        assert kernel.exit_code() == 0
    with closing(sqlite3.connect(tmp_path / "notebook/chosen.sqlite")) as database:
        assert ("'kept'",) in database.execute("select source from history").fetchall()

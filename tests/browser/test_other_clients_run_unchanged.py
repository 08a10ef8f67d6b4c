"""`jupyter console` and papermill with the sandboxed kernel, as they are on PyPI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pexpect

from tests.support.lab import DEADLINE, environment, install_kernels

CALL = "import socket; socket.getaddrinfo('collector.example.com', 443)"


def test_the_console_shows_the_notice_as_text(tmp_path: Path) -> None:
    env = environment(tmp_path) | {"TERM": "dumb"}
    install_kernels(tmp_path, {"sandboxed": ""}, env)
    (tmp_path / "notebooks").mkdir()
    arguments = ["-m", "jupyter_console", "--kernel", "sandboxed", "--simple-prompt"]
    console = pexpect.spawn(
        sys.executable, arguments, env=env, cwd=str(tmp_path / "notebooks"), timeout=DEADLINE, encoding="utf-8"
    )
    try:
        console.expect(r"In \[1\]:")
        console.sendline("6 * 7")
        console.expect(r"Out\[1\]:.*42")
        console.sendline(CALL)
        console.expect(r"\[sandbox\] the name collector\.example\.com was not resolved")
        console.expect("gaierror")
        console.sendline("exit")
        console.expect(pexpect.EOF)
    finally:
        console.close(force=True)


def test_papermill_writes_the_notice_into_the_notebook(tmp_path: Path) -> None:
    env = environment(tmp_path)
    install_kernels(tmp_path, {"sandboxed": ""}, env)
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cell: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    parameters = {**cell, "id": "a", "source": "number = 1", "metadata": {"tags": ["parameters"]}}
    code = {**cell, "id": "b", "source": f"print(number * 7)\ntry: {CALL}\nexcept OSError as error: print(error)"}
    spec = {"kernelspec": {"name": "sandboxed", "display_name": "sandboxed", "language": "python"}}
    notebook = {"cells": [parameters, code], "metadata": spec, "nbformat": 4, "nbformat_minor": 5}
    (folder / "in.ipynb").write_text(json.dumps(notebook))
    command = [sys.executable, "-m", "papermill", "in.ipynb", "out.ipynb", "-p", "number", "6"]
    subprocess.run(command, env=env, cwd=folder, check=True, capture_output=True, timeout=DEADLINE)
    written = json.loads((folder / "out.ipynb").read_text())
    outputs = json.dumps(written["cells"][-1]["outputs"])
    assert "42\\n" in outputs
    assert "[sandbox] the name collector.example.com was not resolved" in outputs

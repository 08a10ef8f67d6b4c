"""`jupyter console` and papermill with the sandboxed kernel, as they are on PyPI."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pexpect

from tests.support.kernels import REAL, running
from tests.support.lab import DEADLINE, environment, install_kernels

CALL = "import socket; socket.getaddrinfo('collector.example.com', 443)"

# The console's configuration file. The console itself asks before its subscription to iopub has arrived at the kernel,
# and then waits for the outputs that it missed, for ever. A person reads the prompt first; this prompt comes after the
# kernel's first word on iopub, its welcome to the subscription (JEP 65) at the latest.
SUBSCRIBED = f"""
from jupyter_console.ptshell import ZMQTerminalInteractiveShell as Shell

show_prompt = Shell.mainloop

def mainloop(self):
    self.client.get_iopub_msg(timeout={DEADLINE})
    show_prompt(self)

Shell.mainloop = mainloop
"""


@contextmanager
def console(folder: Path, env: dict[str, str], *arguments: str) -> Iterator[Any]:
    (Path(env["JUPYTER_CONFIG_DIR"]) / "jupyter_console_config.py").write_text(SUBSCRIBED)
    command = ["-m", "jupyter_console", *arguments, "--simple-prompt"]
    child = pexpect.spawn(
        sys.executable, command, env=env | {"TERM": "dumb"}, cwd=str(folder), timeout=DEADLINE, encoding="utf-8"
    )
    try:
        child.expect(r"In \[\d+\]:")
        yield child
        child.sendline("exit(keep_kernel=True)")  # one that the console has started it ends itself
        child.expect(pexpect.EOF)
    finally:
        child.close(force=True)


def check_notice(child: Any) -> None:
    child.sendline("6 * 7")
    child.expect(r"Out\[\d+\]:.*42")
    child.sendline(CALL)
    child.expect(r"\[sandbox\] the name collector\.example\.com was not resolved")
    child.expect("gaierror")


def test_the_console_shows_the_notice_as_text(tmp_path: Path) -> None:
    env = environment(tmp_path)
    install_kernels(tmp_path, {"sandboxed": ""}, env)
    (tmp_path / "notebooks").mkdir()
    with console(tmp_path / "notebooks", env, "--kernel", "sandboxed") as child:
        check_notice(child)


def test_a_console_joins_a_kernel_that_runs_and_leaves_it(tmp_path: Path) -> None:
    env = environment(tmp_path)
    with running(REAL, tmp_path) as kernel:
        kernel.run("left = 'by the first client'")
        with console(tmp_path, env, "--existing", kernel.manager.connection_file) as child:
            child.sendline("left")
            child.expect("by the first client")
            check_notice(child)
        assert kernel.run("left").displays[0]["content"]["data"]["text/plain"] == "'by the first client'"


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

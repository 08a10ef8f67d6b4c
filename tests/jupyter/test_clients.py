"""Clients find a plain kernel: Jupyter's own test suite, nbclient, the asynchronous client, interrupts and sizes."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import unittest
from pathlib import Path
from typing import Any

import jupyter_kernel_test
import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from sandboxed_kernel import kernelspec
from tests.support import kernels
from tests.support.kernels import running
from tests.support.silent import silent_listener

pytestmark = pytest.mark.container

PNG = "from IPython.display import Image, display; import base64; display(Image(base64.b64decode({!r})))".format(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII="
)


def suite_for(name: str) -> type[unittest.TestCase]:
    """jupyter_kernel_test with samples for all that it can ask of a kernel; ipykernel's own are fewer."""
    samples: dict[str, Any] = {
        "kernel_name": name,
        "language_name": "python",
        "file_extension": ".py",
        "code_hello_world": "print('hello, world')",
        "code_stderr": "import sys; print('test', file=sys.stderr)",
        "completion_samples": [{"text": "zi", "matches": {"zip"}}],
        "complete_code_samples": ["1", "print('x')", "def f(x):\n  return x\n\n"],
        "incomplete_code_samples": ["print('''hello", "def f(x):\n  x*2"],
        "invalid_code_samples": ["import = 7q"],
        "code_page_something": "zip?",
        "code_generate_error": "raise ValueError",
        "code_execute_result": [{"code": "6*7", "result": "42"}],
        "code_display_data": [{"code": PNG, "mime": "image/png"}],
        "code_history_pattern": "1?2*",
        "supported_history_operations": ("tail",),
        "code_inspect_sample": "zip",
        "code_clear_output": "from IPython.display import clear_output; clear_output()",
    }
    return type("Suite", (jupyter_kernel_test.KernelTests,), samples)


def welcome_for(name: str) -> type[unittest.TestCase]:
    tests = {"kernel_name": name, "support_iopub_welcome": True}
    return type("Welcome", (jupyter_kernel_test.IopubWelcomeTests,), tests)


def outcome_of(name: str) -> dict[str, Any]:
    loader = unittest.defaultTestLoader
    suite = unittest.TestSuite(loader.loadTestsFromTestCase(case) for case in (suite_for(name), welcome_for(name)))
    result = unittest.TestResult()
    suite.run(result)
    bad = [f"{test.id()}: {text[-200:]}" for test, text in (*result.failures, *result.errors)]
    return {"run": result.testsRun, "skipped": [str(test) for test, _ in result.skipped], "bad": bad}


def outcome_when_it_started(name: str) -> dict[str, Any]:
    """jupyter_client chooses ports that others may take before the kernel does; with either kernel it then dies."""
    outcome = outcome_of(name)
    for _ in range(2):
        if "Kernel died before replying" not in str(outcome["bad"]):
            break
        outcome = outcome_of(name)
    return outcome


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the suite leaves its clients' sockets to the collector
def test_the_kernel_test_suite_of_jupyter_passes_as_with_a_plain_kernel(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = short_path / "notebook"
    workspace.mkdir()
    monkeypatch.chdir(workspace)
    monkeypatch.setenv("JUPYTER_PATH", str(short_path))
    monkeypatch.setenv("IPYTHONDIR", str(short_path / "ipython"))
    for name, command in (("a_plain_one", kernels.PLAIN), ("a_sandboxed_one", kernels.REAL)):
        folder = short_path / "kernels" / name
        folder.mkdir(parents=True)
        described = {"argv": command, "display_name": name, "language": "python", "interrupt_mode": "message"}
        (folder / "kernel.json").write_text(json.dumps(described))
    plain, sandboxed = outcome_when_it_started("a_plain_one"), outcome_when_it_started("a_sandboxed_one")
    assert (sandboxed["bad"], plain["bad"]) == ([], [])
    assert sandboxed["run"] == plain["run"] > 10
    assert len(sandboxed["skipped"]) == len(plain["skipped"])


def run_notebook(folder: Path, manager: AsyncKernelManager, *cells: str) -> Any:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in cells])
    workspace = folder / "notebook"
    workspace.mkdir(exist_ok=True)
    resources = {"metadata": {"path": str(workspace)}}
    NotebookClient(notebook, km=manager, timeout=60, resources=resources).execute(cleanup_kc=True)
    return notebook.cells


def manager_of(command: list[str]) -> AsyncKernelManager:
    manager = AsyncKernelManager(kernel_name="under test")
    manager._kernel_spec = kernels.spec(command)
    return manager


def test_nbclient_shows_a_pandas_table_as_a_plain_kernel_does(short_path: Path) -> None:
    code = "import pandas\npandas.DataFrame({'a': [1, 2], 'b': ['<x>', 'y']})"
    shown = [
        run_notebook(short_path, manager_of(command), code)[0].outputs[0].data
        for command in (kernels.PLAIN, kernels.REAL)
    ]
    assert shown[0]["text/plain"] == shown[1]["text/plain"]
    plain, sandboxed = (text["text/html"].replace(" ", "").replace("\n", "") for text in shown)
    table = plain[plain.index("<table") : plain.index("</table>")]
    assert table.replace(';"', '"') in sandboxed.replace(';"', '"')
    assert "Removed by the sandbox" not in sandboxed


def test_a_notebook_whose_kernel_died_in_the_last_cell_does_not_look_like_one_that_worked(short_path: Path) -> None:
    """Also where errors are allowed, as graders of notebooks do: the cell has an error output."""
    with pytest.raises(CellExecutionError, match="The kernel ended: its process ended with exit code 3"):
        run_notebook(short_path, manager_of(kernels.REAL), "import os; os._exit(3)")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import os; os._exit(3)")])
    manager, resources = manager_of(kernels.REAL), {"metadata": {"path": str(short_path)}}
    client = NotebookClient(notebook, km=manager, timeout=60, resources=resources, allow_errors=True)
    client.execute(cleanup_kc=True)
    assert [output.output_type for output in notebook.cells[0].outputs] == ["error"]
    assert "exit code 3" in notebook.cells[0].outputs[0].traceback[0]


def test_nbclient_fails_with_the_words_about_a_policy_that_cannot_be_used(short_path: Path) -> None:
    policy = short_path / "policy.toml"
    policy.write_text('[network]\nallow = ["pypi.org"]\n')
    command = [sys.executable, "-I", "-m", "sandboxed_kernel", "--policy", str(policy), "-f", "{connection_file}"]
    with pytest.raises(CellExecutionError) as caught:
        run_notebook(short_path, manager_of(command), "open('it-ran', 'w')")
    assert caught.value.ename == "PolicyError"
    assert "no port" in caught.value.evalue
    assert not (short_path / "notebook" / "it-ran").exists()


def test_the_asynchronous_client_runs_a_cell(short_path: Path) -> None:
    async def run() -> list[dict[str, Any]]:
        manager = manager_of(kernels.REAL)
        workspace = short_path / "notebook"
        workspace.mkdir()
        await manager.start_kernel(cwd=str(workspace))
        client = manager.client()
        client.start_channels()
        try:
            await client.wait_for_ready(timeout=kernels.DEADLINE)
            said: list[dict[str, Any]] = []
            await client.execute_interactive("print('hello')", timeout=kernels.DEADLINE, output_hook=said.append)
            return said
        finally:
            client.stop_channels()
            await manager.shutdown_kernel(now=True)

    said = asyncio.run(run())
    assert [message["content"]["text"] for message in said if message["msg_type"] == "stream"] == ["hello\n"]


# --- interrupts ------------------------------------------------------------------------------------------------------

INTERRUPTED = {
    "a loop": "print('ready', flush=True)\nwhile True: pass",
    "a program": "import subprocess\nprint('ready', flush=True)\nsubprocess.run(['sleep', '60'])",
    "a connection that waits": (
        "import socket\nprint('ready', flush=True)\nsocket.create_connection(('127.0.0.1', PORT), timeout=None)"
    ),
    "a connection with a time limit": (
        "import socket\nprint('ready', flush=True)\nsocket.create_connection(('127.0.0.1', PORT), timeout=60)"
    ),
    "a thread that is waited for": ("import threading\nprint('ready', flush=True)\nthreading.Event().wait(60)"),
}


def test_an_interrupt_ends_whatever_a_cell_waits_for(short_path: Path) -> None:
    with silent_listener() as (_, port):
        policy = short_path / "policy.toml"
        policy.write_text(f'[network]\nallow = ["127.0.0.1:{port}"]\n')
        command = [sys.executable, "-I", "-m", "sandboxed_kernel", "--policy", str(policy), "-f", "{connection_file}"]
        with running(command, short_path) as kernel:
            for what, code in INTERRUPTED.items():
                msg_id = kernel.begin(code.replace("PORT", str(port)))
                kernel.until_iopub(lambda m: m["msg_type"] == "stream" and "ready" in m["content"]["text"])
                # Until it waits. Python does not look for a signal between the connect() and the poll() of a connection
                # with a time limit: what comes there is a KeyboardInterrupt after that time (socketmodule.c).
                time.sleep(0.1)
                kernel.request("control", "interrupt_request", {})
                assert kernel.finish(msg_id).reply["content"].get("ename") == "KeyboardInterrupt", what
                assert kernel.run("6 * 7").status == "ok"


# --- sizes -----------------------------------------------------------------------------------------------------------

SIZE = 100 << 20


@pytest.mark.slow
def test_a_hundred_megabytes_go_out_and_in(short_path: Path) -> None:
    with running(kernels.REAL, short_path) as kernel:
        assert len(kernel.run(f"print('x' * {SIZE})").text) == SIZE + 1
        code = f"from comm import create_comm\nc = create_comm('t', data={{}}, buffers=[b'z' * {SIZE}])"
        (opened,) = kernel.run(code).of("comm_open")
        assert [len(buffer) for buffer in opened["buffers"]] == [SIZE]
        kernel.run(
            "def came(comm, message):\n    comm.on_msg(lambda m: print(len(m['buffers'][0]), flush=True))\n"
            "get_ipython().kernel.comm_manager.register_target('in', came)"
        )
        session, shell = kernel.client.session, kernel.client.shell_channel
        shell.send(session.msg("comm_open", {"comm_id": "c", "target_name": "in", "data": {}}))
        message = session.msg("comm_msg", {"comm_id": "c", "data": {}})
        session.send(shell.socket, message, buffers=[b"y" * SIZE])
        said = kernel.until_iopub(lambda m: m["msg_type"] == "stream")
        assert said[-1]["content"]["text"].strip() == str(SIZE)


def test_the_kernel_that_is_installed_is_the_one_under_test(short_path: Path) -> None:
    folder = kernelspec.install(policy_file=None, prefix=str(short_path))
    installed = json.loads(Path(folder, "kernel.json").read_text())
    assert installed["argv"][1:4] == kernels.REAL[1:4]
    assert installed["interrupt_mode"] == kernels.spec(kernels.REAL).interrupt_mode

"""However a kernel ends, the cell says why, the exit code says it too, and nothing is left behind."""

from __future__ import annotations

import os
import platform
import signal
from pathlib import Path

import pytest

from sandboxed_kernel.errors import HostError, PolicyError
from sandboxed_kernel.notices import channel as words
from tests.support import kernels
from tests.support.kernels import Kernel, running


def exists(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def kernel_pid(kernel: Kernel) -> int:
    return int(kernel.run("import os, sys; print(os.getpid())").text)


@pytest.mark.parametrize(
    ("code", "said", "exit_code"),
    [
        ("os._exit(3)", "exit code 3", 3),
        ("os.kill(os.getpid(), 9)", "SIGKILL", 137),
        ("os.kill(os.getpid(), 11)", "SIGSEGV", 139),
        ("os.kill(os.getpid(), 31)", "i386 or x32", 159),
        ("os.kill(os.getpid(), 34)", "signal 34", 162),
        pytest.param(
            "import ctypes; ctypes.CDLL(None).syscall(0x40000000 | 39)",  # getpid by x32's number
            "i386 or x32",
            159,
            marks=pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 is of this machine only"),
        ),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV", 139),
    ],
)
def test_a_kernel_that_dies_is_explained_in_its_cell(own_kernel: Kernel, code: str, said: str, exit_code: int) -> None:
    own_kernel.run("import os, sys")
    outcome = own_kernel.run(f"print('last words', flush=True); sys.stdout.flush()\n{code}")
    assert said in outcome.error
    assert outcome.of("error")[-1]["parent_header"]["msg_id"] == outcome.msg_id
    assert said in outcome.reply["content"]["evalue"]
    assert own_kernel.exit_code() == exit_code


def test_cells_in_the_queue_are_answered_too(own_kernel: Kernel) -> None:
    first = own_kernel.begin("import os, time\ninput_seen = True\ntime.sleep(1)\nos._exit(1)")
    second = own_kernel.begin("print('never')")
    assert own_kernel.finish(first).status == "error"
    assert own_kernel.finish(second).status == "aborted"


def test_a_cause_that_the_broker_knows_is_said(told_kernel: Kernel) -> None:
    assert told_kernel.broker is not None
    msg_id = told_kernel.begin("import time; time.sleep(60)")
    told_kernel.until_iopub(lambda m: m["msg_type"] == "execute_input")
    told_kernel.broker.say(words.Ended(9, "it crossed [limits] memory = 4 GiB"))
    outcome = told_kernel.finish(msg_id)
    assert "it crossed [limits] memory = 4 GiB" in outcome.error
    assert told_kernel.exit_code() == 137


def test_the_end_of_the_broker_is_explained_and_ends_the_relay(told_kernel: Kernel) -> None:
    assert told_kernel.broker is not None
    msg_id = told_kernel.begin("import time; time.sleep(60)")
    told_kernel.until_iopub(lambda m: m["msg_type"] == "execute_input")
    told_kernel.broker.vanish()
    assert "the process that supervises it is gone" in told_kernel.finish(msg_id).error
    assert told_kernel.exit_code() == 70


def test_sigterm_ends_everything(own_kernel: Kernel) -> None:
    inside = kernel_pid(own_kernel)
    os.kill(own_kernel.pid, signal.SIGTERM)
    assert own_kernel.exit_code() == 128 + signal.SIGTERM
    assert not exists(inside)


def test_shutdown_is_quick_and_clean(own_kernel: Kernel) -> None:
    inside = kernel_pid(own_kernel)
    reply = own_kernel.request("control", "shutdown_request", {"restart": False})
    assert reply["content"] == {"status": "ok", "restart": False}
    assert own_kernel.exit_code() == 0
    assert not exists(inside)


def test_a_kernel_that_does_not_heed_a_shutdown_is_ended(own_kernel: Kernel) -> None:
    inside = kernel_pid(own_kernel)
    os.kill(inside, signal.SIGSTOP)
    own_kernel.client.shutdown()
    own_kernel.exit_code()
    assert not exists(inside)


def test_a_restart_keeps_ports_and_forgets_variables(own_kernel: Kernel) -> None:
    own_kernel.run("x = 1")
    before = own_kernel.manager.get_connection_info()
    session = own_kernel.run("1").reply["header"]["session"]
    own_kernel.manager.restart_kernel()
    own_kernel.client.wait_for_ready(timeout=kernels.DEADLINE)
    assert own_kernel.manager.get_connection_info() == before
    outcome = own_kernel.run("x")
    assert outcome.reply["content"]["ename"] == "NameError"
    assert outcome.reply["header"]["session"] != session


def test_nothing_is_left_in_the_temporary_folder(short_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    temporary = short_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    with running(kernels.FAKE, short_path) as kernel:
        kernel.run("1")
        assert list(temporary.iterdir())
        kernel.client.shutdown()
        kernel.exit_code()
        assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("error", "name"), [(PolicyError, "PolicyError"), (HostError, "HostError")])
def test_a_kernel_that_could_not_be_started_says_so_in_every_cell(
    told_kernel: Kernel, error: type[PolicyError | HostError], name: str
) -> None:
    assert told_kernel.broker is not None
    told_kernel.broker.say(words.Failed("the reason, and what to do", error.exit_code))
    outcome = told_kernel.run("1")  # also what is sent before the relay hears of it gets an answer
    while outcome.status == "ok":
        outcome = told_kernel.run("1")
    assert outcome.reply["content"]["ename"] == name
    assert outcome.of("error")[0]["content"]["evalue"] == "the reason, and what to do"
    assert "Nothing was run: the reason, and what to do" in outcome.text
    told_kernel.client.shutdown()
    assert told_kernel.exit_code() == error.exit_code

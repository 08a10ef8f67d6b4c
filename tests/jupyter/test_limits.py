"""A kernel that crosses one of [limits] is told which in its cell; a kernel beside it, without limits, does not notice.

How memory and processes are kept differs between hosts (docs/policy.md); what is said here does not. tests/vm has the
same where a control group keeps them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import kernels
from tests.support.kernels import Kernel, running

SETTINGS = """[limits]
memory = "250 MB"
processes = 15
open_files = 200
cpu_seconds = 4
file_size = "1 MB"
"""


@pytest.fixture(scope="module")
def neighbour(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """Without limits: what each test does is possible there."""
    with running(kernels.REAL, tmp_path_factory.mktemp("k")) as kernel:
        kernel.run("kept = 42")
        yield kernel


@pytest.fixture
def limited(short_path: Path) -> Iterator[Kernel]:
    policy = short_path / "policy.toml"
    policy.write_text(SETTINGS)
    with running([*kernels.REAL, "--policy", str(policy)], short_path) as kernel:
        yield kernel


ENDING = {
    "memory": "held = bytearray(b'x') * 290_000_000; import time; time.sleep(2); print('done')",
    "processes": """
import os, time
pids = []
for _ in range(20):
    pid = os.fork()
    if pid == 0:
        time.sleep(2)
        os._exit(0)
    pids.append(pid)
for pid in pids: os.waitpid(pid, 0)
print("done")
""",
    "cpu_seconds": "import time\nwhile time.process_time() < 6: pass\nprint('done')",
}


@pytest.mark.parametrize("limit", ENDING)
def test_what_ends_the_kernel_is_said_in_its_cell(limited: Kernel, neighbour: Kernel, limit: str) -> None:
    assert neighbour.run(ENDING[limit]).text == "done\n"
    msg_id = neighbour.begin("import time; time.sleep(1.5); print(kept)")  # it runs while the other one is ended
    outcome = limited.run(ENDING[limit])
    assert f"[limits] {limit}" in outcome.error
    assert f"[limits] {limit}" in outcome.reply["content"]["evalue"]
    number = signal.SIGXCPU if limit == "cpu_seconds" else signal.SIGKILL
    assert limited.exit_code() == 128 + number
    assert neighbour.finish(msg_id).text == "42\n"
    assert neighbour.run("print(kept)").text == "42\n"


ERROR = {
    "open_files": "files = [open('/dev/null') for _ in range(300)]",
    "file_size": "open('big', 'wb').write(bytes(2_000_000))",
}
SAID = {"open_files": "Too many open files", "file_size": "File too large"}


@pytest.mark.parametrize("limit", ERROR)
def test_what_linux_refuses_is_an_error_in_its_cell_and_the_kernel_lives(
    limited: Kernel, neighbour: Kernel, limit: str
) -> None:
    assert neighbour.run(ERROR[limit]).status == "ok"
    outcome = limited.run(ERROR[limit])
    assert outcome.reply["content"]["ename"] == "OSError"
    assert SAID[limit] in outcome.reply["content"]["evalue"]
    assert limited.run("files = None; print('alive')").text == "alive\n"


def test_programs_that_cells_start_have_the_same_limits(limited: Kernel, neighbour: Kernel) -> None:
    """Processor time and the size of files are each process's own: the kernel goes on."""
    write = "!head -c 2000000 /dev/zero > big; echo ended with $?"
    assert neighbour.run(write).text.split() == ["ended", "with", "0"]
    assert "File too large" in limited.run(write).text
    spun = limited.run("!python3 -c 'while True: pass'; echo ended with $?").text
    assert f"ended with {128 + signal.SIGXCPU}" in spun

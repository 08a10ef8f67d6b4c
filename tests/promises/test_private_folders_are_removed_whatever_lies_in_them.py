"""The sandbox's home and temporary folder are gone afterwards, however deep, closed or oddly named what lies there."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.living import Living
from tests.support.servers import wait_until

LITTER = r"""
import os, signal
home, target = os.environ["HOME"], TARGET
here = os.open(home, os.O_DIRECTORY)
for level in range(300):
    os.mkdir("d" * 200, dir_fd=here)
    here = os.open("d" * 200, os.O_DIRECTORY, dir_fd=here)
os.close(os.open("deepest", os.O_CREAT, 0, dir_fd=here))
os.chdir(os.environ["TMPDIR"])
odd = [b"\n", b"\xff\xfe", b"n" * 255, b"-rf", b" ", b".removed-1", b".removed-2", b"\x1b]0;x\x07", "\u202e".encode()]
for name in odd:
    os.makedirs(name + b"/inner/.removed-1/.removed-2")
    open(name + b"/inner/file", "w").close()
for number, place in enumerate((target, target + "/kept", "/", "nowhere", ".")):
    if place != "/" or os.geteuid() != 0:  # no link leads to where its user may write, but in its own folders
        os.symlink(place, f"link {number}")
os.mkfifo("fifo")
os.makedirs("closed/inner"); open("closed/inner/file", "w").close()
os.chmod("closed/inner", 0); os.chmod("closed", 0)
for number in range(2000):
    open(f"file {number}", "w").close()
os.chmod(".", 0)
print(home, flush=True)
signal.pause()
"""

ENDS: dict[str, Callable[[Living], None]] = {
    "it ends by itself": lambda program: program.launcher.send_signal(signal.SIGTERM),
    "launcher killed": lambda program: program.launcher.kill(),
    "broker killed": lambda program: os.kill(program.broker, signal.SIGKILL),
}


@pytest.mark.parametrize("end", ENDS)
def test_private_folders_are_removed_whatever_lies_in_them(end: str, workspace: Path) -> None:
    target = workspace / "lasting"
    target.mkdir()
    (target / "kept").write_text("kept")
    with Living(LITTER.replace("TARGET", repr(str(target)), 1), workspace=workspace) as program:
        private = Path(program.line()).parent
        assert private.exists()
        ENDS[end](program)
        program.wait()
        wait_until(lambda: not private.exists(), "the removal of the private folders")
    assert (target / "kept").read_text() == "kept"

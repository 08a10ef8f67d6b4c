"""/dev/shm is open for files by exact name; its own mode and times stay as they are, also under its owner, root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.sandbox import attack, run_inside

CODE = """
import errno, json, os
told = []
for change in (
    lambda: os.utime("/dev/shm", (1, 1)),
    lambda: os.chmod("/dev/shm", os.stat("/dev/shm").st_mode & 0o7777),  # another one would disturb other programs
    lambda: os.setxattr("/dev/shm", "user.mine", b"1"),
):
    try:
        change()
        told.append("done")
    except OSError as error:
        told.append(errno.errorcode[error.errno])
print(json.dumps(told))
"""


@pytest.mark.root
def test_the_folder_of_shared_memory_stays_as_it_is(workspace: Path) -> None:
    folder = Path("/dev/shm")

    def seen() -> bool:
        changed = folder.stat().st_mtime == 1
        os.utime(folder)
        return changed

    allowed = """
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=10)
memory.buf[0] = 7
print(memory.buf[0])
memory.close()
memory.unlink()
"""
    assert run_inside(allowed, workspace=workspace).check().stdout == "7\n"
    told = attack(CODE, seen=seen, workspace=workspace).json()
    assert told == ["EPERM"] * 3

"""While a granted file and a link to one outside change places, no call is checked on one and carried out on the other.

renameat2(RENAME_EXCHANGE) is the fastest way; one process exchanges all the time, another makes the calls.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.support.sandbox import attack

CODE = """
import ctypes, errno, json, os, signal, sys
outside = {outside!r}
EXCHANGE, AT_FDCWD = 2, -100
libc = ctypes.CDLL(None, use_errno=True)

def make(name, kind):
    if not os.path.lexists(name):
        kind(name)

def plain(name):
    with open(name, "w") as file:
        file.write("mine")
    os.chmod(name, 0o600)

if not os.path.lexists("a"):
    plain("a")
    os.symlink(outside + "/file", "b")
    os.mkdir("c")
    plain("c/file")
    os.symlink(outside, "d")

parent = os.getpid()
exchanger = os.fork()
while exchanger == 0:
    libc.renameat2(AT_FDCWD, b"a", AT_FDCWD, b"b", EXCHANGE)
    libc.renameat2(AT_FDCWD, b"c", AT_FDCWD, b"d", EXCHANGE)
    if os.getppid() != parent:
        os._exit(0)

def append(path):
    with open(path, "a") as file:
        file.write("!")

def read(path):
    with open(path) as file:
        return file.read()

ACTS = {{
    "append": append,
    "truncate": lambda path: os.truncate(path, 0),
    "mode": lambda path: os.chmod(path, 0o666),
    "times": lambda path: os.utime(path, (1, 1)),
    "owner": lambda path: os.chown(path, os.getuid(), os.getgid()),
    "attribute": lambda path: os.setxattr(path, "user.raced", b"1"),
    "unlink": lambda path: path == "c/file" and os.unlink(path),
    "make": lambda path: path == "c/file" and os.mkdir(path + "-made"),
}}
told = {{name: {{}} for name in ACTS}}
secrets = 0
for number in range(150):
    for path in ("a", "c/file"):
        for name, act in ACTS.items():
            try:
                act(path)
                came = "done"
            except OSError as error:
                came = errno.errorcode[error.errno]
            told[name][came] = told[name].get(came, 0) + 1
        try:
            secrets += "s3cret" in read(path)
        except OSError:
            pass
    try:
        plain("c/file")
    except OSError:
        pass
os.kill(exchanger, signal.SIGKILL)
os.waitpid(exchanger, 0)
print(json.dumps([told, secrets]))
"""


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    return folder


def test_names_exchanged_in_a_race_open_nothing_outside(workspace: Path, outside: Path) -> None:
    file = outside / "file"

    def fill() -> None:
        shutil.rmtree(outside)
        outside.mkdir()
        file.write_text("s3cret")
        file.chmod(0o400)
        os.utime(file, (1_000_000_000, 1_000_000_000))

    def seen() -> object:
        """What became of the folder, which is then as it was: the next run finds it so again."""
        status = file.lstat() if file.exists() else None
        state = (
            sorted(os.listdir(outside)),
            status and (status.st_mode, status.st_mtime, status.st_size),
            os.listxattr(file) if status else None,
        )
        fill()
        return state

    fill()
    told, secrets = attack(CODE.format(outside=str(outside)), seen=seen, workspace=workspace).json()
    assert secrets == 0
    for name, came in told.items():
        assert "done" in came, f"{name} never met the own file: {came}"
        assert set(came) & {"EACCES", "EPERM"}, f"{name} never met the link: {came}"

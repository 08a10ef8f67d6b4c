"""bind() leaves a socket file in the writable folders and nowhere else, also while names are exchanged beneath it."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.sandbox import attack, run_inside

WAYS = """
import ctypes, errno, json, os, socket, sys, threading, time
outside, read_only = {outside!r}, {read_only!r}
told = {{}}

def bind(path):
    with socket.socket(socket.AF_UNIX) as s:
        try:
            s.bind(path)
        except OSError as error:
            return errno.errorcode.get(error.errno, str(error))
        return s.getsockname()

os.path.lexists("door") or os.symlink(outside, "door")
told["absolute"] = bind(outside + "/1")
told["dots"] = bind("../outside/2")
told["symbolic link"] = bind("door/3")
told["read grant"] = bind(read_only + "/4")
told["root of the process"] = bind("/proc/self/root" + outside + "/5")
folder = os.open(outside, os.O_PATH)
told["descriptor"] = bind(f"/proc/self/fd/{{folder}}/6")
before = os.getcwd()
os.chdir(outside)
told["from there"] = bind("7")
os.chdir(before)
"""

# A folder of the workspace and a link to the folder outside change places all the time; see renameat2(2).
RACE = """
EXCHANGE, AT_FDCWD = 2, -100
libc = ctypes.CDLL(None, use_errno=True)
if not os.path.lexists("here"):
    os.mkdir("here")
    os.symlink(outside, "there")
done = threading.Event()

def exchange():
    while not done.is_set():
        libc.renameat2(AT_FDCWD, b"here", AT_FDCWD, b"there", EXCHANGE)

thread = threading.Thread(target=exchange)
thread.start()
raced, number, end = set(), 0, time.monotonic() + 30
while number < 300 or (number < 3000 and not {{"bound", "EACCES"}} <= raced and time.monotonic() < end):
    one = bind(f"here/{{number}}-raced")
    raced.add("bound" if "/" in one else one)
    number += 1
done.set()
thread.join(20)
told["raced"] = sorted(raced)
print(json.dumps(told))
"""


def test_a_socket_is_bound_only_beneath_a_writable_grant(workspace: Path, tmp_path: Path) -> None:
    outside, read_only = tmp_path / "outside", tmp_path / "read"
    for folder in (outside, read_only):
        folder.mkdir()
    code = (WAYS + RACE).format(outside=str(outside), read_only=str(read_only))

    def seen() -> list[str]:
        """What was there appears again as a new file: a second run may bind the same names."""
        found = sorted(os.listdir(outside) + os.listdir(read_only))
        for folder in (outside, read_only):
            for name in os.listdir(folder):
                (folder / name).unlink()
        return found

    policy = f'[filesystem]\nread = ["{read_only}"]\nwrite = ["."]'
    allowed = run_inside(
        "import socket; s = socket.socket(socket.AF_UNIX); s.bind('mine'); print(s.getsockname())",
        workspace=workspace,
        policy=policy,
    )
    assert allowed.check().stdout == "mine\n"
    assert (workspace / "mine").is_socket()

    inside = attack(code, seen=seen, workspace=workspace, policy=policy)
    told = inside.json()
    raced = told.pop("raced")
    # The number means something else in the broker, which binds: nothing beneath which a socket could be made.
    assert told.pop("descriptor") in {"EACCES", "ENOTDIR", "ENOENT"}
    assert set(told.values()) == {"EACCES"}, told
    assert {"bound", "EACCES"} <= set(raced), "the exchange never met a bind: the race was not run"

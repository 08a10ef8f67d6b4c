"""When the sandbox ends its private folder is gone, whatever was left in it; no link led the removal outside."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.sandbox import run_inside

CODE = """
import json, os
outside = {outside!r}
for name in ("HOME", "TMPDIR", "XDG_RUNTIME_DIR"):
    folder = os.environ[name]
    os.symlink(outside, f"{{folder}}/folder")
    os.symlink(f"{{outside}}/kept", f"{{folder}}/file")
    if os.geteuid() != 0:  # no link leads to where its user may write, but in its own folders
        os.symlink("/", f"{{folder}}/everything")
    os.makedirs(f"{{folder}}/closed/in")
    open(f"{{folder}}/closed/in/file", "w").close()
    os.chmod(f"{{folder}}/closed/in", 0)
    os.chmod(f"{{folder}}/closed", 0)
    os.mkfifo(f"{{folder}}/fifo")
    os.mkdir(f"{{folder}}/not \\udcff text".encode("utf-8", "surrogateescape"))
    os.chdir(folder)
    for level in range(300):  # 30 KiB deep: no path reaches its end
        os.mkdir("d" * 100)
        os.chdir("d" * 100)
        if level == 30:
            os.symlink(outside, "deep")
os.chmod(os.environ["HOME"], 0)
# Somebody who goes on changing names while the end comes.
if os.fork() == 0:
    os.setsid()
    tmp = os.environ["TMPDIR"]
    while True:
        os.makedirs(f"{{tmp}}/race", exist_ok=True)
        os.rename(f"{{tmp}}/race", f"{{tmp}}/moved")
        os.symlink(outside, f"{{tmp}}/race")
        os.unlink(f"{{tmp}}/race")
        os.rmdir(f"{{tmp}}/moved")
print(json.dumps(os.path.dirname(os.environ["TMPDIR"])))
"""


def test_the_end_removes_the_private_folder_and_nothing_else(workspace: Path) -> None:
    outside = workspace / "lasting"
    outside.mkdir(mode=0o700)
    (outside / "kept").write_text("content")
    (outside / "kept").chmod(0o400)
    before = (outside / "kept").stat()
    private = run_inside(CODE.format(outside=str(outside)), workspace=workspace).json()
    assert not os.path.lexists(private)
    assert os.listdir(outside) == ["kept"]
    after = (outside / "kept").stat()
    assert (after.st_mode, after.st_ctime_ns) == (before.st_mode, before.st_ctime_ns)
    assert outside.stat().st_mode & 0o777 == 0o700

"""Folders with very many entries, or very deep ones, that this kernel or an earlier one made: the start does not wait
for them, the memory of the broker does not grow by them, and what is closed in them is closed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.support.folders import CONTENT, make_home
from tests.support.sandbox import run_inside

_MANY = 120_000
CLOSED = ("kept/.env", "kept/.git/config", "server.pem", ".vscode/tasks.json")
ATTACK = """
import contextlib, os
for name in NAMES:
    with contextlib.suppress(OSError):
        print(open(name).read())
    for work in (
        lambda: open(name, "w").write("evil"), lambda: os.unlink(name), lambda: os.rename("kept", "moved"),
        lambda: os.makedirs(os.path.dirname(name)),
    ):
        with contextlib.suppress(OSError):
            work()
open("own", "w").close()
os.mkdir("made")
os.rename("made", "made2")
os.rmdir("made2")
"""


@pytest.mark.parametrize("place", ["proj", "proj/data"])
def test_a_folder_of_very_many_files(place: str, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    folder = home / place
    for name in CLOSED:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(CONTENT)
    for number in range(_MANY):
        os.mknod(folder / str(number))
    code = f"import os; os.chdir({str(folder)!r})\nNAMES = {CLOSED!r}{ATTACK}"
    before = time.monotonic()
    inside = run_inside(code, workspace=home / "proj", env={"HOME": str(home)}).check()
    assert time.monotonic() - before < 10
    assert inside.stdout.split("\n").count(CONTENT) == 2  # .git and .vscode are read only, the others are secrets
    assert [name for name in CLOSED if (folder / name).read_text() != CONTENT] == []


def test_a_path_that_links_make_longer_than_linux_takes_is_refused(tmp_path: Path) -> None:
    """The broker holds a folder open for each step."""
    home = make_home(tmp_path)
    deep = home / "proj" / "deep"
    deep.joinpath(*["d" * 200] * 15).mkdir(parents=True)
    (deep / "link").symlink_to("/".join(["d" * 200] * 15))
    code = """
import os
os.chdir("deep")
path = "link"
try:
    for _ in range(30):
        path += "/" + "d" * 200
        os.mkdir(path)
except OSError as error:
    print(error.errno, flush=True)
open("own", "w").close()
"""
    inside = run_inside(code, workspace=home / "proj", env={"HOME": str(home)}).check()
    assert inside.stdout.strip() == "36"  # ENAMETOOLONG
    assert (deep / "own").exists()

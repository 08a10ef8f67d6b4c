"""Twenty links in what lasts of a home change nothing outside: neither at the next start, in whose cache the launcher
itself puts links, nor at ``home size`` and ``home clean``.

They are planted from outside: the broker makes no link for code inside that leads to where its user may write.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxed_kernel.policy.lasting import FOLDERS
from tests.support.sandbox import run_inside

GRANTS = ("~/.cache/models/a", "~/.cache/models/b/c", "~/.cache/top")
POLICY = f"[filesystem]\nread = {list(GRANTS)}".replace("'", '"')
READ = f"""
import os
for name in {GRANTS!r}:
    print(open(os.path.expanduser(name) + "/file").read())
"""


def command(*words: str) -> str:
    program = [sys.executable, "-I", "-m", "sandboxed_kernel", "home", *words]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def look(outside: Path) -> object:
    paths = (outside, outside / "kept", outside / "deep")
    states = [(path.stat().st_mode, path.stat().st_ctime_ns, path.stat().st_nlink) for path in paths]
    return states, os.listdir(outside), os.listdir(outside / "deep")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "people" / "me"
    for name in (*GRANTS, "~/proj"):
        made = folder / name[2:]
        made.mkdir(parents=True, mode=0o755)
        (made / "file").write_text("mine")
    (folder / "proj").chmod(0o755)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "share"))
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    (folder / "deep").mkdir(parents=True)
    (folder / "kept").write_text("kept")
    return folder


# What stands where the next start wants to put its links, or lies on the way there.
IN_THE_WAY = {
    "the last folder": ["models"],
    "the links themselves": ["models/a", "models/b/c", "top"],
    "a folder between": ["models/b", "top"],
    "nothing": [],
}


@pytest.mark.parametrize("way", IN_THE_WAY)
def test_links_left_in_a_lasting_home_change_nothing_outside(way: str, home: Path, outside: Path) -> None:
    first = run_inside(READ, workspace=home / "proj", policy=POLICY)
    assert first.check().stdout == "mine\n" * len(GRANTS)
    (lasting,) = (home / "share/sandboxed-kernel/homes").glob("*/h")
    cache = lasting / "cache"
    for name in ("models/a", "models/b/c", "top"):
        assert os.path.realpath(cache / name) == str(home / ".cache" / name)
        (cache / name).unlink()
    for name in IN_THE_WAY[way]:
        place = cache / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            place.rename(cache / f"moved-{place.name}")
        place.symlink_to(outside / "deep")
    targets = [outside, outside / "kept", outside / "deep", outside / "missing", Path("/"), Path("../../../../..")]
    for number in range(20):
        (lasting / FOLDERS[number % len(FOLDERS)] / f"link{number}").symlink_to(targets[number % len(targets)])
    os.mkfifo(cache / "fifo")
    before = look(outside)

    again = run_inside(READ, workspace=home / "proj", policy=POLICY).check()
    assert again.stdout == "mine\n" * len(GRANTS)
    assert "written by 2 runs" in again.stderr
    assert look(outside) == before
    assert "together" in command("size")
    assert "empty caches" in command("clean", "--all", "--cache")
    assert look(outside) == before
    assert "removed" in command("clean", "--all")
    assert look(outside) == before
    assert not [name for name in os.listdir(lasting.parents[1]) if name[0] != "."]
    assert (home / ".cache/models/a/file").read_text() == "mine"

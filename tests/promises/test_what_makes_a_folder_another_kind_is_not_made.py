"""An environment and a repository are judged by rules of their own. Code that makes a folder look like one gains
nothing: not at once, and not at the next start.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.folders import CONTENT, make_home
from tests.support.sandbox import launcher_command, run_inside, run_outside

SECRETS = (
    "proj/.env", "proj/deep/er/.env", "proj/modules/auth/.env", "proj/logs/.env", "proj/objects/.env",
    "proj/info/x.key", "proj/rebase-merge/.env", "proj/lfs/tmp/.env",
)  # fmt: skip
TRY = """
import contextlib, os
def step(work):
    with contextlib.suppress(OSError):
        work()
def markers(folder):
    {make}
def look():
    for path in {secrets!r}:
        with contextlib.suppress(OSError):
            print(open(path).read())
        with contextlib.suppress(OSError):
            open(path, "r+").write("evil")
"""
MAKE = {
    "an environment": 'step(lambda: open(folder + "/pyvenv.cfg", "w").write("home = /usr/bin"))',
    "an environment by rename": """
    step(lambda: open(folder + "/x", "w").write("home = /usr/bin"))
    step(lambda: os.rename(folder + "/x", folder + "/pyvenv.cfg"))
    step(lambda: os.mkdir("made"))
    step(lambda: open("made/pyvenv.cfg", "w"))
    step(lambda: os.rename("made/pyvenv.cfg", folder + "/pyvenv.cfg"))
    step(lambda: os.link("made/pyvenv.cfg", folder + "/pyvenv.cfg"))
    """,
    "conda's": 'step(lambda: os.mkdir(folder + "/conda-meta"))',
    "a repository": """
    step(lambda: os.mkdir(folder + "/objects"))
    step(lambda: os.mkdir(folder + "/refs"))
    step(lambda: open(folder + "/HEAD", "w").write("ref: refs/heads/main"))
    """,
}


@pytest.mark.parametrize("make", MAKE)
def test_at_once_and_at_the_next_start(make: str, tmp_path: Path) -> None:
    home = make_home(tmp_path)
    for name in SECRETS:
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(CONTENT)
    code = TRY.format(make=MAKE[make], secrets=SECRETS)
    run_inside(code + 'markers("proj")\nlook()', workspace=home, env={"HOME": str(home)}).check()
    for _ in range(2):
        found = run_inside(code + "look()", workspace=home, env={"HOME": str(home)}).check()
        assert found.stdout == ""
        assert {(home / name).read_text() for name in SECRETS} == {CONTENT}
        run_outside(code + 'markers("proj")', workspace=home).check()  # as if the folder had been open then
    assert CONTENT in run_outside(code + "look()", workspace=home).stdout


ENTER = """
import contextlib, os, sys
def evil(path):
    with contextlib.suppress(OSError):
        open(path, "w").write("evil")
evil("bin/activate")
print("ready", flush=True)
sys.stdin.readline()
evil("bin/activate")
evil("lib/python3/site-packages/evil.pth")
"""


def test_an_environment_that_is_made_while_it_runs_stays(tmp_path: Path) -> None:
    """``python -m venv .`` in a terminal; its folders come before its mark."""
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        proj = home / "proj"
        command = [sys.executable, "-c", ENTER]
        if inside:
            command = [*launcher_command("", tmp_path, proj, tmp_path / "audit.jsonl"), *command]
        with subprocess.Popen(command, cwd=proj, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            (proj / "bin").mkdir()
            (proj / "lib" / "python3" / "site-packages").mkdir(parents=True)
            (proj / "bin" / "activate").write_text(CONTENT)
            (proj / "pyvenv.cfg").write_text("home = /usr/bin\n")
            process.stdin.write("go\n")
            process.stdin.close()
            assert process.wait(60) == 0
        assert ((proj / "bin" / "activate").read_text() == CONTENT) is inside
        assert (proj / "lib" / "python3" / "site-packages" / "evil.pth").exists() is not inside

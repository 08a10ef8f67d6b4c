"""An environment and a repository are judged by rules of their own. Code that makes a folder look like one gains
nothing: not at once, and not at the next start.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.folders import CONTENT, make_home
from tests.support.sandbox import run_inside, run_outside

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

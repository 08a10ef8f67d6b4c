"""What is closed is reached by names that the user's programs know. Whoever exchanges a link on the way, or makes one
where nothing is yet, would have them read something else; so the ways there are closed too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.folders import make_home
from tests.support.sandbox import Result, run_inside, run_outside

STEP = """
import contextlib, os
def step(*works):
    for work in works:
        with contextlib.suppress(OSError):
            work()
def evil(path):
    step(lambda: os.makedirs(os.path.dirname(path), exist_ok=True), lambda: open(path, "w").write("evil"))
"""

# Ways to put something at "settings", where the next kernel's policy would lie beneath.
PUT = {
    "a link": 'step(lambda: os.symlink("data", "settings"))',
    "a link by its whole path": 'step(lambda: os.symlink(os.path.abspath("data"), "settings"))',
    "a link made elsewhere": 'step(lambda: os.symlink("data", "x"), lambda: os.rename("x", "settings"))',
    "a folder made elsewhere": 'step(lambda: os.rename("data", "settings"), lambda: os.symlink("settings", "data"))',
    "a link in an own folder": 'step(lambda: os.mkdir("settings"), lambda: os.symlink("../data/sandboxed-kernel",'
    ' "settings/sandboxed-kernel"))',
}


def run(inside: bool, code: str, home: Path, workspace: Path, **env: str) -> Result:
    return (run_inside if inside else run_outside)(STEP + code, workspace=workspace, env={"HOME": str(home), **env})


@pytest.mark.parametrize("put", PUT.values(), ids=PUT)
def test_only_a_folder_can_be_made_on_the_way_to_what_is_not_there_yet(put: str, tmp_path: Path) -> None:
    code = f'{put}\nevil("data/sandboxed-kernel/policy.toml")'
    for inside in (False, True):
        home = make_home(tmp_path / str(inside))
        run(inside, code, home, home, XDG_CONFIG_HOME=str(home / "settings")).check()
        assert (home / "settings" / "sandboxed-kernel" / "policy.toml").exists() is not inside

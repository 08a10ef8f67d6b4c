"""``[[folder]] project = true``: a notebook in ``proj/notebooks`` has the project, but for what is closed there."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.promises.test_what_is_closed_in_the_notebooks_folder_stays_closed import WAYS, closed, names
from tests.support.folders import CONTENT, GIT, SECRETS, make_home, picture
from tests.support.sandbox import run_inside, run_outside

WORK = """
import json, os, subprocess, sys
def sh(command):
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr
said = [os.path.basename(os.getcwd()), open("../data.csv").read(), sorted(os.listdir("../src"))]
sys.path.insert(0, "../src")
import own_code; said.append(own_code.x)
open("../out.txt", "w").write("out"); open("own.txt", "w").write("own")
os.makedirs("../results/deep"); open("../results/deep/a.txt", "w").write("a")
os.replace("own.txt", "../moved.txt")
said += map(sh, ("git status --short", "git add -A ../src ../results", "git commit -qm second", "git log --format=%s"))
print(json.dumps(said))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return project(tmp_path / "sandboxed")


def project(folder: Path) -> Path:
    home = make_home(folder)
    (home / "proj" / "notebooks").mkdir()
    (home / "proj" / "src" / "own_code.py").write_text("x = 1\n")
    return home


def policy(home: Path) -> str:
    return f"[[folder]]\npath = {json.dumps(str(home / 'proj'))}\nproject = true\n"


def test_work_in_the_project_gives_what_it_gives_outside(home: Path, tmp_path: Path) -> None:
    plain = project(tmp_path / "plain")
    outside = run_outside(WORK, workspace=plain / "proj" / "notebooks", env={**GIT, "HOME": str(plain)})
    names = [name for name in GIT if name.startswith("GIT_")]
    passed = f"[environment]\npass = {json.dumps(names)}\n" + policy(home)
    inside = run_inside(WORK, workspace=home / "proj" / "notebooks", policy=passed, env={**GIT, "HOME": str(home)})
    assert inside.json() == outside.json()
    for name in ("out.txt", "moved.txt", "results/deep/a.txt"):
        assert (home / "proj" / name).read_text() == (plain / "proj" / name).read_text()


def test_without_the_line_it_is_closed(home: Path) -> None:
    code = "open('../data.csv').read()"
    refused = run_inside(code, workspace=home / "proj" / "notebooks", env={"HOME": str(home)})
    assert "PermissionError" in refused.stderr
    # A line for another folder, or for a part of the project beside the notebooks, changes nothing.
    other = policy(home).replace("/proj", "/proj/src")
    assert run_inside(code, workspace=home / "proj" / "notebooks", policy=other, env={"HOME": str(home)}).returncode


def test_what_is_closed_in_the_project_stays_closed(home: Path, tmp_path: Path) -> None:
    paths = json.dumps([os.path.join("..", name) for name in names("proj/")])
    plain = project(tmp_path / "plain")
    before = closed(plain, "proj/")
    run_outside(
        WAYS, workspace=plain / "proj" / "notebooks", env={"HOME": str(plain)}, stdin=paths, timeout=120
    ).check()
    assert all(closed(plain, "proj/")[name] != before[name] for name in before), "some attacks show nothing"

    before, kept = closed(home, "proj/"), {name: found for name, found in picture(home).items() if "proj" not in name}
    inside = run_inside(
        WAYS,
        workspace=home / "proj" / "notebooks",
        policy=policy(home),
        env={"HOME": str(home)},
        stdin=paths,
        timeout=120,
    ).check()
    assert closed(home, "proj/") == before
    assert {name: found for name, found in picture(home).items() if "proj" not in name} == kept
    read = {os.path.normpath(os.path.join("proj/notebooks", path)) for path, text in inside.json() if text == CONTENT}
    assert not read & set(SECRETS), inside.stdout
    assert not list(home.rglob(".sandboxed-kernel-*")), "the pool stayed"

"""``~/datasets`` inside is the folder that the policy means by it, and no link of the private home opens another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.sandbox import run_inside, run_outside

CODE = """
import errno, json, os, pathlib
told = {}
def attempt(name, go):
    try:
        told[name] = go()
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
home = pathlib.Path.home()
attempt("read", lambda: (home / "datasets/a.csv").read_text())
attempt("nested", lambda: (home / "a/b/n.csv").read_text())
attempt("by link", lambda: (home / "linked/l.csv").read_text())
attempt("book", lambda: pathlib.Path("~/book/here").expanduser().read_text())
attempt("result", lambda: (home / "results/x").write_text("kept"))
attempt("not written", lambda: (home / "datasets/a.csv").write_text("changed"))
attempt("beside", lambda: (home / "a/secret").read_text())
attempt("through", lambda: (home / "datasets/../secret").read_text())
attempt("private", lambda: (home / "mine").write_text("private"))
print(json.dumps(told))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "people" / "me"
    for name in ("datasets", "a/b", "results", "book"):
        (folder / name).mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    texts = {"datasets/a.csv": "1", "a/b/n.csv": "2", "linked/l.csv": "3", "book/here": "4", "a/secret": "s"}
    for name, text in {**texts, "secret": "s"}.items():
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize("named", ["as it is", "by a link"])
def test_what_is_granted_lies_at_its_place(named: str, home: Path, tmp_path: Path) -> None:
    spelled = home
    if named == "by a link":
        spelled = tmp_path / "home"
        spelled.symlink_to(home)
    env = {"HOME": str(spelled)}
    outside = run_outside(CODE.replace('"changed"', '"1"'), workspace=home / "book", env=env).json()
    assert outside == {"read": "1", "nested": "2", "by link": "3", "book": "4", "result": 4, "not written": 1,
                       "beside": "s", "through": "s", "private": 7}  # fmt: skip
    (home / "results" / "x").unlink()
    (home / "mine").unlink()
    policy = '[filesystem]\nread = ["~/datasets", "~/a/b", "~/linked"]\nwrite = [".", "~/results"]'
    inside = run_inside(CODE, workspace=home / "book", env=env, policy=policy).json()
    assert inside == {"read": "1", "nested": "2", "by link": "3", "book": "4", "result": 4, "not written": "EACCES",
                      "beside": "ENOENT", "through": "EACCES", "private": 7}  # fmt: skip
    assert (home / "results" / "x").read_text() == "kept"
    assert (home / "datasets" / "a.csv").read_text() == "1"
    assert not (home / "mine").exists()
    assert sorted(os.listdir(home / "datasets")) == ["a.csv"]  # the end removed links, not what they lead to

"""A notebook in the home folder, where JupyterLab starts: its first cell runs and says what is closed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxed_kernel.events import MIME
from tests.support import kernels
from tests.support.folders import CONTENT, make_home
from tests.support.kernels import Outcome, running


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = make_home(tmp_path)
    monkeypatch.setenv("HOME", str(folder))
    return folder


def said(outcome: Outcome) -> str:
    return "".join(message["content"]["text"] for message in outcome.of("stream"))


def test_a_notebook_in_the_home_folder(home: Path, tmp_path: Path) -> None:
    (home / "uploaded.csv").write_text("a,b\n1,2\n")
    with running(kernels.REAL, tmp_path, cwd=home) as kernel:
        first = kernel.run("print(open('uploaded.csv').read())")
        assert "a,b\n1,2" in said(first)
        assert "this notebook lies in your home folder" in said(first)
        assert "proj/.git" in said(first)
        second = kernel.run("open('made.txt', 'w').write('made'); import os; os.makedirs('results/deep')")
        assert second.status == "ok"
        assert "home folder" not in said(second)  # it is said once
        refused = kernel.run("open('.ssh/id_ed25519')")
        assert "PermissionError" in refused.error
        assert [m for m in refused.iopub if MIME in m["content"].get("data", {})]
        by_name = kernel.run("print(open(os.path.expanduser('~/proj/data.csv')).read())")  # "~" is what people think
        assert "1,2" in said(by_name)
        shown = kernel.run("%sandbox policy")
        assert str(home / "proj" / ".venv") in said(shown)
    assert (home / "made.txt").read_text() == "made"
    assert (home / "results" / "deep").is_dir()
    assert not [name for name in os.listdir(home) if name.startswith(".sandboxed-kernel")]


def test_a_project_with_its_environment(home: Path, tmp_path: Path) -> None:
    with running(kernels.REAL, tmp_path, cwd=home / "proj") as kernel:
        first = kernel.run("import sys; open('fresh.py', 'w').write('value = 7')")
        assert "closed in this folder, or read only" in said(first)
        assert ".git" in said(first)
        assert kernel.run("import fresh; print(fresh.value)").text.strip().endswith("7")
        assert "Permission" in kernel.run("open('.git/hooks/post-commit', 'w')").error


def test_a_folder_with_nothing_to_close_says_nothing(tmp_path: Path) -> None:
    with running(kernels.REAL, tmp_path) as kernel:
        assert said(kernel.run("print('ran')")) == "ran\n"


def test_what_the_notice_of_a_secret_says_is_done_literally(home: Path, tmp_path: Path) -> None:
    monkeyed = {**os.environ, "XDG_CONFIG_HOME": str(tmp_path / "config")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", monkeyed["XDG_CONFIG_HOME"])
        with running(kernels.REAL, tmp_path, cwd=home / "proj") as kernel:
            refused = kernel.run("open('.env')")
        (notice,) = [m["content"]["data"] for m in refused.iopub if MIME in m["content"].get("data", {})]
        (command,) = re.findall(r"in a terminal: sandboxed-kernel (allow --read \S+)", notice["text/plain"])
        program = [sys.executable, "-m", "sandboxed_kernel", *command.split()]
        subprocess.run(program, cwd="/", env=monkeyed, check=True, capture_output=True, timeout=60)
        with running(kernels.REAL, tmp_path, cwd=home / "proj") as kernel:
            assert CONTENT in said(kernel.run("print(open('.env').read())"))

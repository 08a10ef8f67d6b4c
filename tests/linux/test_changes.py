"""What programs outside would run or obey is listed, with the program, and nothing else."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from sandboxed_kernel import changes as module
from sandboxed_kernel.changes import changes
from sandboxed_kernel.cli import main
from tests.support.sandbox import run_inside

READ = {
    "conftest.py": "pytest",
    "sub/deep/Makefile": "make",
    "random.py": "in place of its own module",
    "sub/_ssl.cpython-311-x86_64-linux-gnu.so": "in place of its own module",
    "new/.git/hooks/post-commit": "git runs it",
    "new/.git/config": "git",
    ".vscode/settings.json": "VS Code",
    "env/bin/activate": "a shell",
    "lab/index.html.j2": "nbconvert",
    "tool": "a program that looks here for commands",
}
NOT_READ = ("notebook.ipynb", "data.csv", "analysis.py", "sub/random.txt", "makefile.txt", "docs/conftest.py.md")


def test_what_the_code_made_is_listed(workspace: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = f"""
import os
for path in {[*READ, *NOT_READ]!r}:
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    open(path, "w").close()
    os.utime(path, (1, 1))  # it may say what it likes about when that was
os.chmod("tool", 0o755)
"""
    run_inside(code, workspace=workspace).check()
    found, is_all = changes(str(workspace), time.time() - 60)
    assert is_all
    listed = {each.path: each.reader for each in found}
    assert listed.keys() == READ.keys()
    assert all(READ[path] in reader for path, reader in listed.items())
    assert main(["changes", str(workspace)]) == 1
    assert "conftest.py    read by: pytest" in capsys.readouterr().out
    assert changes(str(workspace), time.time() + 60) == ([], True)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "conftest.py").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link").symlink_to("../outside")
    (tmp_path / "folder" / "Makefile").symlink_to("../outside/conftest.py")
    assert [each.path for each in changes(str(tmp_path / "folder"), 0)[0]] == ["Makefile"]


def test_names_do_not_act_in_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "\x1b]52;c;ZQ==\x07").mkdir()
    (tmp_path / "\x1b]52;c;ZQ==\x07" / "setup.py").touch()
    (tmp_path / os.fsdecode(b"\xff.pth")).touch()
    assert main(["changes", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "setup.py" in said
    assert "\x1b" not in said


def test_nothing_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["changes", str(tmp_path), "--since", "7d"]) == 0
    assert "Nothing that a program outside" in capsys.readouterr().out
    assert main(["changes", str(tmp_path / "missing")]) == 78
    assert "cannot be listed" in capsys.readouterr().err


def test_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    monkeypatch.setattr(module, "MOST", 3)
    assert main(["changes", str(tmp_path)]) == 1
    assert "not all were looked at" in capsys.readouterr().out

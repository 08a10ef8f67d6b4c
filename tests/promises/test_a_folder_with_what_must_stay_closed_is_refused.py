"""A notebook in /, in /tmp, in a folder of keys or in the Python that runs it does not start, and says so.

In a folder that *holds* such a thing it starts: test_what_is_closed_in_the_notebooks_folder_stays_closed.py.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox import launcher_command


def start(workspace: Path, folder: Path, home: Path, policy: str = "") -> subprocess.CompletedProcess[str]:
    command = launcher_command(policy, folder, workspace, folder / "audit.jsonl")
    env = {**os.environ, "HOME": str(home)}
    return subprocess.run(
        [*command, sys.executable, "-c", "pass"],
        env=env,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    folder = tmp_path / "people" / "me"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_with_what_must_stay_closed_is_refused(home: Path, tmp_path: Path) -> None:
    (home / ".ssh").mkdir()
    (home / ".config" / "gh").mkdir(parents=True)
    refused = {
        home / ".ssh": "credentials or settings",
        home / ".config" / "gh": "credentials or settings",
        Path("/"): "the whole file system",
        Path("/tmp"): "temporary files of every program",
        Path("/etc"): "the system's settings",
        Path("/usr"): "programs of the system",
        Path("/dev/shm"): "the machine's devices",
        Path(sys.prefix): "the Python that runs this kernel",
        Path(__file__).parents[2] / "sandboxed_kernel": "",  # our own code: the launcher of the next kernel
    }
    for workspace, words in refused.items():
        result = start(workspace, tmp_path, home)
        assert result.returncode not in (0, 1), (workspace, result.stderr)
        assert words in result.stderr, (workspace, result.stderr)
        assert str(workspace.resolve()) in result.stderr
        assert "Traceback" not in result.stderr
        assert not (tmp_path / "audit.jsonl").exists(), "something was started"


def test_a_folder_of_its_own_starts_beneath_home_or_tmp(home: Path, tmp_path: Path) -> None:
    folder = home / "sandbox"
    folder.mkdir()
    result = start(folder, tmp_path, home, policy="[limits]\nopen_files = 100")
    assert result.returncode == 0, result.stderr


def test_a_grant_does_not_open_them_either(home: Path, tmp_path: Path) -> None:
    folder = home / "sandbox"
    folder.mkdir()
    (home / ".aws").mkdir()
    for line in ('read = ["~"]', 'read = ["~/.aws"]', 'write = ["/"]', 'read = ["/proc"]', 'write = [".", ".."]'):
        result = start(folder, tmp_path, home, policy=f"[filesystem]\n{line}")
        assert result.returncode not in (0, 1), (line, result.stderr)
        assert "filesystem." in result.stderr, result.stderr
        assert "Traceback" not in result.stderr

"""``uninstall --all`` leaves nothing of the user's own, and nothing but that is gone."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path

import pytest

from sandboxed_kernel import kernelspec, lasting_home
from sandboxed_kernel.cli import main
from sandboxed_kernel.lasting_home import LastingHome, open_lasting
from sandboxed_kernel.policy.lasting import Owner
from sandboxed_kernel.surroundings import homes_folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    for name in ("XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_DATA_HOME", "JUPYTER_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(home / ".local" / "share" / "jupyter"))  # it keeps $HOME for good
    return home


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()}


def filled(home: Path) -> LastingHome:
    assert main(["install", "--user", "--no-try"]) == 0
    assert main(["install", "--user", "--no-try", "--name", "exam"]) == 0
    log = home / ".local" / "state" / "sandboxed-kernel" / "audit.jsonl"
    log.parent.mkdir(parents=True)
    log.write_text("{}")
    notebooks = home / "notebooks"
    notebooks.mkdir()
    lasting = open_lasting(homes_folder(), Owner(str(notebooks), "sandboxed-python3", False))
    assert isinstance(lasting, LastingHome)
    Path(lasting.path, "cache", "model").write_text("1")
    Path(lasting.path, "cache", "out").symlink_to(notebooks)
    (notebooks / "a.ipynb").write_text("{}")
    other = home / ".local" / "share" / "jupyter" / "kernels" / "other"
    other.mkdir()
    (other / "kernel.json").write_text('{"argv": ["python", "-m", "ipykernel"], "display_name": "x"}')
    return lasting


def test_nothing_is_left(home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    os.close(filled(home).descriptor)
    before = files(home)
    monkeypatch.setattr("builtins.input", lambda _text: "no")
    assert main(["uninstall", "--all"]) == 1
    assert files(home) == before
    assert main(["uninstall", "--all", "--yes"]) == 0
    assert files(home) == {"notebooks/a.ipynb", ".local/share/jupyter/kernels/other/kernel.json"}
    assert "sandboxed-python3" not in kernelspec.installed()
    assert "pip uninstall sandboxed-kernel" in capsys.readouterr().out
    assert main(["uninstall", "--all", "--yes"]) == 0
    assert "Nothing of sandboxed-kernel" in capsys.readouterr().out


def test_homes_that_another_program_has_locked_are_said_to_be(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    os.close(filled(home).descriptor)
    before = files(home / ".local/share/sandboxed-kernel")
    monkeypatch.setattr(lasting_home, "_PATIENCE", 0.05)
    descriptor = os.open(homes_folder(), os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        assert main(["uninstall", "--all", "--yes"]) == 78
    finally:
        os.close(descriptor)
    assert "another program has locked it" in capsys.readouterr().err
    assert files(home / ".local/share/sandboxed-kernel") == before


def test_what_a_kernel_uses_stays(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lasting = filled(home)
    try:
        assert main(["uninstall", "--all", "--yes"]) == 1
        assert "a kernel uses it" in capsys.readouterr().out
        assert Path(lasting.path, "cache", "model").read_text() == "1"
    finally:
        os.close(lasting.descriptor)
    assert main(["uninstall", "--all", "--yes"]) == 0
    assert not Path(lasting.path).exists()


def test_what_comes_first_in_an_environment_of_the_administrators(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = tmp_path / "environment"
    brought = environment / "share" / "jupyter" / "kernels" / kernelspec.NAME
    brought.mkdir(parents=True)
    spec = {"argv": ["python", "-I", "-m", "sandboxed_kernel", "-f", "{connection_file}"]}
    (brought / "kernel.json").write_text(json.dumps({**spec, "display_name": kernelspec.DISPLAY_NAME}))
    for folder in (brought, brought.parent):
        folder.chmod(0o555)
    monkeypatch.setattr(kernelspec, "_ENVIRONMENT", str(environment))
    assert main(["install", "--user", "--no-try"]) == 0
    assert main(["install", "--user", "--no-try", "--display-name", "Mine"]) == 78
    assert "Install it by another name: --name NAME" in capsys.readouterr().err
    assert main(["install", "--user", "--no-try", "--display-name", "Mine", "--name", "mine"]) == 0

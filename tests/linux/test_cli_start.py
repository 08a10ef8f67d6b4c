"""The command line in a process of its own: what it imports, and where an isolated interpreter finds the package."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sandboxed_kernel
from sandboxed_kernel import kernelspec
from sandboxed_kernel.cli import main


def test_nothing_that_only_people_wait_for_is_imported_to_start_a_kernel() -> None:
    code = (
        "import sys, types, sandboxed_kernel; from sandboxed_kernel.cli import main\n"
        "sandboxed_kernel.launcher = types.SimpleNamespace(run_kernel=lambda policy, file, settings, kernel: 0)\n"
        "assert main(['--policy', 'p.toml', '-f', 'c.json']) == 0\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    root = str(Path(sandboxed_kernel.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-S", "-c", code], env={"PYTHONPATH": root}, capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "sandboxed_kernel" in loaded
    assert not loaded & {
        "argparse",
        "dataclasses",
        "tomllib",
        "ipaddress",
        "json",
        "jupyter_client",
        "subprocess",
        "tempfile",
        "zmq",
    }


def test_a_package_that_an_isolated_interpreter_does_not_find_is_not_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernelspec, "_MODULE", "sandboxed_kernel_that_is_nowhere")
    assert main(["install", "--prefix", str(tmp_path)]) == 69
    assert "Install sandboxed-kernel into a virtual environment" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_what_is_installed_for_everybody_can_be_read_by_everybody(tmp_path: Path) -> None:
    """Whatever the administrator's umask(2) is."""
    before = os.umask(0o077)
    try:
        folder = kernelspec.install(policy_file=None, prefix=str(tmp_path / "prefix"))
    finally:
        os.umask(before)
    assert Path(folder) == tmp_path / "prefix" / "share" / "jupyter" / "kernels" / kernelspec.NAME
    for path in (tmp_path / "prefix").rglob("*"):
        assert path.stat().st_mode & 0o777 == (0o755 if path.is_dir() else 0o644), path

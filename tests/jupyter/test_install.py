"""`install` tries the kernel that it has installed, and says why where it does not work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(sys.executable).with_name("sandboxed-kernel")


def install(folder: Path, *options: str | Path) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "XDG_CONFIG_HOME": str(folder / "c"), "XDG_STATE_HOME": str(folder / "s")}
    command = [PROGRAM, "install", "--prefix", folder, *options]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_a_kernel_is_tried(umask: int, short_path: Path) -> None:
    before = os.umask(umask)
    try:
        done = install(short_path)
    finally:
        os.umask(before)
    assert done.returncode == 0, done
    assert "Tried:     a kernel started in the sandbox and ran a cell." in done.stdout
    folder = short_path / "share" / "jupyter" / "kernels" / "sandboxed-python3"
    assert folder.stat().st_mode & 0o777 == 0o755
    assert (folder / "kernel.json").stat().st_mode & 0o777 == 0o644


def test_one_that_does_not_work_says_why(short_path: Path) -> None:
    policy = short_path / "policy.toml"
    policy.write_text(f'[filesystem]\nrequire = ["{short_path}/missing"]\n')
    done = install(short_path, "--policy", policy)
    assert done.returncode != 0
    assert "it is installed, but the kernel does not work here" in done.stderr
    assert f"{short_path}/missing" in done.stderr
    assert install(short_path, "--policy", policy, "--no-try").returncode == 0

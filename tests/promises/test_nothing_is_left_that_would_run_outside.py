"""Nothing that programs outside run or trust later is written: start files, packages, kernelspecs, timers, the policy.

And the keys of other kernels, which would let the code run in theirs, are not read.
"""

from __future__ import annotations

import os
import site
import sys
import sysconfig
from pathlib import Path

from tests.support.sandbox import run_inside, run_outside

CODE = """
import errno, json, os
places, told = {places!r}, {{}}
for path in places:
    came = []
    for act in (
        lambda: open(path).read(),
        lambda: open(path, "a").write("# left behind\\n"),
        lambda: os.replace("left", path),
        lambda: os.unlink(path),
        lambda: os.symlink(os.path.abspath("left"), path + "-new"),
        lambda: os.rename(os.path.dirname(path), os.path.dirname(path) + "-away"),
    ):
        open("left", "w").close()
        try:
            came.append(str(act()))
        except OSError as error:
            came.append(errno.errorcode[error.errno])
    told[path] = came
print(json.dumps(told))
"""

# Beneath the home folder of whoever starts the kernel.
AT_HOME = (
    ".bashrc", ".profile", ".zshrc", ".config/fish/config.fish", ".ssh/authorized_keys", ".ssh/config", ".gitconfig",
    ".ipython/profile_default/startup/00.py", ".ipython/profile_default/ipython_config.py",
    ".jupyter/jupyter_server_config.py", ".local/share/jupyter/kernels/python3/kernel.json",
    ".local/share/jupyter/runtime/kernel-1.json", ".local/share/jupyter/runtime/jpserver-1.json",
    ".local/bin/python3", ".local/lib/python3.11/site-packages/usercustomize.py", ".config/pip/pip.conf",
    ".config/systemd/user/timer.service", ".config/autostart/left.desktop", ".pythonrc.py", ".cache/pip/wheel.whl",
    ".local/state/sandboxed-kernel/audit.jsonl",
)  # fmt: skip


def make(paths: list[Path]) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("s3cret")


def state(paths: list[Path]) -> dict[str, object]:
    """Content, identity and neighbours of each."""
    present = {path: path.exists() for path in paths}
    return {
        str(path): (path.read_text(), path.stat().st_ino, sorted(os.listdir(path.parent))) if present[path] else None
        for path in paths
    }


def test_nothing_is_left_that_would_run_outside(workspace: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    paths = [home / name for name in AT_HOME]
    # What Jupyter is told to use in place of the usual folders is protected as those are.
    runtime = tmp_path / "runtime"
    paths += [runtime / "kernel-2.json", tmp_path / "other notebook" / "notebook.ipynb"]
    env = {"HOME": str(home), "JUPYTER_RUNTIME_DIR": str(runtime)}
    code = CODE.format(places=[str(path) for path in paths])

    make(paths)
    before = state(paths)
    run_outside(code, workspace=workspace, env=env).check()
    after = state(paths)
    assert not {path for path in before if before[path] == after[path]}, "these can be changed by nobody"

    make(paths)
    before = state(paths)
    for path in workspace.iterdir():
        path.unlink()
    told = run_inside(code, workspace=workspace, env=env).json()
    assert state(paths) == before
    assert {came for acts in told.values() for came in acts} <= {"EACCES", "EXDEV"}, told


def test_the_python_that_runs_everything_stays_as_it_is(workspace: Path) -> None:
    """Only tried inside: outside, it would be done."""
    folders = {sysconfig.get_path(name) for name in ("purelib", "stdlib", "scripts", "data")}
    folders |= {*site.getsitepackages(), os.path.dirname(__file__), str(Path(__file__).parents[2] / "sandboxed_kernel")}
    folders |= {"/usr/bin", "/usr/local/bin", "/etc/cron.d", "/var/spool/cron", "/etc/profile.d", "/etc/systemd/user"}
    present = sorted(folder for folder in folders if os.path.isdir(folder))
    assert present
    code = f"""
import errno, json, os
told = {{}}
for folder in {present!r}:
    for name in ("left-behind.py", "left-behind.pth", "sitecustomize.py"):
        try:
            open(os.path.join(folder, name), "x").close()
            told[folder] = "written"
        except OSError as error:
            told[folder] = errno.errorcode[error.errno]
print(json.dumps(told))
"""
    told = run_inside(code, workspace=workspace).json()
    assert set(told.values()) <= {"EACCES", "EROFS", "EEXIST"}, told
    assert not [folder for folder in present if os.path.lexists(os.path.join(folder, "left-behind.py"))]


def test_the_policy_and_the_log_are_not_the_codes(workspace: Path, tmp_path: Path) -> None:
    """A policy or a log in a folder that the code may write stays closed to it: the code would rewrite it."""
    policy = workspace / "policy.toml"
    policy.write_text('[network]\nallow = ["example.org:443"]\n')
    launcher = [sys.executable, "-I", "-m", "sandboxed_kernel", "run", "--workspace", str(workspace)]
    ran = """
import contextlib, os
for name in ("policy.toml", "log.jsonl"):
    for step in (
        lambda: open(name, "a").write("evil"), lambda: os.unlink(name), lambda: os.rename(name, "moved"),
        lambda: open(name, "w").write("evil"),
    ):
        with contextlib.suppress(OSError):
            step()
open('ran', 'w').close()
"""
    # As a program outside, like the one that a user types; its own policy grants nothing of interest.
    before = policy.read_text()
    for options, found in (
        (["--policy", str(policy), "--audit", str(tmp_path / "a")], "the policy of this kernel"),
        (["--policy", str(policy), "--audit", str(workspace / "log.jsonl")], "the audit log"),
    ):
        result = run_outside(
            f"import os; os.execv({sys.executable!r}, {[*launcher, *options, '--', sys.executable, '-c', ran]!r})",
            workspace=workspace,
        )
        assert result.returncode == 0, result.stderr
        assert found in result.stderr, result.stderr
        assert (workspace / "ran").exists()
        assert policy.read_text() == before
    assert '"refused"' in (workspace / "log.jsonl").read_text()
    run_outside(ran, workspace=workspace).check()
    assert policy.read_text() != before

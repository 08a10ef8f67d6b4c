"""No symbolic link on the way to what is run, read or trusted outside can be exchanged by the code inside.

And nothing trusted is looked for where the code may write. Where that cannot be had, nothing starts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sandboxed_kernel.errors import PolicyError
from tests.support.sandbox import LAUNCHER, Result, run_inside, run_outside

# What the code would do: put something else in the place of a link.
EXCHANGE = """
import os
os.symlink("elsewhere", "new")
os.rename("new", {link!r})
print("exchanged", flush=True)
"""


def refusal(result: Result, *words: str) -> None:
    """Nothing ran, and the user learns why and what to do."""
    assert result.returncode == PolicyError.exit_code, result
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def closed(result: Result, what: str) -> None:
    """The code ran, and was told what stays closed in its folder."""
    assert "PermissionError" in result.stderr, result
    assert f"access to {what} refused" in result.stderr, result


def exchanges(workspace: Path, link: str, command: list[str], env: dict[str, str] | None = None) -> Result:
    """The attack outside works; then it is tried inside, by ``command`` up to its ``--``."""
    before = os.readlink(workspace / link)
    run_outside(EXCHANGE.format(link=link), workspace=workspace).check()
    assert os.readlink(workspace / link) == "elsewhere"
    (workspace / link).unlink()
    os.symlink(before, workspace / link)
    done = subprocess.run(
        [*command, sys.executable, "-c", EXCHANGE.format(link=link)],
        cwd=workspace,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert os.readlink(workspace / link) == before, "the link was exchanged"
    (workspace / "new").unlink(missing_ok=True)
    return Result(done.returncode, done.stdout, done.stderr)


def run(*arguments: str, program: str = sys.executable) -> list[str]:
    return [program, *LAUNCHER[1:], "run", *arguments, "--"]


def test_an_environment_that_is_a_link_in_the_notebooks_folder(workspace: Path, tmp_path: Path) -> None:
    os.symlink(sys.prefix, workspace / ".venv")
    python = f"{workspace}/.venv/bin/python"
    audit = ("--audit", f"{tmp_path}/audit.jsonl")
    closed(exchanges(workspace, ".venv", run(*audit, program=python)), f"{workspace}/.venv")
    (workspace / "output").mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text('[filesystem]\nwrite = ["./output"]\n')
    done = exchanges(workspace, ".venv", run("--policy", str(policy), *audit, program=python))
    assert "PermissionError" in done.stderr


def test_a_chain_of_links(workspace: Path, tmp_path: Path) -> None:
    """The first lies outside and leads to one inside."""
    os.symlink(sys.prefix, workspace / "inner")
    os.symlink(workspace / "inner", tmp_path / "outer")
    command = run("--audit", f"{tmp_path}/audit.jsonl", program=f"{tmp_path}/outer/bin/python")
    closed(exchanges(workspace, "inner", command), f"{workspace}/inner")


def test_a_policy_that_is_a_link_in_the_notebooks_folder(workspace: Path, tmp_path: Path) -> None:
    real = tmp_path / "policy.toml"
    real.write_text("")
    os.symlink(real, workspace / "policy.toml")
    command = run("--policy", "policy.toml", "--audit", f"{tmp_path}/audit.jsonl")
    done = exchanges(workspace, "policy.toml", command)
    closed(done, f"{workspace}/policy.toml")
    assert "a symbolic link to the policy of this kernel" in done.stderr


def test_a_policy_where_everybodys_shared_memory_lies(workspace: Path, tmp_path: Path) -> None:
    place = Path(f"/dev/shm/sandboxed-kernel-test-{os.getpid()}.toml")
    place.write_text("")
    try:
        command = run("--policy", str(place), "--audit", f"{tmp_path}/audit.jsonl")
        done = subprocess.run([*command, "true"], cwd=workspace, capture_output=True, text=True, timeout=60)
    finally:
        place.unlink()
    refusal(Result(done.returncode, done.stdout, done.stderr), str(place), "/dev/shm", "Move it")


PLANTED = """
import os
os.makedirs(os.path.dirname({file!r}), exist_ok=True)
open({file!r}, "w").write("open({mark!r}, 'w').close()")
print("planted", flush=True)
"""


@pytest.mark.parametrize("name", ["JUPYTER_CONFIG_PATH", "JUPYTER_CONFIG_DIR", "JUPYTER_PATH", "IPYTHONDIR"])
def test_folders_that_variables_name(name: str, workspace: Path, tmp_path: Path) -> None:
    """They need not exist yet: the code would make them."""
    planted = "kernels/evil/kernel.json" if name == "JUPYTER_PATH" else "sandboxed_kernel_config.py"
    file, mark = f"{workspace}/conf/{planted}", f"{tmp_path}/ran"
    code = PLANTED.format(file=file, mark=mark)
    env = {name: f"{workspace}/conf"}
    run_outside(code, workspace=workspace, env=env).check()
    assert os.path.exists(file)
    if "CONFIG" in name:  # planted already, by code that ran without the variable: it is not read either
        refusal(run_inside("print('ran')", workspace=workspace, env=env), file, "code inside may write")
        assert not os.path.exists(mark)
    shutil.rmtree(workspace / "conf")
    refused = os.path.dirname(os.path.dirname(file)) if name == "JUPYTER_PATH" else f"{workspace}/conf"
    closed(run_inside(code, workspace=workspace, env=env), refused)
    assert not os.path.exists(file)


def test_a_notebook_beside_a_data_folder_of_jupyter_starts(workspace: Path) -> None:
    env = {"JUPYTER_PATH": str(workspace.parent)}
    assert run_inside("print('ran')", workspace=workspace, env=env).check().stdout == "ran\n"


@pytest.mark.parametrize("name", [".ssh", ".ipython", ".config/gcloud"])
def test_a_secret_folder_that_is_a_link_into_the_notebooks_folder(name: str, workspace: Path, tmp_path: Path) -> None:
    home, real = tmp_path / "home", workspace / "dot"
    (home / name).parent.mkdir(parents=True)
    real.mkdir()
    (real / "key").write_text("s3cret")
    os.symlink(real, home / name)
    code = f"print(open({str(real / 'key')!r}).read())"
    env = {"HOME": str(home)}
    assert "s3cret" in run_outside(code, workspace=workspace, env=env).stdout
    inside = run_inside(code, workspace=workspace, env=env)
    assert "s3cret" not in inside.stdout
    closed(inside, str(real))
    run_inside(f"import os; os.rename({str(real)!r}, 'moved')", workspace=workspace, env=env)
    assert (real / "key").exists()


LATE = """
import os, sys
sys.path.insert(0, {link!r})
from sandboxed_kernel.startup import pin_imports
if {pinned}: pin_imports()
os.rename({evil!r}, {link!r})
import imported_late
print(imported_late.__file__)
"""


@pytest.mark.parametrize("pinned", [False, True])
def test_what_the_launcher_imports_late_comes_from_where_it_came_at_the_start(tmp_path: Path, pinned: bool) -> None:
    for name in ("real", "evil"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "imported_late.py").touch()
        os.symlink(tmp_path / name, tmp_path / f"{name}-link")
    link, evil = str(tmp_path / "real-link"), str(tmp_path / "evil-link")
    code = LATE.format(link=link, evil=evil, pinned=pinned)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    found: Callable[[str], str] = os.path.realpath
    assert found(done.stdout.strip()) == str(tmp_path / ("real" if pinned else "evil") / "imported_late.py")

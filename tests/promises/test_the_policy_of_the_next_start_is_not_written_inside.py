"""The policy that the next kernel reads is not written inside: nor made where there is none, nor by a link on the way.

It lies beneath XDG_CONFIG_HOME (policy/place.py). Where its folder lies in the notebook's, it stays closed there.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandboxed_kernel.errors import PolicyError
from tests.support.sandbox import LAUNCHER, Result, run_outside

WIDER = '[network]\nallow = ["attacker.example:443"]\n'
PLANT = """
import os
os.makedirs(os.path.dirname({file!r}), exist_ok=True)
open({file!r}, "w").write({text!r})
print("planted", flush=True)
"""
EXCHANGE = """
import os
os.symlink("elsewhere", "new")
os.rename("new", {file!r})
print("planted", flush=True)
"""


def start(code: str, workspace: Path, configuration: Path, audit: Path, *arguments: str) -> Result:
    """With the policy that is read where none is named."""
    command = [*LAUNCHER, "run", "--audit", str(audit), *arguments, "--", sys.executable, "-c", code]
    env = {**os.environ, "XDG_CONFIG_HOME": str(configuration), "HOME": str(audit.parent / "home")}
    done = subprocess.run(command, cwd=workspace, env=env, capture_output=True, text=True, timeout=60)
    return Result(done.returncode, done.stdout, done.stderr)


def refusal(result: Result, *words: str) -> None:
    assert result.returncode == PolicyError.exit_code, result
    assert result.stdout == ""
    for word in words:
        assert word in result.stderr


def closed(result: Result) -> None:
    """The code ran, and was told."""
    assert "PermissionError" in result.stderr, result
    assert "[sandbox] access to " in result.stderr, result


@pytest.fixture
def audit(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.mark.parametrize("name", ["policy.toml", "exam.policy.toml"])
@pytest.mark.parametrize("arguments", [(), ("--policy", "other.toml")])
def test_where_there_is_none_none_is_made(
    name: str, arguments: tuple[str, ...], workspace: Path, tmp_path: Path, audit: Path
) -> None:
    """Also not by a kernel that has another policy: the next one would read it."""
    (tmp_path / "other.toml").write_text("")
    arguments = tuple(str(tmp_path / word) if word.endswith(".toml") else word for word in arguments)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "sandboxed-kernel").symlink_to(workspace / "policies")
    (workspace / "policies").mkdir()
    file = workspace / "policies" / name
    code = PLANT.format(file=str(file), text=WIDER)
    run_outside(code, workspace=workspace).check()
    assert (tmp_path / "config" / "sandboxed-kernel" / name).read_text() == WIDER
    file.unlink()
    closed(start(code, workspace, tmp_path / "config", audit, *arguments))
    assert not file.exists()
    # An allowed neighbour: the same folder, where only a part of it is written.
    (workspace / "output").mkdir()
    policy = tmp_path / "narrow.toml"
    policy.write_text('[filesystem]\nwrite = ["./output"]\n')
    inside = start(code, workspace, tmp_path / "config", audit, "--policy", str(policy))
    assert "PermissionError" in inside.stderr
    assert not file.exists()


def test_nor_where_its_folder_is_still_to_be_made(workspace: Path, audit: Path) -> None:
    file = workspace / "config" / "sandboxed-kernel" / "policy.toml"
    code = PLANT.format(file=str(file), text=WIDER)
    run_outside(code, workspace=workspace).check()
    file.unlink()
    file.parent.rmdir()
    file.parent.parent.rmdir()
    closed(start(code, workspace, workspace / "config", audit))
    assert not file.exists()


def test_a_link_on_the_way_is_not_exchanged(workspace: Path, tmp_path: Path, audit: Path) -> None:
    real = tmp_path / "dotfiles"
    real.mkdir()
    (real / "policy.toml").write_text("")
    configuration = tmp_path / "config"
    configuration.mkdir()
    (workspace / "linked").symlink_to(real)
    (configuration / "sandboxed-kernel").symlink_to(workspace / "linked")
    code = EXCHANGE.format(file=str(workspace / "linked"))
    run_outside(code, workspace=workspace).check()
    assert os.readlink(workspace / "linked") == "elsewhere"
    (workspace / "linked").unlink()
    (workspace / "linked").symlink_to(real)
    closed(start(code, workspace, configuration, audit))
    assert os.readlink(workspace / "linked") == str(real)


@pytest.mark.parametrize("name", ["policy.toml", "exam.policy.toml"])
def test_what_the_policy_is_a_link_to_is_not_written(name: str, workspace: Path, tmp_path: Path, audit: Path) -> None:
    """As people have it who keep their settings in a folder under version control; also another kernel's."""
    real = workspace / "policy-in-git.toml"
    real.write_text("")
    configuration = tmp_path / "config"
    (configuration / "sandboxed-kernel").mkdir(parents=True)
    (configuration / "sandboxed-kernel" / name).symlink_to(real)
    code = PLANT.format(file=str(real), text=WIDER)
    run_outside(code, workspace=workspace).check()
    assert real.read_text() == WIDER
    real.write_text("")
    closed(start(code, workspace, configuration, audit))
    assert real.read_text() == ""


def test_it_is_not_looked_for_in_shared_memory(workspace: Path, audit: Path) -> None:
    """Whose files are written by their exact name, whatever the policy says."""
    folder = Path(f"/dev/shm/sandboxed-kernel-test-{os.getpid()}")
    refusal(start("print('ran')", workspace, folder, audit), str(folder), "/dev/shm")


def test_a_link_to_it_in_shared_memory_is_not_exchanged(workspace: Path, tmp_path: Path, audit: Path) -> None:
    link = Path(f"/dev/shm/sandboxed-kernel-test-{os.getpid()}.toml")
    (tmp_path / "policy.toml").write_text("")
    code = f"import os; os.unlink({str(link)!r}); open({str(link)!r}, 'x').write({WIDER!r}); print('planted')"
    try:
        link.symlink_to(tmp_path / "policy.toml")
        run_outside(code, workspace=workspace).check()
        assert link.read_text() == WIDER
        link.unlink()
        link.symlink_to(tmp_path / "policy.toml")
        refusal(start(code, workspace, tmp_path, audit, "--policy", str(link)), str(link), "/dev/shm")
        assert link.read_text() == ""
    finally:
        link.unlink()


def test_without_one_the_default_holds_and_with_one_it_is_read(workspace: Path, tmp_path: Path, audit: Path) -> None:
    configuration = tmp_path / "config"
    code = "import os; print(os.environ.get('HELLO'))"
    assert start(code, workspace, configuration, audit).check().stdout == "None\n"
    file = configuration / "sandboxed-kernel" / "policy.toml"
    file.parent.mkdir(parents=True)
    file.write_text("# nothing yet\n")
    assert start(code, workspace, configuration, audit).check().stdout == "None\n"
    file.write_text('[environment]\nset = { HELLO = "there" }\n')
    assert start(code, workspace, configuration, audit).check().stdout == "there\n"
    other = tmp_path / "other.toml"
    other.write_text('[environment]\nset = { HELLO = "you" }\n')
    assert start(code, workspace, configuration, audit, "--policy", str(other)).check().stdout == "you\n"
    file.write_text("[network\n")
    refusal(start(code, workspace, configuration, audit), str(file), "not TOML")


def test_a_section_for_a_folder_holds_there_only(workspace: Path, tmp_path: Path, audit: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    file = tmp_path / "config" / "sandboxed-kernel" / "policy.toml"
    file.parent.mkdir(parents=True)
    file.write_text(f'[[folder]]\npath = "{workspace}"\n[folder.environment]\nset = {{ HELLO = "there" }}\n')
    code = "import os; print(os.environ.get('HELLO'))"
    assert start(code, workspace, tmp_path / "config", audit).check().stdout == "there\n"
    assert start(code, other, tmp_path / "config", audit).check().stdout == "None\n"

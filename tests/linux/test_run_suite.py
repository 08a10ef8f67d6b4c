"""The runner of the suite: what it moves works where it is moved to, what it cannot prepare it says, and it stops."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

from tests import run_suite
from tests.run_suite import Place, Run, Stage


def stage(name: str, code: int, ran: list[str], *, needs_root: bool = False) -> Stage:
    def run(_: Run) -> int:
        ran.append(name)
        return code

    return Stage(name, f"what {name} is", needs_root, run)


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_suite, "check_programs", lambda: None)


@pytest.mark.usefixtures("programs")
def test_the_first_failing_stage_ends_the_run_with_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []
    stages = tuple(stage(name, code, ran) for name, code in (("one", 0), ("two", 3), ("three", 0)))
    monkeypatch.setattr(run_suite, "STAGES", stages)
    assert run_suite.main([]) == 3
    assert ran == ["one", "two"]


@pytest.mark.usefixtures("programs")
def test_what_needs_root_is_left_out_aloud(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    ran: list[str] = []
    monkeypatch.setattr(run_suite, "STAGES", (stage("high", 0, ran, needs_root=True), stage("low", 0, ran)))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert run_suite.main([]) == 0
    assert ran == ["low"]
    assert "left out, since it needs root: high (what high is)" in capsys.readouterr().out


def test_a_missing_program_is_a_failure_that_names_its_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(run_suite, "STAGES", (stage("one", 0, ran),))
    monkeypatch.setattr(run_suite, "PROGRAMS", {"no-such-program": "its-package"})
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_suite.main([]) == 1
    assert ran == []
    assert "not found: no-such-program" in (told := capsys.readouterr().err)
    assert "apt-get install its-package" in told


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("part", "given"), [("--heavy", ["--heavy", "tests/workloads/heavy"]), ("--peers", run_suite.PARTS["peers"])]
)
def test_a_part_runs_its_own_tests_in_the_two_stages_without_privileges(
    part: str, given: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: dict[str, list[str]] = {}

    def noted(stage: Stage) -> Stage:
        def run(run: Run) -> int:
            ran[stage.name] = run.extra
            return 0

        return replace(stage, run=run)

    monkeypatch.setattr(run_suite, "STAGES", tuple(noted(stage) for stage in run_suite.STAGES))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert run_suite.main([part, "-k", "redis"]) == 0
    assert ran == {"container": [*given, "-k", "redis"], "ordinary": [*given, "-k", "redis"]}


def test_what_the_heavy_tests_lack_is_named_with_its_package(tmp_path: Path) -> None:
    """As `make test-workloads` asks before it installs anything: in the system's Python, by path."""
    program = Path(run_suite.__file__).with_name("workloads") / "heavy/machine.py"
    command = [sys.executable, "-I", str(program)]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    assert done.returncode == 1
    assert "redis-server" in done.stderr
    assert re.search(r"apt-get install .*default-jre-headless gcc.* redis-server", done.stderr)


def test_the_largest_stage_is_the_last() -> None:
    assert [stage.name for stage in run_suite.STAGES] == ["lint", "root", "container", "ordinary"]
    assert [stage.needs_root for stage in run_suite.STAGES] == [False, True, True, False]


def test_a_moved_environment_finds_the_moved_tree(tmp_path: Path) -> None:
    """As pip leaves it: the tree's path in a .pth file, the environment's in the first line of its scripts."""
    old = Place(tmp_path / "closed/tree", tmp_path / "closed/venv/bin/python")
    (old.tree / "package").mkdir(parents=True)
    (old.tree / "package/__init__.py").write_text("")
    (old.tree / ".git").mkdir()
    venv.create(tmp_path / "closed/venv", symlinks=True)
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    packages = tmp_path / "closed/venv/lib" / version / "site-packages"
    (packages / "_package.pth").write_text(f"{old.tree}\n")
    script = tmp_path / "closed/venv/bin/where"
    script.write_text(f"#!{old.python}\nimport package, sys\nprint(package.__file__, sys.prefix)\n")
    script.chmod(0o755)

    new = Place(tmp_path / "open/tree", tmp_path / "open/venv/bin/python")
    run_suite.copy_place(old, new)
    (tmp_path / "closed").rename(tmp_path / "gone")

    told = subprocess.run([new.python.parent / "where"], capture_output=True, text=True, check=True).stdout.split()
    assert told == [str(new.tree / "package/__init__.py"), str(new.python.parents[1])]
    assert not (new.tree / ".git").exists()

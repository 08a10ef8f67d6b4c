"""A policy may name a folder that does not exist: it is said, and what is made there later stays closed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.sandbox import launcher_command, run_inside, run_outside

ATTEMPT = """
import errno, json, os, sys
late = {late!r}
print("began", flush=True)
sys.stdin.readline()
told = {{}}
for name, mode in (("read", "r"), ("write", "a")):
    try:
        with open(late + "/secret", mode) as file:
            told[name] = file.read() if mode == "r" else file.write("changed")
    except OSError as error:
        told[name] = errno.errorcode[error.errno]
print(json.dumps(told))
"""
CLOSED = {"read": "EACCES", "write": "EACCES"}


def test_it_is_said_in_one_sentence_and_the_program_runs(workspace: Path, tmp_path: Path) -> None:
    policy = f'[filesystem]\nread = ["{tmp_path}/none"]\nwrite = [".", "{tmp_path}/nowhere"]'
    result = run_inside("print(open('mine', 'w').write('x'))", workspace=workspace, policy=policy).check()
    assert result.stdout == "1\n"
    said = [line for line in result.stderr.splitlines() if line.startswith("[sandbox]")]
    assert len(said) == 1
    assert f'"{tmp_path}/none"' in said[0]
    assert f'"{tmp_path}/nowhere"' in said[0]


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_what_is_made_there_later_stays_closed_until_the_next_start(kind: str, workspace: Path, tmp_path: Path) -> None:
    late, real = tmp_path / "late", tmp_path / "real"
    policy = f'[filesystem]\nwrite = [".", "{late}"]'
    code = ATTEMPT.format(late=str(late))
    command = [*launcher_command(policy, tmp_path, workspace, tmp_path / "audit.jsonl"), sys.executable, "-c", code]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=workspace, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "began\n"
        folder = real if kind == "link" else late
        folder.mkdir()
        (folder / "secret").write_text("a secret")
        if kind == "link":
            late.symlink_to(real)
        outside = run_outside(code.replace('"a"', '"r+"'), workspace=workspace, stdin="\n").json()
        assert outside["read"] == "a secret"  # the attempt works outside
        (folder / "secret").write_text("a secret")
        process.stdin.write("\n")
        process.stdin.flush()
        told = process.stdout.readline()
    assert json.loads(told) == CLOSED
    assert (folder / "secret").read_text() == "a secret"
    again = run_inside(code, workspace=workspace, policy=policy, stdin="\n")
    assert again.json() == {"read": "a secret", "write": len("changed")}
    assert (folder / "secret").read_text() == "a secretchanged"
    assert "[sandbox]" not in again.stderr


def test_what_the_policy_requires_ends_the_start(workspace: Path, tmp_path: Path) -> None:
    result = run_inside("print(1)", workspace=workspace, policy=f'[filesystem]\nrequire = ["{tmp_path}/none"]')
    assert result.returncode != 0
    assert result.stdout == ""
    assert f'filesystem.require[0]: "{tmp_path}/none" does not exist' in result.stderr

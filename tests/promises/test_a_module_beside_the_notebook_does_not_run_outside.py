"""Modules in the notebook's folder with the names of those that launcher and broker import are not imported by them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MARK = """import os
open(os.path.join({folder!r}, f"{{__name__}}-{{os.getpid()}}"), "w").close()
raise ImportError("bait")
"""
# What they import, and what Python itself imports at its start; ``sandboxed_kernel`` cannot be defended without -I.
NAMES = [
    "json", "tomllib", "zmq", "sitecustomize", "usercustomize", "ctypes", "socket", "signal", "pwd", "site",
    "dns", "resource", "select", "shutil", "traceback", "argparse", "threading", "queue", "struct", "typing",
    "enum", "pathlib", "traitlets", "dataclasses", "ipaddress", "posixpath", "errno", "stat", "subprocess",
]  # fmt: skip


@pytest.mark.parametrize("isolated", [["-I"], []], ids=["isolated", "plain"])
def test_a_module_beside_the_notebook_does_not_run_outside(
    isolated: list[str], workspace: Path, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    for name in NAMES + (["sandboxed_kernel"] if isolated else []):
        (workspace / f"{name}.py").write_text(MARK.format(folder=str(marks)))
    code = [sys.executable, "-c", "import json"]  # -c puts the folder first: the bait is taken
    outside = subprocess.run(code, cwd=workspace, capture_output=True, text=True, timeout=60, check=False)
    assert "bait" in outside.stderr
    assert len(list(marks.iterdir())) == 1

    policy = tmp_path / "policy.toml"
    policy.write_text('[network]\nallow = ["127.0.0.1:9"]\n')
    command = [sys.executable, *isolated, "-m", "sandboxed_kernel", "run", "--policy", str(policy)]
    command += ["--audit", str(tmp_path / "audit.jsonl"), "--", sys.executable, "-I", "-c", CALLS]
    tree = str(Path(__file__).parents[2])
    done = subprocess.run(
        command,
        cwd=workspace,
        env={**os.environ, "PYTHONPATH": tree},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "ran\n"
    assert len(list(marks.iterdir())) == 1, sorted(path.name for path in marks.iterdir())


# Every part of the broker is loaded for these, and the launcher tells of a refusal.
CALLS = """
import os, socket
for address in (("127.0.0.1", 1), ("192.0.2.1", 80)):
    with socket.socket() as s:
        s.connect_ex(address)
try:
    socket.getaddrinfo("refused.example.org", 80)
except OSError:
    pass
with socket.socket(socket.AF_UNIX) as s:
    s.bind("bound")
os.chmod("bound", 0o600)
print("ran")
"""

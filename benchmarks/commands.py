"""Does: runs a program of programs/ in one contender, in a workspace of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.model import Contender

_PROGRAMS = Path(__file__).with_name("programs")
_TIMEOUT = 300  # seconds


class Failed(Exception):
    """A contender could not be measured; the text is what it said."""


@contextmanager
def workspace() -> Iterator[Path]:
    """An empty folder; what lies beside it (policy, log) is outside of the sandbox. Removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="sbk-bench-") as folder:
        inner = Path(folder, "workspace")
        inner.mkdir()
        yield inner


def program_in(
    contender: Contender,
    folder: Path,
    name: str,
    options: Mapping[str, object],
    allow: tuple[str, ...] = (),
    resolv_conf: str | None = None,
) -> list[str]:
    """The command line, with the programs copied to where every contender may read them."""
    shutil.copytree(_PROGRAMS, folder / "benchmarks/programs", ignore=shutil.ignore_patterns("__pycache__"))
    inner = [sys.executable, "-m", f"benchmarks.programs.{name}", json.dumps(options)]
    return [*contender.command(folder, allow, resolv_conf), *inner]


def run_program(
    contender: Contender,
    name: str,
    options: Mapping[str, object],
    allow: tuple[str, ...] = (),
    resolv_conf: str | None = None,
) -> dict[str, float]:
    """What the program printed. Raises Failed."""
    with workspace() as folder:
        command = program_in(contender, folder, name, options, allow, resolv_conf)
        try:
            done = subprocess.run(
                command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT
            )
        except subprocess.TimeoutExpired:
            raise Failed(f"{name}: not done after {_TIMEOUT} s") from None
    if done.returncode != 0:
        raise Failed(f"{name}: exit code {done.returncode}: {done.stderr.strip()[-500:]}")
    return read_result(done.stdout)


def read_result(text: str) -> dict[str, float]:
    """The last line: a sandbox may say something of its own before it. Raises Failed."""
    try:
        found = json.loads(text.splitlines()[-1])
        return {str(name): float(value) for name, value in found.items()}
    except (IndexError, ValueError, AttributeError):
        raise Failed(f"no result in {text[-500:]!r}") from None


def quiet_environment(folder: Path) -> dict[str, str]:
    """This environment, with the state of IPython and of the audit log in ``folder``: nobody's own is touched."""
    return {**os.environ, "IPYTHONDIR": str(folder / "ipython"), "XDG_STATE_HOME": str(folder / "state")}

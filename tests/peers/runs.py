"""Does: runs a peer's test suite, as its sdist has it, with plain ipykernel or with ours under the same names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import get_kernel_dict

from tests.peers.fetch import SDISTS
from tests.peers.suites import KERNELS, Result, Suite

HERE = Path(__file__).resolve().parent
# A test of theirs that hangs fails; their own limits end the whole run, or do not exist.
LIMIT = ["--timeout=60", "--timeout-method=signal"]
# What their settings do not say and pytest-asyncio, which not all of them were written for, takes for an error.
ASYNCIO = ["-o", "asyncio_default_fixture_loop_scope=function"]
OUTPUT = ["-q", "--color=no", "--no-showlocals", "--durations=0", "-p", "no:cacheprovider"]
WHOLE_RUN = 1200  # seconds


@dataclass(frozen=True)
class Bench:
    """A suite unpacked in a folder of its own, and the kernels that it finds."""

    suite: Suite
    folder: Path
    sandboxed: bool

    @property
    def source(self) -> Path:
        return self.folder / f"{self.suite.project}-{version(self.suite.project)}"

    @property
    def started(self) -> Path:
        return self.folder / "started.jsonl"


def prepare(suite: Suite, folder: Path, *, sandboxed: bool) -> Bench:
    bench = Bench(suite, folder, sandboxed)
    for name in ("home", "p"):
        (folder / name).mkdir(parents=True)
    # By tar: Python's own wants to be told how far the archive is trusted since 3.12, and cannot be told before.
    subprocess.run(["tar", "-xzf", str(SDISTS / f"{bench.source.name}.tar.gz"), "-C", str(folder)], check=True)
    bench.started.touch()
    for name in KERNELS:
        (_install_ours if sandboxed else _install_plain)(bench, name)
    return bench


def _install_plain(bench: Bench, name: str) -> None:
    """ipykernel's own kernelspec, with start_plain.py before its command."""
    spec = get_kernel_dict()
    spec["argv"] = [sys.executable, str(HERE / "start_plain.py"), str(bench.started), "-f", "{connection_file}"]
    target = bench.folder / "share/jupyter/kernels" / name
    target.mkdir(parents=True)
    (target / "kernel.json").write_text(json.dumps(spec))


def _install_ours(bench: Bench, name: str) -> None:
    """As a user does."""
    command = [sys.executable, "-m", "sandboxed_kernel", "install", "--name", name, "--prefix", str(bench.folder)]
    if bench.suite.policy is not None:
        policy = bench.folder / "policy.toml"
        policy.write_text(bench.suite.policy.format(scratch=bench.folder / "p"))
        command += ["--policy", str(policy)]
    subprocess.run(command, check=True, env=_environment(bench), stdout=subprocess.DEVNULL)


def _environment(bench: Bench) -> dict[str, str]:
    mine = {
        "HOME": str(bench.folder / "home"),
        "JUPYTER_PATH": str(bench.folder / "share/jupyter"),  # before every other place of kernels, the suites' too
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    return {**os.environ, **mine}


def run(bench: Bench, tests: Collection[str] | None = None) -> dict[str, Result]:
    """How ``tests`` end (None: all that the suite has), by their ids; what they print goes to ``folder/output.txt``."""
    selection, target = bench.folder / "selection.json", bench.folder / "results.json"
    selection.write_text(json.dumps(None if tests is None else sorted(tests)))
    target.unlink(missing_ok=True)
    shutil.rmtree(bench.folder / "p")
    (bench.folder / "p").mkdir()  # pytest does, for the first test that asks; a policy names it before
    options = [*bench.suite.arguments, *OUTPUT, *LIMIT, *ASYNCIO, "--basetemp", str(bench.folder / "p")]
    command = [sys.executable, str(HERE / "observe.py"), str(target), str(selection), *options]
    with open(bench.folder / "output.txt", "a") as output:
        subprocess.run(
            command, cwd=bench.source, env=_environment(bench), stdin=subprocess.DEVNULL, stdout=output,
            stderr=subprocess.STDOUT, timeout=WHOLE_RUN,
        )  # fmt: skip
    assert target.exists(), f"the run of {bench.suite.project} broke off:\n{output_of(bench)[-3000:]}"
    return _results(json.loads(target.read_text()), bench.started.read_text())


def output_of(bench: Bench) -> str:
    return (bench.folder / "output.txt").read_text()


def _results(told: Mapping[str, Mapping[str, Any]], started: str) -> dict[str, Result]:
    """Which kernels were plain ones under test is known from ``started``; nothing is there after a sandboxed run."""
    starts = [json.loads(line) for line in started.splitlines()]
    keys, starters = {start["key"] for start in starts}, {start["test"] for start in starts}
    return {
        test: Result(
            one["outcome"], one["said"], one["started"] or test in starters or not keys.isdisjoint(one["keys"])
        )
        for test, one in told.items()
    }

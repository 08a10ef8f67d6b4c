"""`make bench` runs, and its JSON has the shape that docs/performance.md names. No times: they belong to a machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def run_bench(output: Path, *arguments: str) -> tuple[str, dict[str, Any]]:
    """What it printed, and the JSON."""
    command = [sys.executable, "-m", "benchmarks", "--quick", "--rounds", "2", "--output", str(output), *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    data: dict[str, Any] = json.loads(output.read_text())
    return done.stdout, data


def test_a_figure_of_commands_is_printed_and_written(tmp_path: Path) -> None:
    printed, data = run_bench(tmp_path / "new/result.json", "--only", "connect")
    assert {"plain", "ours"} <= data["contenders"].keys()
    assert {"date", "quick", "machine", "load", "contenders", "figures"} == data.keys()
    assert list(data["figures"]) == ["connect"]
    allowed = data["figures"]["connect"]["metrics"]["allowed_p50"]
    assert (allowed["unit"], allowed["compare"], allowed["goal"]) == ("us", "added", "<= +25 us")
    assert [len(allowed["rounds"][name]) for name in ("plain", "ours")] == [2, 2]
    assert "ours" in allowed["against_plain"]
    assert "plain" not in allowed["against_plain"]
    assert "allowed_p50" in printed


def test_a_figure_of_kernels_names_every_process(tmp_path: Path) -> None:
    _printed, data = run_bench(tmp_path / "result.json", "--only", "memory")
    metrics = data["figures"]["memory"]["metrics"]
    for role in ("launcher", "broker", "kernel"):
        assert min(metrics[role]["rounds"]["ours"]) > 0, f"no {role} was found: {data}"
    assert metrics["kernel"]["rounds"]["plain"] == metrics["all"]["rounds"]["plain"]

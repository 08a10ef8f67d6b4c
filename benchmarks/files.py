"""Figure: calls on a file of the workspace, and a process that is started and waited for."""

from __future__ import annotations

from benchmarks.commands import run_program
from benchmarks.model import Contender, Sample, Scale


def measure(contender: Contender, scale: Scale) -> Sample:
    return run_program(contender, "files", {"times": scale.times(5_000), "processes": scale.times(100)})

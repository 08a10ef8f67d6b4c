"""Figure: 16 threads that connect at the same time: how many connects a second."""

from __future__ import annotations

from benchmarks.commands import run_program
from benchmarks.model import Contender, Sample, Scale
from benchmarks.receivers import endpoint, silent


def measure(contender: Contender, scale: Scale) -> Sample:
    with silent() as port:
        options = {"port": port, "threads": 16, "times": scale.times(200)}  # together below the backlog
        return run_program(contender, "threads", options, (endpoint(port),))

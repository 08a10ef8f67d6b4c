"""Figure: socket() and connect() to what is allowed, refused, and the program's own, one after the other."""

from __future__ import annotations

from benchmarks.commands import run_program
from benchmarks.model import Contender, Sample, Scale
from benchmarks.receivers import endpoint, silent


def measure(contender: Contender, scale: Scale) -> Sample:
    with silent() as allowed, silent() as refused:
        options = {"allowed": allowed, "refused": refused, "times": scale.times(1000)}
        return run_program(contender, "connect", options, (endpoint(allowed),))

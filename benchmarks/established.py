"""Figure: a connection that stands: bytes a second in blocks of 64 KiB, and one byte there and back."""

from __future__ import annotations

from benchmarks.commands import run_program
from benchmarks.model import Contender, Sample, Scale
from benchmarks.receivers import endpoint, peer


def measure(contender: Contender, scale: Scale) -> Sample:
    with peer() as port:
        options = {"port": port, "blocks": scale.times(16_000), "times": scale.times(5_000)}
        return run_program(contender, "established", options, (endpoint(port),))

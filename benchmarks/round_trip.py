"""Figure: ``pass``, from the execute_request to its reply, in a kernel that is warm."""

from __future__ import annotations

import time

from benchmarks.kernels import ready
from benchmarks.model import Contender, Sample, Scale
from benchmarks.programs.timing import p50, p99


def measure(contender: Contender, scale: Scale) -> Sample:
    with ready(contender) as kernel:
        for _ in range(scale.times(50)):
            kernel.execute("pass")
        samples = []
        for _ in range(scale.times(500)):
            begin = time.perf_counter_ns()
            kernel.execute("pass")
            samples.append(time.perf_counter_ns() - begin)
    return {"p50": p50(samples) / 1e3, "p99": p99(samples) / 1e3}

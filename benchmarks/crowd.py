"""Figure: many kernels started at once, until the last one has run a cell."""

from __future__ import annotations

import time
from contextlib import ExitStack

from benchmarks.commands import workspace
from benchmarks.kernels import start
from benchmarks.model import Contender, Sample, Scale

_KERNELS = 20


def measure(contender: Contender, scale: Scale) -> Sample:
    with ExitStack() as stack:
        folders = [stack.enter_context(workspace()) for _ in range(scale.times(_KERNELS))]
        kernels = []
        begin = time.perf_counter()
        for folder in folders:
            kernel = start(contender, folder)
            stack.callback(kernel.close)
            kernels.append(kernel)
        for kernel in kernels:
            kernel.execute("pass")
        return {"ready": (time.perf_counter() - begin) * 1e3}

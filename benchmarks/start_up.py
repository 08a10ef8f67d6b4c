"""Figure: from ``start_kernel`` of jupyter_client to the first kernel_info_reply and the first execute_reply."""

from __future__ import annotations

import time

from benchmarks.commands import workspace
from benchmarks.kernels import start
from benchmarks.model import Contender, Sample, Scale


def measure(contender: Contender, _scale: Scale) -> Sample:
    with workspace() as folder:
        begin = time.perf_counter()
        kernel = start(contender, folder)
        try:
            kernel.ask_info()
            info = time.perf_counter()
            kernel.execute("pass")
            executed = time.perf_counter()
        finally:
            kernel.close()
    return {"kernel_info": (info - begin) * 1e3, "execute": (executed - begin) * 1e3}

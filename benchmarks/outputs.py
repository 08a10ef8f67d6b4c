"""Figure: cells that publish much, from the request to the idle that ends their output."""

from __future__ import annotations

import time

from benchmarks.kernels import ready
from benchmarks.model import Contender, Sample, Scale

_PREPARE = "from comm import create_comm"  # its import is no part of the figure


def _cells(scale: Scale) -> dict[str, str]:
    size = scale.times(100_000_000)
    return {
        "print": f"for number in range({scale.times(100_000)}): print(number)",
        "displays": f"for number in range({scale.times(5_000)}): display(number)",
        "text": f"display({{'text/plain': 'x' * {size}}}, raw=True)",
        "buffer": f"create_comm(target_name='benchmark', buffers=[bytes({size})])",
    }


def measure(contender: Contender, scale: Scale) -> Sample:
    found = {}
    with ready(contender) as kernel:
        kernel.execute_and_drain(_PREPARE)
        for name, cell in _cells(scale).items():
            begin = time.perf_counter()
            kernel.execute_and_drain(cell)
            found[name] = (time.perf_counter() - begin) * 1e3
    return found

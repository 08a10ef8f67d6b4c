"""Figure: ``python -c pass`` as a command of its own, from its start to its end."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.commands import Failed, workspace
from benchmarks.model import Contender, Sample, Scale


def measure(contender: Contender, _scale: Scale) -> Sample:
    with workspace() as folder:
        command = [*contender.command(folder, (), None), sys.executable, "-c", "pass"]
        begin = time.perf_counter()
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        ended = time.perf_counter()
    if done.returncode != 0:
        raise Failed(done.stderr.strip()[-500:])
    return {"python": (ended - begin) * 1e3}

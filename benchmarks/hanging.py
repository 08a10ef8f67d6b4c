"""Figure: 1,000 threads whose connect hangs: what the broker holds for them, and what others wait meanwhile."""

from __future__ import annotations

import subprocess

from benchmarks import processes
from benchmarks.commands import Failed, program_in, read_result, workspace
from benchmarks.model import Contender, Sample, Scale
from benchmarks.receivers import endpoint, full, silent


def measure(contender: Contender, scale: Scale) -> Sample:
    with full() as hanging, silent() as other, workspace() as folder:
        options = {"hanging": hanging, "other": other, "threads": scale.times(1000), "times": scale.times(200)}
        command = program_in(contender, folder, "hanging", options, (endpoint(hanging), endpoint(other)))
        with subprocess.Popen(command, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                before = _broker(process.pid, "alone") if process.stdout.readline() == "alone\n" else {}
                process.stdin.write("go\n")
                process.stdin.flush()
                waited = read_result(process.stdout.readline())
                during = _broker(process.pid, "hanging")
            except (OSError, IndexError) as error:
                raise Failed(f"hanging: {error}") from error
            finally:
                process.terminate()
    return {**waited, **before, **during}


def _broker(launcher: int, when: str) -> dict[str, float]:
    """Nothing for a contender without one."""
    children = processes.descendants(launcher)[1:2]
    return {f"{field.lower()}_{when}": processes.memory(children, field) for field in ("Pss", "Rss") if children}

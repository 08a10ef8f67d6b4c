"""Inside: calls on one file, and fork + exec + wait of /bin/true."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from time import perf_counter_ns

from benchmarks.programs.timing import microseconds

_FILE = "file"


def open_and_close() -> None:
    os.close(os.open(_FILE, os.O_RDONLY))


def read() -> None:
    with open(_FILE, "rb", buffering=0) as file:
        file.read(4096)


def start_true() -> None:
    pid = os.fork()
    if pid == 0:
        os.execv("/bin/true", ["true"])
    os.waitpid(pid, 0)


# metric -> call, part of options["times"]: chmod is brokered, and slower than the rest
CALLS: dict[str, tuple[Callable[[], object], int]] = {
    "open": (open_and_close, 1),
    "stat": (lambda: os.stat(_FILE), 1),
    "read": (read, 1),
    "chmod": (lambda: os.chmod(_FILE, 0o600), 5),
}


def timed(call: Callable[[], object], times: int) -> list[int]:
    samples = []
    for _ in range(times):
        begin = perf_counter_ns()
        call()
        samples.append(perf_counter_ns() - begin)
    return samples


def main() -> None:
    options = json.loads(sys.argv[1])
    Path(_FILE).write_bytes(bytes(4096))
    found: dict[str, float] = {}
    for name, (call, part) in CALLS.items():
        found.update(microseconds(name, timed(call, max(2, options["times"] // part))))
    found.update(microseconds("fork_exec", timed(start_true, options["processes"])))
    print(json.dumps(found))


if __name__ == "__main__":
    main()

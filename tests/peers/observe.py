"""Does: runs pytest and writes how each test ended, and which of them had to do with the kernels under test. Called by
path in a peer's folder:

    python observe.py RESULTS.json SELECTION.json PYTEST-ARGUMENTS

SELECTION.json: null, or a list of the tests to run. RESULTS.json: {test: {"outcome": ..., "said": ..., "keys": [...],
"started": ...}}. A kernel is known by the key of its connection file, since one that another test has started is used
too. It imports nothing of this project: the peer's folder has a package ``tests`` of its own.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.channels import ZMQSocketChannel
from jupyter_client.threaded import ThreadedZMQSocketChannel

# The worst of setup, call and teardown counts.
RANK = ("passed", "skipped", "failed")
STARTER = str(Path(__file__).with_name("start_plain.py"))


class Observer:
    """A plugin of pytest. What it wraps does what it did."""

    def __init__(self, selection: list[str] | None) -> None:
        self._selection = selection
        self.results: dict[str, dict[str, Any]] = {}
        self._running = ""

    def watch(self) -> None:
        """See kernels that are spoken to, and started from this process."""
        for channel in (ZMQSocketChannel, ThreadedZMQSocketChannel):
            channel.send = self._noting(channel.send)  # type: ignore[method-assign]
        sys.addaudithook(self._hear)

    def _noting(self, send: Any) -> Any:
        def noting(channel: Any, message: Any) -> Any:
            if self._running and channel.session is not None:
                keys = self._result(self._running)["keys"]
                if (key := channel.session.key.decode()) not in keys:
                    keys.append(key)
            return send(channel, message)

        return noting

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "subprocess.Popen" and self._running and STARTER in map(str, arguments[1]):
            self._result(self._running)["started"] = True

    def _result(self, test: str) -> dict[str, Any]:
        return self.results.setdefault(test, {"outcome": RANK[0], "said": "", "keys": [], "started": False})

    def pytest_addoption(self, parser: pytest.Parser) -> None:
        """ipykernel's tests ask whether their coverage is measured, and fail where nobody knows the question."""
        parser.addoption("--cov", action="store_true")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self._selection is not None:
            items[:] = [item for item in items if item.nodeid in self._selection]

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._running = nodeid

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        result = self._result(report.nodeid)
        if RANK.index(report.outcome) < RANK.index(result["outcome"]):
            return
        result["outcome"] = report.outcome
        if report.outcome != RANK[0]:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longreprtext
            errors = [line for line in reason.splitlines() if line.startswith("E ")] or reason.splitlines()[-1:]
            result["said"] = "".join(errors[:1]).removeprefix("E").strip()


def main(arguments: list[str]) -> int:
    target, selection, *options = arguments
    sys.path[0] = ""  # as `python -m pytest` has it, in place of this script's folder
    observer = Observer(json.loads(Path(selection).read_text()))
    observer.watch()
    code = pytest.main(options, plugins=[observer])
    Path(target).write_text(json.dumps(observer.results))
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Does: runs a function in a forked child, for calls that cannot be undone (filters, rulesets, capabilities)."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ChildKilled(Exception):
    """The child ended by a signal, as a filter that kills does."""

    def __init__(self, number: int) -> None:
        self.signal = signal.Signals(number)
        super().__init__(f"the child was killed by {self.signal.name}")


class ChildExited(Exception):
    """The child ended by itself (``os._exit``) before it had a result."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"the child exited with {status} before it had a result")


def in_child(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """``function``'s result, from a forked child; what it raises is raised here, with the child's traceback as a note.

    The result and exceptions must pickle. Raises ChildKilled, ChildExited, and TimeoutError after 30 seconds.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    sys.stdout.flush()
    sys.stderr.flush()
    with warnings.catch_warnings():
        # Python 3.12+ warns of fork() with threads; the receivers' threads hold no lock that the child needs.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        _run_and_exit(writing, lambda: function(*args, **kwargs))
    os.close(writing)
    try:
        data = _read_to_end(reading, within=30.0)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(reading)
        status = os.waitpid(pid, 0)[1]
    if data:
        raised, value, trace = pickle.loads(data)
        if raised:
            value.add_note(f"In the child:\n{trace}")
            raise value
        result: R = value
        return result
    if os.WIFSIGNALED(status):
        raise ChildKilled(os.WTERMSIG(status))
    raise ChildExited(os.waitstatus_to_exitcode(status))


def _run_and_exit(writing: int, function: Callable[[], object]) -> None:
    """Never returns: pytest's own clean-up must not run twice."""
    try:
        try:
            report = pickle.dumps((False, function(), ""))
        except BaseException as error:  # noqa: BLE001 - also KeyboardInterrupt and SystemExit belong to the parent
            trace = traceback.format_exc()
            try:
                report = pickle.dumps((True, error, trace))
            except Exception:  # noqa: BLE001 - whatever __reduce__ raises
                report = pickle.dumps((True, RuntimeError(f"{type(error).__name__}: {error}"), trace))
        while report:
            report = report[os.write(writing, report) :]
    finally:
        os._exit(0)


def _read_to_end(fd: int, within: float) -> bytes:
    data, end = bytearray(), time.monotonic() + within
    while True:
        if not select.select([fd], [], [], max(0.0, end - time.monotonic()))[0]:
            raise TimeoutError(f"the child had no result after {within} s")
        chunk = os.read(fd, 65536)
        if not chunk:
            return bytes(data)
        data += chunk

"""Does: what ends or interrupts the relay from outside, as descriptors to poll: signals, and the end of the parent."""

from __future__ import annotations

import os
import signal
from typing import Self


def parent_pid() -> int | None:
    """Whose end is ours: a Jupyter server names itself so (jupyter_client/launcher.py)."""
    pid = os.environ.get("JPY_PARENT_PID", "")
    return int(pid) if pid.isascii() and pid.isdigit() and int(pid) > 1 else None


class Signals:
    """SIGINT, SIGTERM and SIGHUP as bytes of a pipe: each exactly once, and only between messages (signal(7))."""

    _NUMBERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_fd = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._old = {number: signal.signal(number, lambda *_: None) for number in self._NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._old_fd)
        os.close(self._read)
        os.close(self._write)

    def fileno(self) -> int:
        return self._read

    def read(self) -> bytes:
        try:
            return os.read(self._read, 256)
        except BlockingIOError:
            return b""


class Watch:
    """A descriptor that becomes readable when a process ends (pidfd_open(2)); none for none."""

    def __init__(self, pid: int | None) -> None:
        self._pid = pid
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        if self._pid is not None:
            try:
                self._descriptor = os.pidfd_open(self._pid)
            except OSError:
                pass  # gone already, or of another pid namespace: nothing to watch
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)

    def fileno(self) -> int | None:
        return self._descriptor

"""Does: the audit log, one JSON line per event, appended. The schema is ``docs/events.schema.json``.

A log that cannot be written is said once, on standard error, and never keeps a call from being answered: refusing
goes on without a log, and a full disk must not become a way to stop the broker.
"""

from __future__ import annotations

import json
import os
import sys

from sandboxed_kernel.notices.events import Event


class AuditLog:
    """``open`` opens it (its folder is made where it is missing), the first event where that failed; kept open.

    ``O_NOFOLLOW``: the last component may be no symbolic link, so nobody who may write beside it sends our lines
    elsewhere (open(2)). ``O_APPEND``: several kernels may share a file, each line is one write.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        self._failed = False

    def open(self) -> None:
        """Before anything inside can use up the descriptors that this takes. Never raises for what the disk does."""
        try:
            self._descriptor = self._open()
        except OSError as error:
            self._complain(error)

    def write(self, event: Event) -> None:
        """Never raises for what the disk does."""
        line = json.dumps(event.to_json(), separators=(",", ":")).encode("ascii") + b"\n"
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            written = os.write(self._descriptor, line)
            if written != len(line):
                # Half a line must not spoil the next one, which starts on a line of its own.
                os.write(self._descriptor, b"\n")
                raise OSError(28, "the disk is full")
        except OSError as error:
            self._complain(error)

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> int:
        os.makedirs(os.path.dirname(self._path) or ".", 0o700, exist_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC | os.O_NONBLOCK
        return os.open(self._path, flags, 0o600)

    def _complain(self, error: OSError) -> None:
        if not self._failed:
            self._failed = True
            sys.stderr.write(f"sandboxed-kernel: {self._path}: the audit log cannot be written ({error.strerror}).\n")

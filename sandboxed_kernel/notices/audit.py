"""Does: the audit log, append-only JSON lines outside the sandbox's reach; one line per refusal and new destination."""

from __future__ import annotations

import json
import os
import sys

from sandboxed_kernel.notices.events import Event

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC


class AuditLog:
    """Opens ``path`` (mode 0600, no symbolic link) and appends. A log that cannot be written is said once, on standard error."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor: int | None = None
        try:
            os.makedirs(os.path.dirname(os.path.abspath(path)), mode=0o700, exist_ok=True)
            self._descriptor = os.open(path, _FLAGS, 0o600)
        except OSError as error:
            self._give_up(error)

    def write(self, event: Event) -> None:
        """One line, in one write(2), so that lines of several kernels do not mix. Never raises."""
        if self._descriptor is None:
            return
        line = json.dumps(event.to_json(), separators=(",", ":")) + "\n"
        try:
            os.write(self._descriptor, line.encode())
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        sys.stderr.write(f"sandboxed-kernel: no audit log is kept: {self._path}: {error.strerror}\n")

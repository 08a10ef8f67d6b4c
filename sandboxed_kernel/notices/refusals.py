"""Does: keeps the policy and the last refusals in files that ``%sandbox`` shows. Nothing depends on the files.

Each is one file from the launch to the end, written in place: the sandbox was given read access to this inode
(landlock(7)), not to a name.
"""

from __future__ import annotations

import os

from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.notices.events import Event

# In the kernel's private folder; inside/magics.py reads them beside its connection file.
POLICY_FILE, REFUSALS_FILE = "policy.txt", "refusals.txt"
KEPT = 50


class ShownFile:
    """Creates the file. Raises OSError where it cannot, FileExistsError where something has this name."""

    def __init__(self, folder: str, name: str) -> None:
        self.path = os.path.join(folder, name)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def write(self, text: str) -> None:
        """A full disk is nobody's concern here."""
        data = text.encode("utf-8", "replace")
        try:
            os.pwrite(self._descriptor, data, 0)
            os.ftruncate(self._descriptor, len(data))
        except OSError:
            pass

    def close(self) -> None:
        os.close(self._descriptor)


class Refusals(ShownFile):
    def __init__(self, folder: str, place: Place) -> None:
        self._place = place
        super().__init__(folder, REFUSALS_FILE)
        self._texts: dict[object, str] = {}  # by cell and destination, the latest last

    def add(self, event: Event) -> None:
        """A refusal, or the new count of one."""
        if event.verdict != "refused":
            return
        from sandboxed_kernel.notices import render  # 4 ms that are not wanted before the fork

        key = (event.cell, event.destination)
        self._texts.pop(key, None)
        # Without the mark of a notice: what %sandbox prints comes from inside.
        self._texts[key] = render.text(event, place=self._place).removeprefix(render.MARK)
        if len(self._texts) > KEPT:
            del self._texts[next(iter(self._texts))]
        self.write("".join(f"{each}\n" for each in self._texts.values()))

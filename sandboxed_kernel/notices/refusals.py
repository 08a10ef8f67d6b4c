"""Does: keeps the last refusals in a file that ``%sandbox`` shows. A convenience: nothing depends on the file.

It is one file from the launch to the end, written in place: the sandbox was given read access to this inode
(landlock(7)), not to a name.
"""

from __future__ import annotations

import os

from sandboxed_kernel.notices.advice import Place
from sandboxed_kernel.notices.events import Event

FILE_NAME = "refusals.txt"  # in the kernel's private folder; inside/magics.py reads it beside its connection file
KEPT = 50


class Refusals:
    """Creates the file. Raises OSError where it cannot, FileExistsError where something has this name."""

    def __init__(self, folder: str, place: Place) -> None:
        self._place = place
        self.path = os.path.join(folder, FILE_NAME)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._texts: dict[object, str] = {}  # by cell and destination, the latest last

    def add(self, event: Event) -> None:
        """A refusal, or the new count of one. A full disk is nobody's concern here: the notice and the log have it."""
        if event.verdict != "refused":
            return
        from sandboxed_kernel.notices import render  # 4 ms that are not wanted before the fork

        key = (event.cell, event.destination)
        self._texts.pop(key, None)
        self._texts[key] = render.text(event, place=self._place)
        if len(self._texts) > KEPT:
            del self._texts[next(iter(self._texts))]
        text = "".join(f"{each}\n" for each in self._texts.values()).encode("utf-8", "replace")
        try:
            os.pwrite(self._descriptor, text, 0)
            os.ftruncate(self._descriptor, len(text))
        except OSError:
            pass

    def close(self) -> None:
        os.close(self._descriptor)

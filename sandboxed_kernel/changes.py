"""Does: ``sandboxed-kernel changes``: what was made or changed in a folder that programs outside run or obey.

By the time of change of the inode, which no program can set (inode(7)). Whoever changed it: Linux keeps no record.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from sandboxed_kernel.policy.readers import reader_of
from sandboxed_kernel.records import Record

MOST = 500_000  # entries that are looked at


class Changed(Record):
    """``path`` is relative to the folder; ``when`` in seconds since the epoch; ``reader`` runs or obeys it."""

    path: str
    when: float
    reader: str


def changes(folder: str, since: float) -> tuple[list[Changed], bool]:
    """The newest first, and whether all was looked at. Links are named and not followed. Raises OSError."""
    found, looked_at = list[Changed](), 0
    for path, entry in _walk(folder):
        looked_at += 1
        if looked_at > MOST:
            return sorted(found, key=lambda each: -each.when), False
        try:
            status = entry.stat(follow_symlinks=False)
        except OSError:
            continue  # gone meanwhile
        if status.st_ctime < since or stat.S_ISDIR(status.st_mode):
            continue
        reader = reader_of(path, is_executable=bool(stat.S_ISREG(status.st_mode) and status.st_mode & 0o111))
        if reader is not None:
            found.append(Changed(path, status.st_ctime, reader))
    return sorted(found, key=lambda each: -each.when), True


def _walk(folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
    waiting = [""]
    while waiting:
        beneath = waiting.pop()
        try:
            entries = os.scandir(os.path.join(folder, beneath))
        except OSError:
            if not beneath:
                raise
            continue  # gone meanwhile, or not to be listed
        with entries:
            for entry in entries:
                path = os.path.join(beneath, entry.name)
                yield path, entry
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)

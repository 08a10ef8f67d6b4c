"""Does: writes files of this machine into an archive that Linux unpacks at boot.

The format "newc" of cpio: Documentation/driver-api/early-userspace/buffer-format.rst of Linux.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path
from typing import BinaryIO


class Archive:
    """Everything belongs to root in it and can be read by everybody; a path that is there already is left out."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._paths = {"/"}

    def add(self, path: Path) -> None:
        """A file, a link as a link, or a folder without what is in it; its parents too."""
        self.folder(str(path.parent))
        name = os.path.join(os.path.realpath(path.parent), path.name)
        if name in self._paths:
            return
        self._paths.add(name)
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            self._entry(name, 0o120777, os.readlink(path).encode())
        elif stat.S_ISDIR(status.st_mode):
            self._entry(name, 0o040755, b"")
        else:
            mode = 0o100755 if status.st_mode & 0o111 else 0o100644
            self._header(name, mode, status.st_size, int(status.st_mtime))  # which compiled Python is compared with
            with path.open("rb") as file:
                shutil.copyfileobj(file, self._out)
            self._pad()

    def folder(self, name: str) -> None:
        """Empty. What is a link on this machine (/lib) is one there, and what it leads to is there too."""
        if name in self._paths:
            return
        self.add(Path(name))
        if os.path.islink(name):
            self._paths.add(name)
            self.folder(os.path.realpath(name))

    def file(self, name: str, data: bytes) -> None:
        self.folder(os.path.dirname(name))
        self._paths.add(name)
        self._entry(name, 0o100755, data)

    def close(self) -> None:
        self._entry("TRAILER!!!", 0, b"")

    def _entry(self, name: str, mode: int, data: bytes) -> None:
        self._header(name, mode, len(data))
        self._out.write(data)
        self._pad()

    def _header(self, name: str, mode: int, size: int, changed: int = 0) -> None:
        encoded = name.lstrip("/").encode() + b"\0"
        # inode, mode, uid, gid, links, mtime, size, device (2), device of a node (2), length of the name, checksum
        numbers = (len(self._paths), mode, 0, 0, 1, changed, size, 0, 0, 0, 0, len(encoded), 0)
        self._out.write(b"070701" + b"".join(b"%08x" % number for number in numbers) + encoded)
        self._pad()

    def _pad(self) -> None:
        self._out.write(bytes(-self._out.tell() % 4))

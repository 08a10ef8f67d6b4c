"""POSIX access control lists, acl(5), as Linux keeps them in extended attributes."""

from __future__ import annotations

import os
import struct

ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"
# Tags of entries, linux/posix_acl.h: what the mode's bits are for, and whoever is named.
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32


def read(path: str, which: str) -> bytes | None:
    """``which``: ACCESS or DEFAULT; None where there is none, or the file system has none."""
    try:
        return os.getxattr(path, which)
    except OSError:
        return None


def entries(found: bytes) -> list[tuple[int, int]]:
    """Tag and access (bits as in access(2)) of each entry of what ``read`` found."""
    return [(tag, access) for tag, access, _who in struct.iter_unpack("<HHI", found[4:])]

"""The three Landlock calls. Source: landlock(7), include/uapi/linux/landlock.h.

The PyPI package ``landlock`` makes the same calls; loading it costs 24 ms at every kernel start, so that it serves as
the second opinion in the tests instead.
"""

from __future__ import annotations

import errno
import struct

from sandboxed_kernel.linux import libc

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1


def abi_version() -> int:
    """The Landlock ABI of this Linux; 0 where Landlock is missing or switched off."""
    try:
        return libc.syscall(libc.LANDLOCK_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    except OSError as error:
        if error.errno in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
            return 0
        raise


def create_ruleset(handled_fs: int, handled_net: int = 0, scoped: int = 0) -> int:
    """A new ruleset's descriptor. The masks: rights that are refused unless a rule allows them. Raises OSError."""
    # Trailing zero fields are left out: a Linux that does not know them accepts only the shorter structure.
    fields = [handled_fs, handled_net, scoped]
    while len(fields) > 1 and not fields[-1]:
        fields.pop()
    attributes = struct.pack(f"={len(fields)}Q", *fields)
    return libc.syscall(libc.LANDLOCK_CREATE_RULESET, libc.buffer_from(attributes), len(attributes), 0)


def add_path(ruleset: int, parent: int, access: int) -> None:
    """Allow ``access`` beneath the folder (or to the file) that ``parent`` has open, O_PATH is enough.

    Raises OSError; EINVAL where the rights do not fit the kind of file.
    """
    rule = libc.buffer_from(struct.pack("=Qi", access, parent))
    libc.syscall(libc.LANDLOCK_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)


def restrict_self(ruleset: int, flags: int = 0) -> None:
    """Put the calling *thread* under ``ruleset``, for good. ``flags``: LANDLOCK_RESTRICT_SELF_*, ABI 7.

    Needs no_new_privs. Raises OSError.
    """
    libc.syscall(libc.LANDLOCK_RESTRICT_SELF, ruleset, flags)

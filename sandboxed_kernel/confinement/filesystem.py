"""Pure: Landlock's rights by name and by ABI, and the rules made of them. Source: landlock(7), linux/landlock.h.

Landlock can only add: a rule for a folder holds for everything beneath it, and no rule takes anything back.
"""

from __future__ import annotations

from enum import IntFlag

from sandboxed_kernel.records import Record


class Fs(IntFlag):
    """LANDLOCK_ACCESS_FS_*."""

    EXECUTE = 1 << 0
    WRITE_FILE = 1 << 1
    READ_FILE = 1 << 2
    READ_DIR = 1 << 3
    REMOVE_DIR = 1 << 4
    REMOVE_FILE = 1 << 5
    MAKE_CHAR = 1 << 6
    MAKE_DIR = 1 << 7
    MAKE_REG = 1 << 8
    MAKE_SOCK = 1 << 9
    MAKE_FIFO = 1 << 10
    MAKE_BLOCK = 1 << 11
    MAKE_SYM = 1 << 12
    REFER = 1 << 13
    TRUNCATE = 1 << 14
    IOCTL_DEV = 1 << 15
    RESOLVE_UNIX = 1 << 16


class Net(IntFlag):
    """LANDLOCK_ACCESS_NET_*."""

    BIND_TCP = 1 << 0
    CONNECT_TCP = 1 << 1
    BIND_UDP = 1 << 2
    CONNECT_SEND_UDP = 1 << 3


class Scope(IntFlag):
    """LANDLOCK_SCOPE_*."""

    ABSTRACT_UNIX_SOCKET = 1 << 0
    SIGNAL = 1 << 1


class Restrict(IntFlag):
    """LANDLOCK_RESTRICT_SELF_*."""

    LOG_SUBDOMAINS_OFF = 1 << 2


# The ABI that brought each right: landlock(7), VERSIONS; Documentation/userspace-api/landlock.rst.
_FS_SINCE: tuple[tuple[int, Fs], ...] = (
    (1, Fs(Fs.REFER - 1)),  # everything before REFER
    (2, Fs.REFER),
    (3, Fs.TRUNCATE),
    (5, Fs.IOCTL_DEV),
    (9, Fs.RESOLVE_UNIX),
)
_NET_SINCE: tuple[tuple[int, Net], ...] = (
    (4, Net.BIND_TCP | Net.CONNECT_TCP),
    (10, Net.BIND_UDP | Net.CONNECT_SEND_UDP),
)
_SCOPE_SINCE = 6
_LOG_SINCE = 7

# What may be asked of a path that is no folder; Linux answers EINVAL to a rule with more (security/landlock/fs.c).
ON_FILES = Fs.EXECUTE | Fs.WRITE_FILE | Fs.READ_FILE | Fs.TRUNCATE | Fs.IOCTL_DEV

READ = Fs.READ_FILE | Fs.READ_DIR
READ_EXECUTE = READ | Fs.EXECUTE
# Never MAKE_CHAR, MAKE_BLOCK: a device file reaches past the file system. EXECUTE, because what can be written and read
# can be run anyway (by an interpreter, by ld.so), and gcc's output should be.
WRITE = (
    READ_EXECUTE
    | Fs.WRITE_FILE | Fs.TRUNCATE | Fs.REFER
    | Fs.REMOVE_DIR | Fs.REMOVE_FILE
    | Fs.MAKE_DIR | Fs.MAKE_REG | Fs.MAKE_SOCK | Fs.MAKE_FIFO | Fs.MAKE_SYM
)  # fmt: skip
# IOCTL_DEV on harmless devices too: without it isatty() answers EACCES where programs expect ENOTTY.
DEVICE = Fs.READ_FILE | Fs.WRITE_FILE | Fs.IOCTL_DEV
# /dev/shm by exact name only: what other programs of the user keep there cannot be listed.
SHARED_MEMORY = Fs.READ_FILE | Fs.WRITE_FILE | Fs.TRUNCATE | Fs.MAKE_REG | Fs.REMOVE_FILE


class PathRule(Record):
    """``access`` at ``path``, and beneath it if it is a folder. An ``optional`` path may be missing on a host.

    ``follow``: an optional path may be, or pass, a symbolic link.
    """

    path: str
    access: Fs
    reason: str
    optional: bool = True
    follow: bool = True


def rights_for(rule: PathRule, *, abi: int, is_folder: bool) -> Fs:
    """The part of ``rule.access`` that this Linux knows and that fits the kind of file; what landlock_add_rule takes.

    Zero means: add no rule.
    """
    rights = rule.access & handled_fs(abi)
    return rights if is_folder else rights & ON_FILES


def handled_fs(abi: int) -> Fs:
    """Every file right that Landlock of version ``abi`` can refuse."""
    rights = Fs(0)
    for since, added in _FS_SINCE:
        if abi >= since:
            rights |= added
    return rights


def handled_net(abi: int) -> Net:
    """Every TCP and UDP right that it can refuse; no rule of ours ever allows a port."""
    rights = Net(0)
    for since, added in _NET_SINCE:
        if abi >= since:
            rights |= added
    return rights


def scoped(abi: int) -> Scope:
    return Scope.ABSTRACT_UNIX_SOCKET | Scope.SIGNAL if abi >= _SCOPE_SINCE else Scope(0)


def restrict_flags(abi: int) -> Restrict:
    """Flags for landlock_restrict_self: code inside may sandbox itself once more, and what such a nested sandbox
    refuses must not fill this machine's audit log (by default Linux logs it)."""
    return Restrict.LOG_SUBDOMAINS_OFF if abi >= _LOG_SINCE else Restrict(0)

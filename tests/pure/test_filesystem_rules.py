"""Landlock's rights by ABI, and rules that fit what they are put on."""

from __future__ import annotations

from itertools import product

import pytest

from sandboxed_kernel.confinement.filesystem import (
    DEVICE,
    ON_FILES,
    READ,
    READ_EXECUTE,
    SHARED_MEMORY,
    WRITE,
    Fs,
    Net,
    PathRule,
    Scope,
    handled_fs,
    handled_net,
    restrict_flags,
    rights_for,
    scoped,
)

ALL = (READ, READ_EXECUTE, WRITE, DEVICE, SHARED_MEMORY)


@pytest.mark.parametrize(
    ("abi", "fs", "net", "scopes"),
    [  # landlock(7), written out
        (0, 0, 0, 0),
        (1, 0x1FFF, 0, 0),
        (2, 0x3FFF, 0, 0),
        (3, 0x7FFF, 0, 0),
        (4, 0x7FFF, 3, 0),
        (5, 0xFFFF, 3, 0),
        (6, 0xFFFF, 3, 3),
        (7, 0xFFFF, 3, 3),
        (8, 0xFFFF, 3, 3),
        (9, 0x1FFFF, 3, 3),
        (10, 0x1FFFF, 15, 3),
        (99, 0x1FFFF, 15, 3),
    ],
)
def test_what_each_version_handles(abi: int, fs: int, net: int, scopes: int) -> None:
    assert (handled_fs(abi), handled_net(abi), scoped(abi)) == (Fs(fs), Net(net), Scope(scopes))


@pytest.mark.parametrize(("access", "abi", "is_folder"), list(product(ALL, range(12), (True, False))))
def test_a_rule_asks_for_nothing_that_linux_would_refuse(access: Fs, abi: int, is_folder: bool) -> None:
    rights = rights_for(PathRule("/x", access, ""), abi=abi, is_folder=is_folder)
    assert rights & ~handled_fs(abi) == 0
    assert rights & ~access == 0
    if not is_folder:
        assert rights & ~ON_FILES == 0
    if abi >= 7 and is_folder:
        assert rights == access


def test_no_grant_makes_devices_or_reaches_servers_outside() -> None:
    for access in ALL:
        assert not access & (Fs.MAKE_CHAR | Fs.MAKE_BLOCK | Fs.RESOLVE_UNIX)


@pytest.mark.parametrize("abi", range(12))
def test_nested_sandboxes_fill_no_audit_log_where_linux_can_keep_them_from_it(abi: int) -> None:
    assert restrict_flags(abi) == (4 if abi >= 7 else 0)


def test_writing_is_everything_else_that_changes_a_folder() -> None:
    assert Fs(0xFFFF) == WRITE | Fs.MAKE_CHAR | Fs.MAKE_BLOCK | Fs.IOCTL_DEV
    assert READ & (WRITE & ~READ_EXECUTE) == 0


def test_shared_memory_cannot_be_listed() -> None:
    assert not SHARED_MEMORY & Fs.READ_DIR

"""Who has fenced its signals cannot signal its parent; who could is not taken for fenced."""

from __future__ import annotations

import os

import pytest

from sandboxed_kernel.linux import landlock, processes
from tests.support.child import in_child


def _fenced() -> tuple[bool, bool]:
    processes.set_no_new_privs()
    said = processes.fence_signals()
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return said, False
    return said, True


def _with_a_fence_that_does_nothing() -> bool:
    landlock.restrict_self = lambda ruleset, flags=0: None
    return processes.fence_signals()


def test_a_fence_holds_and_is_believed_only_then() -> None:
    if landlock.abi_version() < 6:
        pytest.fail("this machine is said to have Landlock's signal scope (ABI 6, Linux 6.12)")
    assert in_child(_fenced) == (True, False)
    assert in_child(_with_a_fence_that_does_nothing) is False

"""Each stage of the suite is what it says: otherwise its green line means nothing."""

from __future__ import annotations

import ctypes
import errno
import os

import pytest

STAGE = os.environ.get("SANDBOXED_KERNEL_TESTS_STAGE", "")
pytestmark = pytest.mark.container


def status() -> dict[str, str]:
    with open("/proc/self/status") as file:
        return {name: value.strip() for name, _, value in (line.partition(":") for line in file)}


@pytest.mark.skipif(STAGE not in ("container", "ordinary"), reason="a user's own call: their privileges are theirs")
def test_an_unprivileged_stage_has_no_privilege_and_no_way_back() -> None:
    now = status()
    assert os.getresuid() == os.getresgid() == (1000, 1000, 1000)
    assert [int(now[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")] == [0] * 5
    assert now["NoNewPrivs"] == "1"
    assert now["Groups"] in ("", "1000")


@pytest.mark.skipif(STAGE != "container", reason="only in the container")
def test_the_container_has_dockers_profile() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    assert status()["Seccomp"] == "2"
    for number in (438, 425):  # pidfd_getfd(2), io_uring_setup(2): the two that the design rests on
        assert libc.syscall(number, 0, 0, 0) == -1
        assert ctypes.get_errno() == errno.EPERM


@pytest.mark.root
def test_the_root_stage_is_root() -> None:
    assert os.geteuid() == 0
    assert int(status()["CapEff"], 16) & (1 << 21)  # CAP_SYS_ADMIN

"""Docker's profile as runc understands it: the conditions that Docker evaluates are evaluated the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.container import oci

PROFILE = json.loads(Path(oci.__file__).with_name("docker-default-seccomp.json").read_text())


def allowed(filter_: dict[str, Any]) -> set[str]:
    """Calls that the filter allows whatever their arguments."""
    rules = [rule for rule in filter_["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule]
    return {name for rule in rules for name in rule["names"]}


def test_without_capabilities_the_calls_behind_them_are_not_allowed() -> None:
    filter_ = oci.seccomp(PROFILE, machine="x86_64", linux=(6, 1))
    names = allowed(filter_)
    assert {"read", "openat", "seccomp", "landlock_restrict_self", "ptrace", "process_vm_readv"} <= names
    assert not {"pidfd_getfd", "mount", "setns", "bpf", "open_by_handle_at", "io_uring_setup", "reboot"} & names
    assert filter_["defaultAction"] == "SCMP_ACT_ERRNO"
    clone3 = [rule for rule in filter_["syscalls"] if "clone3" in rule["names"]]
    assert [(rule["action"], rule["errnoRet"]) for rule in clone3] == [("SCMP_ACT_ERRNO", 38)]


def test_a_capability_brings_its_calls() -> None:
    without = allowed(oci.seccomp(PROFILE, machine="x86_64", linux=(6, 1)))
    with_it = allowed(oci.seccomp(PROFILE, machine="x86_64", linux=(6, 1), capabilities={"CAP_SYS_PTRACE"}))
    assert "pidfd_getfd" in with_it - without


@pytest.mark.parametrize(("linux", "expected"), [((4, 7), False), ((4, 8), True), ((4, 10), True), ((6, 1), True)])
def test_the_oldest_linux_is_compared_by_number(linux: tuple[int, int], expected: bool) -> None:
    # 4.10 is newer than 4.8, which a comparison of texts would not say
    assert ("ptrace" in allowed(oci.seccomp(PROFILE, machine="x86_64", linux=linux))) is expected


@pytest.mark.parametrize(("machine", "expected"), [("x86_64", True), ("aarch64", False)])
def test_an_architectures_calls_stay_there(machine: str, expected: bool) -> None:
    filter_ = oci.seccomp(PROFILE, machine=machine, linux=(6, 1))
    assert ("modify_ldt" in allowed(filter_)) is expected
    assert ("SCMP_ARCH_X32" in filter_["architectures"]) is expected


@pytest.mark.parametrize("where", ["includes", "excludes"])
def test_a_condition_from_the_future_is_an_error_not_an_allowance(where: str) -> None:
    profile = {**PROFILE, "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW", where: {"moon": "full"}}]}
    with pytest.raises(ValueError, match="moon"):
        oci.seccomp(profile, machine="x86_64", linux=(6, 1))


def test_the_container_has_no_privilege() -> None:
    config = oci.config(["true"], cwd="/", env={"A": "b"}, uid=1000, rootfs="/r", hosts="/h", cgroup="/c", filter_={})
    process = config["process"]
    assert process["noNewPrivileges"] is True
    assert process["user"] == {"uid": 1000, "gid": 1000, "additionalGids": []}
    assert set(process["capabilities"]) == {"bounding", "effective", "inheritable", "permitted", "ambient"}
    assert not any(process["capabilities"].values())

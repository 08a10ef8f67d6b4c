"""Pure: Docker's seccomp profile and a program, as a ``config.json`` of the OCI runtime specification.

Docker's format is the OCI's plus conditions (architecture, capabilities, kernel version) that Docker evaluates when a
container is created: https://docs.docker.com/engine/security/seccomp/ and daemon/pkg/oci of moby; the result's
format is config-linux.md, section "Seccomp", of the OCI runtime specification.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

# Docker's names of architectures in conditions (Go's, GOARCH), by `uname -m`.
DOCKER_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "s390x": "s390x"}
OCI_ARCHITECTURES = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "riscv64": "SCMP_ARCH_RISCV64",
    "s390x": "SCMP_ARCH_S390X",
}

# Docker's defaults: `docker inspect` shows them as MaskedPaths and ReadonlyPaths.
MASKED_PATHS = (
    "/proc/asound", "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
    "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
)  # fmt: skip
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

HOSTNAME = "sandboxed-kernel-tests"

# Docker's default mounts, oci/defaults.go of moby; the root filesystem is the caller's.
MOUNTS: tuple[dict[str, Any], ...] = (
    {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
    {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755"]},
    {
        "destination": "/dev/pts",
        "type": "devpts",
        "source": "devpts",
        "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
    },
    {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
    {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["ro", "nosuid", "noexec", "nodev"],
    },
    {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
    {
        "destination": "/dev/shm",
        "type": "tmpfs",
        "source": "shm",
        "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=1g"],
    },
)


def _holds(
    conditions: Mapping[str, Any], *, machine: str, capabilities: Collection[str], linux: tuple[int, int]
) -> bool:
    """Whether every one of ``includes`` holds. Several capabilities mean all of them, several architectures any."""
    known = {"arches", "caps", "minKernel"}
    if not conditions.keys() <= known:
        raise ValueError(f"a condition of the profile that this converter does not know: {sorted(conditions)}")
    arches = conditions.get("arches", ())
    version = tuple(int(part) for part in str(conditions.get("minKernel", "0.0")).split("."))
    return (
        (not arches or DOCKER_ARCHITECTURES[machine] in arches)
        and all(capability in capabilities for capability in conditions.get("caps", ()))
        and linux >= version
    )


def _excluded(conditions: Mapping[str, Any], *, machine: str, capabilities: Collection[str]) -> bool:
    """Whether any one of ``excludes`` holds."""
    if not conditions.keys() <= {"arches", "caps"}:
        raise ValueError(f"an exclusion of the profile that this converter does not know: {sorted(conditions)}")
    return DOCKER_ARCHITECTURES[machine] in conditions.get("arches", ()) or any(
        capability in capabilities for capability in conditions.get("caps", ())
    )


def seccomp(
    profile: Mapping[str, Any], *, machine: str, linux: tuple[int, int], capabilities: Collection[str] = ()
) -> dict[str, Any]:
    """Docker's ``profile`` as OCI ``linux.seccomp``, for ``uname -m``, (major, minor) of Linux, and capabilities.

    Raises KeyError for a machine that is not in the tables, ValueError for conditions that Docker added since.
    """
    native = OCI_ARCHITECTURES[machine]
    architectures = [native]
    for entry in profile["archMap"]:
        if entry["architecture"] == native:
            architectures += entry["subArchitectures"] or []
    rules = []
    for rule in profile["syscalls"]:
        if not _holds(rule.get("includes") or {}, machine=machine, capabilities=capabilities, linux=linux):
            continue
        if _excluded(rule.get("excludes") or {}, machine=machine, capabilities=capabilities):
            continue
        rules.append({key: rule[key] for key in ("names", "action", "errnoRet", "args") if rule.get(key)})
    return {
        "defaultAction": profile["defaultAction"],
        "defaultErrnoRet": profile["defaultErrnoRet"],
        "architectures": architectures,
        "syscalls": rules,
    }


def config(
    command: Sequence[str],
    *,
    cwd: str,
    env: Mapping[str, str],
    uid: int,
    rootfs: str,
    hosts: str,
    cgroup: str,
    filter_: dict[str, Any],
) -> dict[str, Any]:
    """A container as the Kubernetes *restricted* standard has it: no capability, no_new_privs, not root.

    It has no network namespace of its own entry: the starter makes one and lends it, so that it can prepare it.
    ``hosts``: a file that knows HOSTNAME, put in the place of /etc/hosts as Docker does. Java stops without.
    """
    known = {"destination": "/etc/hosts", "type": "bind", "source": hosts, "options": ["bind", "rprivate", "ro"]}
    nothing: dict[str, list[str]] = {
        kind: [] for kind in ("bounding", "effective", "inheritable", "permitted", "ambient")
    }
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": uid, "gid": uid, "additionalGids": []},
            "args": list(command),
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": cwd,
            "capabilities": nothing,
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": False},
        "hostname": HOSTNAME,
        "mounts": [*MOUNTS, known],
        "linux": {
            "cgroupsPath": cgroup,
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")],
            "maskedPaths": list(MASKED_PATHS),
            "readonlyPaths": list(READONLY_PATHS),
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "seccomp": filter_,
        },
    }

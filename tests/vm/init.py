"""Does: the first process of the virtual machine: mounts, prepares control groups, runs the tests, switches off.

    init.py TREE PYTHON ARGUMENTS-OF-PYTEST ...

Each run is in a situation of its own: who runs it, and whether the group around it was delegated to that user.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path

MOUNTS = (
    ("devtmpfs", "/dev", ""),
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("tmpfs", "/tmp", "mode=1777"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("devpts", "/dev/pts", "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("cgroup2", "/sys/fs/cgroup", ""),
)
HIERARCHY = Path("/sys/fs/cgroup")
ADDRESS = "198.51.100.7"  # TEST-NET-2, RFC 5737: nobody's
MODULE = "/module-"  # with its place in the order of loading behind it
ENDED = "--- the virtual machine's tests ended with "  # read by run.py, with the exit code behind it

PROMISE = "tests/promises/test_the_limits_of_the_policy_hold.py"
NEWER = (
    "tests/linux/test_landlock_fences.py",
    "tests/linux/test_check.py",
    "tests/promises/test_own_unix_sockets_work_as_outside.py",
    "tests/promises/test_a_unix_socket_of_another_program_is_out_of_reach.py",
    "tests/promises/test_own_servers_are_reached_from_inside_only_by_this_machine.py",
    "tests/promises/test_sockets_answer_as_they_do_outside.py",
    "tests/promises/test_a_datagram_that_no_line_allows_goes_nowhere.py",
)
_RB_POWER_OFF = 0x4321FEDC  # reboot(2), LINUX_REBOOT_CMD_POWER_OFF
_FINIT_MODULE = 313  # x86-64
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1  # netdevice(7)


@dataclass(frozen=True)
class Situation:
    name: str
    uid: int
    delegated: bool  # the group above the launcher's belongs to this user
    enabled: bool  # it hands on memory and pids already
    tests: tuple[str, ...]


SITUATIONS = (
    Situation("root", 0, True, True, ("--stage", "vm", "tests/vm")),
    Situation("delegated", 1000, True, False, ("--stage", "vm", "tests/vm")),
    Situation("foreign", 1000, False, True, ("--stage", "ordinary", PROMISE)),
    # Of this Linux, which may be newer than any other at hand: what its Landlock refuses, and that all else works.
    Situation("newer", 1000, False, True, ("--stage", "ordinary", *NEWER)),
)


def main(arguments: list[str]) -> None:
    code = 1
    try:
        prepare()
        tree, python, *rest = arguments
        code = check(tree, python) if rest == [CHECK] else run_all(tree, python, *rest)
    except BaseException:  # noqa: BLE001 - the first process must not end: Linux would panic
        traceback.print_exc()
    print(f"{ENDED}{code}", flush=True)
    ctypes.CDLL(None).reboot(_RB_POWER_OFF)


def prepare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    for kind, where, options in MOUNTS:
        os.makedirs(where, exist_ok=True)
        if libc.mount(kind.encode(), where.encode(), kind.encode(), 0, options.encode()) != 0:
            raise OSError(ctypes.get_errno(), f"mounting {where}")
    console = os.open("/dev/console", os.O_RDWR)
    for number in range(3):
        os.dup2(console, number)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if not os.path.lexists(f"/dev/{name}"):
            os.symlink(f"/proc/self/fd/{number}", f"/dev/{name}")
    for module in sorted(Path("/").glob(f"{Path(MODULE).name}*")):
        with module.open("rb") as file:
            if libc.syscall(_FINIT_MODULE, file.fileno(), b"", 0) != 0:
                raise OSError(ctypes.get_errno(), f"loading {module}")
    subprocess.run([sys.executable, "-c", LOOPBACK_UP], check=True)
    # What every other machine has: an address beside loopback, and a folder of services.
    subprocess.run(["ip", "address", "add", f"{ADDRESS}/32", "dev", "lo"], check=True)
    os.makedirs("/run/systemd")
    (HIERARCHY / "cgroup.subtree_control").write_text("+memory +pids")


LOOPBACK_UP = f"""
import fcntl, socket, struct
request = struct.pack("=16sh14x", b"lo", {_IFF_UP})
fcntl.ioctl(socket.socket(socket.AF_INET, socket.SOCK_DGRAM), {_SIOCSIFFLAGS}, request)
"""


CHECK = "--check"  # in the place of pytest's arguments: only what `sandboxed-kernel check` and a command say
STEP = "--- step: "  # read by platforms.py


def check(tree: str, python: str) -> int:
    """Everything as an ordinary user, in an own folder."""
    home = Path("/tmp/check")
    (home / "notebook").mkdir(parents=True)
    for path in (home, home / "notebook"):
        os.chown(path, 1000, 1000)
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "NO_COLOR": "1"}
    program = [python, "-I", "-m", "sandboxed_kernel"]
    policy = home / ".config" / "sandboxed-kernel" / "policy.toml"
    attempt = [python, f"{tree}/tests/vm/attempt.py", str(policy), *program, "run", "--"]
    steps = {
        "check": [*program, "check"],
        "install": [*program, "install", "--user", "--no-try"],
        "default": attempt,
        "forget": [python, "-c", f"open({str(policy)!r}, 'w').close()"],
        "best": [*program, "install", "--user", "--no-try", "--best-effort"],
        "less": attempt,
    }
    for name, command in steps.items():
        print(f"{STEP}{name}", flush=True)
        options = {"user": 1000, "group": 1000, "extra_groups": list[int]()}
        subprocess.run(command, cwd=home / "notebook", env=environment, check=False, **options)  # type: ignore[call-overload]
    return 0


def run_all(tree: str, python: str, *arguments: str) -> int:
    """The highest exit code of all situations; each is run, whatever came of those before."""
    worst = 0
    for situation in SITUATIONS:
        began = time.monotonic()
        whose = "its own" if situation.delegated else "root's"
        print(f"=== {situation.name}: uid {situation.uid}, the group above is {whose}", flush=True)
        worst = max(worst, run(situation, tree, python, arguments))
        print(f"=== {situation.name}: {time.monotonic() - began:.0f} s", flush=True)
    return worst


def run(situation: Situation, tree: str, python: str, arguments: tuple[str, ...]) -> int:
    above = HIERARCHY / situation.name
    main_group = above / "main"
    main_group.mkdir(parents=True)
    home = Path("/tmp", situation.name)
    home.mkdir()
    os.chown(home, situation.uid, situation.uid)
    if situation.enabled:
        (above / "cgroup.subtree_control").write_text("+memory +pids")
    if situation.delegated:
        # What "Delegation" in cgroup-v2.rst says to give away, and no more.
        for group in (above, main_group):
            for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control", group / "cgroup.threads"):
                os.chown(path, situation.uid, situation.uid)
    options = ["-p", "no:cacheprovider", "--basetemp", f"{home}/p", *situation.tests, *arguments]
    environment = {"HOME": str(home), "TMPDIR": str(home), "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
    environment |= {
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
        "HYPOTHESIS_STORAGE_DIRECTORY": f"{home}/hypothesis",
    }

    def become() -> None:
        (main_group / "cgroup.procs").write_text("0")
        os.setgroups([])
        os.setresgid(situation.uid, situation.uid, situation.uid)
        os.setresuid(situation.uid, situation.uid, situation.uid)

    command = [python, "-m", "pytest", *options]
    return subprocess.run(command, cwd=tree, env=environment, preexec_fn=become, check=False).returncode


if __name__ == "__main__":
    main(sys.argv[1:])

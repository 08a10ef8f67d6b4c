"""Processes outside are not signalled, stopped, read, written, traced, limited or rescheduled.

Neither launcher nor broker nor another program of the same user. The victim itself writes down each signal it gets.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.programs import RAW
from tests.support.sandbox import IN_CONTAINER, run_inside, run_outside
from tests.support.servers import wait_until

VICTIM = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(0x59616D61, ctypes.c_ulong(-1), 0, 0, 0)  # PR_SET_PTRACER_ANY: where Yama allows only parents
log = os.open(sys.argv[1], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
for number in range(signal.SIGRTMIN, signal.SIGRTMAX):
    signal.signal(number, lambda number, frame: os.write(log, b"%d\\n" % number))
secret = "v1ctim-" + "in memory"
buffer = ctypes.create_string_buffer(secret.encode())
opened = os.open(sys.argv[2], os.O_RDONLY)
print(ctypes.addressof(buffer), opened, flush=True)
while True:
    signal.pause()
"""

CODE = (
    """
import ctypes, errno, fcntl, json, os, resource, select, signal, socket, struct, sys
NR, AT_FDCWD = {numbers!r}, -100
target, address, opened, log = {target}, {address}, {opened}, {log!r}
libc, told = ctypes.CDLL(None, use_errno=True), {{}}
if target < 0:  # inside: the broker, which is the parent, or its parent, the launcher
    parent = os.getppid()
    launcher = int(open(f"/proc/{{parent}}/stat").read().rpartition(")")[2].split()[1])
    target = parent if target == -1 else launcher
first = signal.SIGRTMIN

"""
    + RAW
    + """
def info(number):
    fields = struct.pack("=iiiiii", number, 0, -1, 0, os.getpid(), os.getuid())  # siginfo_t, SI_QUEUE
    return ctypes.create_string_buffer(fields.ljust(128, b"\\0"))

def by_owner(number, set_owner):
    left, right = socket.socketpair()
    set_owner(left)
    fcntl.fcntl(left, 10, number)  # F_SETSIG
    fcntl.fcntl(left, fcntl.F_SETFL, os.O_ASYNC | os.O_NONBLOCK)
    right.send(b"x")

def by_lease_of_pipe(number):
    readable, writable = os.pipe()
    fcntl.fcntl(readable, fcntl.F_SETOWN, target)
    fcntl.fcntl(readable, 10, number)
    fcntl.fcntl(readable, fcntl.F_SETFL, os.O_ASYNC)
    os.write(writable, b"x")

SIGNALS = {{
    "kill": lambda n: os.kill(target, n),
    "tkill": lambda n: raw("tkill", target, n),
    "tgkill": lambda n: raw("tgkill", target, target, n),
    "sigqueue": lambda n: raw("rt_sigqueueinfo", target, n, info(n)),
    "tgsigqueue": lambda n: raw("rt_tgsigqueueinfo", target, target, n, info(n)),
    "pidfd": lambda n: signal.pidfd_send_signal(os.pidfd_open(target), n),
    "group": lambda n: os.killpg(os.getpgid(target), n),
    "owner": lambda n: by_owner(n, lambda s: fcntl.fcntl(s, fcntl.F_SETOWN, target)),
    "owner group": lambda n: by_owner(n, lambda s: fcntl.fcntl(s, fcntl.F_SETOWN, -os.getpgid(target))),
    "owner thread": lambda n: by_owner(n, lambda s: fcntl.fcntl(s, 15, struct.pack("ii", 0, target))),  # F_SETOWN_EX
    "ioctl": lambda n: by_owner(n, lambda s: fcntl.ioctl(s, 0x8901, struct.pack("i", target))),  # FIOSETOWN
    "ioctl, socket": lambda n: by_owner(n, lambda s: fcntl.ioctl(s, 0x8902, struct.pack("i", target))),  # SIOCSPGRP
    "pipe": by_lease_of_pipe,
}}

def vector(data, size):
    return struct.pack("QQ", ctypes.addressof(data), size)

def read_memory():
    data = ctypes.create_string_buffer(16)
    raw("process_vm_readv", target, vector(data, 16), 1, struct.pack("QQ", address, 16), 1, 0)
    return data.value.decode()

def write_memory():
    data = ctypes.create_string_buffer(b"w")
    raw("process_vm_writev", target, vector(data, 1), 1, struct.pack("QQ", address, 1), 1, 0)
    return "reached"

def pread(name, size, offset=0):
    fd = os.open(f"/proc/{{target}}/{{name}}", os.O_RDONLY)
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)

def pwrite_memory():
    fd = os.open(f"/proc/{{target}}/mem", os.O_WRONLY)
    os.pwrite(fd, b"v", address)
    return "reached"

def seize():
    raw("ptrace", 0x4206, target, 0, 0)  # PTRACE_SEIZE; it is let go when this process ends
    return "reached"

def taken_descriptor():
    fd = raw("pidfd_getfd", os.pidfd_open(target), opened, 0)
    return os.read(fd, 100) and "reached"

READS = {{
    "process_vm_readv": read_memory,
    "process_vm_writev": write_memory,
    "mem": lambda: pread("mem", 9, address).decode() or "reached",
    "mem for writing": pwrite_memory,
    "environ": lambda: "reached" if b"S3CRET" in pread("environ", 1 << 20) else "nothing",
    "maps": lambda: pread("maps", 100) and "reached",
    "auxv": lambda: pread("auxv", 100) and "reached",
    "fd": lambda: os.readlink(f"/proc/{{target}}/fd/{{opened}}") and "reached",
    "fd opened": lambda: os.read(os.open(f"/proc/{{target}}/fd/{{opened}}", os.O_RDONLY), 10) and "reached",
    "fdinfo": lambda: os.listdir(f"/proc/{{target}}/fdinfo") and "reached",
    "root": lambda: os.listdir(f"/proc/{{target}}/root") and "reached",
    "cwd": lambda: os.listdir(f"/proc/{{target}}/cwd") is not None and "reached",
    "cwd name": lambda: os.readlink(f"/proc/{{target}}/cwd") and "reached",
    "task": lambda: pread(f"task/{{target}}/environ", 10) and "reached",
    "map_files": lambda: os.listdir(f"/proc/{{target}}/map_files") and "reached",
    "pidfd_getfd": taken_descriptor,
    "kcmp": lambda: raw("kcmp", os.getpid(), target, 2, 0, 0) >= 0 and "reached",
    "namespace": lambda: os.open(f"/proc/{{target}}/ns/net", os.O_RDONLY) and "reached",
    "ptrace": seize,
}}

def nice(which, who):
    os.setpriority(which, who, os.getpriority(os.PRIO_PROCESS, target) + 1)

CHANGES = {{
    "prlimit": lambda: raw("prlimit64", target, 7, struct.pack("QQ", 100, 200), None),
    "prlimit with question": lambda: resource.prlimit(target, resource.RLIMIT_CORE, (0, 0)),
    "cpu time": lambda: raw("prlimit64", target, 0, struct.pack("QQ", 3600, 3601), None),
    "priority": lambda: nice(os.PRIO_PROCESS, target),
    "priority of group": lambda: nice(os.PRIO_PGRP, os.getpgid(target)),
    "input and output": lambda: raw("ioprio_set", 1, target, 3 << 13),
    "input and output of group": lambda: raw("ioprio_set", 2, os.getpgid(target), 2 << 13 | 7),
    "processors": lambda: os.sched_setaffinity(target, [max(os.sched_getaffinity(target))]),
    "scheduler": lambda: os.sched_setscheduler(target, os.SCHED_BATCH, os.sched_param(0)),
    "parameters": lambda: os.sched_setparam(target, os.sched_param(0)),
    "attributes": lambda: raw("sched_setattr", target, struct.pack("IIQiIQQQ", 48, 5, 0, 0, 0, 0, 0, 0), 0),
    "pages": lambda: raw("migrate_pages", target, 1, struct.pack("Q", 1), struct.pack("Q", 1)),
    "advice": lambda: raw("process_madvise", os.pidfd_open(target), struct.pack("QQ", address & ~4095, 4096), 1, 20, 0),
    "adjusted": lambda: open(f"/proc/{{target}}/oom_score_adj", "w").write("500"),
    "name": lambda: open(f"/proc/{{target}}/clear_refs", "w").write("1"),
    "group": lambda: os.setpgid(target, 0),
    "stop": lambda: os.kill(target, signal.SIGSTOP),
}}

def attempt(kind, way, go):
    try:
        told[f"{{kind}}: {{way}}"] = go() if kind == "read" else (go(), "done")[1]
    except OSError as error:
        told[f"{{kind}}: {{way}}"] = errno.errorcode[error.errno]

for number, (way, go) in enumerate(SIGNALS.items()):
    attempt("signal", way, lambda: go(first + number))
for way, go in READS.items():
    attempt("read", way, go)
for way, go in CHANGES.items():
    attempt("change", way, go)
open("proof", "w").close()
os.chmod("proof", 0o640)  # the broker still answers
print(json.dumps(told))
"""
)

# Those that come back with an answer of Linux's own, although nothing came of them.
QUIET = {"signal: owner", "signal: owner group", "signal: owner thread", "signal: ioctl", "signal: ioctl, socket"}
QUIET |= {"signal: pipe"}
# Refused outside too: by the machine (one memory node, Yama), or to every process that is no parent.
MAY_FAIL_OUTSIDE = {
    "change: group",
    "change: pages",
    "change: advice",
    "read: map_files",
    "read: pidfd_getfd",
    "read: kcmp",
}
BY_DOCKER = {"read: process_vm_readv", "read: process_vm_writev", "read: ptrace"}


@contextmanager
def victim(log: Path, opened: Path) -> Iterator[tuple[int, int, int]]:
    """A process of the same user, in a group of its own: (pid, address of a secret, a descriptor)."""
    command = [sys.executable, "-c", VICTIM, str(log), str(opened)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True, env={**os.environ, "VICTIM": "S3CRET"}
    )
    try:
        assert process.stdout is not None
        address, descriptor = process.stdout.readline().split()
        yield process.pid, int(address), int(descriptor)
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def state(pid: int) -> dict[str, object]:
    """What could have been changed about a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {
        "state": "T" if fields[0] == "T" else "running",
        "limits": [resource.prlimit(pid, which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU)],
        "core": resource.prlimit(pid, resource.RLIMIT_CORE),
        "priority": os.getpriority(os.PRIO_PROCESS, pid),
        "processors": sorted(os.sched_getaffinity(pid)),
        "scheduler": os.sched_getscheduler(pid),
        "group": os.getpgid(pid),
        "score": Path(f"/proc/{pid}/oom_score_adj").read_text(),
    }


def code(target: int, address: int, opened: int, log: Path) -> str:
    numbers = NUMBERS[os.uname().machine]
    return CODE.format(numbers=numbers, target=target, address=address, opened=opened, log=str(log))


def test_other_processes_are_out_of_reach(workspace: Path, tmp_path: Path) -> None:
    log, opened = tmp_path / "log", tmp_path / "opened"
    opened.write_text("content")

    with victim(log, opened) as (pid, address, descriptor):
        before = state(pid)
        told = run_outside(code(pid, address, descriptor, log), workspace=workspace).json()
        ways = [way for way in told if way.startswith("signal")]
        # The victim is stopped at the end: it hears of the last signals when it goes on.
        os.kill(pid, 18)
        wait_until(
            lambda: len(set(log.read_text().split())) >= len(ways), f"the signals, of which came {log.read_text()}"
        )
        after = state(pid)
        changed = {name for name in before if before[name] != after[name]}
        assert changed >= {"limits", "priority", "scheduler", "score"}, (told, after)
        failed = {way for way, came in told.items() if came not in ("done", "reached") and "1ctim" not in str(came)}
        assert failed <= MAY_FAIL_OUTSIDE | (BY_DOCKER if IN_CONTAINER else set()), {way: told[way] for way in failed}

    log.unlink()
    with victim(log, opened) as (pid, address, descriptor):
        before = state(pid)
        inside = run_inside(code(pid, address, descriptor, log), workspace=workspace)
        assert log.read_text() == ""
        assert state(pid) == before
        told = inside.json()
    reached = {way for way, came in told.items() if came in ("done", "reached") or "1ctim" in str(came)}
    assert reached <= QUIET, {way: told[way] for way in reached}
    assert inside.refused(kind="process")

    for which in (-1, -2):
        told = run_inside(code(which, 0x10000, 0, log), workspace=workspace).json()
        reached = {way for way, came in told.items() if came in ("done", "reached")}
        assert reached <= QUIET, {way: told[way] for way in reached}


def test_own_processes_are_within_reach(workspace: Path) -> None:
    """The neighbour: the code signals, limits and renices its own children, and reads their memory files."""
    own = """
import json, os, resource, signal, subprocess, sys
waiting = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
child = subprocess.Popen(waiting, stdout=subprocess.PIPE, env={"MINE": "yes"}, start_new_session=True)
child.stdout.readline()
pid = child.pid
os.setpriority(os.PRIO_PROCESS, pid, 5)
os.sched_setaffinity(pid, os.sched_getaffinity(0))
os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
told = [os.getpriority(os.PRIO_PROCESS, pid), os.sched_getscheduler(pid) == os.SCHED_BATCH,
        open(f"/proc/{pid}/environ").read().strip("\\0"), bool(open(f"/proc/{pid}/maps").read())]
os.killpg(pid, signal.SIGSTOP)
os.waitpid(pid, os.WUNTRACED)
os.kill(pid, signal.SIGCONT)
signal.pidfd_send_signal(os.pidfd_open(pid), signal.SIGTERM)
print(json.dumps([*told, child.wait(20)]))
"""
    assert run_inside(own, workspace=workspace).json() == [5, True, "MINE=yes", True, -15]
    assert json.loads(run_outside(own, workspace=workspace).stdout) == [5, True, "MINE=yes", True, -15]


def test_the_priority_of_an_own_group_changes_and_that_of_what_has_ended_says_so(workspace: Path) -> None:
    """Every thread of the group, and nobody else. With ioprio_set(2) likewise."""
    own = """
import ctypes, errno, json, os, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
SET, GET = NUMBERS
waiting = [sys.executable, "-c", "import signal; print(flush=True); signal.pause()"]
two = [sys.executable, "-c", "import signal, threading; threading.Thread(target=signal.pause, daemon=True).start(); "
       "print(threading.enumerate()[1].native_id, flush=True); signal.pause()"]
first = subprocess.Popen(two, stdout=subprocess.PIPE, text=True, process_group=0)
thread = int(first.stdout.readline())
second = subprocess.Popen(waiting, stdout=subprocess.PIPE, text=True, process_group=first.pid)
other = subprocess.Popen(waiting, stdout=subprocess.PIPE, text=True)
second.stdout.readline(), other.stdout.readline()

def attempt(change, *given):
    try:
        return change(*given)
    except OSError as error:
        return errno.errorcode[error.errno]

def io(kind, who):
    return errno.errorcode[ctypes.get_errno()] if libc.syscall(SET, kind, who, 2 << 13 | 7) < 0 else None

def priorities():
    return [os.getpriority(os.PRIO_PROCESS, one) for one in (first.pid, thread, second.pid, other.pid, 0)]

said = [attempt(os.setpriority, os.PRIO_PGRP, first.pid, 15), priorities(), io(2, first.pid)]
said += [[libc.syscall(GET, 1, one) & 7 for one in (first.pid, thread, second.pid)]]
said += [attempt(os.setpriority, os.PRIO_PGRP, 0, 12), priorities(), io(2, 0)]
if os.geteuid() != 0:
    said += [attempt(os.setpriority, os.PRIO_PGRP, first.pid, 14)]  # back up: not without a privilege
for child in first, second, other:
    child.kill(), child.wait()
said += [attempt(os.setpriority, kind, first.pid, 16) for kind in (os.PRIO_PROCESS, os.PRIO_PGRP)]
said += [io(kind, first.pid) for kind in (1, 2)]
print(json.dumps(said))
""".replace("NUMBERS", repr(tuple(NUMBERS[os.uname().machine][name] for name in ("ioprio_set", "ioprio_get"))))
    outside = run_outside(own, workspace=workspace).json()
    usual = os.getpriority(os.PRIO_PROCESS, 0)
    assert outside[:6] == [None, [15, 15, 15, usual, usual], None, [7, 7, 7], None, [15, 15, 15, 12, 12]]
    assert outside[-4:] == ["ESRCH"] * 4
    inside = run_inside(own, workspace=workspace)
    assert inside.json() == outside
    assert inside.events == ()

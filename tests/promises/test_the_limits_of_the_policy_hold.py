"""[limits] open_files, file_size, cpu_seconds, memory and processes hold, also against code that would raise them."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.sandbox import run_inside, run_outside

OWN = """
import errno, json, os, resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
told = {}
for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE, resource.RLIMIT_CORE):
    soft, hard = resource.getrlimit(which)
    if hard != resource.RLIM_INFINITY:
        try:
            resource.setrlimit(which, (hard + 1, hard + 1))
        except (OSError, ValueError):
            pass
opened = []
try:
    while len(opened) < 300:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    told["opened"] = errno.errorcode[error.errno]
for fd in opened:
    os.close(fd)
try:
    with open("big", "wb", buffering=0) as file:
        for _ in range(200):
            file.write(bytes(10_000))
except OSError as error:
    told["written"] = errno.errorcode[error.errno]
told["size"] = os.path.getsize("big")
print(json.dumps(told))
"""

SPIN = """
import os, signal, time
signal.signal(signal.SIGXCPU, signal.SIG_IGN)
while time.process_time() < 10:
    pass
open("spun", "w").close()
"""

GROW = """
import time
held = bytearray(b"x") * 200_000_000
time.sleep(8)
open("grown", "w").close()
"""

# Of no process alone: in a descriptor, and mapped by two.
MEMFD = """
import os, time
held = os.memfd_create("held")
os.posix_fallocate(held, 0, 200_000_000)
time.sleep(8)
open("held", "w").close()
"""
SHARED = """
import mmap, os, time
held = mmap.mmap(-1, 200_000_000)
for at in range(0, len(held), 4096): held[at] = 1
if os.fork() == 0: time.sleep(8)
time.sleep(8)
open("shared", "w").close()
"""

FORK = """
import os, time
for _ in range(30):
    if os.fork() == 0:
        time.sleep(8)
        os._exit(0)
time.sleep(8)
open("forked", "w").close()
"""


def test_the_limits_of_the_policy_hold(workspace: Path) -> None:
    outside = run_outside(OWN, workspace=workspace).json()
    assert outside["size"] == 2_000_000
    inside = run_inside(OWN, workspace=workspace, policy='[limits]\nopen_files = 100\nfile_size = "1 MB"').json()
    assert (inside["opened"], inside["written"]) == ("EMFILE", "EFBIG"), json.dumps(inside)
    assert inside["size"] == 1_000_000

    # The ends that come from outside of the process: by Linux, and by the broker where it looks or is told.
    for code, policy, left in (
        (SPIN, "cpu_seconds = 1", "spun"),
        (GROW, 'memory = "100 MB"', "grown"),
        (MEMFD, 'memory = "100 MB"', "held"),
        (SHARED, 'memory = "100 MB"', "shared"),
        (FORK, "processes = 10", "forked"),
    ):
        ended = run_inside(code, workspace=workspace, policy=f"[limits]\n{policy}", timeout=30)
        assert ended.returncode != 0, policy
        assert not (workspace / left).exists(), policy
        if left != "spun":
            assert [event.reason for event in ended.refused(kind="limit")], ended.stderr


def test_shared_memory_counts_once(workspace: Path) -> None:
    code = (
        SHARED.replace("200_000_000", "60_000_000")
        .replace("8", "1.5")
        .replace("fork() == 0", "fork() * os.fork() == 0")
    )
    assert run_inside(code, workspace=workspace, policy='[limits]\nmemory = "200 MB"').check().events == ()
    assert (workspace / "shared").exists()


def test_no_core_file_is_written(workspace: Path) -> None:
    """A crash leaves its memory nowhere: Linux would write it past Landlock, or give it to a program outside."""
    crash = """
import os, resource, signal
soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
try:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
except (OSError, ValueError):
    pass
print(resource.getrlimit(resource.RLIMIT_CORE), flush=True)
pid = os.fork()
if pid == 0:
    os.kill(os.getpid(), signal.SIGSEGV)
_, status = os.waitpid(pid, 0)
print(os.WTERMSIG(status) == signal.SIGSEGV, os.WCOREDUMP(status))
"""
    inside = run_inside(crash, workspace=workspace).check()
    assert inside.stdout.splitlines() == ["(1, 1)", "True False"]
    assert list(workspace.iterdir()) == []

"""Namespaces, mounts, devices, keyrings, rings and programs inside Linux do not exist inside; nor a second listener.

Each call is tried in a child of its own. What this user may do outside (root: all of it) is refused inside.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.programs import RAW
from tests.support.sandbox import IN_CONTAINER, run_inside, run_outside

CODE = (
    """
import ctypes, errno, json, mmap, os, stat, struct, sys
NR, AT_FDCWD, told = {numbers!r}, -100, {{}}
libc = ctypes.CDLL(None, use_errno=True)

"""
    + RAW
    + """
def cloned(flags):
    pid = raw("clone", flags | 17, None, None, None, None)  # SIGCHLD
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def cloned3(flags):
    pid = raw("clone3", struct.pack("8Q", flags, 0, 0, 0, 17, 0, 0, 0), 64)
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)

def second_listener():
    program = struct.pack("HBBI", 6, 0, 0, 0x7FFF0000)
    code = ctypes.create_string_buffer(program)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    raw("seccomp", 1, 8, struct.pack("HxxxxxxQ", 1, ctypes.addressof(code)))

def handle(path):
    found, mount = ctypes.create_string_buffer(struct.pack("Ii", 128, 0) + bytes(128)), ctypes.create_string_buffer(8)
    raw("name_to_handle_at", AT_FDCWD, path, found, mount, 0)
    return found

def by_handle():
    found, here = handle(b"/etc/hostname"), os.open("/etc/hostname", os.O_RDONLY)
    os.read(raw("open_by_handle_at", here, found, os.O_RDONLY), 10)

def mounted():
    os.makedirs("mounted", exist_ok=True)
    raw("unshare", 0x20000)  # so that nothing stays: CLONE_NEWNS
    raw("mount", None, b"/", None, 1 << 18 | 1 << 14, None)  # MS_PRIVATE | MS_REC
    raw("mount", b"none", b"mounted", b"tmpfs", 0, None)

def mapped():
    os.close(raw("memfd_secret", 0))

PERF = struct.pack("IIQQQQQ", 1, 64, 0, 0, 0, 0, 1 << 5 | 1 << 6).ljust(64, b"\\0")  # PERF_TYPE_SOFTWARE, user only
WAYS = {{
    # what any user may do outside
    "user namespace": lambda: raw("unshare", 0x10000000),
    "user namespace, clone": lambda: cloned(0x10000000),
    "user namespace, clone3": lambda: cloned3(0x10000000),
    "second listener": second_listener,
    "add_key": lambda: raw("add_key", b"user", b"sbk-test", b"x", 1, -2),  # KEY_SPEC_PROCESS_KEYRING
    "keyctl": lambda: raw("keyctl", 0, -3, 1),  # KEYCTL_GET_KEYRING_ID of the session
    "trace me": lambda: raw("ptrace", 0, 0, 0, 0),
    "userfaultfd": lambda: raw("userfaultfd", 1),  # UFFD_USER_MODE_ONLY
    "fanotify": lambda: raw("fanotify_init", 0x200, 0),  # FAN_REPORT_FID: without privilege since Linux 5.13
    "io_uring": lambda: raw("io_uring_setup", 1, bytes(120)),
    "memfd_secret": mapped,
    "shared memory": lambda: raw("shmctl", raw("shmget", 0, 4096, 0o1600), 0, None),
    "semaphores": lambda: raw("semctl", raw("semget", 0, 1, 0o1600), 0, 0, 0),
    "messages": lambda: raw("msgctl", raw("msgget", 0, 0o1600), 0, None),
    "queue": lambda: (raw("mq_open", b"sbk-test", os.O_CREAT | os.O_RDWR, 0o600, None), raw("mq_unlink", b"sbk-test")),
    "handle": lambda: handle(b"."),
    "lease": lambda: __import__("fcntl").fcntl(os.open("own", os.O_RDONLY | os.O_CREAT, 0o600), 1024, 0),
    # what root may do outside
    "mount namespace": lambda: raw("unshare", 0x20000),
    "network namespace": lambda: raw("unshare", 0x40000000),
    "process namespace": lambda: raw("unshare", 0x20000000),
    "message namespace": lambda: raw("unshare", 0x08000000),
    "host name namespace": lambda: raw("unshare", 0x04000000),
    "group namespace": lambda: raw("unshare", 0x02000000),
    "time namespace": lambda: raw("unshare", 0x80),
    "mount namespace, clone": lambda: cloned(0x20000),
    "enter a namespace": lambda: raw("setns", os.open("/proc/self/ns/uts", os.O_RDONLY), 0),
    "mount": mounted,
    "chroot": lambda: os.chroot("."),
    "open_tree": lambda: raw("open_tree", AT_FDCWD, b".", 1),
    "fsopen": lambda: raw("fsopen", b"tmpfs", 0),
    "open by handle": by_handle,
    "character device": lambda: (os.mknod("null", stat.S_IFCHR | 0o600, os.makedev(1, 3)), os.unlink("null")),
    "block device": lambda: (os.mknod("ram", stat.S_IFBLK | 0o600, os.makedev(1, 0)), os.unlink("ram")),
    "device by mknodat": lambda: (raw("mknodat", AT_FDCWD, b"z", 0o20600, os.makedev(1, 5)), os.unlink("z")),
    "bpf": lambda: raw("bpf", 0, struct.pack("5I", 2, 4, 4, 1, 0).ljust(72, b"\\0"), 72),  # BPF_MAP_CREATE
    "perf_event_open": lambda: raw("perf_event_open", PERF, 0, -1, -1, 0),
}}

def attempt(go):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        came = "died"
        try:
            go()
            came = "done"
        except OSError as error:
            came = errno.errorcode[error.errno]
        finally:
            os.write(writing, came.encode())
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with os.fdopen(reading) as file:
        return file.read()

print(json.dumps({{way: attempt(go) for way, go in WAYS.items()}}))
"""
)

# Built without it, or switched off by the administrator: then Linux itself says so.
MAY_BE_MISSING = {
    "io_uring",
    "memfd_secret",
    "fanotify",
    "userfaultfd",
    "bpf",
    "perf_event_open",
    "time namespace",
    "queue",
}
MAY_BE_MISSING |= {"add_key", "keyctl", "block device", "handle", "open by handle", "lease"}
MAY_BE_MISSING |= {"user namespace", "user namespace, clone", "user namespace, clone3"}
OFF = {"ENOSYS", "EPERM", "EACCES", "ENOTSUP", "ENOSPC", "EINVAL", "EUSERS", "ENOENT"}


def test_no_call_opens_another_world(workspace: Path, tmp_path: Path) -> None:
    code = CODE.format(numbers=NUMBERS[os.uname().machine])
    other = tmp_path / "outside"
    other.mkdir()
    outside = run_outside(code, workspace=other).json()
    ways = list(outside)
    for_root = set(ways[ways.index("mount namespace") :])
    failed = {way for way, came in outside.items() if came != "done"}
    assert {outside[way] for way in failed} <= OFF, outside
    if not IN_CONTAINER:
        assert failed <= MAY_BE_MISSING | (for_root if os.geteuid() else set()), outside
    assert {"second listener", "trace me", "shared memory"} <= set(ways) - failed

    inside = run_inside(code, workspace=workspace).json()
    assert set(inside.values()) <= {"EPERM", "ENOSYS", "ENOTSUP", "EINVAL"}, inside
    assert {way for way, came in inside.items() if came == "EINVAL"} <= {"lease"}
    assert {path.name for path in workspace.iterdir()} <= {"own", "mounted"}


def test_what_they_are_used_for_works_by_other_ways(workspace: Path) -> None:
    """The neighbour: threads, forks, own filters, semaphores and shared memory of libraries."""
    code = """
import ctypes, multiprocessing, os, subprocess, tempfile, threading
from multiprocessing.shared_memory import SharedMemory
memory = SharedMemory(create=True, size=16)
memory.buf[:2] = b"ok"
lock = multiprocessing.get_context("fork").Lock()
with lock:
    worker = multiprocessing.get_context("fork").Process(target=lambda: os._exit(memory.buf[0]))
    worker.start()
    worker.join(20)
memory.close()
memory.unlink()
os.mkfifo("fifo")
os.mknod("regular")
print(worker.exitcode == ord("o"), subprocess.run(["true"]).returncode)
"""
    assert run_inside(code, workspace=workspace).check().stdout == "True 0\n"

"""Files outside the grants are not read, written, made, moved, cut, removed or run, however they are named.

Shown on the files themselves: outside, each way changes its own file or finds out its own secret; inside, none does.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.sandbox import run_inside, run_outside

PRELUDE = """
import ctypes, errno, json, mmap, os, struct, subprocess, sys
outside, NR = {outside!r}, {numbers!r}
libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD, O_PATH, AT_EMPTY_PATH = -100, os.O_PATH, 0x1000
told = {{}}

def raw(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(NR[name]), *args)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def attempt(way, go):
    try:
        told[way] = go()
    except OSError as error:
        told[way] = errno.errorcode[error.errno]
    except subprocess.SubprocessError as error:
        told[way] = type(error).__name__

def read(path, **options):
    with open(path, **options) as file:
        return file.read()
"""

READING = """
secret = f"{outside}/secret"

def by_path_descriptor():
    fd = os.open(secret, O_PATH)
    return read(f"/proc/self/fd/{fd}")

def by_folder_descriptor():
    return read("secret", opener=lambda name, flags: os.open(name, flags, dir_fd=os.open(outside, O_PATH)))

def by_changed_folder():
    before = os.getcwd()
    os.chdir(outside)
    try:
        return read("secret")
    finally:
        os.chdir(before)

def by_own_link(make):
    def go():
        make(secret, "made")
        try:
            return read("made")
        finally:
            os.unlink("made")
    return go

def by_rename():
    os.rename(secret, "moved")
    try:
        return read("moved")
    finally:
        os.rename("moved", secret)

def by_renamed_folder():
    os.rename(outside, "moved")
    try:
        return read("moved/secret")
    finally:
        os.rename("moved", outside)

def by_exchange():
    open("mine", "w").close()
    if libc.renameat2(AT_FDCWD, secret.encode(), AT_FDCWD, b"mine", 2) < 0:
        raise OSError(ctypes.get_errno(), "renameat2")
    found = read("mine")
    libc.renameat2(AT_FDCWD, secret.encode(), AT_FDCWD, b"mine", 2)
    return found

def by_openat2():
    how = struct.pack("=QQQ", os.O_RDONLY, 0, 0)
    return os.read(raw("openat2", AT_FDCWD, secret.encode(), how, len(how)), 100).decode()

def by_child():
    return subprocess.run(["cat", secret], capture_output=True, text=True, timeout=20, check=True).stdout

def by_loader():
    done = subprocess.run(
        ["bash", "--rcfile", secret, "-ic", "exit"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20,
    )
    return "secret" if "s3cret" in done.stdout + done.stderr else "nothing"

READS = {
    "path": lambda: read(secret),
    "dots": lambda: read("../outside/secret"),
    "symbolic link": lambda: read("pointer"),
    "own symbolic link": by_own_link(os.symlink),
    "own hard link": by_own_link(os.link),
    "root of the process": lambda: read("/proc/self/root" + secret),
    "folder of the process": lambda: read("/proc/self/cwd/../outside/secret"),
    "root of the parent": lambda: read(f"/proc/{os.getppid()}/root" + secret),
    "folder of the parent": lambda: read(f"/proc/{os.getppid()}/cwd" + 30 * "/.." + secret),
    "path descriptor": by_path_descriptor,
    "folder descriptor": by_folder_descriptor,
    "changed folder": by_changed_folder,
    "rename": by_rename,
    "renamed folder": by_renamed_folder,
    "exchange": by_exchange,
    "openat2": by_openat2,
    "child": by_child,
    "shell": by_loader,
    "list": lambda: str("secret" in os.listdir(outside)),
    "list by descriptor": lambda: str("secret" in os.listdir(os.open(outside, os.O_RDONLY | os.O_DIRECTORY))),
}
for way, go in READS.items():
    attempt(way, go)
"""

# Each has a file or folder of its own, "NUMBER", beside which nothing else is changed.
WRITING = """
def write(path, mode="w"):
    with open(path, mode) as file:
        file.write("changed")

def write_by_path_descriptor(path):
    write(f"/proc/self/fd/{os.open(path, O_PATH)}")

def cut_by_path_descriptor(path):
    os.truncate(f"/proc/self/fd/{os.open(path, O_PATH)}", 0)

def by_pointer(act):
    def go(path):
        os.symlink(path, "door")
        try:
            act("door")
        finally:
            os.unlink("door")
    return go

def replace(path):
    write("new")
    os.rename("new", path)

def link_over(path):
    os.unlink(path)
    write("linked")
    os.link("linked", path)

def run(path):
    subprocess.run([path], timeout=20, check=True)

def run_by_descriptor(path):
    fd = os.open(path, O_PATH)
    os.set_inheritable(fd, True)  # the script's interpreter opens it again
    pid = os.fork()
    if pid == 0:
        try:
            raw("execveat", fd, b"", (ctypes.c_char_p * 2)(b"x"), None, AT_EMPTY_PATH)
        finally:
            os._exit(1)
    os.waitpid(pid, 0)

def run_by_loader(path):
    subprocess.run(["sh", path], timeout=20, check=True, stderr=subprocess.DEVNULL)

WRITES = [
    lambda path: write(path),
    lambda path: write(path, "a"),
    lambda path: write(path, "r+"),
    lambda path: os.truncate(path, 0),
    write_by_path_descriptor,
    cut_by_path_descriptor,
    by_pointer(write),
    by_pointer(lambda path: os.truncate(path, 0)),
    os.unlink,
    replace,
    link_over,
    lambda path: os.rename(path, path + "-moved"),
    lambda path: os.rename(path, "taken"),
    lambda path: os.link(path, path + "-linked"),
    lambda path: os.symlink("anything", path + "-pointer"),
    lambda path: os.mkdir(path + "-folder"),
    lambda path: os.mkfifo(path + "-fifo"),
    lambda path: write(path + "-new"),
    lambda path: os.close(os.open(path + "-exclusive", os.O_CREAT | os.O_EXCL | os.O_WRONLY)),
    lambda path: write("/proc/self/root" + path),
    lambda path: write(f"/proc/{os.getppid()}/root" + path),
    lambda path: write("../outside/" + os.path.basename(path)),
    run,
    run_by_loader,
    run_by_descriptor,
    lambda path: os.mknod(path + "-regular"),
]
for number, go in enumerate(WRITES):
    attempt(f"write {number}", lambda: go(f"{outside}/{number}"))
attempt("rmdir", lambda: os.rmdir(f"{outside}/empty"))

def name_temporary():
    fd, here = os.open(outside, os.O_TMPFILE | os.O_RDWR), os.open(".", os.O_RDONLY)
    os.link(f"/proc/self/fd/{fd}", f"{outside}/temporary", src_dir_fd=here, follow_symlinks=True)

attempt("temporary", name_temporary)
print(json.dumps(told))
"""

FILES = 26


def fill(outside: Path) -> None:
    shutil.rmtree(outside, ignore_errors=True)
    outside.mkdir()
    outside.joinpath("secret").write_text("s3cret")
    outside.joinpath("empty").mkdir()
    for number in range(FILES):
        file = outside / str(number)
        file.write_text(f"#!/bin/sh\ntouch {file}-ran\n")
        file.chmod(0o755)


def state(outside: Path) -> dict[str, object]:
    """Everything about every file: content, kind, number of names, mode, and when it was changed."""
    found: dict[str, object] = {}
    for path in sorted(outside.iterdir()):
        status = path.lstat()
        content = path.read_text() if path.is_file() else ""
        found[path.name] = (content, status.st_mode, status.st_nlink, status.st_ino, status.st_ctime_ns)
    return found


def test_files_outside_the_grants_are_refused_by_every_way(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    prelude = PRELUDE.format(outside=str(outside), numbers=NUMBERS[os.uname().machine])
    code = prelude + READING + WRITING

    fill(outside)
    workspace.joinpath("pointer").symlink_to(outside / "secret")
    before = state(outside)
    told = run_outside(code, workspace=workspace).json()
    reads = {way for way in told if not way.startswith("write") and way not in ("rmdir", "temporary")}
    failed = {way: told[way] for way in reads if told[way] not in ("s3cret", "True", "secret")}
    assert not failed, failed
    after = state(outside)
    names = {name.partition("-")[0] for name in before | after if before.get(name) != after.get(name)}
    unchanged = {str(number) for number in range(FILES)} - names
    assert not unchanged, f"these do nothing even outside: {unchanged}: {told}"
    assert "empty" not in after
    assert "temporary" in after

    for path in workspace.iterdir():
        path.unlink()
    fill(outside)
    workspace.joinpath("pointer").symlink_to(outside / "secret")
    before = state(outside)
    told = run_inside(code, workspace=workspace).json()
    assert state(outside) == before
    assert not [way for way, found in told.items() if found in ("s3cret", "True", "secret")], told
    assert "s3cret" not in "".join(path.read_text() for path in workspace.iterdir() if not path.is_symlink())


def test_the_same_ways_work_in_the_workspace(workspace: Path, tmp_path: Path) -> None:
    """The neighbour: with the folder granted, the same code does inside what it does outside."""
    outside = tmp_path / "outside"
    prelude = PRELUDE.format(outside=str(outside), numbers=NUMBERS[os.uname().machine])
    fill(outside)
    workspace.joinpath("pointer").symlink_to(outside / "secret")
    policy = f'[filesystem]\nwrite = [".", "{outside}"]'
    told = run_inside(prelude + READING + WRITING, workspace=workspace, policy=policy).json()
    differing = {way for way, found in told.items() if found not in (None, "s3cret", "True", "secret")}
    # The granted folder itself can only be renamed by who may write beside it; the links of processes outside and
    # openat2 are closed.
    closed = {"renamed folder", "openat2", "root of the parent", "folder of the parent", "write 20"}
    assert differing == closed, told

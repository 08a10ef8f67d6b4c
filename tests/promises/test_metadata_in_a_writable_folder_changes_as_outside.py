"""Modes, times and attributes of own files come out exactly as outside: by calls, by tar, git, cp, install, touch.

The calls are carried out by the broker, so every form of every argument has to arrive there.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.sandbox import run_inside, run_outside

CODE = """
import ctypes, errno, io, json, os, shutil, stat, struct, subprocess, sys, tarfile, tempfile, threading, time, zipfile
NR, AT_FDCWD, NOFOLLOW, EMPTY = {numbers!r}, -100, 0x100, 0x1000
NOW, OMIT = (1 << 30) - 1, (1 << 30) - 2
libc = ctypes.CDLL(None, use_errno=True)
told = {{}}
os.umask(0o022)

def raw(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    result = libc.syscall(ctypes.c_long(NR[name]), *args)
    return errno.errorcode[ctypes.get_errno()] if result < 0 else result

def error(go):
    try:
        return go()
    except OSError as error:
        return errno.errorcode[error.errno]

def make(name, mode=0o644):
    with open(name, "w") as file:
        file.write("content")
    os.chmod(name, mode)
    return name

def mode(path, **how):
    return oct(os.stat(path, **how).st_mode)

def times(path, **how):
    found = os.stat(path, **how)
    return [found.st_atime_ns, found.st_mtime_ns]

make("a")
told["modes"] = [(os.chmod("a", m), mode("a"))[1] for m in (0, 0o400, 0o777, 0o1644, 0o600)]
os.mkdir("d")
os.chmod("d", 0o1770)
told["folder"] = mode("d")
make("d/in")
fd = os.open("d", os.O_RDONLY)
os.chmod("in", 0o640, dir_fd=fd)
told["beside a descriptor"] = mode("d/in")
os.chdir("d")
os.chmod("../d/./in", 0o604)
told["relative"] = mode("in")
os.chdir("..")
os.chmod(".", 0o750)
told["the folder itself"] = mode(".")
os.symlink("a", "s")
os.symlink("nowhere", "dangling")
os.symlink("loop", "loop")
os.chmod("s", 0o620)
told["through a link"] = [mode("a"), *(error(lambda: os.chmod(name, 0o600)) for name in ("dangling", "loop"))]
told["errors"] = [
    *(error(lambda: os.chmod(p, 0o600)) for p in ("missing", "a/b", "", "x" * 300, "d/" * 2100)),
    error(lambda: os.fchmod(99, 0)),
    raw("fchmod", -1, 0), raw("fchmodat", AT_FDCWD, 8, 0), raw("utimensat", AT_FDCWD, b"a", 8, 0),
    raw("utimensat", AT_FDCWD, b"a", struct.pack("4q", 1, 10**9, 1, 0), 0), raw("utimensat", 99, b"a", None, 0),
    raw("setxattr", b"a", b"user.x", b"1", 1, 2),
    raw("fchownat", AT_FDCWD, b"a", -1, -1, 0x8000), raw("utimensat", AT_FDCWD, b"a", None, 0x8000),
]

file = tempfile.TemporaryFile(dir=".")
os.fchmod(file.fileno(), 0o640)
told["O_TMPFILE"] = oct(os.fstat(file.fileno()).st_mode)
gone = open(make("gone"), "r+")
os.unlink("gone")
os.fchmod(gone.fileno(), 0o604)
os.utime(gone.fileno(), ns=(5, 6))
os.fchown(gone.fileno(), -1, -1)
told["unlinked"] = [oct(os.fstat(gone.fileno()).st_mode), os.fstat(gone.fileno()).st_mtime_ns]

os.utime("a", ns=(1_234_567_890_123_456_789, 987_654_321_012_345_678))
told["nanoseconds"] = times("a")
os.utime("a", ns=(-1, -2_000_000_001))
told["before 1970"] = times("a")
os.utime("a", ns=(7, 8))
raw("utimensat", AT_FDCWD, b"a", struct.pack("4q", 0, OMIT, 50, 5), 0)
told["only one"] = times("a")
raw("utimensat", AT_FDCWD, b"a", struct.pack("4q", 60, 6, 0, NOW), 0)
found = times("a")
told["only now"] = [found[0], abs(found[1] / 1e9 - time.time()) < 3600]
raw("utimensat", AT_FDCWD, b"a", struct.pack("4q", 0, OMIT, 0, OMIT), 0)
told["neither"] = times("a")[0]
os.utime("s", ns=(11, 12), follow_symlinks=False)
told["the link itself"] = [times("s", follow_symlinks=False), times("a")[0]]
told["its owner"] = error(lambda: os.chown("s", -1, -1, follow_symlinks=False))
unfollowed = [libc.fchmodat(AT_FDCWD, name, 0o604, NOFOLLOW) for name in (b"s", b"a")]  # by /proc/self/fd/N in glibc
told["no following"] = [unfollowed, mode("a")]
told["its mode"] = error(lambda: raw("fchmodat2", AT_FDCWD, b"s", 0o600, NOFOLLOW)) if "fchmodat2" in NR else None
path_only = os.open("a", os.O_PATH)
told["empty paths"] = [raw("fchownat", path_only, b"", -1, -1, EMPTY), raw("utimensat", path_only, b"", None, EMPTY)]
os.utime("d/in")
if "utimes" in NR:
    told["old calls"] = [
        raw("utimes", b"a", struct.pack("4q", 1, 999_999, 2, 1)), times("a"),
        raw("utime", b"a", struct.pack("2q", 3, 4)), times("a"),
        raw("futimesat", AT_FDCWD, b"a", struct.pack("4q", 5, 6, 7, 8)), times("a"),
        raw("utimes", b"a", struct.pack("4q", 1, 1_000_000, 2, 1)), raw("utime", b"missing", None),
    ]

os.setxattr("a", "user.one", b"1")
os.setxattr("a", "user.empty", b"")
os.setxattr(gone.fileno(), "user.gone", b"2")
told["attributes"] = sorted((n, os.getxattr("a", n).decode()) for n in os.listxattr("a"))
os.removexattr("a", "user.one")
told["removed"] = [os.listxattr("a"), error(lambda: os.removexattr("a", "user.one"))]
told["of a link"] = error(lambda: os.setxattr("s", "user.x", b"1", follow_symlinks=False))

make("copied", 0o751)
os.utime("copied", ns=(123, 456))
os.setxattr("copied", "user.k", b"v")
shutil.copy2("copied", "copy")
told["copy2"] = [mode("copy"), times("copy")[1], os.getxattr("copy", "user.k").decode()]
shutil.copytree("d", "tree", symlinks=True)
told["copytree"] = [mode("tree"), mode("tree/in"), times("tree")[1] == times("d")[1]]

def told_by(*command):
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return [done.returncode, done.stderr]

told["cp"] = [told_by("cp", "-a", "copied", "copy3"), mode("copy3"), times("copy3")[1]]
told["touch"] = [told_by("touch", "-d", "2001-02-03T04:05:06.789Z", "touched"), times("touched")]
told["touch -h"] = [told_by("touch", "-h", "-d", "@77", "dangling"), times("dangling", follow_symlinks=False)]
told["install"] = [told_by("install", "-m", "0711", "a", "installed"), mode("installed")]
told["chmod -R"] = [told_by("chmod", "-R", "g+w", "tree"), mode("tree/in")]
told["tar"] = [told_by("tar", "cf", "t.tar", "tree", "copied", "dangling"), os.mkdir("x"),
               told_by("tar", "xpf", "t.tar", "-C", "x"), mode("x/copied"), mode("x/tree"),
               times("x/copied")[1] // 10**9]
with tarfile.open("t.tar") as archive:
    os.mkdir("y")
    archive.extractall("y", **({{"filter": "tar"}} if hasattr(tarfile, "tar_filter") else {{}}))
told["tarfile"] = [mode("y/copied"), times("y/copied")[1] // 10**9]

# Everything that git does to a working tree, with its object files made read-only.
if shutil.which("git"):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    told["git"] = [told_by("git", "init", "-q", "repo")[0], make("repo/run", 0o755) and None,
                   told_by("git", "-C", "repo", "add", ".")[0],
                   told_by("git", "-C", "repo", *who, "commit", "-qm", "m")[0],
                   told_by("git", "clone", "-q", "repo", "clone")[0], mode("clone/run")]

def again(n):
    for _ in range(20):
        os.chmod(make(f"t{{n}}"), 0o600 + n)

threads = [threading.Thread(target=again, args=(n,)) for n in range(8)]
[t.start() for t in threads]
[t.join(60) for t in threads]
told["threads"] = [mode(f"t{{n}}") for n in range(8)]
print(json.dumps(told))
"""


def test_metadata_in_a_writable_folder_changes_as_outside(workspace: Path, tmp_path: Path) -> None:
    code = CODE.format(numbers=NUMBERS[os.uname().machine])
    other = tmp_path / "outside"
    other.mkdir()
    outside = run_outside(code, workspace=other).json()
    inside = run_inside(code, workspace=workspace).json()
    differing = {what: (outside[what], inside[what]) for what in outside if outside[what] != inside[what]}
    assert not differing, json.dumps(differing, indent=1)

"""Modes, owners, times and attributes of files outside the writable folders stay what they are, whatever call is made.

Landlock does not cover them. Shown on the files' change times, which Linux sets whenever any of it is changed.
"""

from __future__ import annotations

import os
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.sandbox import IN_CONTAINER, run_inside, run_outside

# Each call has a file of its own; "folder" holds them.
CODE = """
import ctypes, errno, fcntl, json, os, struct
folder, NR, AT_FDCWD = {folder!r}, {numbers!r}, -100
libc = ctypes.CDLL(None, use_errno=True)
told = {{}}

def raw(name, *args):
    args = [ctypes.c_long(a) if isinstance(a, int) else a for a in args]
    if libc.syscall(ctypes.c_long(NR[name]), *args) < 0:
        raise OSError(ctypes.get_errno(), name)

uid, gid, x = os.getuid(), os.getgid(), ctypes.c_long
times, timevals, utimbuf = struct.pack("4q", 1, 2, 3, 4), struct.pack("4q", 1, 2, 3, 4), struct.pack("2q", 1, 2)
mode = 0o606

def descriptor(path, flags=os.O_RDONLY):
    return os.open(path, flags)

def flags_by_ioctl(path):
    fcntl.ioctl(descriptor(path), 0x40086602, struct.pack("l", 0x40))  # FS_IOC_SETFLAGS: FS_NODUMP_FL

def flags_by_structure(path):
    fd, data = descriptor(path), bytearray(28)
    fcntl.ioctl(fd, 0x801C581F, data)  # FS_IOC_FSGETXATTR
    data[0] |= 0x80  # FS_XFLAG_NODUMP
    fcntl.ioctl(fd, 0x401C5820, bytes(data))

def by_pointer(path):
    os.symlink(path, "pointer")
    try:
        os.chmod("pointer", mode)
    finally:
        os.unlink("pointer")

def from_there(path):
    before = os.getcwd()
    os.chdir(folder)
    try:
        os.chmod(os.path.basename(path), mode)
    finally:
        os.chdir(before)

WAYS = {{
    "chmod": lambda p: raw("chmod", p, mode),
    "fchmod": lambda p: raw("fchmod", descriptor(p), mode),
    "fchmodat": lambda p: raw("fchmodat", AT_FDCWD, p, mode),
    "fchmodat, folder": lambda p: raw("fchmodat", descriptor(folder, os.O_PATH), os.path.basename(p), mode),
    "fchmodat2": lambda p: raw("fchmodat2", AT_FDCWD, p, mode, 0),
    "fchmodat2, path descriptor": lambda p: raw("fchmodat2", descriptor(p, os.O_PATH), b"", mode, 0x1000),
    "chmod, path descriptor": lambda p: raw("chmod", f"/proc/self/fd/{{descriptor(p, os.O_PATH)}}".encode(), mode),
    "chmod, root": lambda p: raw("chmod", b"/proc/self/root" + p, mode),
    "chmod, pointer": by_pointer,
    "chmod, there": from_there,
    "chown": lambda p: raw("chown", p, uid, gid),
    "lchown": lambda p: raw("lchown", p, uid, gid),
    "fchown": lambda p: raw("fchown", descriptor(p), uid, gid),
    "fchownat": lambda p: raw("fchownat", AT_FDCWD, p, uid, gid, 0),
    "fchownat, no follow": lambda p: raw("fchownat", AT_FDCWD, p, uid, gid, 0x100),
    "utime": lambda p: raw("utime", p, utimbuf),
    "utimes": lambda p: raw("utimes", p, timevals),
    "futimesat": lambda p: raw("futimesat", AT_FDCWD, p, timevals),
    "utimensat": lambda p: raw("utimensat", AT_FDCWD, p, times, 0),
    "utimensat, no follow": lambda p: raw("utimensat", AT_FDCWD, p, times, 0x100),
    "utimensat, now": lambda p: raw("utimensat", AT_FDCWD, p, None, 0),
    "futimens": lambda p: raw("utimensat", descriptor(p), None, times, 0),
    "setxattr": lambda p: raw("setxattr", p, b"user.a", b"1", 1, 0),
    "lsetxattr": lambda p: raw("lsetxattr", p, b"user.a", b"1", 1, 0),
    "fsetxattr": lambda p: raw("fsetxattr", descriptor(p), b"user.a", b"1", 1, 0),
    "removexattr": lambda p: raw("removexattr", p, b"user.old"),
    "lremovexattr": lambda p: raw("lremovexattr", p, b"user.old"),
    "fremovexattr": lambda p: raw("fremovexattr", descriptor(p), b"user.old"),
    "access list": lambda p: os.setxattr(p, "system.posix_acl_access", ACL),
    "setxattrat": lambda p: raw("setxattrat", AT_FDCWD, p, 0, b"user.a", XATTR, 16),
    "removexattrat": lambda p: raw("removexattrat", AT_FDCWD, p, 0, b"user.old"),
    "flags": flags_by_ioctl,
    "flags, structure": flags_by_structure,
    "file_setattr": lambda p: raw("file_setattr", AT_FDCWD, p, struct.pack("=QIIII", 0x80, 0, 0, 0, 0), 24, 0),
}}
# acl(5) as bytes: user::rw-, group::r--, mask::r--, other::r--, and a named user, so that the entry is more than a mode
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in (
    (1, 6, 0xFFFFFFFF), (2, 4, uid), (4, 4, 0xFFFFFFFF), (16, 4, 0xFFFFFFFF), (32, 4, 0xFFFFFFFF)))
value = ctypes.create_string_buffer(b"1", 1)
XATTR = struct.pack("=QII", ctypes.addressof(value), 1, 0)
for way, go in WAYS.items():
    try:
        go(f"{{folder}}/{{way}}".encode())
        told[way] = "done"
    except OSError as error:
        told[way] = errno.errorcode[error.errno]
    except KeyError:
        told[way] = "no such call on this machine"
print(json.dumps(told))
"""

# What this Linux or this file system may lack; the outside step finds out, and the refusal inside is asserted anyway.
MAY_BE_MISSING = {
    "flags",
    "flags, structure",
    "file_setattr",
    "fchmodat2",
    "fchmodat2, path descriptor",
    "setxattrat",
    "removexattrat",
    "access list",
    "utime",
    "utimes",
    "futimesat",
    "chmod",
    "chown",
    "lchown",
}
MISSING = {"ENOSYS", "ENOTTY", "EOPNOTSUPP", "no such call on this machine"}
# Refused on purpose, in a writable folder too.
CLOSED = {"chmod, root", "setxattrat", "removexattrat", "flags", "flags, structure"}
CLOSED |= {"file_setattr"}


def fill(folder: Path, ways: list[str]) -> dict[str, int]:
    for way in ways:
        file = folder / way
        file.unlink(missing_ok=True)
        file.write_text("content")
        file.chmod(0o644)
        os.setxattr(file, "user.old", b"1")
    return changed(folder, ways)


def changed(folder: Path, ways: list[str]) -> dict[str, int]:
    return {way: (folder / way).stat().st_ctime_ns for way in ways}


def test_metadata_changes_only_beneath_a_writable_grant(workspace: Path, tmp_path: Path) -> None:
    outside, granted = tmp_path / "outside", tmp_path / "granted"
    outside.mkdir()
    granted.mkdir()
    numbers = NUMBERS[os.uname().machine]
    code = CODE.format(folder=str(outside), numbers=numbers)
    ways = [line.split('"')[1] for line in code.splitlines() if line.startswith('    "')]
    assert len(ways) == 34

    before = fill(outside, ways)
    told = run_outside(code, workspace=workspace).json()
    unchanged = {way for way, when in changed(outside, ways).items() if when == before[way]}
    missing = {way for way in unchanged if told[way] in MISSING or (IN_CONTAINER and told[way] == "EPERM")}
    assert unchanged == missing, {way: told[way] for way in unchanged}
    assert missing <= MAY_BE_MISSING

    # Readable, so that a descriptor can be had: to change metadata Linux asks for no more.
    before = fill(outside, ways)
    policy = f'[filesystem]\nread = ["{outside}"]\nwrite = [".", "{granted}"]'
    inside = run_inside(code, workspace=workspace, policy=policy)
    assert changed(outside, ways) == before, inside.stdout
    told = inside.json()
    assert "done" not in told.values(), told
    assert inside.refused(kind="metadata")

    before = fill(granted, ways)
    told = run_inside(CODE.format(folder=str(granted), numbers=numbers), workspace=workspace, policy=policy).json()
    unchanged = {way for way, when in changed(granted, ways).items() if when == before[way]}
    assert unchanged <= CLOSED | missing, {way: told[way] for way in unchanged}
    assert {told[way] for way in CLOSED} <= {"EPERM", "ENOSYS", "ENOTTY", "ELOOP"} | MISSING, told


def test_what_linux_refuses_anyway_is_no_news(tmp_path: Path) -> None:
    """fontconfig tries to date its folder of the system, at the first `import matplotlib` of many a machine."""
    code = """
import os, stat
try:
    os.chmod("/etc", stat.S_IMODE(os.stat("/etc").st_mode))
    print("done")
except OSError as error:
    print(error.strerror)
"""
    outside, inside = run_outside(code, workspace=tmp_path).check(), run_inside(code, workspace=tmp_path).check()
    assert inside.stdout == "Operation not permitted\n"
    assert len(inside.refused(kind="metadata")) == (os.geteuid() == 0)
    assert outside.stdout == ("done\n" if os.geteuid() == 0 else inside.stdout)

"""No file made or changed inside is setuid or setgid: outside it would act for the user. The rest of its mode stays."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from sandboxed_kernel.confinement.numbers import NUMBERS
from tests.support.programs import RAW
from tests.support.sandbox import run_inside, run_outside

CODE = (
    """
import ctypes, errno, json, os, struct, subprocess
NR, AT_FDCWD, told = {numbers!r}, -100, {{}}
libc = ctypes.CDLL(None, use_errno=True)
os.umask(0)

"""
    + RAW
    + """
def plain(name):
    open(name, "w").close()
    return name

def changed(change):
    def go(name):
        change(plain(name))
    return go

def temporary(name):
    fd = raw("openat", AT_FDCWD, b".", 0o20200000 | os.O_RDWR, 0o6755)
    os.link(f"/proc/self/fd/{{fd}}", name, src_dir_fd=os.open(".", os.O_RDONLY), follow_symlinks=True)

WAYS = {{
    "open": lambda n: raw("open", n.encode(), os.O_CREAT | os.O_WRONLY, 0o6755),
    "openat": lambda n: raw("openat", AT_FDCWD, n.encode(), os.O_CREAT | os.O_WRONLY, 0o4755),
    "openat, high bits": lambda n: raw("openat", AT_FDCWD, n.encode(), (1 << 40) | 0o101, (1 << 40) | 0o4755),
    "openat2": lambda n: raw("openat2", AT_FDCWD, n.encode(), struct.pack("3Q", 0o101, 0o4755, 0), 24),
    "creat": lambda n: raw("creat", n.encode(), 0o6755),
    "mknod": lambda n: raw("mknod", n.encode(), 0o106755, 0),
    "mknodat": lambda n: raw("mknodat", AT_FDCWD, n.encode(), 0o106755, 0),
    "unnamed": temporary,
    "chmod": changed(lambda n: raw("chmod", n.encode(), 0o6755)),
    "fchmod": changed(lambda n: raw("fchmod", os.open(n, os.O_RDONLY), 0o6755)),
    "fchmodat": changed(lambda n: raw("fchmodat", AT_FDCWD, n.encode(), 0o6755)),
    "fchmodat2": changed(lambda n: raw("fchmodat2", AT_FDCWD, n.encode(), 0o6755, 0)),
    "by descriptor link": changed(lambda n: os.chmod(f"/proc/self/fd/{{os.open(n, os.O_PATH)}}", 0o6755)),
    "setgid folder": lambda n: (os.mkdir(n), os.chmod(n, 0o2755)),
    "install": lambda n: subprocess.run(["install", "-m", "6755", "/bin/true", n], timeout=30, capture_output=True),
    "cp": lambda n: subprocess.run(["cp", "-p", "fchmod", n], timeout=30, capture_output=True),
}}
for way, go in WAYS.items():
    try:
        go(way)
        told[way] = "done"
    except OSError as error:
        told[way] = errno.errorcode[error.errno]
    except KeyError:
        told[way] = "no such call on this machine"
print(json.dumps(told))
"""
)


def modes(folder: Path) -> dict[str, int]:
    return {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}


def test_no_file_gets_a_setuid_bit(workspace: Path, tmp_path: Path) -> None:
    code = CODE.format(numbers=NUMBERS[os.uname().machine])
    other = tmp_path / "outside"
    other.mkdir()
    told = run_outside(code, workspace=other).json()
    absent = {way for way, came in told.items() if came in ("ENOSYS", "no such call on this machine")}
    without = {way for way in told if not modes(other).get(way, 0) & 0o6000}
    assert without == absent, (told, modes(other))

    told = run_inside(code, workspace=workspace).json()
    inside = modes(workspace)
    assert not {way for way, mode in inside.items() if mode & 0o6000}, inside
    # A changed mode comes out without the bits; a file that would be made with them is not made.
    changed = {
        "chmod",
        "fchmod",
        "fchmodat",
        "fchmodat2",
        "by descriptor link",
        "setgid folder",
        "cp",
        "install",
    }
    assert {inside[way] for way in changed - absent} == {0o755}, inside
    assert not set(inside) & {"open", "openat", "openat, high bits", "creat", "mknod", "mknodat", "unnamed"}, told

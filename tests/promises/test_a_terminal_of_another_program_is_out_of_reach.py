"""What is typed into another terminal of the same user is not read, nothing is typed into it; own terminals work."""

from __future__ import annotations

import os
import pty
import select
from pathlib import Path

from tests.support.programs import REPORT
from tests.support.sandbox import run_inside, run_outside

CODE = (
    """
import errno, json, os, select
name, number, told = {name!r}, {number}, {{}}

def read(fd):
    if not select.select([fd], [], [], 5)[0]:
        return "nothing came"
    return os.read(fd, 100).decode()

WAYS = {{
    "read": lambda: read(os.open(name, os.O_RDONLY | os.O_NOCTTY)),
    "by the root of the process": lambda: read(os.open("/proc/self/root" + name, os.O_RDONLY | os.O_NOCTTY)),
    "listed": lambda: str(str(number) in os.listdir("/dev/pts")),
    "written": lambda: str(os.write(os.open(name, os.O_WRONLY | os.O_NOCTTY), b"forged")),
    "mode": lambda: str(os.chmod(name, 0o622)),
    "times": lambda: str(os.utime(name)),
}}
"""
    + REPORT
)

# Masters come and go in one thread; another asks for the other end of whatever has the descriptor's number just now.
RACE = """
import errno, fcntl, json, os, threading
TIOCGPTPEER, TIOCSPTLCK = 0x5441, 0x40045431
reached, opened, done = [], 0, threading.Event()

def master():
    fd = os.open("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)
    fcntl.ioctl(fd, TIOCSPTLCK, b"\\0\\0\\0\\0")
    return fd

spare = master()

def exchange():
    while not done.is_set():
        fresh = master()
        os.dup2(fresh, spare)
        os.close(fresh)

thread = threading.Thread(target=exchange)
thread.start()
for _ in range(500):
    try:
        peer = fcntl.ioctl(spare, TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY)
    except OSError:
        continue
    opened += 1
    if os.path.basename(os.readlink(f"/proc/self/fd/{peer}")) in OUTSIDE:
        reached.append(os.readlink(f"/proc/self/fd/{peer}"))
    os.close(peer)
done.set()
thread.join(20)
wrong = []
for fd in (0, os.open("/dev/null", os.O_RDWR), os.open(".", os.O_RDONLY), os.pipe()[0], 99):
    try:
        fcntl.ioctl(fd, TIOCGPTPEER, os.O_RDWR)
        wrong.append("opened")
    except OSError as error:
        wrong.append(errno.errorcode[error.errno])
print(json.dumps([opened > 0, reached, wrong]))
"""

OWN = """
import json, os, pty, sys, tty
told = {}
first, second = pty.openpty()
told["both ends are terminals"] = [os.isatty(first), os.isatty(second)]
tty.setraw(second)
os.write(first, b"typed")
told["typed"] = os.read(second, 10).decode()
os.write(second, b"shown")
told["shown"] = os.read(first, 10).decode()
shown = []
status = pty.spawn([sys.executable, "-c", "import os; print(os.isatty(0), os.ttyname(0) != '')"],
                   lambda fd: (shown.append(os.read(fd, 1000)), shown[-1])[1])
told["spawn"] = [os.waitstatus_to_exitcode(status), b"True" in b"".join(shown)]
pid, fd = pty.fork()
if pid == 0:
    os.execvp("sh", ["sh", "-c", "stty size; read x; echo got $x"])
os.write(fd, b"line\\n")
said = b""
while True:
    try:
        part = os.read(fd, 1000)
    except OSError:
        break
    if not part:
        break
    said += part
os.waitpid(pid, 0)
told["a session of its own"] = b"got line" in said
print(json.dumps(told))
"""


def test_a_terminal_of_another_program_is_out_of_reach(workspace: Path) -> None:
    master, slave = pty.openpty()
    try:
        name = os.ttyname(slave)
        code = CODE.format(name=name, number=int(os.path.basename(name)))
        os.write(master, b"password 1\npassword 2\n")
        told = run_outside(code, workspace=workspace).json()
        assert told["read"] == "password 1\n"
        assert told["by the root of the process"] == "password 2\n"
        assert told["listed"] == "True"
        assert told["written"] == "6"
        assert told["mode"] == told["times"] == "None"
        os.chmod(name, 0o620)

        while select.select([master], [], [], 0)[0]:
            os.read(master, 1000)
        os.write(master, b"password 3\n")
        while b"3" not in os.read(master, 1000):  # the echo
            pass
        inside = run_inside(code, workspace=workspace).json()
        assert set(inside.values()) <= {"EACCES", "EPERM"}, inside
        assert os.read(slave, 100) == b"password 3\n", "it was read by somebody else"
        assert not select.select([master], [], [], 0)[0], "something was written to it"
        assert os.stat(name).st_mode & 0o777 == 0o620

        opened, reached, wrong = run_inside(f"OUTSIDE = {os.listdir('/dev/pts')!r}\n{RACE}", workspace=workspace).json()
        assert opened
        assert reached == []
        assert set(wrong) <= {"ENOTTY", "EBADF"}, wrong
    finally:
        os.close(master)
        os.close(slave)


def test_own_terminals_work_as_outside(workspace: Path) -> None:
    outside = run_outside(OWN, workspace=workspace).json()
    assert outside == run_inside(OWN, workspace=workspace).json()
    assert outside["spawn"] == [0, True]
    assert outside["a session of its own"] is True

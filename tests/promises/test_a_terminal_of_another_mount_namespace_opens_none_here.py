"""A terminal's master that is handed in from another mount namespace has a number, which is somebody else's here."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.living import Living

RECEIVER = """
import errno, fcntl, os, select, socket
server = socket.socket(socket.AF_UNIX)
server.bind("meet")
server.listen()
print("listening", flush=True)
master = socket.recv_fds(server.accept()[0], 10, 1)[1][0]
try:
    peer = fcntl.ioctl(master, 0x5441, os.O_RDWR | os.O_NOCTTY)  # TIOCGPTPEER
except OSError as error:
    print(errno.errorcode[error.errno], flush=True)
else:
    print("read " + os.read(peer, 100).decode() if select.select([peer], [], [], 5)[0] else "quiet", flush=True)
"""

# In a mount namespace with a devpts of its own: its terminals have the same numbers.
ACCOMPLICE = """
import os, socket, sys
number, place = int(sys.argv[1]), sys.argv[2]
masters = [os.open(place + "/ptmx", os.O_RDWR | os.O_NOCTTY) for _ in range(number + 1)]
with socket.socket(socket.AF_UNIX) as client:
    client.connect("meet")
    socket.send_fds(client, [b"x"], [masters[number]])
    client.recv(1)
"""


@pytest.mark.root
def test_a_terminal_of_another_mount_namespace_opens_none_here(workspace: Path, tmp_path: Path) -> None:
    if shutil.which("unshare") is None:
        pytest.fail("util-linux's unshare is needed")
    place = tmp_path / "pts"
    place.mkdir()
    master, slave = pty.openpty()
    try:
        number = os.ttyname(slave).rpartition("/")[2]
        mount = f"mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts {place}"
        run = f'{mount} && exec "$@"'
        accomplice = ["unshare", "--mount", "sh", "-c", run, "sh", sys.executable, "-c", ACCOMPLICE, number, str(place)]

        with Living(RECEIVER, workspace=workspace) as program:
            assert program.line() == "listening"
            other = subprocess.Popen(accomplice, cwd=workspace)
            try:
                os.write(master, b"typed here\n")
                assert program.line(20) == "EIO"
            finally:
                other.kill()
                other.wait()
        assert os.read(slave, 100) == b"typed here\n", "it was read before"
    finally:
        os.close(master)
        os.close(slave)

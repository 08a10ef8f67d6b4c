"""Orphans that end while sockets are made disturb nobody: every socket(2) gives a socket, and the sandbox lives on.

An orphan becomes the broker's child, and its end a signal. A signal within SECCOMP_IOCTL_NOTIF_ADDFD makes Linux drop
the descriptor and answer the call all the same, with 0: the caller then takes its standard input for its socket.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import run_inside

CODE = """
import os, signal, socket, stat, time
def orphans():
    while True:
        if os.fork() == 0:
            if os.fork() == 0:
                os._exit(0)  # its parent is gone, or will be: the broker is told
            os._exit(0)
        os.wait()
pids = []
for _ in range(2):
    pid = os.fork()
    if pid == 0:
        orphans()
    pids.append(pid)
wrong = []
for number in range(6000):
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if number % 2 else socket.SOCK_DGRAM)
    if s.fileno() == 0 or not stat.S_ISSOCK(os.fstat(s.fileno()).st_mode):
        wrong.append(s.detach())
    s.close()
for pid in pids:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(wrong)
"""


def test_ending_orphans_disturb_no_call(workspace: Path) -> None:
    assert run_inside(CODE, workspace=workspace).check().stdout == "[]\n"

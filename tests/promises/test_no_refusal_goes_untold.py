"""A refusal is told, whatever the code does beside it: use up descriptors, name what does not exist, end at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.support.sandbox import launcher_command, run_inside, run_outside
from tests.support.servers import TcpListener, UdpListener

# Each destination that an unconnected socket sends to is a descriptor of the broker's.
MANY_DESTINATIONS = """
import errno, json, socket
before, sockets, refused = socket.socket(), [], ""
try:
    while len(sockets) < 40:
        sockets.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        for port in range(20000, 20060):
            sockets[-1].sendto(b"x", ("127.0.0.10", port))
except OSError as error:
    refused = errno.errorcode[error.errno]
print(json.dumps([refused, before.connect_ex((ADDRESS, PORT))]))
"""


def test_where_the_code_uses_up_descriptors(workspace: Path, tmp_path: Path) -> None:
    policy = '[network]\nallow = ["udp://127.0.0.10:20000-20100"]'
    audit = tmp_path / "audit.jsonl"
    with UdpListener("127.0.0.10", 20000) as allowed, TcpListener() as server:
        code = MANY_DESTINATIONS.replace("ADDRESS", repr(server.address)).replace("PORT", str(server.port))
        command = [*launcher_command(policy, tmp_path, workspace, audit), sys.executable, "-c", code]
        few = ["prlimit", "--nofile=600:600"]
        done = subprocess.run([*few, *command], cwd=workspace, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout) == ["ENOBUFS", 13]  # the program has descriptors left
        assert allowed.received()
        assert server.received() == []
    assert str(server.port) in done.stderr
    assert any(json.loads(line)["port"] == server.port for line in audit.read_text().splitlines())


NUMBERS = """
import ctypes, errno, json, os
libc = ctypes.CDLL(None, use_errno=True)
open("file", "w").close()
told = []
for owner, group in ((0xFFFFFFFE, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFE), (0xFFFFFFFF, 0xFFFFFFFF)):
    result = libc.chown(b"file", ctypes.c_uint(owner), ctypes.c_uint(group))
    told.append("ok" if result == 0 else errno.errorcode[ctypes.get_errno()])
ended = os.fork()
if ended == 0: os._exit(0)
os.waitpid(ended, 0)
try: os.setpriority(os.PRIO_PROCESS, ended, 5)
except OSError as error: told.append(errno.errorcode[error.errno])
print(json.dumps(told))
"""


def test_numbers_that_nobody_has_are_answered_as_outside_and_fill_no_log(workspace: Path) -> None:
    inside = run_inside(NUMBERS, workspace=workspace)
    assert inside.json() == ["EPERM", "EPERM", "ok", "ESRCH"]
    if os.geteuid() != 0:
        assert run_outside(NUMBERS, workspace=workspace).json() == inside.json()
    assert inside.stderr == ""
    assert inside.events == ()


def test_where_the_code_ends_at_once(workspace: Path) -> None:
    with TcpListener() as server:
        code = f"import os, socket; socket.socket().connect_ex({(server.address, server.port)!r}); os._exit(0)"
        result = run_inside(code, workspace=workspace)
        assert result.refused(kind="connect", port=server.port)
        assert str(server.port) in result.stderr
        assert server.received() == []

"""An own socket's path opens that socket alone: another program's, put there right after bind(), is not reached.

The own sockets are remembered by what was bound, not by the name under which it was found afterwards.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.sandbox import attack
from tests.support.servers import unix_listener

# "bait" is a hard link to the outside service's socket, which somebody left in the workspace.
CODE = """
import ctypes, json, os, signal, socket
EXCHANGE, AT_FDCWD, reached = 2, -100, 0
libc = ctypes.CDLL(None, use_errno=True)
os.path.lexists("spare") and os.unlink("spare")
os.link("bait", "spare")
parent = os.getpid()
swapper = os.fork()
while swapper == 0:  # fails until the name is there; then own and outside change places all the time
    libc.renameat2(AT_FDCWD, b"mine", AT_FDCWD, b"spare", EXCHANGE)
    if os.getppid() != parent:
        os._exit(0)
for _ in range(300):
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as s:
        os.path.lexists("mine") and os.unlink("mine")
        server.bind("mine")
        server.listen()
        s.settimeout(10)
        if s.connect_ex("mine") == 0:
            s.send(b"got through")
            reached += 1
        os.path.lexists("spare") and os.unlink("spare")
        os.link("bait", "spare")
os.kill(swapper, signal.SIGKILL)
os.waitpid(swapper, 0)

# Without a race: bind, replace, connect.
for number in range(20):
    name = f"still-{number}"
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as s:
        server.bind(name)
        server.listen()
        os.link("bait", name + "-bait")
        os.rename(name + "-bait", name)
        if s.connect_ex(name) == 0:
            s.send(b"got through")
        os.unlink(name)
print(json.dumps(reached))
"""


def test_a_socket_put_in_the_place_of_an_own_one_is_not_connected(workspace: Path, tmp_path: Path) -> None:
    with unix_listener(tmp_path / "service") as service:
        os.link(tmp_path / "service", workspace / "bait")
        inside = attack(CODE, seen=lambda: len(service.received()), workspace=workspace)
    assert inside.json() > 0, "the own socket was never reached: the race was not run"
    assert inside.refused(kind="connect", protocol="unix")
    assert (workspace / "bait").is_socket()

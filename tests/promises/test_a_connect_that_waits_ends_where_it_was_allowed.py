"""A connect to an own unix socket with a full queue waits; meanwhile nothing turns it towards a socket outside.

Linux looks the path up again each time such a wait is over, so what the path means must not change until then.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import attack
from tests.support.servers import unix_listener

# One thread waits for room in the own listener's queue; another opens the outside service's path again and again,
# so that its descriptor in the broker may get the number by which the waiting connect was to go on.
CODE = """
import json, os, socket, threading
service = {service!r}

def say(path, word):
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10)
        s.connect(path)
        s.sendall(word)

try:
    say(service, b"straight")
except OSError:
    pass

own, done, came = os.path.join(os.environ.get("TMPDIR", "."), "own"), threading.Event(), []
server = socket.socket(socket.AF_UNIX)
server.bind(own)
server.listen(0)
server.settimeout(20)

def knock():
    while not done.is_set():
        with socket.socket(socket.AF_UNIX) as s:
            s.connect_ex(service)

def wait():
    with socket.socket(socket.AF_UNIX) as s:  # without a time limit: with one it would not wait
        came.append(s.connect_ex(own))
        s.sendall(b"waited")

knocker = threading.Thread(target=knock)
knocker.start()
heard = 0
for _ in range(40):
    waiter = threading.Thread(target=wait)
    with socket.socket(socket.AF_UNIX) as first:
        first.connect(own)  # fills the queue
        waiter.start()
        server.accept()[0].close()
        with server.accept()[0] as connection:
            heard += connection.recv(100) == b"waited"
    waiter.join(20)
done.set()
knocker.join(20)
os.unlink(own)
print(json.dumps([came, heard]))
"""


def test_a_connect_that_waits_ends_where_it_was_allowed(workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "service"
    with unix_listener(path) as service:
        code = CODE.format(service=str(path))
        inside = attack(code, seen=lambda: len(service.received()), workspace=workspace)
    assert inside.json() == [[0] * 40, 40]
    assert inside.refused(kind="connect", protocol="unix", address=str(path))

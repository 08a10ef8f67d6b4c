"""Whatever a socket went through before, listen(2) makes it a server that no other machine reaches.

A connect that fails gives the socket's port back, while getsockname(2) still names it: a socket that seems to be bound
and is not, which Linux then binds to every address of the machine.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.attempts import TOOLS
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import launcher_command
from tests.support.servers import DEADLINE, family_of
from tests.support.silent import silent_listener

# Each ends with a socket that has no address of its own any more; ``closed`` and ``silent`` are allowed destinations.
HISTORIES = {
    "refused": "s = socket.socket(); s.connect_ex(closed)",
    "refused twice": "s = socket.socket(); s.connect_ex(closed); s.connect_ex(closed)",
    "by no line": "s = socket.socket(); s.connect_ex(('127.0.0.1', 7))",
    "bound, then refused": "s = socket.socket(); s.bind(('', 0)); s.connect_ex(closed)",
    "shut down while it waits": "s = waiting(); s.shutdown(socket.SHUT_RDWR); time.sleep(0.1)",
    "disconnected while it waits": "s = waiting(); syscall('connect', s.fileno(), bytes(16), 16)",
    "too late": "s = socket.socket(); s.setsockopt(1, 21, struct.pack('=qq', 0, 50000)); s.connect_ex(silent); "
    "s.shutdown(socket.SHUT_RDWR); time.sleep(0.1)",
    "ipv6, refused": "s = socket.socket(socket.AF_INET6); s.connect_ex(('::ffff:' + closed[0], closed[1]))",
    "ipv6, shut down": "s = waiting(socket.AF_INET6, '::ffff:'); s.shutdown(socket.SHUT_RDWR); time.sleep(0.1)",
}
SETTING = """
def waiting(family=socket.AF_INET, prefix=""):
    s = socket.socket(family)
    s.setblocking(False)
    s.connect_ex((prefix + silent[0], silent[1]))
    return s
def listening(history):
    made = {}
    exec(history, globals(), made)
    made["s"].setblocking(True)
    made["s"].listen(5)
    kept.append(made["s"])
    return made["s"].getsockname()[:2]
kept, came = [], {}
for name, history in histories.items():
    try:
        came[name] = listening(history)
    except OSError as error:
        came[name] = errno.errorcode[error.errno]
print(json.dumps(came), flush=True)
sys.stdin.read()
"""


def reached(address: str, port: int) -> bool:
    import socket

    with socket.socket(family_of(address)) as client:
        client.settimeout(DEADLINE)
        return client.connect_ex((address, port)) == 0


def found_at(own_address: str, prefix: list[str], code: str, workspace: Path) -> dict[str, tuple[bool, bool]]:
    """For each server: whether a client outside finds it at the machine's own address, and on loopback."""
    with subprocess.Popen(
        [*prefix, sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=workspace
    ) as process:
        assert process.stdout is not None
        try:
            places = json.loads(process.stdout.readline())
            assert all(isinstance(place, list) for place in places.values()), places
            return {
                name: (reached(own_address, port), reached("127.0.0.1", port)) for name, (_, port) in places.items()
            }
        finally:
            process.communicate(timeout=20)


def test_a_socket_whose_connect_failed_listens_only_to_this_machine(workspace: Path, own_address: str) -> None:
    histories = {name: text for name, text in HISTORIES.items() if has_ipv6() or "ipv6" not in name}
    with silent_listener() as silent, tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        closed = ("127.0.0.1", 9)  # discard, RFC 863, and echo, RFC 862, above: nobody's on any machine of today
        code = f"{TOOLS}\nhistories, closed, silent = {histories!r}, {closed!r}, {silent!r}\n{SETTING}"
        outside = found_at(own_address, [], code, workspace)
        assert set(outside.values()) == {(True, True)}, outside
        policy = f'[network]\nallow = ["127.0.0.1:9", "127.0.0.1:{silent[1]}"]'
        command = launcher_command(policy, folder, workspace, Path(folder, "audit.jsonl"))
        inside = found_at(own_address, command, code, workspace)
        assert inside.keys() == histories.keys()
        assert set(inside.values()) == {(False, True)}, inside

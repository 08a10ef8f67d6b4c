"""What one sandbox listens on is closed to another one of the same user, also where they share their folder."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.attempts import TOOLS
from tests.support.living import Living
from tests.support.sandbox import run_inside, run_outside

SERVE = f"""
{TOOLS}
tcp = socket.create_server(("127.0.0.1", 0))
everywhere = socket.create_server(("0.0.0.0", 0))
path, abstract = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
path.bind("service")
name = "\\0sandboxed-kernel-" + os.urandom(8).hex()
abstract.bind(name)
servers = [tcp, everywhere, path, abstract]
for server in servers:
    server.listen()
places = [["tcp", tcp.getsockname()], ["tcp", everywhere.getsockname()], ["unix", "service"], ["unix", name]]
def serve():
    while True:
        for ready in select.select(servers, [], [])[0]:
            peer, _ = ready.accept()
            peer.sendall(b"hello")
            peer.close()
threading.Thread(target=serve, daemon=True).start()
"""

VISIT = """
def visit(kind, place):
    s = socket.socket(socket.AF_INET if kind == "tcp" else socket.AF_UNIX)
    s.settimeout(10)
    s.connect(tuple(place) if kind == "tcp" else place)
    return s.recv(5, socket.MSG_WAITALL).decode()
print(json.dumps([outcome(lambda _: visit(*row), b"") for row in places]))
"""


AT_HOME = f"""
import subprocess
code = {TOOLS!r} + f"\\nplaces = {{places!r}}\\n" + {VISIT!r}
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
print(json.dumps([places, json.loads(done.stdout)]), flush=True)
threading.Event().wait()
"""


def test_two_sandboxes_do_not_reach_each_other(workspace: Path) -> None:
    # Each at home: another program of the same sandbox finds them.
    with Living(f"{SERVE}\n{AT_HOME}", workspace=workspace) as one:
        places, at_home = json.loads(one.line())
        assert at_home == ["'hello'"] * 4
        code = f"{TOOLS}\nplaces = {places!r}\n{VISIT}"
        # The user's own programs reach them. (Landlock keeps an abstract name inside in one direction only.)
        assert run_outside(code, workspace=workspace).json() == ["'hello'"] * 4
        other = run_inside(code, workspace=workspace)
        assert other.json() == ["EACCES", "EACCES", "EACCES", "ECONNREFUSED"]
        assert {event.port for event in other.refused(protocol="tcp")} == {place[1] for _, place in places[:2]}

        # By a line of the policy they do, as any service of this machine.
        named = [f"127.0.0.1:{place[1]}" for _, place in places[:2]]
        policy = f'[network]\nallow = {named!r}\nunix = ["service"]'
        assert run_inside(code, workspace=workspace, policy=policy).json() == ["'hello'"] * 3 + ["ECONNREFUSED"]

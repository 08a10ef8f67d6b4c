"""A connect to an own listener whose queue is full waits; if an outside service has the port by then, it is refused."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support.attempts import TOOLS
from tests.support.sandbox import launcher_command
from tests.support.servers import TcpListener

# The queue is filled, then a connect waits, and a thread waits to send on it. Linux repeats the first packet after a
# second, by when the listener is closed and somebody outside has its port.
WAITING = f"""
{TOOLS}
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
listener = socket.create_server(("127.0.0.1", 0), backlog=0)
where = listener.getsockname()
clients = []
while True:
    c = socket.socket()
    c.setblocking(False)
    c.connect_ex(where)
    clients.append(c)
    poll = select.poll()
    poll.register(c, select.POLLOUT)
    if not poll.poll(50):
        break
c.setblocking(True)
said = []
thread = threading.Thread(target=lambda: said.append(outcome(lambda _: c.sendall(b"payload"), b"")))
thread.start()
listener.close()
print(json.dumps(where[1]), flush=True)
thread.join(20)
print(json.dumps(said), flush=True)
"""


def said_and_heard(command: list[str], workspace: Path) -> tuple[list[str], list[bytes]]:
    with subprocess.Popen(
        [*command, sys.executable, "-c", WAITING], stdout=subprocess.PIPE, text=True, cwd=workspace
    ) as process:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())
        with TcpListener("127.0.0.1", port) as other:
            said = json.loads(process.stdout.readline())
            return said, [contact.data for contact in other.received()]


def test_a_connect_that_waits_meets_nobody_else(workspace: Path) -> None:
    assert said_and_heard([], workspace) == (["None"], [b"payload"])
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        said, heard = said_and_heard(launcher_command("", folder, workspace, Path(folder, "audit.jsonl")), workspace)
    assert heard == []
    assert said in (["ECONNREFUSED"], ["ECONNRESET"], ["EPIPE"])

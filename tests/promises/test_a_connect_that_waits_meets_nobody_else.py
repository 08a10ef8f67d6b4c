"""A connect to an own listener whose queue is full does not go on to whoever outside has the port next.

That holds also while the broker stands still, which the sandbox can bring about.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from sandboxed_kernel.linux import processes
from tests.support.attempts import TOOLS
from tests.support.living import Living
from tests.support.sandbox import LAUNCHER, launcher_command
from tests.support.servers import TcpListener

# The queue is filled, then connects wait, and a thread waits to send on each. Linux repeats the first packet after a
# second, by when the listener is closed and somebody outside has its port.
WAITING = f"""
{TOOLS}
import resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
host, family = HOST, FAMILY
listener = socket.create_server((host, 0), family=family, backlog=0)
where = listener.getsockname()[:2]
clients, waiting = [], []
while len(waiting) < 20:
    c = socket.socket(family)
    c.setblocking(False)
    error = c.connect_ex(where)
    poll = select.poll()
    poll.register(c, select.POLLOUT)
    (clients if error in (0, errno.EINPROGRESS) and poll.poll(50) else waiting).append(c)
said = []
def send(c):
    c.setblocking(True)
    said.append(outcome(lambda _: c.sendall(b"payload"), b""))
threads = [threading.Thread(target=send, args=(c,)) for c in waiting]
[thread.start() for thread in threads]
print("full", flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)
listener.close()
print(json.dumps(where[1]), flush=True)
[thread.join(20) for thread in threads]
print(json.dumps(sorted(set(said))), flush=True)
"""


@pytest.mark.parametrize("stands_still", [False, True], ids=["as usual", "the broker stands still"])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connect_that_waits_meets_nobody_else(host: str, stands_still: bool, workspace: Path) -> None:
    family = "socket.AF_INET6" if ":" in host else "socket.AF_INET"
    code = WAITING.replace("HOST", repr(host)).replace("FAMILY", family)
    if not stands_still:
        with subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=workspace
        ) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "full\n"
            (workspace / "go").touch()
            with TcpListener(host, json.loads(process.stdout.readline())) as other:
                assert "None" in json.loads(process.stdout.readline())  # a packet may come too early, and be refused
                assert {contact.data for contact in other.received()} == {b"payload"}
        (workspace / "go").unlink()
    with Living(code, workspace=workspace) as program:
        assert program.line(30) == "full"
        broker = program.broker
        if stands_still:
            os.kill(broker, signal.SIGSTOP)
        (workspace / "go").touch()
        with TcpListener(host, json.loads(program.line())) as other:
            said = json.loads(program.line(30))
            assert said in (["EPIPE"], ["ECONNREFUSED"], ["ECONNRESET"])
            time.sleep(1.5)  # the first packet would have been repeated by then
            assert other.received() == []


# One thread connects until it hangs; another then sends on that very socket.
HANGING = f"""
{TOOLS}
import resource, time
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
host = HOST
family = socket.AF_INET6 if ":" in host else socket.AF_INET
listener = socket.create_server((host, 0), family=family, dualstack_ipv6="ffff" in host)
clients = []
def fill():
    while True:
        clients.append(socket.socket(family))
        clients[-1].connect(listener.getsockname())
def send(c):
    while True:
        try:
            c.sendall(b"payload")
            return
        except BrokenPipeError:
            time.sleep(0.01)
threading.Thread(target=fill, daemon=True).start()
count = -1
while count != len(clients):
    count = len(clients)
    time.sleep(0.5)
threading.Thread(target=send, args=(clients[-1],), daemon=True).start()
time.sleep(0.3)
port = listener.getsockname()[1]
listener.close()
print(json.dumps(port), flush=True)
time.sleep(60)
"""

# A launcher whose broker stops for good when a connect to an own listener has met nobody yet.
LAUNCH = """
import os, signal, sys, threading
from sandboxed_kernel import cli
from sandboxed_kernel.linux import sockets
sockets.dissolve = lambda sock: signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)
if {without_token}:
    sockets.demand_token = lambda sock, version: None
sys.exit(cli.main(sys.argv[1:]))
"""


def heard_while_the_broker_is_stopped(host: str, workspace: Path, *, without_token: bool) -> list[bytes]:
    code = HANGING.replace("HOST", repr(host))
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        arguments = launcher_command("", folder, workspace, Path(folder, "audit.jsonl"))[len(LAUNCHER) :]
        command = [sys.executable, "-c", LAUNCH.format(without_token=without_token), *arguments]
        with subprocess.Popen(
            [*command, sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=workspace
        ) as launcher:
            assert launcher.stdout is not None
            port = json.loads(launcher.stdout.readline())
            brokers = processes.children(launcher.pid)
            inside = [pid for broker in brokers for pid in processes.descendants(broker)]
            try:
                with TcpListener(host, port) as other:
                    time.sleep(5)  # the first packet is sent again after 1 and after 3 s
                    return [contact.data for contact in other.received()]
            finally:
                for pid in (*inside, *brokers, launcher.pid):
                    os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_nor_where_the_broker_stops_in_the_middle_of_it(host: str, workspace: Path) -> None:
    # On a busy machine the other listener can come after the packet that was to meet it; then once more.
    met = (heard_while_the_broker_is_stopped(host, workspace, without_token=True) for _ in range(8))
    assert any(heard == [b"payload"] for heard in met)
    assert heard_while_the_broker_is_stopped(host, workspace, without_token=False) == []

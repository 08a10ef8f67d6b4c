"""What the sandbox listens on opens nothing that others listen on: not by address, not by port, not by good timing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.attempts import TOOLS
from tests.support.living import Living
from tests.support.sandbox import launcher_command, run_inside, run_outside
from tests.support.servers import TcpListener

# The port on which it listens at 127.0.0.2 is then a service's at 127.0.0.1.
NAMESAKES = f"""
{TOOLS}
import time
ways = WAYS
def listen(where, family=socket.AF_INET):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(where)
    s.listen()
    return s

port = PORT
own = listen(("127.0.0.2", port))
mapped = listen(("::ffff:127.0.0.3", port), socket.AF_INET6)
print(json.dumps(port), flush=True)
while not os.path.exists("go"):
    time.sleep(0.01)

def connect(host):
    with socket.create_connection((host, port), 5) as s:
        s.sendall(b"payload")

came = {{host: outcome(lambda _: connect(host), b"") for host in ways}}
own.close()
mapped.close()
print(json.dumps([came, outcome(lambda _: connect(ways[0]), b"")]), flush=True)
"""
WAYS = ("127.0.0.1", "0.0.0.0", "localhost", "::ffff:127.0.0.1")


def free_port_below_the_ephemeral_ones() -> int:
    """Such a port may be bound inside by its number."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first = int(file.read().split()[0])
    for port in range(first - 1, 1024, -7):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port
    raise AssertionError("no free port below the ephemeral ones")


def test_an_own_listener_opens_no_other_with_its_port(workspace: Path) -> None:
    # By its number: of those that Linux hands out, some are still held at 127.0.0.1 by connections that have ended.
    code = NAMESAKES.replace("WAYS", repr(WAYS)).replace("PORT", str(free_port_below_the_ephemeral_ones()))
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=workspace) as outside:
        assert outside.stdout is not None
        try:
            with TcpListener("127.0.0.1", json.loads(outside.stdout.readline())) as other:
                (workspace / "go").touch()
                came, closed = json.loads(outside.stdout.readline())
                assert {*came.values(), closed} == {"None"}
                assert [contact.data for contact in other.received()] == [b"payload"] * 5
        finally:
            outside.kill()  # also where the port turns out to be somebody else's
    (workspace / "go").unlink()
    with Living(code, workspace=workspace) as program, TcpListener("127.0.0.1", json.loads(program.line())) as other:
        (workspace / "go").touch()
        came, closed = json.loads(program.line())
        assert {*came.values(), closed} == {"EACCES"}, came
        assert other.received() == []


STEAL = f"""
{TOOLS}
def steal(option):
    s = socket.socket()
    for name in option:
        s.setsockopt(socket.SOL_SOCKET, name, 1)
    s.bind((host, port))
    s.listen(100)
    print(json.dumps("listening"), flush=True)
    s.settimeout(1)
    count = 0
    try:
        while True:
            s.accept()[0].close()
            count += 1
    except TimeoutError:
        return count
print(json.dumps(outcome(steal, (socket.SO_REUSEPORT, socket.SO_REUSEADDR))))
"""


def test_no_connection_of_an_outside_service_is_stolen(workspace: Path) -> None:
    """SO_REUSEPORT shares a port between listeners of one user, and Linux spreads the clients among them."""
    port = free_port_below_the_ephemeral_ones()
    for host in ("127.0.0.1", "0.0.0.0"):
        with socket.socket() as service:
            service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            service.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            service.bind((host, port))
            service.listen(200)
            code = f"host, port = {host!r}, {port}\n{STEAL}"

            outside = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
            assert outside.stdout is not None
            assert json.loads(outside.stdout.readline()) == "listening"
            for _ in range(40):
                socket.create_connection(("127.0.0.1", port), 5).close()
            assert int(json.loads(outside.communicate()[0])) > 0  # so it is a theft out there

            assert run_inside(code, workspace=workspace).json() == "EADDRINUSE"


HANDED_OUT = f"""
{TOOLS}
def bind(where, family=socket.AF_INET):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if where is not None:
        s.bind(where)
    s.listen()
    return s

tried = {{
    outcome(lambda _: bind((host, port)).close(), b"")
    for host in ("127.0.0.1", "0.0.0.0", "127.0.0.2")
    for port in (first, last, (first + last) // 2)
}}
got, again = [], []
for _ in range(1500):
    with bind(("127.0.0.1", 0) if _ % 2 else None) as s:
        got.append(s.getsockname()[1])
    if _ % 50 == 0:
        again.append(outcome(lambda _: bind(("127.0.0.1", got[-1])).close(), b""))
print(json.dumps([sorted(tried), got, sorted(set(again))]))
"""


def test_a_port_that_linux_hands_out_is_not_had(workspace: Path) -> None:
    """Other programs get one, close it and tell a third one to listen there, as Jupyter does for its kernels. Whoever
    binds port 0 often enough has a particular one of them: out here, not inside."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first, last = map(int, file.read().split())
    code = f"first, last = {first}, {last}\n{HANDED_OUT}"
    tried, got, again = run_outside(code, workspace=workspace).json()
    assert "None" in tried
    assert again == ["None"]
    assert all(first <= port <= last for port in got)
    tried, got, again = run_inside(code, workspace=workspace).json()
    assert tried == ["EACCES"]
    assert again == ["None"]  # servers that restart have their port again
    assert not [port for port in got if first <= port <= last]
    assert len(set(got)) > 500


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


TAKEOVER = f"""
{TOOLS}
# A line of input is a step; the port was got inside, so that an own listener is known to the broker.
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 0))
s.listen()
port = s.getsockname()[1]
def go(_):
    c = socket.create_connection(("127.0.0.1", port), 5)
    c.sendall(b"payload")
    c.close()
first = outcome(go, b"")
s.close()
print(json.dumps([first, port]), flush=True)
sys.stdin.readline()
print(json.dumps(outcome(go, b"")), flush=True)
"""


def test_a_port_that_an_outside_service_takes_over_is_the_services(workspace: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        command = launcher_command("", folder, workspace, Path(folder, "audit.jsonl"))
        with subprocess.Popen(
            [*command, sys.executable, "-c", TAKEOVER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=workspace,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            before, port = json.loads(process.stdout.readline())
            assert before == "None"
            with TcpListener("127.0.0.1", port) as other:
                after, _ = process.communicate("\n", timeout=30)
                assert json.loads(after) == "EACCES"
                assert not other.received()


RACE = f"""
{TOOLS}
# Own listeners come and go on one port while another thread connects to it: what is reached is always one of them.
going = True
def listen():
    while going:
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            s.bind(("127.0.0.1", port))
            s.listen()
        except OSError:
            pass
        s.close()
thread = threading.Thread(target=listen)
thread.start()
for _ in range(1500):
    s = socket.socket()
    if s.connect_ex(("127.0.0.1", port)) == 0:
        try:
            s.send(b"payload")
        except OSError:
            pass
    s.close()
going = False
thread.join()
print(json.dumps("done"))
"""


def test_nor_does_it_help_to_be_quick(workspace: Path) -> None:
    port = free_port_below_the_ephemeral_ones()
    going, contacts = True, []

    def serve() -> None:
        """An outside service that is restarted all the time on the very port, once the sandbox has had it."""
        while going and not connects(port):
            pass
        while going:
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    s.bind(("127.0.0.1", port))
                    s.listen()
                    s.settimeout(0.002)
                    peer, _ = s.accept()
                except OSError:
                    continue
                with peer:
                    peer.settimeout(0.2)
                    try:
                        contacts.append(peer.recv(100))
                    except OSError:
                        continue

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        assert run_inside(f"port = {port}\n{RACE}", workspace=workspace).json() == "done"
        # Linux connects before anybody can judge whom it met; what was met is judged again, before a byte is sent.
        assert b"payload" not in contacts
    finally:
        going = False
        thread.join()

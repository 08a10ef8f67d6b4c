"""What the sandbox listens on opens nothing that others listen on: not by address, not by port, not by good timing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from tests.support.attempts import TOOLS, make_all
from tests.support.sandbox import launcher_command, run_inside, run_outside
from tests.support.servers import TcpListener

# Each listens on its own, with the port of the service outside, and then connects to that service.
NAMESAKES = {
    "another loopback address": "listen(('127.0.0.2', port)); connect(('127.0.0.1', port), payload)",
    "and asked by 0.0.0.0": "listen(('127.0.0.2', port)); connect(('0.0.0.0', port), payload)",
    "and asked by localhost": "listen(('127.0.0.3', port)); connect(('localhost', port), payload)",
    "mapped": "listen6(('::ffff:127.0.0.2', port)); connect(('::ffff:127.0.0.1', port), payload)",
    "closed again": "listen(('127.0.0.2', port)).close(); connect(('127.0.0.1', port), payload)",
}
SETTING = """
def listen(where, family=socket.AF_INET):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(where)
    s.listen()
    globals().setdefault("kept", []).append(s)
    return s

def listen6(where):
    return listen(where, socket.AF_INET6)

def connect(where, payload):
    s = socket.create_connection(where, 5)
    s.sendall(payload)
"""


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
    with TcpListener("127.0.0.1", free_port_below_the_ephemeral_ones()) as other:
        made = make_all(
            NAMESAKES,
            arrived=lambda: [contact.data.decode() for contact in other.received()],
            workspace=workspace,
            setting=f"port = {other.port}\n{SETTING}",
        )
        assert set(made.inside.values()) == {"EACCES"}, made.inside


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


def test_a_port_that_linux_hands_out_is_bound_only_after_it_was_got(workspace: Path) -> None:
    """Clients of this machine get their ports there, and services announce them: none is to be waited for inside."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first, last = map(int, file.read().split())
    code = f"""
{TOOLS}
def bind(where, family=socket.AF_INET):
    s = socket.socket(family)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(where)
    s.listen()
    return s
tried = [
    outcome(lambda _: bind((host, port)).close(), b"")
    for host in ("127.0.0.1", "0.0.0.0", "127.0.0.2")
    for port in ({first}, {last}, {(first + last) // 2})
]
got = bind(("127.0.0.1", 0))
port = got.getsockname()[1]
got.close()
print(json.dumps([tried, outcome(lambda _: bind(("127.0.0.1", port)).close(), b"")]))
"""
    outside, again = run_outside(code, workspace=workspace).json()
    assert "None" in outside
    assert again == "None"
    tried, again = run_inside(code, workspace=workspace).json()
    assert set(tried) == {"EACCES"}
    assert again == "None"


COLLECT = """
def bind(port):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(("127.0.0.1", port))
    s.listen()
    return s
got = []
for _ in range(2000):
    with bind(0) as s:
        got.append(s.getsockname()[1])
got = list(dict.fromkeys(reversed(got)))   # the last ones first
print(json.dumps([len(got), [outcome(lambda _: bind(port).close(), b"") == "None" for port in got]]))
"""


def test_nor_are_all_of_them_collected_to_wait_there(workspace: Path) -> None:
    """Other programs get a port, close it and tell a third one to listen there, as Jupyter does for its kernels."""
    code = f"{TOOLS}\n{COLLECT}"
    number, again = run_outside(code, workspace=workspace).json()
    assert sum(again) > 0.9 * number > 900
    number, again = run_inside(code, workspace=workspace).json()
    assert number > 900
    assert sum(again[:50]) > 40  # what it used a moment ago can be bound again, as servers do that restart
    assert sum(again) < 300


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
        """An outside service that is restarted all the time on the very port."""
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

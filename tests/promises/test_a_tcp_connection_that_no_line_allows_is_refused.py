"""Only the endpoints in the policy are reached over TCP: blocking or not, by Python or by a program that it starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support import interfaces
from tests.support.sandbox import attack, run_inside
from tests.support.servers import TcpListener

# How the code inside connects to (address, port); each waits until it was connected or refused, and says which.
WAYS = {
    "blocking": """
import socket
try:
    socket.create_connection((address, port), 5).close()
    print("connected")
except OSError as error:
    print(type(error).__name__)
""",
    "non-blocking": """
import errno, select, socket
s = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
s.setblocking(False)
code = s.connect_ex((address, port))
if code == errno.EINPROGRESS:
    select.select([], [s], [], 5)
    code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
print("connected" if code == 0 else errno.errorcode[code])
""",
    "by a child process": """
import subprocess, sys
code = f"import socket; socket.create_connection(({address!r}, {port}), 5).close()"
done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
print("connected" if done.returncode == 0 else done.stderr.splitlines()[-1])
""",
}


def code(way: str, server: TcpListener) -> str:
    return f"address, port = {server.address!r}, {server.port}\n{WAYS[way]}"


@pytest.fixture(params=["127.0.0.1", "127.0.0.2", "::1", "own"])
def address(request: pytest.FixtureRequest) -> str:
    chosen = str(request.param)
    if chosen == "::1" and not interfaces.has_ipv6():
        pytest.skip("no IPv6 loopback on this machine")
    return interfaces.own_interface_address() if chosen == "own" else chosen


@pytest.mark.parametrize("way", WAYS)
def test_a_tcp_connection_that_no_line_allows_is_refused(way: str, address: str, workspace: Path) -> None:
    with TcpListener(address) as wanted, TcpListener(address) as other:
        policy = f'[network]\nallow = ["{wanted.endpoint}"]'
        allowed = run_inside(code(way, wanted), workspace=workspace, policy=policy).check()
        assert allowed.stdout == "connected\n"
        assert len(wanted.received()) == 1

        refused = attack(code(way, other), seen=lambda: len(other.received()), workspace=workspace, policy=policy)
        assert "connected" not in refused.check().stdout
        events = refused.refused(kind="connect", address=address, port=other.port)
        assert len(events) == 1

        # and the line that the notice offers is the line that allows it
        policy = f"[network]\nallow = [{events[0].allow_line}]"
        assert run_inside(code(way, other), workspace=workspace, policy=policy).check().stdout == "connected\n"

"""getaddrinfo(3) sorts by connecting datagram sockets: inside it ends no program, and gives what it gives outside.

Inside, such a socket has no inet address. glibc's assertions that it has one ended the whole kernel where the connect
had succeeded: for names at port 53, or at a port of a ``udp://`` line.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.dns_server import DnsServer
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import TcpListener, UdpListener

WILDCARD = """
import json, socket
said = []
for port in (0, 53, 8080):
    for kind in (0, socket.SOCK_STREAM, socket.SOCK_DGRAM):
        for flags in (0, socket.AI_PASSIVE):
            found = socket.getaddrinfo(None, port, type=kind, flags=flags)
            said.append([port, kind, flags, [each[4][0] for each in found]])
said.append([each[4][0] for each in socket.getaddrinfo("192.0.2.1", 53)])
print(json.dumps(said))
"""


def test_the_addresses_of_no_name_have_the_order_of_outside(workspace: Path) -> None:
    inside = run_inside(WILDCARD, workspace=workspace)
    assert inside.json() == run_outside(WILDCARD, workspace=workspace).json()
    assert not inside.events


def test_a_name_with_addresses_at_a_port_that_datagrams_reach(workspace: Path, tmp_path: Path) -> None:
    with UdpListener() as server, DnsServer({"time.test": ["127.0.0.1", "127.0.0.2", "::1"]}) as names:
        code = f"""
import json, socket
told = [len(socket.getaddrinfo("time.test", port)) for port in (53, {server.port})]
for block in (True, 5, False):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:  # as a library makes one
        sock.settimeout(5 if block == 5 else None if block else 0)
        sock.connect(("127.0.0.1", {server.port}))
        sock.send(b"x%d" % block)
print(json.dumps(told))
"""
        wanted = '{ host = "time.test", port = 443, private = true }'
        policy = f'[network]\nallow = ["udp://127.0.0.1:{server.port}", {wanted}]\n'
        resolver = Path(names.write_resolver_config(tmp_path))
        assert run_inside(code, workspace=workspace, policy=policy, resolv_conf=resolver).json() == [9, 9]
        assert sorted(each.data for each in server.received()) == [b"x0", b"x1", b"x5"]


STAND_IN = """
import errno, json, socket, threading
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect(("0.0.0.0", {port}))
there, said = ("127.0.0.1", {port}), []
for attempt in (
    lambda: sock.send(b"x"), lambda: sock.sendto(b"x", there), lambda: sock.sendmsg([b"x"], [], 0, there),
    lambda: sock.connect(there), lambda: sock.bind(("127.0.0.1", 0)), lambda: sock.listen(),
    lambda: sock.sendmsg([b"x"], [], 0x20000000, there),  # MSG_FASTOPEN
    lambda: sock.sendto(b"x", 0x20000000, there), lambda: sock.connect(("0.0.0.0", {port})),
):
    try:
        attempt()
    except OSError as error:
        said.append(errno.errorcode[error.errno])
    else:
        said.append("done")
print(json.dumps(said))
"""


def test_what_stands_in_reaches_nothing(workspace: Path) -> None:
    with TcpListener() as tcp, UdpListener(port=tcp.port) as udp:
        code = STAND_IN.format(port=tcp.port)
        assert "done" not in run_inside(code, workspace=workspace).json()
        assert not tcp.received()
        assert not udp.received()

"""Addresses, networks, ports, names, UDP, unix sockets and the proxy: each line opens its places and no neighbour.

Every place is a service on this machine that answers; all of them are reached outside.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.attempts import TOOLS
from tests.support.interfaces import has_ipv6
from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import Contact, HttpServer, TcpListener, UdpListener, unix_listener


@dataclass(frozen=True)
class Form:
    """A line of ``allow`` with {0}, {1} ... for ports, and the places that it opens and that it does not."""

    line: str
    opens: tuple[tuple[str, int], ...]  # (address, which of the ports)
    not_opens: tuple[tuple[str, int], ...]


FORMS = {
    "address": Form('"127.0.0.1:{0}"', (("127.0.0.1", 0),), (("127.0.0.1", 1), ("127.0.0.2", 0))),
    "network": Form(
        '"127.1.2.0/24:{0}"', (("127.1.2.3", 0), ("127.1.2.255", 0)), (("127.1.3.0", 0), ("127.1.1.255", 0))
    ),
    "narrow network": Form('"127.2.0.4/31:{0}"', (("127.2.0.4", 0), ("127.2.0.5", 0)), (("127.2.0.6", 0),)),
    "ports": Form('"127.0.0.1:{0},{2}"', (("127.0.0.1", 0), ("127.0.0.1", 2)), (("127.0.0.1", 1),)),
    "range": Form('"127.0.0.1:{0}-{1}"', (("127.0.0.1", 0), ("127.0.0.1", 1)), (("127.0.0.1", 2),)),
    "every port": Form('"127.3.0.1:*"', (("127.3.0.1", 0), ("127.3.0.1", 1)), (("127.3.0.2", 0),)),
    "table": Form(
        '{{ host = "127.0.0.1", ports = [{0}, "{1}-{1}"] }}', (("127.0.0.1", 0), ("127.0.0.1", 1)), (("127.0.0.1", 2),)
    ),
    "localhost": Form('"localhost:{0}"', (("127.0.0.1", 0), ("::1", 0)), (("127.0.0.2", 0), ("127.0.0.1", 1))),
    "ipv6": Form('"[::1]:{0}"', (("::1", 0),), (("::1", 1), ("127.0.0.1", 0))),
    "mapped": Form('"[::ffff:127.0.0.1]:{0}"', (("127.0.0.1", 0),), (("127.0.0.1", 1),)),
    "udp is not tcp": Form('"udp://127.0.0.1:{0}"', (), (("127.0.0.1", 0),)),
}

GO = """
def talk(host, port):
    with socket.create_connection((host, port), 5) as s:
        return s.recv(100, socket.MSG_WAITALL).decode()
print(json.dumps({key: outcome(lambda _: talk(*place), b"") for key, place in places.items()}))
"""


def consecutive_ports(count: int) -> int:
    """The first of so many free TCP ports in a row, below those that Linux hands out."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first = int(file.read().split()[0])
    for port in range(first - 1 - count, 1024, -count):
        with ExitStack() as held:
            try:
                for number in range(port, port + count):
                    sock = held.enter_context(socket.socket())
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    sock.bind(("0.0.0.0", number))
            except OSError:
                continue
            return port
    raise AssertionError(f"no {count} free ports in a row")


def test_each_form_of_a_rule_opens_what_it_says(workspace: Path) -> None:
    # Three ports of its own for each form, so that all of them are lines of one policy.
    start = consecutive_ports(3 * len(FORMS))
    lines, wanted, places, listeners = [], {}, {}, {}
    with ExitStack() as stack:
        for number, (name, form) in enumerate(FORMS.items()):
            ports = [start + 3 * number + offset for offset in range(3)]
            if has_ipv6() or "[::1]" not in form.line:
                lines.append(form.line.format(*ports))
            for address, which in (*form.opens, *form.not_opens):
                if ":" in address and not has_ipv6():
                    continue
                key, place = f"{name}: {address} {which}", (address, ports[which])
                places[key], wanted[key] = place, (address, which) in form.opens
                listeners[key] = stack.enter_context(TcpListener(*place, reply=key.encode()))
        code = f"{TOOLS}\nplaces = {places!r}\n{GO}"
        outside = run_outside(code, workspace=workspace).json()
        assert outside == {key: repr(key) for key in places}
        inside = run_inside(code, workspace=workspace, policy=f"[network]\nallow = [{', '.join(lines)}]")
        assert inside.json() == {key: repr(key) if opens else "EACCES" for key, opens in wanted.items()}
        visits = {key: len(listener.received()) for key, listener in listeners.items()}
        assert visits == {key: 1 + opens for key, opens in wanted.items()}
        # Each refusal names the line that would have allowed it.
        assert {(e.address, e.port) for e in inside.refused(kind="connect")} == {
            places[key] for key, opens in wanted.items() if not opens
        }


DATAGRAMS = """
def ask(host, port, connected):
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.settimeout(5)
        if connected:
            s.connect((host, port))
            s.send(b"question")
        else:
            s.sendto(b"question", (host, port))
        return s.recv(100).decode()
print(json.dumps([outcome(lambda _: ask(*place, way), b"") for place in places for way in (True, False)]))
"""


class UdpEcho(UdpListener):
    """Answers each datagram with its own port."""

    def _serve(self) -> None:
        while not self._ending:
            data, peer = self.sock.recvfrom(65536)
            self.sock.sendto(str(self.port).encode(), peer)
            self.contacts.append(Contact(peer, data, finished=True))


@pytest.fixture
def echoes() -> Iterator[list[UdpEcho]]:
    hosts = ["127.0.0.1", "127.4.0.1", "127.0.0.1"] + (["::1"] if has_ipv6() else [])
    with ExitStack() as stack:
        yield [stack.enter_context(UdpEcho(host)) for host in hosts]


def test_datagrams_are_relayed_there_and_back(workspace: Path, echoes: list[UdpEcho]) -> None:
    exact, network, other, *v6 = echoes
    places = [(echo.address, echo.port) for echo in echoes]
    code = f"{TOOLS}\nplaces = {places!r}\n{DATAGRAMS}"
    assert run_outside(code, workspace=workspace).json() == [repr(str(p)) for _, p in places for _ in range(2)]
    rules = [f"udp://127.0.0.1:{exact.port}", f"udp://127.4.0.0/16:{network.port}", f"127.0.0.1:{other.port}"]
    rules += [f"udp://[::1]:{echo.port}" for echo in v6]
    policy = f"[network]\nallow = {rules!r}"
    came = run_inside(code, workspace=workspace, policy=policy).json()
    allowed = [repr(str(port)) for _, port in places]
    assert came == [allowed[0]] * 2 + [allowed[1]] * 2 + ["ENETUNREACH"] * 2 + allowed[3:] * 2
    assert [len(echo.received()) for echo in echoes] == [4, 4, 2] + [4] * len(v6)


PROXY = """
import urllib.request
def fetch(_):
    with urllib.request.urlopen("http://anything.example/page", timeout=5) as reply:
        return reply.read().decode()
def directly(_):
    with socket.create_connection(("127.0.0.1", other), 5) as s:
        return s.recv(5, socket.MSG_WAITALL).decode()
def looked_up(_):
    try:
        return socket.getaddrinfo("anything.example", 80)
    except socket.gaierror:
        return "no such name"
print(json.dumps([outcome(fetch, b""), outcome(directly, b""), outcome(looked_up, b"")]))
"""


def test_with_a_proxy_everything_goes_through_it(workspace: Path) -> None:
    with HttpServer({"http://anything.example/page": b"by proxy"}) as proxy, TcpListener(reply=b"hello") as other:
        code = f"{TOOLS}\nother = {other.port}\n{PROXY}"
        url = f"http://127.0.0.1:{proxy.port}"
        outside = run_outside(code, workspace=workspace, env={"http_proxy": url, "no_proxy": ""}).json()
        assert outside[:2] == ["'by proxy'", "'hello'"]
        inside = run_inside(code, workspace=workspace, policy=f'[network]\nproxy = "{url}"').json()
        assert inside == ["'by proxy'", "EACCES", "'no such name'"]
        assert [request.host for request in proxy.received()] == ["anything.example"] * 2
        assert len(other.received()) == 1


UNIX = """
def talk(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(5)
    s.connect(path)
    return s.recv(5, socket.MSG_WAITALL).decode()
print(json.dumps([outcome(lambda _: talk(path), b"") for path in paths]))
"""


def test_a_unix_socket_is_opened_by_its_path(workspace: Path, tmp_path: Path) -> None:
    """Also one that lies in the workspace, where the sandbox may write, and through a link."""
    paths = [tmp_path / "named", tmp_path / "other", workspace / "within", workspace / "other"]
    link = workspace / "link"
    link.symlink_to(paths[0])
    with ExitStack() as stack:
        services = [stack.enter_context(unix_listener(path, reply=b"hello")) for path in paths]
        code = f"{TOOLS}\npaths = {[str(path) for path in (*paths, link)]!r}\n{UNIX}"
        assert run_outside(code, workspace=workspace).json() == ["'hello'"] * 5
        policy = f'[network]\nunix = ["{paths[0]}", "within"]'
        inside = run_inside(code, workspace=workspace, policy=policy).json()
        assert inside == ["'hello'", "EACCES", "'hello'", "EACCES", "'hello'"]
        assert [len(service.received()) for service in services] == [4, 1, 2, 1]

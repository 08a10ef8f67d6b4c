"""The guard is there where a name is checked, ends with everything else, and nobody else is met in its place."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from sandboxed_kernel.broker.meeting import MeetingPlaces
from sandboxed_kernel.linux import sockets as linux_sockets
from sandboxed_kernel.linux.diag import SocketDiag
from tests.inspected.test_names_are_checked import SHARED, TOOLS, allow, line
from tests.support.dns_server import DnsServer
from tests.support.effort import few
from tests.support.living import Living, is_running, open_descriptors
from tests.support.sandbox import run_inside
from tests.support.secure import Authority
from tests.support.servers import TcpListener, wait_until
from tests.support.tenants import Tenants

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[Path]:
    with DnsServer({"good.test": [SHARED], "evil.test": [SHARED], "six.test": ["::1"]}) as server:
        yield Path(server.write_resolver_config(tmp_path))


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "workspace").mkdir()
    return tmp_path / "workspace"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("guard"), "good.test")


# --- when it is there -------------------------------------------------------------------------------------------------

TALK = """
import socket, sys, time
sock = socket.create_connection(("{}", {}), 20)
print("connected", flush=True)
time.sleep(1000)
"""


def test_without_a_checked_name_there_is_no_guard(workspace: Path, resolver: Path) -> None:
    with TcpListener(SHARED, reply=b"") as server:
        policies = {
            allow(line(server.port, "unchecked")): "good.test",
            allow(line(server.port, None)): "good.test",  # another port than 443
            allow(f'"{SHARED}:{server.port}"'): SHARED,
            allow(line(443, None), f'"{SHARED}:{server.port}"'): SHARED,  # nothing has asked for the name yet
        }
        for policy, host in policies.items():
            code = TALK.format(host, server.port)
            with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
                assert program.line() == "connected"
                assert program.guards == []


def test_without_a_checked_name_nothing_of_it_is_imported() -> None:
    code = "import sandboxed_kernel.launcher, sandboxed_kernel.broker.assembly, sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    of_it = {"meeting", "guarding", "guarded_connects", "greetings"}
    assert not [name for name in found if name.startswith("sandboxed_kernel.guard.")]
    assert not [name for name in found if name.removeprefix("sandboxed_kernel.broker.") in of_it]


def test_the_first_checked_connection_starts_it_once(workspace: Path, resolver: Path) -> None:
    with TcpListener(SHARED, reply=b"") as server:
        many = f"more = [socket.create_connection(('good.test', {server.port}), 20) for _ in range(9)]"
        code = TALK.format("good.test", server.port).replace("sock =", f"{many}\nsock =")
        policy = allow(line(server.port))
        with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
            assert program.line() == "connected"
            wait_until(lambda: len(program.guards) == 1, "the guard")


def test_it_has_its_channel_and_what_it_was_handed_and_nothing_of_the_brokers(workspace: Path, resolver: Path) -> None:
    with TcpListener(SHARED, reply=b"") as server:
        code, policy = TALK.format("good.test", server.port), allow(line(server.port))
        with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
            assert program.line() == "connected"
            (guard,) = wait_until(lambda: program.guards, "the guard")
            wait_until(lambda: open_descriptors(guard) >= 6, "the connection")
            links = {int(fd.name): os.readlink(fd) for fd in Path(f"/proc/{guard}/fd").iterdir()}
            assert links.pop(1) == links.pop(2) == os.readlink(f"/proc/{program.launcher.pid}/fd/2")
            assert sorted(link.partition("[")[0] for link in links.values()) == [
                "anon_inode:",
                "socket:",
                "socket:",
                "socket:",
            ]
            assert "anon_inode:[eventpoll]" in links.values()


@pytest.mark.parametrize("killed", ["guard", "broker", "launcher", "all"])
def test_everything_ends_with_it(workspace: Path, resolver: Path, killed: str) -> None:
    with TcpListener(SHARED, reply=b"") as server:
        code, policy = TALK.format("good.test", server.port), allow(line(server.port))
        with Living(code, workspace=workspace, policy=policy, resolv_conf=resolver) as program:
            assert program.line() == "connected"
            (guard,) = wait_until(lambda: program.guards, "the guard")
            program.note()
            all_of_them = {"guard": guard, "broker": program.broker, "launcher": program.launcher.pid}
            for pid in [all_of_them[killed]] if killed != "all" else list(all_of_them.values()):
                os.kill(pid, signal.SIGKILL)
            wait_until(program.is_gone, "the end of everything inside")
            wait_until(lambda: not is_running(guard), "the guard's end")
            assert [contact.finished for contact in server.received()] == [True]


# TLS 1.2: tickets of TLS 1.3 that were not read make Linux reset the connection, and throw away what was to be sent.
LEAVES = f"""
{TOOLS}
old = context()
old.maximum_version = ssl.TLSVersion.TLSv1_2
tls = old.wrap_socket(socket.create_connection(("good.test", PORT), 20), server_hostname="good.test")
for _ in range(20):
    tls.sendall(bytes(50_000))
os.kill(os.getpid(), 9)
"""


def test_what_was_sent_before_the_end_arrives(workspace: Path, resolver: Path, authority: Authority) -> None:
    arrived = []

    def serve(tls: ssl.SSLSocket) -> None:
        with suppress(ssl.SSLError):  # the end comes without TLS's own
            while data := tls.recv(65536):
                arrived.append(len(data))

    with Tenants(authority, SHARED, serve=serve) as server:
        code, policy = LEAVES.replace("PORT", str(server.port)), allow(line(server.port))
        assert run_inside(code, workspace=workspace, policy=policy, resolv_conf=resolver).returncode != 0
    assert sum(arrived) == 1_000_000


REFUSED = f"""
{TOOLS}
for number in range(NUMBER):
    get(PORT, ("evil.test", "good.test", None)[number % 3], "x")
print("over", flush=True)
time.sleep(1000)
"""


def test_nothing_piles_up(workspace: Path, resolver: Path, authority: Authority) -> None:
    with Tenants(authority, SHARED) as server:
        lines = allow(line(server.port), line(server.port, "unchecked", host="other.test"))
        found = []
        for number in (3, few(1200) + 30):
            code = REFUSED.replace("PORT", str(server.port)).replace("NUMBER", str(number))
            with Living(code, workspace=workspace, policy=lines, resolv_conf=resolver) as program:
                assert program.line(120) == "over"
                (guard,) = program.guards
                broker = program.broker
                wait_until(lambda guard=guard: open_descriptors(guard) <= 5, "the end of all connections")  # type: ignore[misc]
                found.append((open_descriptors(guard), open_descriptors(broker) <= 60))
        assert found[0] == found[1]


def test_an_ipv6_server(workspace: Path, resolver: Path, authority: Authority) -> None:
    with Tenants(authority, "::1") as server:
        ask = f'print(json.dumps([get({server.port}, name, at="six.test") for name in ("six.test", "evil.test")]))'
        policy = allow(line(server.port, host="six.test"))
        result = run_inside(f"{TOOLS}\n{ask}", workspace=workspace, policy=policy, resolv_conf=resolver)
        assert result.json() == ["tenant six.test", "SSLError"]
        assert server.names == ["six.test"]


LIVE = f"""
{TOOLS}
for step in ("one", "two", "three"):
    print(json.dumps([get(PORT, "good.test"), get(PORT, "evil.test")]), flush=True)
    while not os.path.exists(step):
        time.sleep(0.01)
    time.sleep(1.1)  # what is allowed is looked at once a second (docs/decisions/live-policy.md)
"""


def test_lines_that_change_hold_for_a_running_sandbox(workspace: Path, resolver: Path, authority: Authority) -> None:
    with Tenants(authority, SHARED) as server:
        free, strict = allow(line(server.port, "unchecked")), allow(line(server.port))
        more = allow(line(server.port), line(server.port, None, host="evil.test"))
        code = LIVE.replace("PORT", str(server.port))
        with Living(code, workspace=workspace, policy=free, resolv_conf=resolver) as program:
            assert program.line() == '["tenant good.test", "tenant evil.test"]'
            assert program.guards == []
            program.policy.write_text(strict)
            (workspace / "one").touch()
            assert program.line() == '["tenant good.test", "SSLError"]'
            assert len(program.guards) == 1
            program.policy.write_text(more)
            (workspace / "two").touch()
            assert program.line() == '["tenant good.test", "tenant evil.test"]'


# --- who else could be met ------------------------------------------------------------------------------------------


def caller(version: int, port: int, *, token: bool = True) -> socket.socket:
    """As the broker makes a caller's socket wait."""
    sock = socket.socket(FAMILY[version])
    sock.setblocking(False)
    if token:
        linux_sockets.demand_token(sock, version)
    assert sock.connect_ex((LOOPBACK[version], port)) == errno.EINPROGRESS
    return sock


@pytest.mark.parametrize("version", [4, 6])
def test_the_caller_meets_ours_and_only_when_it_is_told_to(version: int) -> None:
    places, diag = MeetingPlaces(version), SocketDiag()
    near = places.bind_one()
    with near, caller(version, near.getsockname()[1]) as waiting:
        wait_until(lambda: repeated(waiting) >= 1, "a repeated packet")  # which was answered by a reset, and dropped
        assert not linux_sockets.is_settled(waiting)
        here, there = (address_of(sock) for sock in (waiting, near))
        near.connect_ex(waiting.getsockname())
        wait_until(lambda: linux_sockets.is_connected(near), "the meeting")
        waiting.send(b"hello")
        assert near.recv(100) == b"hello"
        assert diag.tcp_connection(here, there) == os.fstat(waiting.fileno()).st_ino
        assert diag.tcp_connection(there, here) == os.fstat(near.fileno()).st_ino
        assert diag.tcp_connection((here[0], 1), there) is None
    diag.close()
    places.close()


def address_of(sock: socket.socket) -> tuple[IPv4Address | IPv6Address, int]:
    host, port, *_ = sock.getsockname()
    return ip_address(host), port


def repeated(sock: socket.socket) -> int:
    """How often it has sent its first packet again: tcpi_retransmits, the third byte of struct tcp_info."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[2]


@pytest.mark.parametrize("version", [4, 6])
def test_nobody_else_has_the_port(version: int) -> None:
    places = MeetingPlaces(version)
    ours = [places.bind_one() for _ in range(3)]
    port = ours[0].getsockname()[1]
    anywhere = {4: "0.0.0.0", 6: "::"}[version]
    tried = 0
    for address, reuse_address, reuse_port in itertools.product((LOOPBACK[version], anywhere), (0, 1), (0, 1)):
        with socket.socket(FAMILY[version]) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse_address)
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, reuse_port)
            with pytest.raises(OSError, match="in use"):
                stranger.bind((address, port))
            tried += 1
    assert tried == 8
    with pytest.raises(OSError, match="in use"):
        ours[0].listen()  # nor does one that was let in
    for sock in ours:
        sock.close()
    places.close()


@pytest.mark.parametrize("version", [4, 6])
def test_whoever_has_the_port_once_we_are_gone_meets_nobody(version: int) -> None:
    places = MeetingPlaces(version)
    near = places.bind_one()
    where = near.getsockname()[:2]
    with caller(version, where[1]) as waiting:
        near.close()
        places.close()
        with socket.socket(FAMILY[version]) as stranger:
            stranger.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stranger.bind(where)
            stranger.listen()
            stranger.setblocking(False)
            with caller(version, where[1], token=False) as control:
                wait_until(lambda: linux_sockets.is_connected(control), "the control, which has no token to ask for")
                stranger.accept()[0].close()
            before = repeated(waiting)
            wait_until(lambda: repeated(waiting) > before, "a packet that reaches the stranger")
            assert not linux_sockets.is_connected(waiting)
            with pytest.raises(BlockingIOError):
                stranger.accept()


def test_ports_are_used_again_and_again() -> None:
    places = MeetingPlaces(4)
    ports = set()
    for _ in range(few(8_000) + 100):
        near = places.bind_one()
        with near, caller(4, near.getsockname()[1]) as waiting:
            near.connect_ex(waiting.getsockname())
            wait_until(lambda near=near: linux_sockets.is_connected(near), "the meeting")  # type: ignore[misc]
            ports.add(near.getsockname()[1])
            near.close()  # first: this side keeps the pair of addresses for a minute
    assert len(ports) <= 4
    places.close()

"""The harness itself against the real thing: what it records is what was sent, and children tell what happened."""

from __future__ import annotations

import os
import signal
import socket
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.support import interfaces
from tests.support.child import ChildExited, ChildKilled, in_child
from tests.support.sandbox import attack, compile_c, run_outside
from tests.support.servers import HttpServer, TcpListener, UdpListener, UnixKind, unix_listener


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", "::1"])
def test_a_tcp_listener_records_connections_and_bytes_in_order(address: str) -> None:
    if ":" in address and not interfaces.has_ipv6():
        pytest.skip("no IPv6 loopback on this machine")
    with TcpListener(address) as server:
        assert server.received() == []
        for text in (b"first", b"", b"third"):
            with socket.create_connection((address, server.port), 5) as client:
                client.sendall(text)
                client.shutdown(socket.SHUT_WR)
                assert client.recv(100) == server.reply
        assert [contact.data for contact in server.received()] == [b"first", b"", b"third"]


def test_a_connection_that_is_reset_at_once_is_still_recorded() -> None:
    with TcpListener() as server:
        client = socket.create_connection((server.address, server.port), 5)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.close()
        assert len(server.received()) == 1


def test_a_connection_that_stays_open_is_given_with_what_it_sent() -> None:
    with TcpListener() as server, socket.create_connection((server.address, server.port), 5) as client:
        client.sendall(b"still here")
        assert [contact.data for contact in server.received(finish_within=0.2)] == [b"still here"]


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2"])
def test_a_udp_listener_records_datagrams(address: str) -> None:
    with UdpListener(address) as server, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"one", (address, server.port))
        client.sendto(b"two", (address, server.port))
        assert [contact.data for contact in server.received()] == [b"one", b"two"]


@pytest.mark.parametrize("kind", ["stream", "seqpacket", "dgram"])
@pytest.mark.parametrize("abstract", [False, True])
def test_a_unix_listener_records_what_comes(kind: UnixKind, abstract: bool, tmp_path: Path) -> None:
    name = f"\0sbk-test-{os.getpid()}-{kind}" if abstract else str(tmp_path / "s")
    with unix_listener(name, kind) as server:
        with socket.socket(socket.AF_UNIX, server.sock.type) as client:
            client.connect(name)
            client.sendall(b"hello")
        assert [contact.data for contact in server.received()] == [b"hello"]


@pytest.mark.parametrize("kind", ["stream", "seqpacket"])
def test_what_was_said_before_a_reset_is_recorded(kind: UnixKind, tmp_path: Path) -> None:
    with unix_listener(tmp_path / "s", kind) as server:
        with socket.socket(socket.AF_UNIX, server.sock.type) as client:
            client.connect(str(tmp_path / "s"))
            assert client.recv(1, socket.MSG_PEEK)  # the reply is there, and stays unread
            client.sendall(b"hello")
        assert [contact.data for contact in server.received()] == [b"hello"]


def test_an_http_server_records_requests_and_bare_connections() -> None:
    with HttpServer({"/": b"the page"}) as server:
        with urllib.request.urlopen(server.url(), timeout=5) as response:
            assert response.read() == b"the page"
        with pytest.raises(urllib.error.HTTPError, match="404") as error:
            urllib.request.urlopen(server.url("/other"), timeout=5)
        error.value.close()
        socket.create_connection((server.address, server.port), 5).close()
        assert [request.path for request in server.received()] == ["/", "/other"]
        assert server.connections == 3


def test_an_own_address_outside_loopback_can_be_bound(own_address: str) -> None:
    assert not own_address.startswith("127.")
    with TcpListener(own_address) as server:
        assert server.received() == []


@pytest.mark.usefixtures("open_descriptors")
def test_a_child_gives_its_result_and_leaves_nothing() -> None:
    assert in_child(lambda: os.getppid()) == os.getpid()
    assert len(in_child(bytes, 5_000_000)) == 5_000_000


def test_what_a_child_raises_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError) as error:
        in_child(lambda: 1 // 0)
    assert "in the child" in error.value.__notes__[0].lower()


def test_a_child_that_exits_or_is_killed_says_so() -> None:
    with pytest.raises(ChildExited) as exited:
        in_child(os._exit, 3)
    assert exited.value.status == 3
    with pytest.raises(ChildKilled) as killed:
        in_child(lambda: os.kill(os.getpid(), signal.SIGKILL))
    assert killed.value.signal == signal.SIGKILL


def test_an_attack_that_does_not_work_outside_is_an_error(workspace: Path) -> None:
    with TcpListener() as server, pytest.raises(AssertionError, match="does not work even outside"):
        attack("print('I attack nothing')", seen=lambda: len(server.received()), workspace=workspace)


def test_outside_code_runs_plainly(workspace: Path) -> None:
    result = run_outside("import json, os; print(json.dumps(os.getcwd()))", workspace=workspace)
    assert result.json() == str(workspace)
    assert run_outside("raise SystemExit(3)", workspace=workspace).returncode == 3


def test_a_c_attack_is_compiled(tmp_path: Path) -> None:
    program = compile_c("#include <unistd.h>\nint main(void) { return getpid() == 0 ? 1 : 0; }\n", tmp_path)
    assert os.access(program, os.X_OK)

"""The guard passes on what it may, whole; it refuses the rest, and can do nothing else."""

from __future__ import annotations

import fcntl
import json
import random
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandboxed_kernel.guard import passing, serve
from sandboxed_kernel.guard.greeting import RETRY
from sandboxed_kernel.guard.messages import Asked, Opened, Passed, decode_from_guard
from tests.support.effort import few
from tests.support.greetings import P384, Client, Server, hello_with, server_context, server_name
from tests.support.guards import GuardInTest, receive_all, tcp_pair
from tests.support.secure import Authority
from tests.support.servers import wait_until

GOOD, EVIL = Client("good.example").says(), Client("evil.example").says()
ANSWER = b"\x16\x03\x03\x00\x2c\x02\x00\x00\x28\x03\x03" + bytes(38)  # the beginning of a ServerHello
AGAIN = ANSWER[:11] + RETRY + ANSWER[43:]  # and one that asks for another greeting
EARLY = b"\x17\x03\x03\x00\x10" + bytes(16)
DENIED = b"\x15\x03\x03\x00\x02\x02\x31"
RESET = struct.pack("=ii", 1, 0)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Authority.create(tmp_path_factory.mktemp("guard"), "good.example").server


@pytest.fixture
def guard() -> Iterator[GuardInTest]:
    with GuardInTest() as found:
        yield found


def greeted(guard: GuardInTest) -> tuple[socket.socket, socket.socket]:
    """A connection on which only bytes are passed on from now on."""
    client, server = guard.connect("good.example")
    client.sendall(GOOD)
    assert server.recv(65536) == GOOD
    server.sendall(ANSWER)
    assert client.recv(65536) == ANSWER
    return client, server


def test_a_greeting_passes_and_nothing_before(guard: GuardInTest) -> None:
    client, server = guard.connect("good.example")
    client.sendall(GOOD[:-1])
    server.setblocking(False)
    other, far = guard.connect("good.example")  # in the same queue: what the guard does for it comes later
    other.sendall(GOOD)
    assert far.recv(65536) == GOOD
    with pytest.raises(BlockingIOError):
        server.recv(1)
    server.settimeout(10)
    client.sendall(GOOD[-1:])
    assert server.recv(65536) == GOOD
    for sock in (server, far):
        sock.sendall(ANSWER)
    assert {guard.hears(), guard.hears()} == {Passed(0), Passed(1)}


ASKED = {
    "name": EVIL,
    "none": Client(None).says(),
    "encrypted": hello_with(server_name(b"good.example"), (0xFE0D, bytes(50))),
    "greeting": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.parametrize("kind", ASKED)
def test_what_it_may_not_pass_it_asks_about_and_the_server_hears_nothing(guard: GuardInTest, kind: str) -> None:
    client, server = guard.connect("good.example")
    client.sendall(ASKED[kind])
    asked = guard.asks()
    assert asked.kind == kind
    assert asked.name == {"name": "evil.example", "encrypted": "good.example"}.get(kind)
    guard.answer(asked, passes=False)
    if kind == "greeting":  # it would not understand an alert
        with pytest.raises(ConnectionResetError):
            receive_all(client)
    else:
        assert receive_all(client) == DENIED
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_a_name_that_the_broker_knows_passes(guard: GuardInTest) -> None:
    client, server = guard.connect("good.example")
    client.sendall(EVIL)
    guard.answer(guard.asks(), passes=True)
    assert server.recv(65536) == EVIL


@pytest.mark.parametrize("kind", ["encrypted", "greeting"])
def test_what_cannot_be_read_passes_for_no_answer(guard: GuardInTest, kind: str) -> None:
    client, server = guard.connect("good.example")
    client.sendall(ASKED[kind])
    guard.answer(guard.asks(), passes=True)
    with pytest.raises(ConnectionResetError):
        server.recv(1)


def test_a_server_that_speaks_first_is_asked_about(guard: GuardInTest) -> None:
    client, server = guard.connect("good.example")
    server.sendall(b"220 mail.example ESMTP\r\n")
    asked = guard.asks()
    assert asked.kind == "server-first"
    guard.answer(asked, passes=False)
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("evil", [False, True])
def test_a_second_greeting_names_the_same_server(guard: GuardInTest, certificate: Path, evil: bool) -> None:
    client, server = guard.connect("good.example")
    tls, other = Client("good.example"), Server(certificate, P384)
    client.sendall(tls.says())
    server.sendall(other.says(server.recv(65536)))
    second = tls.says(client.recv(65536))
    client.sendall(second.replace(b"good.example", b"evil.example") if evil else second)
    if evil:
        asked = guard.asks()
        assert asked.kind == "changed"
        guard.answer(asked, passes=False)
        assert receive_all(client) == DENIED
        with pytest.raises(ConnectionResetError):
            server.recv(1)
    else:
        while len(other.names) < 2:
            other.says(server.recv(65536))
    assert other.names == ["good.example", *([] if evil else ["good.example"])]


def test_a_real_connection(guard: GuardInTest, certificate: Path) -> None:
    client, server = guard.connect("good.example")
    told: list[str | None] = []
    heard: list[bytes] = []
    data = random.Random(1).randbytes(3_000_000)

    def serve() -> None:
        with server_context(certificate, None, told.append).wrap_socket(server, server_side=True) as tls:
            found = b""
            while len(found) < len(data):
                found += tls.recv(1 << 16)
            heard.append(found)
            tls.sendall(b"that was all")

    thread = threading.Thread(target=serve)
    thread.start()
    context = ssl.create_default_context(cafile=str(certificate.with_name("authority.pem")))
    with context.wrap_socket(client, server_hostname="good.example") as tls:
        for at in range(0, len(data), 100_000):
            tls.sendall(data[at : at + 100_000])
        assert tls.recv(65536) == b"that was all"
    thread.join(10)
    assert told == ["good.example"]
    assert heard == [data]


@pytest.mark.parametrize("seed", range(few(32) + 1))
def test_every_byte_arrives_in_its_order_and_a_half_close_behind_it(guard: GuardInTest, seed: int) -> None:
    client, server = greeted(guard)
    lot = random.Random(seed)
    ways = ((client, server, lot.randbytes(lot.randint(0, 3_000_000))), (server, client, lot.randbytes(1_500_000)))
    arrived: dict[int, bytes] = {}

    def send(sock: socket.socket, data: bytes) -> None:
        at = 0
        while at < len(data):
            size = lot.choice((1, 1000, 70_000, 400_000))
            sock.sendall(data[at : at + size])
            at += size
        sock.shutdown(socket.SHUT_WR)

    def receive(number: int, sock: socket.socket) -> None:
        arrived[number] = receive_all(sock)

    threads = [threading.Thread(target=send, args=(source, data)) for source, _, data in ways]
    threads += [threading.Thread(target=receive, args=(n, target)) for n, (_, target, _) in enumerate(ways)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [arrived[n] == data for n, (_, _, data) in enumerate(ways)] == [True, True]


@pytest.mark.parametrize("who", ["client", "server"])
def test_one_half_may_be_closed_long_before_the_other(guard: GuardInTest, who: str) -> None:
    client, server = greeted(guard)
    closes, goes_on = (client, server) if who == "client" else (server, client)
    closes.sendall(b"the last")
    closes.shutdown(socket.SHUT_WR)
    assert receive_all(goes_on) == b"the last"
    for _ in range(3):
        goes_on.sendall(b"more")
        assert closes.recv(100) == b"more"
    goes_on.close()
    assert closes.recv(100) == b""


@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize("size", [0, 1000, 300_000])
def test_a_reset_is_a_reset_behind_what_came_before_it(guard: GuardInTest, who: str, size: int) -> None:
    client, server = greeted(guard)
    resets, learns = (client, server) if who == "client" else (server, client)
    data = random.Random(size).randbytes(size)
    arrived = b""
    resets.sendall(data)
    if size:  # Linux throws away what the other side has not taken yet when a connection is reset
        wait_until(lambda: _unsent(resets) == 0, "what was sent")
    resets.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    resets.close()
    while len(arrived) < size:
        arrived += learns.recv(65536)
    with pytest.raises(ConnectionResetError):
        learns.recv(1)
    assert arrived == data


def _unsent(sock: socket.socket) -> int:
    return int.from_bytes(fcntl.ioctl(sock.fileno(), 0x5411, b"\0\0\0\0"), "little")


def test_who_does_not_read_holds_up_the_sender_and_nobody_else(guard: GuardInTest) -> None:
    client, server = greeted(guard)
    before = guard.resident()
    server.settimeout(0.5)
    with pytest.raises(TimeoutError):
        server.sendall(bytes(1 << 28))
    assert guard.resident() - before < 1 << 20
    other, far = greeted(guard)
    other.sendall(b"still here")
    assert far.recv(100) == b"still here"
    client.close()


def test_descriptors_are_as_before_once_connections_have_ended(guard: GuardInTest) -> None:
    greeted(guard)
    before = guard.descriptors()
    for number in range(few(2000) + 8):
        client, server = greeted(guard)
        match number % 4:
            case 0:
                client.close()
                assert receive_all(server) == b""
                server.close()
            case 1:
                server.close()
                assert receive_all(client) == b""
                client.close()
            case 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                client.close()
                with pytest.raises(ConnectionResetError):
                    server.recv(1)
                server.close()
            case 3:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                server.close()
                with pytest.raises(ConnectionResetError):
                    client.recv(1)
                client.close()
        guard.hears()
    wait_until(lambda: guard.descriptors() <= before, "the last connection's end")


def test_one_connection_too_many_is_refused_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve, "MAX_CONNECTIONS", 1)
    broker, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setblocking(False)
    guard = serve.Guard(own)
    ends = []
    for number in range(2):
        client, near = tcp_pair()
        far, server = tcp_pair()
        for sock in (near, far):
            sock.setblocking(False)
        client.sendall(b"x")
        ends += [client, server]
        guard._obey(Opened(number, ("good.example",)), [near, far])
    assert decode_from_guard(broker.recv(1000)) == Asked(1, "full")
    with pytest.raises(ConnectionResetError):
        ends[2].recv(1)
    for sock in (*ends, broker, own):
        sock.close()
    for connection in list(guard._connections.values()):
        connection.reset()
    guard._epoll.close()


@pytest.mark.parametrize("early", [b"", EARLY], ids=["greeting", "early data"])
def test_a_client_that_ends_before_the_server_has_answered_ends_there_too(guard: GuardInTest, early: bytes) -> None:
    """Else each one that gives up on a server that is silent stays here, and there is room for 1,024."""
    client, server = guard.connect("good.example")
    client.sendall(GOOD + early)
    client.shutdown(socket.SHUT_WR)
    assert server.recv(len(GOOD), socket.MSG_WAITALL) == GOOD
    if not early:
        assert server.recv(1) == b""
    server.sendall(ANSWER)
    assert client.recv(65536) == ANSWER
    assert receive_all(server) == early
    server.close()
    assert client.recv(1) == b""
    assert guard.hears() == Passed(0)


def test_a_client_that_ends_within_its_second_greeting_ends_the_connection(guard: GuardInTest) -> None:
    client, server = guard.connect("good.example")
    client.sendall(GOOD)
    assert server.recv(65536) == GOOD
    server.sendall(AGAIN)
    client.sendall(GOOD[:-1])
    client.shutdown(socket.SHUT_WR)
    assert receive_all(server) == b""
    assert receive_all(client) == AGAIN


@pytest.mark.parametrize("silent", [False, True])
def test_what_its_client_has_left_makes_room(monkeypatch: pytest.MonkeyPatch, silent: bool) -> None:
    """A server that never closes what was closed to it would else take a place for good."""
    monkeypatch.setattr(serve, "MAX_CONNECTIONS", 2)
    monkeypatch.setattr(passing, "_LEFT", 0.0 if silent else 60.0)
    broker, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.setblocking(False)
    guard = serve.Guard(own)
    ends: list[tuple[socket.socket, socket.socket]] = []

    def connect() -> None:
        client, near = tcp_pair()
        far, server = tcp_pair()
        for sock in (near, far):
            sock.setblocking(False)
        ends.append((client, server))
        guard._obey(Opened(len(ends) - 1, ("good.example",)), [near, far])

    for _ in range(2):  # the first one stays, the second one is left
        connect()
        ends[-1][0].sendall(GOOD)
        guard._turn(10)
        assert ends[-1][1].recv(65536) == GOOD
    ends[1][0].close()
    guard._turn(10)
    connect()
    if silent:
        assert set(guard._connections) == {0, 2}
        assert ends[1][1].recv(1) == b""
        with pytest.raises(BrokenPipeError):  # reset, where there was an end already
            ends[1][1].sendall(b"x")
    else:
        assert set(guard._connections) == {0, 1}
        assert decode_from_guard(broker.recv(1000)) == Asked(2, "full")
    for sock in (*(sock for pair in ends for sock in pair), broker, own):
        sock.close()
    for connection in list(guard._connections.values()):
        connection.reset()
    guard._epoll.close()


def test_the_guard_ends_with_its_broker_and_so_do_its_connections() -> None:
    with GuardInTest() as guard:
        client, server = greeted(guard)
        guard.channel.close()
        assert client.recv(1) == server.recv(1) == b""


ATTEMPTS = """
import ctypes, errno, json, os, signal, socket, struct, sys
from sandboxed_kernel.guard.confine import confine
server = socket.create_server(("127.0.0.1", 0))
where = server.getsockname()
connected = socket.create_connection(where)
fresh, unconnected, udp = socket.socket(), socket.socket(), socket.socket(type=socket.SOCK_DGRAM)
unix = socket.socket(socket.AF_UNIX)
folder = os.open("/", os.O_PATH)
libc = ctypes.CDLL(None, use_errno=True)
def raw(number, *arguments):
    if libc.syscall(number, *arguments) < 0:
        raise OSError(ctypes.get_errno(), "")
address = struct.pack("=H", 2) + struct.pack("!H", where[1]) + socket.inet_aton("127.0.0.1") + bytes(8)
ATTEMPTS = {
    "open": lambda: os.open("/etc/passwd", os.O_RDONLY),
    "openat": lambda: os.open("etc/passwd", os.O_RDONLY, dir_fd=folder),
    "stat": lambda: os.stat("/etc/passwd"),
    "socket": lambda: socket.socket(),
    "socketpair": lambda: socket.socketpair(),
    "connect": lambda: unconnected.connect(where),
    "dissolve": lambda: raw(42 if os.uname().machine == "x86_64" else 203, connected.fileno(), bytes(16), 16),
    "bind": lambda: unconnected.bind(("127.0.0.1", 0)),
    "listen": lambda: unconnected.listen(),
    "accept": lambda: server.accept(),
    "fast open": lambda: fresh.sendto(b"x", socket.MSG_FASTOPEN, where),
    "fast open, no address": lambda: connected.send(b"x", socket.MSG_FASTOPEN),
    "sendto": lambda: udp.sendto(b"x", where),
    "sendmsg": lambda: udp.sendmsg([b"x"], [], 0, where),
    "descriptors": lambda: socket.send_fds(connected, [b"x"], [0]),
    "unix": lambda: unix.connect("/run/nobody"),
    "fork": lambda: os.fork(),
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "kill": lambda: os.kill(os.getpid(), 0),
    "an option": lambda: connected.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1),
    "ioctl": lambda: connected.setblocking(False),
    "write": lambda: os.write(connected.fileno(), b"x"),
    "pipe": lambda: os.pipe(),
    "chdir": lambda: os.chdir("/"),
    "memfd": lambda: os.memfd_create("x"),
}
if sys.argv[1] == "confined":
    confine()
found = {}
for name, attempt in ATTEMPTS.items():
    if sys.argv[1] != "confined" and name in sys.argv[2:]:
        continue
    try:
        attempt()
        found[name] = ""
    except OSError as error:
        found[name] = errno.errorcode.get(error.errno, "?")
os.write(2, json.dumps(found).encode())
os._exit(0)
"""


LEFT_OUT = ("exec", "fork", "accept", "listen", "connect", "dissolve")  # outside they would end or hold up the program


def test_the_guard_can_neither_open_nor_connect() -> None:
    def run(how: str) -> dict[str, str]:
        command = [sys.executable, "-c", ATTEMPTS, how, *LEFT_OUT]
        done = subprocess.run(command, capture_output=True, timeout=30)
        found: dict[str, str] = json.loads(done.stderr.splitlines()[-1])
        return found

    free, confined = run("free"), run("confined")
    # What fails without confinement fails for another reason.
    assert {name for name, error in free.items() if error} <= {"unix", "fast open, no address"}
    assert "EPERM" not in free.values()
    assert set(confined.values()) == {"EPERM"}, confined
    assert confined.keys() - free.keys() == set(LEFT_OUT)

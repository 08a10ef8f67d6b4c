"""A line for a name opens that name's TLS server, and no other one that has the same address.

Each attack is made twice inside, the first time where the line says tls = "unchecked": there it reaches the receiver.
"""

from __future__ import annotations

import hashlib
import random
import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.dns_server import DnsServer
from tests.support.effort import few
from tests.support.greetings import P384, hello_with, in_records, server_name
from tests.support.sandbox import Result, run_command_inside, run_inside
from tests.support.secure import Authority
from tests.support.servers import TcpListener, wait_until
from tests.support.silent import silent_listener
from tests.support.tenants import Tenants

SHARED = "127.0.0.7"  # the address that all names have, as in a content delivery network

TOOLS = """
import asyncio, errno, hashlib, json, os, select, socket, ssl, struct, sys, threading, time
def context():
    found = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    found.check_hostname, found.verify_mode = False, ssl.CERT_NONE
    return found
def secure(at, port, greets):
    return context().wrap_socket(socket.create_connection((at, port), 30), server_hostname=greets)
def name(error):
    return errno.errorcode.get(error, "connected")
def get(port, greets, host=None, at="good.test"):
    try:
        with secure(at, port, greets) as tls:
            tls.sendall(f"GET / HTTP/1.1\\r\\nHost: {host or greets}\\r\\n\\r\\n".encode())
            said = b""
            while data := tls.recv(65536):
                said += data
            return said.rpartition(b"\\r\\n")[2].decode()
    except OSError as error:
        return type(error).__name__
def send(port, data):
    with socket.create_connection(("good.test", port), 20) as sock:
        sock.sendall(data)
        try:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        except OSError:
            pass
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.create(tmp_path_factory.mktemp("tenants"), "good.test", "evil.test", "other.test")


@pytest.fixture
def resolver(tmp_path: Path) -> Iterator[Path]:
    names = ("good.test", "evil.test", "other.test", "www.good.test")
    with DnsServer({name: [SHARED] for name in names}) as server:
        yield Path(server.write_resolver_config(tmp_path))


def line(port: int, tls: str | None = "checked", *, host: str = "good.test") -> str:
    said = "" if tls is None else f', tls = "{tls}"'
    return f'{{ host = "{host}", port = {port}, private = true{said} }}'


def allow(*lines: str) -> str:
    return f"[network]\nallow = [{', '.join(lines)}]"


class Inside:
    """Runs programs in one workspace under a policy of lines."""

    def __init__(self, workspace: Path, resolv_conf: Path) -> None:
        self._workspace, self._resolv_conf = workspace, resolv_conf
        workspace.mkdir()

    def __call__(self, code: str, *lines: str) -> Result:
        code = f"{TOOLS}\n{code}"
        return run_inside(code, workspace=self._workspace, policy=allow(*lines), resolv_conf=self._resolv_conf)

    def command(self, command: list[str], *lines: str) -> Result:
        return run_command_inside(
            command, workspace=self._workspace, policy=allow(*lines), resolv_conf=self._resolv_conf
        )


@pytest.fixture
def inside(tmp_path: Path, resolver: Path) -> Inside:
    return Inside(tmp_path / "workspace", resolver)


def test_the_named_server_is_reached_and_its_neighbour_is_not(inside: Inside, authority: Authority) -> None:
    with Tenants(authority, SHARED) as server:
        ask = f'print(json.dumps([get({server.port}, "good.test"), get({server.port}, "evil.test")]))'
        assert inside(ask, line(server.port, "unchecked")).json() == ["tenant good.test", "tenant evil.test"]
        assert server.names == ["good.test", "evil.test"]
        result = inside(ask, line(server.port))
        assert result.json() == ["tenant good.test", "SSLError"]
        assert server.names == ["good.test", "evil.test", "good.test"]
        (event,) = result.refused(kind="tls")
        assert (event.host, event.address, event.port) == ("evil.test", SHARED, server.port)
        assert event.allow_line == line(server.port, None, host="evil.test")
        # The line of the notice, pasted, allows it.
        pasted = event.allow_line
        assert inside(ask, line(server.port), pasted).json() == ["tenant good.test", "tenant evil.test"]


def test_curl_is_not_led_to_the_neighbour(inside: Inside, authority: Authority) -> None:
    curl = shutil.which("curl")
    assert curl is not None, "curl is missing (Debian: apt-get install curl)"
    with Tenants(authority, SHARED) as server:
        lead = ["--connect-to", f"evil.test:{server.port}:good.test:{server.port}", f"https://evil.test:{server.port}/"]
        attack = [curl, "-sSk", "--max-time", "30", *lead]
        assert inside.command(attack, line(server.port, "unchecked")).check().stdout.startswith("tenant evil.test")
        assert server.names == ["evil.test"]
        result = inside.command(attack, line(server.port))
        assert result.returncode == 35  # CURLE_SSL_CONNECT_ERROR
        assert "access denied" in result.stderr
        assert server.names == ["evil.test"]
        fine = [curl, "-sSk", "--max-time", "30", f"https://good.test:{server.port}/"]
        assert inside.command(fine, line(server.port)).check().stdout.startswith("tenant good.test")


GREETING = hello_with(server_name(b"evil.test"), (0x2B, b"\x02\x03\x04"))
RAW: dict[str, bytes] = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: evil.test\r\n\r\n",
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "PROXY": b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n",
    "SSLv2": b"\x80\x2e\x01\x00\x02" + bytes(50),
    "another name": GREETING,
    "another name, a byte in each record": in_records(GREETING[5:], 1),
    "no name": hello_with((0x2B, b"\x02\x03\x04")),
    "encrypted": hello_with(server_name(b"good.test"), (0xFE0D, bytes(100))),
    "encrypted, of the draft": hello_with(server_name(b"good.test"), (0xFFCE, bytes(100))),
    "two names": hello_with(server_name(b"good.test", b"evil.test")),
    "the extension twice": hello_with(server_name(b"good.test"), server_name(b"evil.test")),
    "a NUL in the name": hello_with(server_name(b"good.test\0.evil.test")),
    "a last dot": hello_with(server_name(b"good.test.")),
    "two greetings at once": hello_with(server_name(b"good.test"))[:0] + in_records(GREETING[5:] * 2, 16384),
    "an alert first": b"\x15\x03\x03\x00\x02\x01\x00" + GREETING,
    "early data first": b"\x17\x03\x03\x00\x20" + bytes(32) + GREETING,
}


def test_not_a_byte_of_what_is_no_proper_greeting_arrives(inside: Inside) -> None:
    with TcpListener(SHARED, reply=b"") as server:
        attack = f"for data in {list(RAW.values())!r}: send({server.port}, data)"
        other = line(server.port, host="other.test")  # so that a greeting without a name could be for either
        inside(attack, line(server.port, "unchecked")).check()
        assert {contact.data for contact in server.received()} == set(RAW.values())
        before = len(server.received())
        result = inside(attack, line(server.port), other).check()
        assert [contact.data for contact in server.received()[before:] if contact.data] == []
        assert {event.host for event in result.refused(kind="tls")} & {"good.test", "other.test"}
        assert result.refused(kind="tls", host="evil.test")


def test_a_server_that_speaks_first_is_told_of(inside: Inside) -> None:
    with TcpListener(SHARED, reply=b"220 mail.test ESMTP\r\n") as server:
        listen = f"print(json.dumps(socket.create_connection(('good.test', {server.port}), 20).recv(100).decode()))"
        assert inside(listen, line(server.port, "unchecked")).json() == "220 mail.test ESMTP\r\n"
        result = inside(listen, line(server.port))
        assert "ConnectionResetError" in result.stderr
        (event,) = result.refused(kind="tls")
        assert "speaks first" in event.reason
        assert event.allow_line == f'{{ host = "good.test", port = {server.port}, private = true, tls = "unchecked" }}'


SECOND = """
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
tls = context().wrap_bio(incoming, outgoing, server_hostname="good.test")
def step():
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()
with socket.create_connection(("good.test", PORT), 20) as sock:
    sock.sendall(step())
    incoming.write(sock.recv(65536))
    second = step()
    assert second.count(b"good.test") == 1
    sock.sendall(second.replace(b"good.test", b"evil.test"))
    sock.recv(65536)  # an answer, or an alert
"""


def test_a_second_greeting_names_no_other_server(inside: Inside, authority: Authority) -> None:
    """RFC 8446 section 4.1.4: the server asks for a second greeting, and OpenSSL serves the name of that one."""
    with Tenants(authority, SHARED, curve=P384) as server:
        attack = SECOND.replace("PORT", str(server.port))
        inside(attack, line(server.port, "unchecked")).check()
        assert server.names == ["good.test", "evil.test"]
        result = inside(attack, line(server.port)).check()
        wait_until(lambda: len(server.names) >= 3, "the first greeting")
        assert server.names == ["good.test", "evil.test", "good.test"]
        (event,) = result.refused(kind="tls")
        assert "second greeting" in event.reason
        fine = f'print(json.dumps(get({server.port}, "good.test")))'
        assert inside(fine, line(server.port)).json() == "tenant good.test"


def test_a_greeting_without_a_name_passes_for_the_only_name_of_a_private_address(
    inside: Inside, authority: Authority
) -> None:
    with Tenants(authority, SHARED) as server:
        ask = f'print(json.dumps(get({server.port}, None, "x")))'
        passed = inside(f"get({server.port}, None, 'x')\n{ask}", line(server.port))
        assert passed.json() == "tenant x"
        (event,) = [event for event in passed.events if event.kind == "tls"]  # once for all of them
        assert (event.verdict, event.host) == ("allowed", "good.test")
        refused = inside(ask, line(server.port), line(server.port, "unchecked", host="other.test"))
        assert refused.json() == "SSLError"
        (event,) = refused.refused(kind="tls")
        assert "good.test, other.test" in event.reason or "other.test, good.test" in event.reason
        assert event.allow_line is None  # the strictest decides: no line for one of them would
        assert server.connections == 3


def test_the_strictest_line_of_any_name_decides(inside: Inside, authority: Authority) -> None:
    with Tenants(authority, SHARED) as server:
        ask = f'print(json.dumps(get({server.port}, "evil.test", at="other.test")))'
        free = line(server.port, "unchecked", host="other.test")
        network = f'"{SHARED}:{server.port}"'
        assert inside(ask, free).json() == "tenant evil.test"
        assert inside(ask, free, network).json() == "tenant evil.test"
        for lines in ((free, line(server.port)), (line(server.port), free), (network, free, line(server.port))):
            assert inside(ask, *lines).json() == "SSLError"
        assert server.served("evil.test") == 2


@pytest.mark.root
def test_443_is_checked_where_the_line_says_nothing(inside: Inside, authority: Authority) -> None:
    with Tenants(authority, SHARED, 443) as server:
        ask = 'print(json.dumps([get(443, "good.test"), get(443, "evil.test")]))'
        assert inside(ask, line(443, None)).json() == ["tenant good.test", "SSLError"]
        assert server.served("evil.test") == 0
        assert inside(ask, line(443, "unchecked")).json() == ["tenant good.test", "tenant evil.test"]


def test_what_a_wildcard_names_is_checked(inside: Inside, authority: Authority) -> None:
    with Tenants(authority, SHARED) as server:
        names = '("www.good.test", "evil.test")'
        ask = f'print(json.dumps([get({server.port}, name, at="www.good.test") for name in {names}]))'
        result = inside(ask, line(server.port, host="*.good.test"))
        assert result.json() == ["tenant www.good.test", "SSLError"]
        assert server.names == ["www.good.test"]


# --- the connection itself is as without the guard ------------------------------------------------------------------

ECHO = """
def one(token):
    with secure("good.test", PORT, "good.test") as tls:
        tls.sendall(token)
        return tls.recv(100) == token
results = []
def many(number):
    for _ in range(number):
        results.append(one(os.urandom(16)))
threads = [threading.Thread(target=many, args=(NUMBER,)) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
async def async_one():
    reader, writer = await asyncio.open_connection("good.test", PORT, ssl=context(), server_hostname="good.test")
    token = os.urandom(16)
    writer.write(token)
    same = await reader.readexactly(16) == token
    writer.close()
    return same
async def all_at_once():
    return await asyncio.gather(*(async_one() for _ in range(40)))
results += asyncio.run(all_at_once())
print(json.dumps([len(results), all(results)]))
"""


def test_connections_are_not_mixed_up(inside: Inside, authority: Authority) -> None:
    def echo(tls: ssl.SSLSocket) -> None:
        tls.sendall(tls.recv(100))

    number = few(320)
    with Tenants(authority, SHARED, serve=echo) as server:
        code = ECHO.replace("PORT", str(server.port)).replace("NUMBER", str(number))
        assert inside(code, line(server.port)).json() == [16 * number + 40, True]


TWICE = """
mixed = 0
for number in range(NUMBER):
    sock = socket.socket()
    sock.setblocking(False)
    assert sock.connect_ex(("127.0.0.7", SLOW)) == errno.EINPROGRESS
    if number % 2:
        sock.shutdown(socket.SHUT_RDWR)
    else:
        assert libc.connect(sock.fileno(), bytes(16), 16) == 0
    sock.setblocking(True)
    error = sock.connect_ex(("127.0.0.7", FAST))
    if error:  # of the first one, which was ended: the next call is the second one's
        error = sock.connect_ex(("127.0.0.7", FAST))
    assert error == 0, errno.errorcode[error]
    sock.settimeout(20)
    tls = context().wrap_socket(sock, server_hostname="good.test")
    tls.sendall(b"token%d" % number)
    mixed += tls.recv(100) != b"token%d" % number
    tls.close()
print(json.dumps(mixed))
"""


def test_a_socket_that_is_used_twice_meets_its_second_server(inside: Inside, authority: Authority) -> None:
    def echo(tls: ssl.SSLSocket) -> None:
        tls.sendall(tls.recv(100))

    with Tenants(authority, SHARED, serve=echo) as fast, silent_listener(SHARED) as (_, slow):
        code = TWICE.replace("SLOW", str(slow)).replace("FAST", str(fast.port)).replace("NUMBER", str(few(1000)))
        code = f"import ctypes\nlibc = ctypes.CDLL(None)\n{code}".replace(
            "def greeting(number):\n    return HELLO\n", ""
        )
        assert inside(code, line(fast.port), line(slow)).json() == 0


STATES = """
told = {}
def state(sock):
    try:
        sock.getpeername()
        return "connected"
    except OSError as error:
        return errno.errorcode[error.errno]
slow = socket.socket()
slow.setblocking(False)
told["begins"] = name(slow.connect_ex(("127.0.0.7", SLOW)))
told["again"] = name(slow.connect_ex(("127.0.0.7", SLOW)))
told["peer"] = state(slow)
told["writable"] = bool(select.select([], [slow], [], 0.2)[1])
told["error"] = slow.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
slow.close()
waits = socket.socket()
waits.settimeout(0.3)
try:
    waits.connect(("127.0.0.7", SLOW))
except OSError as error:
    told["timeout"] = type(error).__name__
bounded = socket.socket()
bounded.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, 300_000))
told["SO_SNDTIMEO"] = name(bounded.connect_ex(("127.0.0.7", SLOW)))
told["SO_SNDTIMEO again"] = name(bounded.connect_ex(("127.0.0.7", SLOW)))
refused = socket.socket()
told["refused"] = name(refused.connect_ex(("127.0.0.7", CLOSED)))
told["refused again"] = name(refused.connect_ex(("127.0.0.7", CLOSED)))
six = socket.socket(socket.AF_INET6)
told["mapped"] = name(six.connect_ex(("::ffff:127.0.0.7", OPEN)))
told["once connected"] = name(six.connect_ex(("::ffff:127.0.0.7", OPEN)))
bound = socket.socket()
bound.bind(("127.0.0.1", 0))
own = bound.getsockname()
told["bound"] = name(bound.connect_ex(("127.0.0.7", OPEN)))
told["keeps its name"] = bound.getsockname() == own
listens = socket.socket()
listens.setblocking(False)
listens.connect_ex(("127.0.0.7", SLOW))
try:
    listens.listen()
except OSError as error:
    told["listen"] = errno.errorcode[error.errno]
print(json.dumps(told))
"""


def test_a_connect_has_the_states_and_errors_of_linux(inside: Inside) -> None:
    with TcpListener(SHARED, reply=b"") as server, silent_listener(SHARED) as (_, slow):
        code = STATES.replace("SLOW", str(slow)).replace("OPEN", str(server.port))
        code = code.replace("CLOSED", "1")  # tcpmux: nobody listens there
        plain = inside(code, line(server.port, "unchecked"), line(slow, "unchecked"), line(1, "unchecked")).json()
        assert (plain["SO_SNDTIMEO"], plain["SO_SNDTIMEO again"]) == ("EINPROGRESS", "EALREADY")  # as outside
        assert inside(code, line(server.port), line(slow), line(1)).json() == plain


BYTES = """
with secure("good.test", PORT, "good.test") as tls:
    up = hashlib.sha256()
    for number in range(100):
        data = os.urandom(50_000)
        up.update(data)
        tls.sendall(data)
    down = hashlib.sha256()
    left = 5_000_000
    while left:
        data = tls.recv(65536)
        left -= len(data)
        down.update(data)
    tls.sendall(up.digest())
    print(json.dumps([down.hexdigest(), tls.recv(2).decode()]))
"""


def test_every_byte_arrives(inside: Inside, authority: Authority) -> None:
    data = random.Random(7).randbytes(5_000_000)

    def serve(tls: ssl.SSLSocket) -> None:
        found = hashlib.sha256()
        left = 5_000_000
        while left:
            piece = tls.recv(65536)
            left -= len(piece)
            found.update(piece)
        tls.sendall(data)
        digest = b""
        while len(digest) < 32:
            digest += tls.recv(32 - len(digest))
        tls.sendall(b"ok" if digest == found.digest() else b"no")

    with Tenants(authority, SHARED, serve=serve) as server:
        result = inside(BYTES.replace("PORT", str(server.port)), line(server.port)).json()
    assert result == [hashlib.sha256(data).hexdigest(), "ok"]

"""Code that works outside works inside: every call on a socket comes to the same result, errors included.

One program runs outside and inside, and prints what each call came to; the two reports are compared line by line.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import TcpListener, UdpListener
from tests.support.silent import silent_listener

# case -> (outside, inside, why): what is knowingly different. Everything else is equal.
DIFFERENT: dict[str, tuple[list[Any], list[Any], str]] = {
    "second connect after success": (
        [0, "EISCONN"],
        ["EISCONN", "EISCONN"],
        "the broker has let go of a connected socket, or its peer would never see its end; programs take both",
    ),
    "disconnect when connected": (["ok", "ENOTCONN", "ok"], ["ENOTSUP", "ok", "EISCONN"], "likewise"),
    "sendto when connected": ([True], ["EISCONN"], "likewise; Linux ignores the address, send() has none"),
    "the same call again after it succeeded": (
        ["ok", "EISCONN", "EISCONN", "ok", "EINVAL", "EINVAL"],
        ["ok", "ok", "EISCONN", "ok", "ok", "EINVAL"],
        "Linux may lose the answer to a signal, and the call is then made again: it is told that it has succeeded",
    ),
    "unknown family on a unix socket": (["EINVAL"] * 2, ["EAFNOSUPPORT"] * 2, "the address is read before the socket"),
}

PROGRAM = r"""
import array, ctypes, errno, json, os, select, signal, socket, struct, sys, threading, time
server, closed, silent, udp = SERVER, CLOSED, SILENT, UDP
libc = ctypes.CDLL(None, use_errno=True)
report = {}

def case(function):
    said = []
    def do(call, *args):
        try:
            result = call(*args)
        except OSError as error:   # Python's own timeout has no errno
            said.append(errno.errorcode[error.errno] if error.errno else "timed out")
            return None
        said.append(shown(result))
        return result
    function(do)
    report[function.__name__.replace("_", " ")] = said
    return function

def shown(result):
    if isinstance(result, bool | str):
        return result
    return errno.errorcode.get(result, result) if isinstance(result, int) else "ok"

def raw(name, *args):
    "A call with arguments that Python would not pass; 0 or raises."
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), name)

def tcp(blocking=True):
    s = socket.socket()
    s.setblocking(blocking)
    return s

def address(to):
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", to[1]) + socket.inet_aton(to[0]) + bytes(8)

def settled(s):
    return bool(select.select([], [s], [], 5)[1])

def error_of(s):
    return s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)

@case
def blocking_connect(do):
    s = tcp(); do(s.connect, server); do(s.recv, 5)
    do(lambda: s.getpeername()[1] == server[1] and s.getpeername()[0])
    do(lambda: s.getsockname()[0])

@case
def blocking_connect_refused(do):
    s = tcp(); do(s.connect, closed); do(s.getpeername); do(s.connect, server); do(s.recv, 5)

@case
def non_blocking_connect(do):
    s = tcp(False); do(s.connect_ex, server); do(settled, s); do(error_of, s)
    do(lambda: s.getpeername()[1] == server[1])

@case
def second_connect_after_success(do):
    s = tcp(False); s.connect_ex(server); settled(s); do(s.connect_ex, server); do(s.connect_ex, server)

@case
def non_blocking_connect_refused(do):
    s = tcp(False)
    said = s.connect_ex(closed)   # ECONNREFUSED at once or after EINPROGRESS: both are seen outside
    do(lambda: said in (errno.EINPROGRESS, errno.ECONNREFUSED))
    do(settled, s)
    code = error_of(s) if said == errno.EINPROGRESS else said
    do(lambda: code); do(error_of, s); do(s.connect_ex, server); do(settled, s); do(error_of, s)

@case
def non_blocking_connect_to_a_silent_host(do):
    s = tcp(False); do(s.connect_ex, silent); do(s.connect_ex, silent); do(s.connect_ex, server)
    do(lambda: bool(select.select([], [s], [], 0.05)[1])); do(error_of, s); do(s.getpeername); do(s.send, b"x")

@case
def timeout_of_python(do):
    s = socket.socket(); s.settimeout(0.1); do(s.connect, silent)
    s = socket.socket(); s.settimeout(5); do(s.connect, server); do(s.recv, 5); do(s.gettimeout)

@case
def timeout_of_linux(do):
    s = socket.socket(); s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("=qq", 0, 100000))
    do(s.connect, silent); s.setblocking(False); do(s.connect_ex, silent)

@case
def interrupted_connect(do):
    signal.signal(signal.SIGALRM, lambda *_: None)
    s = tcp(); signal.setitimer(signal.ITIMER_REAL, 0.1)
    do(lambda: raw("connect", s.fileno(), address(silent), 16))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)

@case
def disconnect_before_connecting(do):
    s = tcp(); do(lambda: raw("connect", s.fileno(), bytes(16), 16)); do(s.connect, server)

@case
def disconnect_while_connecting(do):
    s = tcp(False); do(s.connect_ex, silent); do(lambda: raw("connect", s.fileno(), bytes(16), 16))
    s.setblocking(True); do(s.connect, server); do(s.recv, 5)

@case
def disconnect_when_connected(do):
    s = tcp(); s.connect(server)
    do(lambda: raw("connect", s.fileno(), bytes(16), 16)); do(s.getpeername); do(s.connect, server)

@case
def wrong_descriptors(do):
    readable, writable = os.pipe()
    for fd in (-1, 999999, readable, os.open("/dev/null", 0)):
        do(lambda: raw("connect", fd, address(server), 16)); do(lambda: raw("bind", fd, address(server), 16))
        do(lambda: raw("listen", fd, 1)); do(lambda: raw("sendto", fd, b"x", 1, 0, address(server), 16))

@case
def wrong_pointers(do):
    for name in ("connect", "bind"):
        s = tcp()
        for pointer in (None, ctypes.c_void_p(8), ctypes.c_void_p(2**63), ctypes.c_void_p(2**64 - 8)):
            do(lambda: raw(name, s.fileno(), pointer, 16))

@case
def wrong_lengths(do):
    for name in ("connect", "bind"):
        for length in (0, 1, 2, 8, 15, 129, 2**31 - 1, -1):
            s = tcp(); do(lambda: raw(name, s.fileno(), address(("127.0.0.1", 0)), ctypes.c_int(length)))
    for length in (17, 28, 128):
        s = tcp(); do(lambda: raw("connect", s.fileno(), address(server) + bytes(112), length)); do(s.recv, 5)

@case
def wrong_families(do):
    unknown = struct.pack("=H", 77) + bytes(26)
    six = struct.pack("=HHI", socket.AF_INET6, 0, 0) + socket.inet_pton(socket.AF_INET6, "::1") + bytes(4)
    for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        for name in ("connect", "bind"):
            for data in (address(server), six, struct.pack("=H", 1) + b"/nowhere/x\0" + bytes(20), unknown):
                if (family, name, data[0]) == (socket.AF_INET, "connect", 2):
                    continue   # works
                if name == "bind" and family != socket.AF_UNIX:
                    continue   # what bind may take is another promise
                if (family, data) == (socket.AF_UNIX, unknown):
                    continue   # the next case
                s = socket.socket(family); do(lambda: raw(name, s.fileno(), data, len(data)))

@case
def unknown_family_on_a_unix_socket(do):
    for name in ("connect", "bind"):
        s = socket.socket(socket.AF_UNIX); do(lambda: raw(name, s.fileno(), struct.pack("=H", 77) + bytes(26), 28))

@case
def bind_twice(do):
    s = tcp(); do(s.bind, ("127.0.0.1", 0)); do(s.bind, ("127.0.0.2", 0)); do(s.listen); do(s.bind, ("127.0.0.1", 0))

@case
def the_same_call_again_after_it_succeeded(do):
    s = tcp(); do(s.connect, server); do(s.connect, server); do(s.connect, closed)
    s = tcp(); do(s.bind, ("127.0.0.1", 0)); do(s.bind, ("127.0.0.1", 0)); s.listen(); do(s.bind, ("127.0.0.1", 0))

@case
def bind_in_use(do):
    first = tcp(); first.bind(("127.0.0.1", 0)); port = first.getsockname()[1]
    s = tcp(); do(s.bind, ("127.0.0.1", port)); first.listen(); do(s.bind, ("127.0.0.1", port))
    s = tcp(); s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1); do(s.bind, ("127.0.0.1", port))

@case
def bind_after_connect(do):
    s = tcp(); s.connect(server); do(s.bind, ("127.0.0.1", 0))

@case
def bind_before_connect(do):
    s = tcp(); do(s.bind, ("127.0.0.1", 0)); port = s.getsockname()[1]; do(s.connect, server)
    do(lambda: s.getsockname()[1] == port)

@case
def listen_unbound(do):
    s = tcp(); do(s.listen); do(lambda: s.getsockname()[1] > 0)
    c = socket.create_connection(("127.0.0.1", s.getsockname()[1]), 5); do(lambda: s.accept()[0] and "accepted")

@case
def listen_twice_and_change_the_backlog(do):
    s = tcp(); s.bind(("127.0.0.1", 0)); do(s.listen, 5); do(s.listen, 10); do(s.listen, 0)
    do(lambda: s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))

@case
def listen_when_connected(do):
    s = tcp(); s.connect(server); do(s.listen)

@case
def connect_when_listening(do):
    s = tcp(); s.listen(); do(s.connect, server)

@case
def names_of_accepted(do):
    s = tcp(); s.bind(("127.0.0.1", 0)); s.listen(); c = socket.create_connection(s.getsockname(), 5)
    a, peer = s.accept()
    do(lambda: peer == c.getsockname()); do(lambda: a.getpeername() == peer)
    do(lambda: a.getsockname() == s.getsockname())
    do(lambda: c.getpeername() == s.getsockname()); do(a.connect, server); do(a.listen); do(a.bind, ("127.0.0.1", 0))

@case
def send_before_connecting(do):
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    s = tcp(); do(s.send, b"x"); do(s.recv, 1); do(s.sendto, b"x", server)

@case
def sendto_when_connected(do):
    s = tcp(); s.connect(server); do(lambda: s.sendto(b"x", server) == 1)

@case
def flags_of_new_sockets(do):
    import fcntl
    for flags in (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
        for family, kind in ((2, socket.SOCK_STREAM), (2, socket.SOCK_DGRAM), (socket.AF_UNIX, socket.SOCK_STREAM)):
            fd = libc.socket(family, kind | flags, 0)
            do(lambda: fcntl.fcntl(fd, fcntl.F_GETFD)); do(lambda: fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)

@case
def flags_after_connecting(do):
    import fcntl
    s = tcp(); s.connect(server); do(lambda: fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK)
    s = tcp(False); s.connect_ex(server); do(lambda: fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK)
    s = tcp(); do(s.connect, closed); do(lambda: fcntl.fcntl(s, fcntl.F_GETFL) & os.O_NONBLOCK)

@case
def flags_of_accepted(do):
    import fcntl
    l = tcp(); l.bind(("127.0.0.1", 0)); l.listen()
    for flags in (0, socket.SOCK_NONBLOCK, socket.SOCK_CLOEXEC, socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC):
        c = socket.create_connection(l.getsockname(), 5); fd = libc.accept4(l.fileno(), None, None, flags)
        do(lambda: fcntl.fcntl(fd, fcntl.F_GETFD)); do(lambda: fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_NONBLOCK)

@case
def descriptors_are_the_lowest_free(do):
    a = os.open("/dev/null", 0); b = os.open("/dev/null", 0); os.close(a); s = socket.socket()
    do(lambda: s.fileno() == a)

@case
def no_descriptors_left(do):
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (30, hard))
    held = []
    while True:
        try: held.append(socket.socket())
        except OSError as error: do(lambda: error.errno); break
    for s in held: s.close()
    do(socket.socket); resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

@case
def udp_connected(do):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); do(s.connect, udp); do(s.send, b"1"); do(s.sendall, b"2")
    s.settimeout(5); do(lambda: s.recv(10).decode())

@case
def udp_to_a_destination(do):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); do(s.sendto, b"3", udp)
    s.settimeout(5); do(lambda: s.recv(10).decode())

@case
def epoll_of_a_connect(do):
    e = select.epoll(); s = tcp(False); e.register(s, select.EPOLLIN | select.EPOLLOUT | select.EPOLLET)
    do(lambda: s.connect_ex(server)); settled(s); event = e.poll(5)[0][1]
    do(lambda: bool(event & select.EPOLLOUT and not event & select.EPOLLERR))

@case
def epoll_of_a_refused_connect(do):
    e = select.epoll(); s = tcp(False)
    if s.connect_ex(closed) == errno.EINPROGRESS:
        e.register(s, select.EPOLLOUT); do(lambda: bool(e.poll(5)[0][1] & select.EPOLLERR))
    else:
        do(lambda: True)

print(json.dumps(report)); sys.stdout.flush(); os._exit(0)
"""


class Echo(UdpListener):
    """Answers every datagram with its own content."""

    def _serve(self) -> None:
        while not self._ending:
            data, peer = self.sock.recvfrom(65536)
            self.sock.sendto(b"echo " + data, peer)


def closed_port() -> tuple[str, int]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address: tuple[str, int] = probe.getsockname()
        return address


def test_sockets_answer_as_they_do_outside(workspace: Path) -> None:
    with TcpListener() as server, silent_listener() as silent, Echo() as udp:
        places = {"SERVER": (server.address, server.port), "CLOSED": closed_port(), "SILENT": silent}
        code = PROGRAM.replace("UDP", repr((udp.address, udp.port)), 1)
        for name, place in places.items():
            code = code.replace(name, repr(place), 1)
        lines = [f"{host}:{port}" for host, port in places.values()] + [f"udp://{udp.endpoint}"]
        policy = f"[network]\nallow = {json.dumps(lines)}"
        outside = run_outside(code, workspace=workspace).json()
        inside = run_inside(code, workspace=workspace, policy=policy).json()
    for name, (here, there, _why) in DIFFERENT.items():
        assert (outside.pop(name), inside.pop(name)) == (here, there), name
    assert inside == outside
    assert len(outside) > 30

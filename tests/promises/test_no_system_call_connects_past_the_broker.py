"""Whichever system call connects, and however its arguments are written: no listener outside gets a connection."""

from __future__ import annotations

from pathlib import Path

from tests.support.attempts import LACKING, make_all, program
from tests.support.sandbox import compile_c, run_inside
from tests.support.servers import TcpListener

C_CONNECT = r"""
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[1]))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    long fd = syscall(SYS_socket, AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || syscall(SYS_connect, fd, &to, sizeof to) < 0)
        return 1;
    return write(fd, argv[2], strlen(argv[2])) < 0;
}
"""

# The body of each sends ``payload``; ``where`` is the address and port, ``raw`` the same as struct sockaddr_in.
WAYS = {
    "connect": "socket.create_connection(where, 5).sendall(payload)",
    "connect-nonblocking": """
        s = socket.socket()
        s.setblocking(False)
        code = s.connect_ex(where)
        if code == errno.EINPROGRESS:
            select.select([], [s], [], 5)
            code = s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, "")
        s.send(payload)
    """,
    "connect-asyncio": """
        import asyncio
        async def go():
            _, writer = await asyncio.open_connection(*where)
            writer.write(payload)
            await writer.drain()
            writer.close()
        asyncio.run(go())
    """,
    "connect-in-a-thread": """
        failed = []
        def go():
            try:
                socket.create_connection(where, 5).sendall(payload)
            except OSError as error:
                failed.append(error)
        t = threading.Thread(target=go)
        t.start()
        t.join()
        if failed:
            raise failed[0]
    """,
    "connect-in-an-orphan": """
        reading, writing = os.pipe()
        if os.fork() == 0:
            if os.fork() == 0:
                os.setsid()
                os.write(writing, outcome(lambda p: socket.create_connection(where, 5).sendall(p), payload).encode())
            os._exit(0)
        os.close(writing)
        os.wait()
        return os.read(reading, 100).decode()
    """,
    "connect-by-bash": """
        import subprocess
        command = f"exec 3<>/dev/tcp/{where[0]}/{where[1]} && printf {payload.decode()} >&3"
        return subprocess.run(["bash", "-c", command], capture_output=True).returncode
    """,
    "connect-by-c": """
        import subprocess
        return subprocess.run(["./connect", str(where[1]), payload.decode()], capture_output=True).returncode
    """,
    "connect-by-posix_spawn": """
        pid = os.posix_spawn("./connect", ["connect", str(where[1]), payload.decode()], {})
        return os.waitpid(pid, 0)[1]
    """,
    "connect-raw": """
        fd = syscall("socket", 2, 1, 0)
        syscall("connect", fd, raw, 16)
        os.write(fd, payload)
    """,
    # The upper half of each register is not Linux's to look at, and must not be a filter's either.
    "connect-high-bits": """
        fd = syscall("socket", HIGH | 2, HIGH << 3 | 1, HIGH | 6)
        syscall("connect", HIGH | fd, raw, HIGH | 16)
        os.write(fd, payload)
    """,
    "connect-mptcp": """
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        s.connect(where)
        s.sendall(payload)
    """,
    "connect-after-unspec": """
        s = socket.socket()
        syscall("connect", s.fileno(), bytes(16), 16)
        s.connect(where)
        s.sendall(payload)
    """,
    # TCP Fast Open connects within a send, tcp(7). Without a cookie the payload waits for the handshake, no longer.
    "fastopen-sendto": "return socket.socket().sendto(payload, socket.MSG_FASTOPEN, where)",
    "fastopen-sendmsg": "return socket.socket().sendmsg([payload], [], socket.MSG_FASTOPEN, where)",
    "fastopen-sendmmsg": """
        s = socket.socket()
        header, parts = message(payload, raw)
        return syscall("sendmmsg", s.fileno(), header + bytes(8), 1, socket.MSG_FASTOPEN)
    """,
    "fastopen-sendto-high-bits": """
        s = socket.socket()
        return syscall("sendto", HIGH | s.fileno(), payload, len(payload), HIGH | socket.MSG_FASTOPEN, raw, 16)
    """,
    "fastopen-mptcp": """
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
        return s.sendto(payload, socket.MSG_FASTOPEN, where)
    """,
    # TCP_FASTOPEN_CONNECT: connect(2) only remembers the address, and the first send goes there.
    "fastopen-connect": """
        s = socket.socket()
        s.setsockopt(socket.IPPROTO_TCP, 30, 1)
        s.connect(where)
        s.sendall(payload)
    """,
    "fastopen-connect-ignored": """
        s = socket.socket()
        try:
            s.setsockopt(socket.IPPROTO_TCP, 30, 1)
        except OSError:
            pass
        s.connect(where)
        s.sendall(payload)
    """,
    # A port got by bind first, an IPv6 socket, and a socket that was passed through a unix socket.
    "connect-bound": """
        s = socket.socket()
        s.bind(("127.0.0.1", 0))
        s.connect(where)
        s.sendall(payload)
    """,
    "connect-passed-on": """
        a, b = socket.socketpair()
        s = socket.socket()
        socket.send_fds(a, [b"x"], [s.fileno()])
        s.close()
        fd = socket.recv_fds(b, 1, 1)[1][0]
        syscall("connect", fd, raw, 16)
        os.write(fd, payload)
    """,
    "connect-from-a-shared-table": """
        # Two threads of one process: one makes the socket, the other connects its number (the broker sees two ids).
        s = socket.socket()
        failed = []
        def go():
            try:
                syscall("connect", s.fileno(), raw, 16)
            except OSError as error:
                failed.append(error)
        t = threading.Thread(target=go)
        t.start()
        t.join()
        if failed:
            raise failed[0]
        s.sendall(payload)
    """,
}
MPTCP = ("connect-mptcp", "fastopen-mptcp")


def test_no_system_call_connects_past_the_broker(workspace: Path) -> None:
    compile_c(C_CONNECT, workspace, name="connect")
    with TcpListener() as wanted, TcpListener() as other:
        policy = f'[network]\nallow = ["{wanted.endpoint}"]'
        setting = f"where = ('127.0.0.1', {other.port})\nraw = sockaddr(*where)"
        made = make_all(
            WAYS,
            arrived=lambda: [contact.data.decode() for contact in other.received()],
            workspace=workspace,
            setting=setting,
            policy=policy,
            may_lack=MPTCP,
        )
        refusals = {"EACCES", "ENOTSUP", "ENOPROTOOPT", "EPIPE", "1", "256", "'EACCES'", *LACKING}
        assert {name: became for name, became in made.inside.items() if became not in refusals} == {}
        # One line in the notebook, however often it was tried.
        assert {event.port for event in made.result.refused(kind="connect")} == {other.port}

        # The same ways lead to the allowed listener, apart from those that Linux itself may do without.
        plain = {name: body for name, body in WAYS.items() if name.startswith("connect") and name not in MPTCP}
        setting = f"where = ('127.0.0.1', {wanted.port})\nraw = sockaddr(*where)"
        allowed = run_inside(program(plain, setting), workspace=workspace, policy=policy).json()
        assert {contact.data.decode() for contact in wanted.received()} >= set(plain), allowed

"""Does: hostile load of all kinds on one broker, for a while, and what the broker looks like then. Also a script:

python -m tests.support.load SECONDS
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.support.living import Living, open_descriptors, resident_bytes
from tests.support.servers import TcpListener, wait_until

# Processes that share sockets and die in the middle of calls, timers that interrupt them, calls of every kind with
# arguments that mean something and that mean nothing. It prints a line when it is over, and one when all is quiet.
CODE = """
import ctypes, os, random, resource, signal, socket, struct, sys, threading, time
allowed, refused, seconds = ALLOWED, REFUSED, SECONDS
libc = ctypes.CDLL(None, use_errno=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
end = time.monotonic() + seconds
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, False)
shared = [socket.socket(random.choice([socket.AF_INET, socket.AF_INET6])) for _ in range(8)]
for one in shared:
    one.setblocking(False)

print("begun", flush=True)

def quietly(work, *arguments):
    try:
        return work(*arguments)
    except (OSError, ValueError, OverflowError, struct.error):
        return None

def address(own):
    others = [("127.0.0.1", 1), ("192.0.2.1", 80), ("127.0.0.1", 53), ("0.0.0.0", 0)]
    return random.choice([allowed, refused, own, *others])

def any_bytes(sock):
    size = random.choice([0, 1, 2, 15, 16, 28, 110, 128, 129, 4096])
    data = struct.pack("=H", random.choice([0, 1, 2, 10, 16, 17, 40])) + os.urandom(size)
    call = random.choice([libc.connect, libc.bind])
    call(sock.fileno(), data, random.choice([size, size + 2, -1, 1 << 31]))

def nothing_there(sock):
    libc.connect(sock.fileno(), ctypes.c_void_p(random.choice([0, 1, 1 << 46])), 16)

def tcp(own):
    with socket.socket() as sock:
        sock.settimeout(random.choice([0, 0.01, 1]))
        quietly(sock.connect, address(own))
        quietly(sock.send, b"x")
        quietly(sock.connect, address(own))

def server(own):
    with socket.socket() as sock:
        quietly(sock.bind, ("127.0.0.1", 0))
        quietly(sock.listen)
        with socket.socket() as client:
            client.settimeout(0.05)
            quietly(client.connect, sock.getsockname())

def together(own):
    sock = random.choice(shared)
    work = random.choice([sock.connect, sock.bind])
    quietly(work, address(own))
    quietly(sock.listen)
    libc.connect(sock.fileno(), bytes(16), 16)
    any_bytes(sock)
    nothing_there(sock)

def unix(own):
    name = f"u{random.randrange(20)}"
    with socket.socket(socket.AF_UNIX) as sock, socket.socket(socket.AF_UNIX) as client:
        client.setblocking(False)
        quietly(os.unlink, name)
        quietly(sock.bind, random.choice([name, "\\0" + name, "/run/x", ""]))
        quietly(sock.listen, 1)
        quietly(client.connect, random.choice([name, "\\0" + name, "/run/dbus/x"]))

def datagrams(own):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        quietly(sock.sendto, os.urandom(random.randrange(600)), ("127.0.0.1", random.choice([53, 80])))
        quietly(sock.connect, ("127.0.0.1", 53))
        quietly(sock.send, os.urandom(random.randrange(600)))

def files(own):
    name = f"f{random.randrange(20)}"
    with open(name, "w") as file:
        quietly(os.fchmod, file.fileno(), random.randrange(0o10000))
        quietly(os.chmod, random.choice([name, "/etc/passwd", "/usr", "missing"]), 0o644)
        quietly(os.utime, name)
        quietly(os.setxattr, name, random.choice(["user.a", "security.b"]), b"x")
        quietly(os.symlink, random.choice(["/etc", "..", name]), f"l{random.randrange(20)}")
    quietly(os.unlink, f"l{random.randrange(20)}")

def others(own):
    quietly(os.setpriority, os.PRIO_PROCESS, random.choice([1, 0, os.getppid(), os.getpid()]), 5)
    quietly(resource.prlimit, random.choice([1, 2]), resource.RLIMIT_CPU, (1, 1))

def kinds(own):
    family, kind = random.choice([1, 2, 10, 16, 17, 40]), random.choice([1, 2, 3, 5])
    made = quietly(socket.socket, family, kind, random.randrange(20))
    if made is not None:
        made.close()

WORK = [tcp, tcp, server, together, together, unix, datagrams, files, others, kinds]

def work():
    random.seed(os.urandom(8))
    own = ("127.0.0.1", random.randrange(20000, 20010))
    while time.monotonic() < end:
        quietly(random.choice(WORK), own)

def process():
    if random.random() < 0.5:
        signal.setitimer(signal.ITIMER_REAL, 0.003, 0.003)
    for _ in range(2):
        threading.Thread(target=work, daemon=True).start()
    work()
    os._exit(0)

alive = []
while time.monotonic() < end:
    while len(alive) < 4:
        pid = os.fork()
        if pid == 0:
            process()
        alive.append(pid)
    time.sleep(random.random() * 0.5)
    dead = alive.pop(random.randrange(len(alive)))
    os.kill(dead, signal.SIGKILL)
    os.waitpid(dead, 0)
for pid in alive:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
for one in shared:
    one.close()
print("over", flush=True)
for _ in range(200):
    socket.socket().close()
with socket.create_connection(allowed, 5) as sock:
    print(sock.recv(5).decode(), flush=True)
time.sleep(60)
"""


class State(NamedTuple):
    """Of a broker. ``memory`` is in bytes."""

    memory: int
    threads: int
    descriptors: int


def state(pid: int) -> State:
    return State(resident_bytes(pid), len(os.listdir(f"/proc/{pid}/task")), open_descriptors(pid))


class Outcome(NamedTuple):
    """``early``: after the first second. ``quiet``: once the load is over, and what idles has ended."""

    early: State
    highest: State
    quiet: State
    events: int
    lines: int  # of the audit log
    errors: str
    reached: int  # connections that the refused server had


def run(seconds: float, workspace: Path) -> Outcome:
    """AssertionError where the broker answers no more, or anything else stops."""
    with TcpListener(reply=b"hello") as allowed, TcpListener() as refused:
        code = CODE.replace("ALLOWED", repr((allowed.address, allowed.port)), 1)
        code = code.replace("REFUSED", repr((refused.address, refused.port)), 1).replace("SECONDS", repr(seconds), 1)
        with Living(code, workspace=workspace, policy=f'[network]\nallow = ["{allowed.endpoint}"]') as program:
            assert program.line() == "begun"
            broker, end = program.broker, time.monotonic() + seconds
            time.sleep(1)
            assert program.launcher.poll() is None, program.errors()
            early = highest = state(broker)
            while time.monotonic() < end:
                time.sleep(min(1.0, seconds / 10))
                highest = State(*map(max, highest, state(broker)))
                assert program.launcher.poll() is None, program.errors()
            assert program.line(60) == "over"
            assert program.line(60) == "hello"
            settled = lambda: state(broker).threads <= early.threads + 1  # noqa: E731
            wait_until(settled, "the end of the threads that idle", within=30.0)
            events = program.events()
            return Outcome(
                early, highest, state(broker), sum(event.count for event in events), len(events), program.errors(),
                len(refused.received()),
            )  # fmt: skip


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="sbk-") as folder:
        outcome = run(float(sys.argv[1]), Path(folder))
        print(outcome._replace(errors=outcome.errors[-2000:]))

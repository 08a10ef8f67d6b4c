"""What code does with unix sockets of its own is the same inside as outside: names, modes, errors, libraries."""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import run_inside, run_outside

CODE = """
import errno, json, multiprocessing, os, socket, stat, subprocess, sys, threading
told = {}
folder = os.getcwd()

def server(path, kind=socket.SOCK_STREAM):
    s = socket.socket(socket.AF_UNIX, kind)
    s.settimeout(20)
    s.bind(path)
    s.listen(5)
    return s

def visit(path, kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_UNIX, kind) as s:
        s.settimeout(20)
        code = s.connect_ex(path)
        return errno.errorcode.get(code, "connected") if code else s.getpeername()

def shown(name):
    return name.replace(folder, "HERE") if isinstance(name, str) else repr(name)

def both(path, kind=socket.SOCK_STREAM, by=None):
    with server(path, kind) as s:
        return [shown(s.getsockname()), shown(visit(by or path, kind))]

told["relative"] = both("one")
told["absolute"] = both(f"{folder}/two")
told["in TMPDIR"] = bool(both(os.environ["TMPDIR"] + "/three"))
told["dotted"] = both("./a/../four") if os.mkdir("a") is None else None
told["seqpacket"] = both("five", socket.SOCK_SEQPACKET)
told["long"] = both("x" * 107)
told["too long"] = None
try:
    server("x" * 109)
except OSError as error:
    told["too long"] = str(error)
told["not UTF-8"] = both(b"caf\\xe9")
told["abstract"] = both("\\0own-" + str(os.getpid())) [0].replace(str(os.getpid()), "PID")
with socket.socket(socket.AF_UNIX) as s:
    s.bind("")
    s.listen()
    told["autobind"] = [len(s.getsockname()), type(visit(s.getsockname())).__name__]

os.symlink("a", "door")
told["through a link"] = [both("door/six"), stat.S_ISSOCK(os.lstat("a/six").st_mode)]
os.chdir("a")
told["from another folder"] = both("seven")
os.chdir("..")

before = os.umask(0o077)
server("eight").close()
os.umask(0o002)
server("nine").close()
os.umask(before)
told["umask"] = [oct(os.stat(name).st_mode & 0o777) for name in ("eight", "nine")]
os.mkdir("narrow")
os.chmod("narrow", 0o700)
told["narrow folder"] = both("narrow/ten")
os.chmod("narrow", 0o500)
try:
    server("narrow/eleven")
    told["no writing"] = "bound"
except OSError as error:
    told["no writing"] = errno.errorcode[error.errno]
if os.geteuid() == 0:
    del told["no writing"]  # outside, root's capabilities ignore modes
os.chmod("narrow", 0o700)

told["stale"] = visit("eight")
told["no socket"] = open("plain", "w").close() or visit("plain")
told["not there"] = visit("nothing")
try:
    server("eight")
except OSError as error:
    told["taken"] = errno.errorcode[error.errno]
os.unlink("eight")
told["bound again"] = both("eight")

with server("moving") as s:
    os.rename("moving", "moved")
    os.link("moved", "hard")
    os.symlink("moved", "soft")
    told["renamed and linked"] = [shown(visit(name)) for name in ("moved", "hard", "soft")] + [shown(s.getsockname())]
    child = "import socket; s = socket.socket(socket.AF_UNIX); s.connect('moved'); s.sendall(b'child')"
    done = subprocess.run([sys.executable, "-c", child], capture_output=True, text=True, timeout=30)
    heard = [s.accept()[0].recv(10) for _ in range(4)][-1]
    told["by a child"] = [done.returncode, heard.decode()]

def add(a, b):
    return a + b

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    manager = context.Manager()
    try:
        values = manager.dict()
        worker = context.Process(target=values.update, args=({"a": 1},))
        worker.start()
        worker.join(20)
        told["Manager"] = dict(values)
    finally:
        manager.shutdown()
    from multiprocessing.connection import Client, Listener
    with Listener(family="AF_UNIX", authkey=b"k") as listener:
        thread = threading.Thread(target=lambda: Client(listener.address, authkey=b"k").send("hello"))
        thread.start()
        with listener.accept() as connection:
            told["Listener"] = connection.recv()
        thread.join(20)
    left, right = socket.socketpair()
    with open("passed", "w+") as file:
        socket.send_fds(left, [b"x"], [file.fileno()])
        _, (fd,), _, _ = socket.recv_fds(right, 10, 1)
        os.write(fd, b"by descriptor")
        os.close(fd)
        told["descriptors"] = file.read()
    print(json.dumps(told))
"""


def test_own_unix_sockets_work_as_outside(workspace: Path, tmp_path: Path) -> None:
    other = tmp_path / "outside"
    other.mkdir()
    (tmp_path / "t").mkdir()
    outside = run_outside(CODE, workspace=other, env={"TMPDIR": str(tmp_path / "t")}).json()
    inside = run_inside(CODE, workspace=workspace)
    assert inside.json() == outside
    assert outside["Manager"] == {"a": 1}
    assert inside.refused() == []


# Programs that start each other ask for a path until somebody is there (Ray, X, PostgreSQL's own tools).
KNOCKING = """
import errno, json, os, socket, subprocess, sys
ROUNDS = 300
CODE = '''
import socket, sys
for number in range(int(sys.argv[1])):
    path = f"early-{number}"
    sys.stdin.readline()
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen()
        s.accept()[0].close()
'''
met = set()
with subprocess.Popen([sys.executable, "-c", CODE, str(ROUNDS)], stdin=subprocess.PIPE) as other:
    for number in range(ROUNDS):
        other.stdin.write(b"go\\n")
        other.stdin.flush()
        while True:
            with socket.socket(socket.AF_UNIX) as s:
                code = s.connect_ex(f"early-{number}")
            if not code:
                break
            met.add(errno.errorcode[code])
    other.stdin.close()
print(json.dumps(sorted(met)))
"""


def test_who_knocks_before_a_socket_is_bound_is_told_what_linux_says(workspace: Path) -> None:
    outside = run_outside(KNOCKING, workspace=workspace).json()
    assert set(outside) <= {"ENOENT", "ECONNREFUSED"}
    assert "ENOENT" in outside
    for path in workspace.glob("early-*"):
        path.unlink()
    inside = run_inside(KNOCKING, workspace=workspace)
    assert set(inside.json()) <= {"ENOENT", "ECONNREFUSED"}
    assert inside.refused() == []

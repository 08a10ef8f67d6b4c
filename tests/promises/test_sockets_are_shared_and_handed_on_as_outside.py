"""A socket works as outside in whatever hands it goes through: threads, forks, exec, duplicates, SCM_RIGHTS, asyncio.

The broker knows a socket by its inode and looks its number up in the calling *thread's* table; here both are put to
use. One program runs outside and inside and prints what each case came to.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import IN_CONTAINER, run_inside, run_outside
from tests.support.servers import TcpListener
from tests.support.silent import silent_listener

PROGRAM = r"""
import array, asyncio, ctypes, fcntl, json, os, select, socket, subprocess, sys, tempfile, threading
from concurrent.futures import ThreadPoolExecutor
server = SERVER
libc = ctypes.CDLL(None, use_errno=True)
report = {}

def case(function):
    try:
        report[function.__name__.replace("_", " ")] = function()
    except OSError as error:
        report[function.__name__.replace("_", " ")] = repr(error)

def tcp():
    return socket.socket()

def greeting(s):
    s.settimeout(10)
    with s, s.makefile() as lines: return lines.readline()

def in_child(function):
    "What the function returns, from a forked process."
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writable, str(function()).encode())
        except BaseException as error:
            os.write(writable, repr(error).encode())
        os._exit(0)
    os.close(writable)
    with open(readable) as said: text = said.read()
    os.waitpid(pid, 0)
    return text

def meet(listener, connect):
    "A connection to the listener from connect(); what was said over it, both ways."
    client = connect(); peer, _ = listener.accept()
    client.sendall(b"ping"); heard = peer.recv(4).decode(); peer.sendall(b"pong"); heard += client.recv(4).decode()
    client.close(); peer.close()
    return heard

@case
def connect_by_a_duplicate():
    s = tcp(); copy = s.dup(); copy.connect(server); copy.close(); return greeting(s)

@case
def connect_by_a_chosen_number():
    s = tcp(); os.dup2(s.fileno(), 200); s.close(); s = socket.socket(fileno=200); s.connect(server); return greeting(s)

@case
def a_number_that_meant_another_socket():
    first = tcp(); second = tcp(); second.connect(server); number = first.fileno()
    os.dup2(second.fileno(), number); said = first.connect_ex(("127.0.0.1", 1)); return [said, greeting(first)]

@case
def the_forked_child_connects():
    s = tcp()
    return [in_child(lambda: s.connect(server)), greeting(s)]

@case
def the_parent_connects_for_the_child():
    s = tcp(); ready, go = os.pipe()
    def child():
        os.read(ready, 1); return greeting(s)
    s_connected = threading.Timer(0, lambda: (s.connect(server), os.write(go, b"x")))
    s_connected.start()
    return in_child(child)

@case
def another_thread_connects():
    s = tcp(); t = threading.Thread(target=s.connect, args=(server,)); t.start(); t.join(10); return greeting(s)

@case
def a_thread_with_a_table_of_its_own():
    "unshare(CLONE_FILES): the same number then means another socket in this thread."
    outer, said = tcp(), []
    def work():
        if libc.unshare(0x400): return
        own = tcp(); number = own.fileno()
        os.dup2(own.fileno(), outer.fileno())
        said.append(socket.socket(fileno=os.dup(outer.fileno())).connect_ex(server))
        said.append(greeting(own))
    t = threading.Thread(target=work); t.start(); t.join(10)
    try: outer.getpeername(); said.append("connected")
    except OSError: said.append("not connected")
    outer.connect(server)
    return [*said, greeting(outer)]

@case
def exec_keeps_what_is_inheritable():
    s = tcp(); os.set_inheritable(s.fileno(), True)
    code = "import socket, sys; s = socket.socket(fileno=int(sys.argv[1])); s.connect((sys.argv[2], int(sys.argv[3])))"
    words = [sys.executable, "-c", code, str(s.fileno()), server[0], str(server[1])]
    done = subprocess.run(words, pass_fds=[s.fileno()], capture_output=True, text=True)
    return [done.returncode, done.stderr, greeting(s)]

@case
def exec_closes_what_is_not():
    s = tcp(); s.connect(server)
    return subprocess.run(["sh", "-c", f"test -e /proc/self/fd/{s.fileno()}"], close_fds=False).returncode

def handed_over(s):
    "The socket, as a child gives it back through SCM_RIGHTS."
    here, there = socket.socketpair()
    if os.fork() == 0:
        socket.send_fds(there, [b"x"], [s.fileno()]); os._exit(0)
    s.close()
    _, [number], *_ = socket.recv_fds(here, 1, 1)
    os.wait(); here.close(); there.close()
    return socket.socket(fileno=number)

@case
def a_new_socket_is_handed_over():
    s = handed_over(tcp()); s.connect(server); return greeting(s)

@case
def a_connected_socket_is_handed_over():
    s = tcp(); s.connect(server); return greeting(handed_over(s))

@case
def a_listening_socket_is_handed_over():
    listener = handed_over(socket.create_server(("127.0.0.1", 0)))
    return meet(listener, lambda: socket.create_connection(listener.getsockname(), 10))

@case
def a_bound_socket_is_handed_over():
    s = tcp(); s.bind(("127.0.0.1", 0)); s = handed_over(s); s.listen(); s.settimeout(10)
    return meet(s, lambda: socket.create_connection(s.getsockname(), 10))

@case
def a_server_with_forked_workers():
    "They accept on one inherited socket."
    listener = socket.create_server(("127.0.0.1", 0)); pids = []
    for worker in range(3):
        pid = os.fork()
        if pid == 0:
            s, _ = listener.accept(); s.sendall(b"served"); os._exit(0)
        pids.append(pid)
    said = [greeting(socket.create_connection(listener.getsockname(), 10)) for _ in pids]
    return [said, [os.waitpid(pid, 0)[1] for pid in pids]]

@case
def a_file_is_sent_by_linux():
    listener = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(listener.getsockname(), 10)
    peer, _ = listener.accept()
    with tempfile.TemporaryFile() as file:
        file.write(bytes(range(256)) * 40); file.flush(); sent = os.sendfile(client.fileno(), file.fileno(), 0, 10240)
    client.close(); data = b""
    while chunk := peer.recv(65536): data += chunk
    return [sent, data == bytes(range(256)) * 40]

@case
def an_epoll_server():
    listener = socket.create_server(("127.0.0.1", 0)); listener.setblocking(False); poll = select.epoll()
    poll.register(listener, select.EPOLLIN); known = {}
    clients = [socket.create_connection(listener.getsockname(), 10) for _ in range(20)]
    for c in clients: c.sendall(b"hello")
    answered = 0
    while answered < 20:
        events = poll.poll(10)
        if not events: break
        for number, _ in events:
            if number == listener.fileno():
                s, _ = listener.accept(); known[s.fileno()] = s; poll.register(s, select.EPOLLIN)
            elif known[number].recv(5):
                known[number].sendall(b"HELLO"); answered += 1; poll.unregister(number)
    return [c.recv(5).decode() for c in clients]

@case
def sixteen_threads_connect_at_once():
    barrier = threading.Barrier(16)
    def fetch(_):
        barrier.wait(10); return [greeting(socket.create_connection(server, 10)) for _ in range(4)]
    with ThreadPoolExecutor(16) as pool: said = list(pool.map(fetch, range(16)))
    return [len(said), {line for lines in said for line in lines} == {greeting(socket.create_connection(server))}]

@case
def streams_of_asyncio():
    async def main():
        async def shout(reader, writer):
            writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
        own = await asyncio.start_server(shout, "127.0.0.1", 0)
        async def ask(number):
            reader, writer = await asyncio.open_connection(*own.sockets[0].getsockname())
            writer.write(f"hello {number}\n".encode()); said = await reader.readline(); writer.close()
            return said.decode()
        async def far():
            reader, writer = await asyncio.open_connection(*server)
            said = await reader.readline(); writer.close(); return said.decode()
        async with own:
            return await asyncio.wait_for(asyncio.gather(*map(ask, range(20)), *(far() for _ in range(20))), 30)
    return asyncio.run(main())

@case
def unix_streams_of_asyncio():
    async def main():
        async def shout(reader, writer):
            writer.write((await reader.readline()).upper()); await writer.drain(); writer.close()
        async with await asyncio.start_unix_server(shout, "asyncio.socket"):
            reader, writer = await asyncio.open_unix_connection("asyncio.socket")
            writer.write(b"hello\n"); said = await asyncio.wait_for(reader.readline(), 10); writer.close()
            return said.decode()
    said = asyncio.run(main()); os.unlink("asyncio.socket"); return said

@case
def a_cancelled_connect_of_asyncio():
    async def main():
        try:
            async with asyncio.timeout(0.1):
                await asyncio.open_connection(*SILENT)
        except TimeoutError:
            reader, writer = await asyncio.open_connection(*server)
            said = await reader.readline(); writer.close(); return said.decode()
    return asyncio.run(main())

print(json.dumps(report)); sys.stdout.flush(); os._exit(0)
"""


def test_sockets_are_shared_and_handed_on_as_outside(workspace: Path) -> None:
    with TcpListener() as server, silent_listener() as silent:
        code = PROGRAM.replace("SERVER", repr((server.address, server.port))).replace("SILENT", repr(silent))
        policy = f'[network]\nallow = ["{server.endpoint}", "{silent[0]}:{silent[1]}"]'
        outside = run_outside(code, workspace=workspace).json()
        inside = run_inside(code, workspace=workspace, policy=policy)
    assert not [name for name, said in outside.items() if "Error" in str(said)], outside
    assert inside.json() == outside
    assert outside["a thread with a table of its own"][0] == 0 or IN_CONTAINER  # whose profile may refuse unshare(2)
    assert len(outside) == 20
    assert not inside.refused()

"""What an accomplice outside hands in opens no connection by itself, and no file beneath a folder.

Not promised (docs/threat-model.md): what an accomplice has opened already can be used, as can whatever Linux lets a
descriptor alone decide: its connected socket, its open file. Promised is that connect(2), bind(2) and listen(2) stay
refused on it, and that a handed-in folder does not open what lies beneath it.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

from tests.support.sandbox import launcher_command
from tests.support.servers import DEADLINE, TcpListener, UdpListener

INSIDE = """
import errno, json, os, socket
server = socket.socket(socket.AF_UNIX)
server.bind("meeting.new")
server.listen()
os.rename("meeting.new", "meeting")
server.settimeout(20)
connection, _ = server.accept()
_, (stream, datagram, folder, file, listener), _, _ = socket.recv_fds(connection, 10, 5)
to, udp = {to!r}, {udp!r}
stream, datagram = socket.socket(fileno=stream), socket.socket(fileno=datagram)
listener = socket.socket(fileno=listener)
told = {{}}

def attempt(what, go):
    try:
        told[what] = str(go())
    except OSError as error:
        told[what] = errno.errorcode[error.errno]

attempt("connect", lambda: stream.connect(to))
attempt("fast open", lambda: stream.sendto(b"x", 0x20000000, to))
attempt("bind", lambda: stream.bind(("0.0.0.0", 0)))
attempt("listen", lambda: stream.listen())
attempt("connect, datagram", lambda: datagram.connect(udp))
attempt("sendto", lambda: datagram.sendto(b"x", udp))
attempt("reuse", lambda: stream.setsockopt(socket.SOL_SOCKET, 15, 1) or stream.getsockopt(socket.SOL_SOCKET, 15))
attempt("beneath the folder", lambda: open(os.open("secret", os.O_RDONLY, dir_fd=folder)).read())
attempt("made in the folder", lambda: os.mkdir("made", dir_fd=folder))
attempt("mode by the file", lambda: os.fchmod(file, 0o666))
attempt("reopened", lambda: open(f"/proc/self/fd/{{file}}", "a").write("x"))
attempt("read", lambda: os.read(file, 10).decode())
print(json.dumps(told))
"""


def test_a_descriptor_handed_in_opens_nothing_further(workspace: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s3cret")
    (outside / "secret").chmod(0o600)
    before = (outside / "secret").stat()
    with TcpListener() as server, UdpListener() as datagrams, socket.socket(socket.AF_UNIX) as accomplice:
        to, udp = (server.address, server.port), (datagrams.address, datagrams.port)
        # The accomplice's own use of them works: it is outside.
        with socket.create_connection(to, DEADLINE), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"outside", udp)
        assert (len(server.received()), len(datagrams.received())) == (1, 1)

        command = launcher_command("", tmp_path, workspace, tmp_path / "audit.jsonl")
        command += [sys.executable, "-c", INSIDE.format(to=to, udp=udp)]
        with subprocess.Popen(command, cwd=workspace, stdout=subprocess.PIPE, text=True) as process:
            end = time.monotonic() + DEADLINE
            while not (workspace / "meeting").exists():
                assert process.poll() is None
                assert time.monotonic() < end, "the code inside does not listen"
                time.sleep(0.01)
            accomplice.settimeout(DEADLINE)
            accomplice.connect(str(workspace / "meeting"))
            stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            unlistened = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            folder, file = os.open(outside, os.O_RDONLY), os.open(outside / "secret", os.O_RDONLY)
            given = [stream.fileno(), datagram.fileno(), folder, file, unlistened.fileno()]
            socket.send_fds(accomplice, [b"x"], given)
            for sock in (stream, datagram, unlistened):
                sock.close()
            os.close(folder)
            os.close(file)
            output, _ = process.communicate(timeout=60)
        told = json.loads(output)
        assert (len(server.received()), len(datagrams.received())) == (1, 1), told

    assert told.pop("read") == "s3cret", "not promised: an open file can be read"
    assert told.pop("reuse") in ("0", "ENOPROTOOPT")
    assert not {what for what, came in told.items() if came in ("None", "1", "s3cret")}, told
    after = (outside / "secret").stat()
    assert (after.st_mode, after.st_ctime_ns) == (before.st_mode, before.st_ctime_ns)
    assert os.listdir(outside) == ["secret"]

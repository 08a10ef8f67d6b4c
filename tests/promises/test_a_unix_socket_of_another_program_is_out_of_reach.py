"""A unix socket that a program outside serves is not reached: by no path, no abstract name and no datagram.

Also where it lies in the notebook's own folder, which the code may read and write.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.sandbox import run_inside, run_outside
from tests.support.servers import unix_listener

# Every way says its own name, so that the receiver knows which one arrived.
CODE = """
import json, os, socket
names = {names!r}
outcome = {{}}

def stream(path, kind=socket.SOCK_STREAM):
    def go(way):
        with socket.socket(socket.AF_UNIX, kind) as s:
            s.settimeout(10)
            s.connect(path)
            s.sendall(way.encode())
    return go

def renamed(way):
    os.rename("service", "moved")
    try:
        stream("moved")(way)
    finally:
        os.rename("moved", "service")

def linked(way):
    os.link("service", "link")
    try:
        stream("link")(way)
    finally:
        os.unlink("link")

def pointed(way):
    os.symlink(names["outside"], "pointer")
    try:
        stream("pointer")(way)
    finally:
        os.unlink("pointer")

def from_folder(way):
    before = os.getcwd()
    os.chdir(os.path.dirname(names["outside"]))
    try:
        stream(os.path.basename(names["outside"]))(way)
    finally:
        os.chdir(before)

def by_descriptor(way):
    fd = os.open(names["outside"], os.O_PATH)
    try:
        stream(f"/proc/self/fd/{{fd}}")(way)
    finally:
        os.close(fd)

def datagram(path, send):
    def go(way):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
            send(s, path, way.encode())
    return go

def pair(kind):
    def go(way):
        for s in socket.socketpair(socket.AF_UNIX, kind):
            with s:
                s.sendto(way.encode(), names["datagrams"])
    return go

def connected(s, path, data):
    s.connect(path)
    s.sendall(data)

def sendto(s, path, data):
    s.sendto(data, path)

def sendmsg(s, path, data):
    # Inside this is one end of a pair, where the address of a message means nothing: it is taken, and goes nowhere.
    s.sendmsg([data], [], 0, path)

WAYS = {{
    "absolute": stream(names["outside"]),
    "relative, in the workspace": stream("service"),
    "dots": stream("../" + os.path.basename(names["outside"])),
    "through the root of the process": stream("/proc/self/root" + names["outside"]),
    "through the folder of the process": stream("/proc/self/cwd/service"),
    "through the thread's folder": stream("/proc/thread-self/cwd/service"),
    "by a descriptor": by_descriptor,
    "symbolic link": pointed,
    "symbolic link from outside": stream("pointer from outside"),
    "hard link made in the workspace": linked,
    "hard link from outside": stream("link from outside"),
    "renamed": renamed,
    "from its folder": from_folder,
    "seqpacket": stream(names["seqpacket"], socket.SOCK_SEQPACKET),
    "abstract": stream(names["abstract"]),
    "silent prefix": stream("/run/systemd/../.." + names["outside"]),
    "datagram, connected": datagram(names["datagrams"], connected),
    "datagram, sendto": datagram(names["datagrams"], sendto),
    "datagram, sendmsg": datagram(names["datagrams"], sendmsg),
    "datagram in the workspace": datagram("datagrams", sendto),
    "datagram, abstract": datagram(names["abstract datagrams"], sendto),
    "pair of datagram sockets": pair(socket.SOCK_DGRAM),
    "pair of raw sockets": pair(socket.SOCK_RAW),
}}
for way, go in WAYS.items():
    try:
        go(way)
        outcome[way] = "went"
    except OSError as error:
        outcome[way] = type(error).__name__
print(json.dumps(outcome))
"""


def test_a_unix_socket_of_another_program_is_out_of_reach(workspace: Path, tmp_path: Path) -> None:
    names = {
        "outside": str(tmp_path / "s"),
        "seqpacket": str(tmp_path / "q"),
        "datagrams": str(tmp_path / "d"),
        "abstract": f"\0sbk-{os.getpid()}",
        "abstract datagrams": f"\0sbk-{os.getpid()}-d",
    }
    code = CODE.format(names=names)
    with ExitStack() as stack:
        services = [
            stack.enter_context(unix_listener(names["outside"])),
            stack.enter_context(unix_listener(workspace / "service")),
            stack.enter_context(unix_listener(names["seqpacket"], "seqpacket")),
            stack.enter_context(unix_listener(names["abstract"])),
            stack.enter_context(unix_listener(names["datagrams"], "dgram")),
            stack.enter_context(unix_listener(workspace / "datagrams", "dgram")),
            stack.enter_context(unix_listener(names["abstract datagrams"], "dgram")),
        ]
        os.link(names["outside"], workspace / "link from outside")
        os.symlink(names["outside"], workspace / "pointer from outside")

        outside = run_outside(code, workspace=workspace).json()
        heard = {contact.data.decode() for service in services for contact in service.received()}
        # Not every Linux has /run/systemd; then that way leads nowhere outside either.
        expected = set(outside) - ({"silent prefix"} if not Path("/run/systemd").is_dir() else set())
        assert heard == expected, json.dumps(outside, indent=1)

        before = sum(len(service.received()) for service in services)
        inside = run_inside(code, workspace=workspace)
        assert sum(len(service.received()) for service in services) == before
    outcome = inside.json()
    assert {way for way, ended in outcome.items() if ended == "went"} <= {"datagram, sendmsg"}, outcome
    shown = {event.address for event in inside.refused(protocol="unix")}
    wanted = {names["outside"], "service", "link from outside", "pointer from outside", names["datagrams"]}
    assert wanted | {f"@{names['abstract'][1:]}"} <= shown
    assert "/run/systemd/../.." + names["outside"] in shown, (
        "hidden from the user by a path that looks like a service's"
    )


@pytest.mark.root
def test_a_service_that_the_policy_names_is_reached_where_others_are_hidden(workspace: Path) -> None:
    """Programs look there in passing; what nobody named is not there, without a word."""
    folder = Path("/run/avahi-daemon")
    made = not folder.exists()
    folder.mkdir(exist_ok=True)
    place = folder / f"sandboxed-kernel-test-{os.getpid()}"
    code = f"import socket; print(socket.socket(socket.AF_UNIX).connect_ex({str(place)!r}))"
    try:
        with unix_listener(place) as server:
            hidden = run_inside(code, workspace=workspace)
            assert (hidden.stdout, hidden.events) == (f"{errno.ENOENT}\n", ())
            assert server.received() == []
            named = run_inside(code, workspace=workspace, policy=f'[network]\nunix = ["{place}"]')
            assert named.stdout == "0\n", named.stderr
            assert len(server.received()) == 1
    finally:
        place.unlink(missing_ok=True)
        if made:
            folder.rmdir()

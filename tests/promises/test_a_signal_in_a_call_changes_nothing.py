"""What a signal interrupts is done once: the repeated call has the result of the first, whoever repeats it.

Profilers, interval timers and Go's preemption send signals all the time. A signal withdraws the call from the broker,
which may have carried it out by then.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.sandbox import run_inside, run_outside

CALLS = r"""
import collections, ctypes, errno, json, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
own = socket.create_server(("127.0.0.1", 0), backlog=4096)
own.setblocking(False)
here, there = [struct.pack("=H", 2) + struct.pack("!H", port) + bytes([127, 0, 0, 1]) + bytes(8)
               for port in (0, own.getsockname()[1])]
outcomes = collections.Counter()
signals = 0

def beat(*_):
    global signals
    signals += 1

def insist(name, call, *args):
    "Again after EINTR where nobody else does it, with another copy of the address each time."
    while True:
        pointers = [ctypes.create_string_buffer(arg, len(arg)) if isinstance(arg, bytes) else arg for arg in args]
        result = call(*pointers)
        code = ctypes.get_errno() if result < 0 else 0
        if code != errno.EINTR:
            outcomes[name + " " + errno.errorcode.get(code, "ok")] += 1
            return result
        assert not RESTARTED, name

signal.signal(signal.SIGALRM, beat)
signal.siginterrupt(signal.SIGALRM, not RESTARTED)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
for _ in range(2000):
    fd = insist("socket", libc.socket, socket.AF_INET, socket.SOCK_STREAM, 0)
    insist("bind", libc.bind, fd, here, 16)
    insist("connect", libc.connect, fd, there, 16)
    socket.close(fd)
    try:
        own.accept()[0].close()
    except BlockingIOError:
        pass
signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps([outcomes, signals > 100]))
"""
ALL_WELL = [{"socket ok": 2000, "bind ok": 2000, "connect ok": 2000}, True]


def test_a_call_that_linux_repeats_has_one_result(workspace: Path) -> None:
    code = CALLS.replace("RESTARTED", "True")
    assert run_outside(code, workspace=workspace).json() == ALL_WELL
    assert run_inside(code, workspace=workspace).json() == ALL_WELL


def test_a_call_that_the_program_repeats_has_one_result(workspace: Path) -> None:
    """Without SA_RESTART socket() and bind() fail with EINTR, as they never do outside: docs/compatibility.md."""
    code = CALLS.replace("RESTARTED", "False")
    assert run_inside(code, workspace=workspace).json() == ALL_WELL


ATTRIBUTES = r"""
import collections, ctypes, errno, json, signal
libc = ctypes.CDLL(None, use_errno=True)
open("file", "w").close()
outcomes, signals = collections.Counter(), 0
def beat(*_):
    global signals
    signals += 1
signal.signal(signal.SIGALRM, beat)
signal.siginterrupt(signal.SIGALRM, False)
signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
for _ in range(2000):
    for name, result in (
        ("set", libc.setxattr(b"file", b"user.a", b"1", 1, 1)),  # XATTR_CREATE
        ("remove", libc.removexattr(b"file", b"user.a")),
    ):
        outcomes[name + " " + ("ok" if result == 0 else errno.errorcode[ctypes.get_errno()])] += 1
signal.setitimer(signal.ITIMER_REAL, 0)
print(json.dumps([outcomes, signals > 100]))
"""


def test_an_attribute_that_is_made_or_removed_once_is_not_there_already(workspace: Path) -> None:
    """Linux loses an answer that comes between the signal and the withdrawal; its repeat looks like a new call."""
    assert run_outside(ATTRIBUTES, workspace=workspace).json()[0] == {"set ok": 2000, "remove ok": 2000}
    outcomes, signals = run_inside(ATTRIBUTES, workspace=workspace).json()
    assert signals, "too few of them to show anything"
    assert outcomes["set ok"] + outcomes["remove ok"] > 3980, outcomes  # some 800 failed where repeats were not known

"""Does: makes many attempts in one program, each in a child of its own, first outside of the sandbox and then inside.

Each attempt sends its own name to the receiver, so that one start of the sandbox shows many refusals, and an attempt
that works nowhere is found out by its name. A child that hangs, or that a filter kills, is an outcome like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent

from tests.support.sandbox import IN_CONTAINER, Result, run_inside, run_outside

DEADLINE = 10  # seconds for one attempt

# What the machine itself may lack: an attempt that fails outside with one of these is not asked to work there.
LACKING = ("EAFNOSUPPORT", "EPROTONOSUPPORT", "ESOCKTNOSUPPORT", "ENOSYS", "ENOPROTOOPT")

TOOLS = '''
import array, ctypes, errno, json, os, select, signal, socket, struct, sys, threading, time

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
HIGH = 1 << 32  # a bit that Linux does not look at in an int
NUMBERS = dict(zip(
    "socket connect sendto sendmsg sendmmsg bind listen socketpair setsockopt".split(),
    (41, 42, 44, 46, 307, 49, 50, 53, 54) if os.uname().machine == "x86_64" else
    (198, 203, 206, 211, 269, 200, 201, 199, 208),
))

def syscall(name, *arguments):
    """syscall(2) with full 64-bit registers; bytes become pointers."""
    kept = [ctypes.create_string_buffer(a, len(a)) if isinstance(a, bytes) else a for a in arguments]
    raw = [ctypes.c_void_p(a) if isinstance(a, int) else ctypes.byref(a) for a in kept]
    result = _libc.syscall(ctypes.c_long(NUMBERS.get(name, name)), *raw)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def sockaddr(address, port):
    """struct sockaddr_in or sockaddr_in6."""
    if ":" in address:
        return struct.pack("=H", 10) + struct.pack("!HI", port, 0) + socket.inet_pton(10, address) + bytes(4)
    return struct.pack("=H", 2) + struct.pack("!H", port) + socket.inet_aton(address) + bytes(8)

def pointer(buffer):
    return ctypes.addressof(buffer)

def message(data, address=b""):
    """struct msghdr for one buffer; the second value keeps its parts alive."""
    text, where = ctypes.create_string_buffer(data, len(data)), ctypes.create_string_buffer(address, len(address) or 1)
    vector = ctypes.create_string_buffer(struct.pack("=QQ", pointer(text), len(data)), 16)
    name = (pointer(where), len(address)) if address else (0, 0)
    return struct.pack("=QI4xQQQQi4x", *name, pointer(vector), 1, 0, 0, 0), (text, where, vector)

def outcome(attempt, payload):
    try:
        return repr(attempt(payload))
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))
    except BaseException as error:
        return f"{type(error).__name__}: {error}"

def in_child(attempt, payload, deadline):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(deadline)
        os.write(writing, outcome(attempt, payload).encode()[:4000])
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        said = file.read().decode()
    status = os.waitpid(pid, 0)[1]
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else said
'''


@dataclass(frozen=True)
class Made:
    """What became of every attempt: the name of an errno or signal, or the repr of what it returned."""

    outside: Mapping[str, str]
    inside: Mapping[str, str]
    result: Result


def program(attempts: Mapping[str, str], setting: str = "") -> str:
    """Python code that makes every attempt and prints the outcomes as its last line.

    An attempt is the body of a function of ``payload`` (bytes: its own name); ``setting`` is what they share.
    """
    functions = [
        f"def _{number}(payload):\n{indent(dedent(body).strip(), '    ')}"
        for number, body in enumerate(attempts.values())
    ]
    table = ", ".join(f"{name!r}: _{number}" for number, name in enumerate(attempts))
    run = f"print(json.dumps({{n: in_child(a, n.encode(), {DEADLINE}) for n, a in {{{table}}}.items()}}))"
    return "\n".join([TOOLS, dedent(setting), *functions, run])


def make_all(
    attempts: Mapping[str, str],
    *,
    arrived: Callable[[], Collection[str]],
    workspace: Path,
    setting: str = "",
    policy: str = "",
    container_refuses: Collection[str] = (),
    may_lack: Collection[str] = (),
    resolv_conf: Path | None = None,
) -> Made:
    """Every attempt outside, where its name must arrive, then inside, where nothing may.

    ``arrived`` gives the names of the attempts that came to the receivers so far.
    ``container_refuses``: what a container's own profile may refuse before us. ``may_lack``: what not every machine can
    (SCTP, MPTCP); outside it must then fail with one of LACKING, and inside it is made all the same.
    """
    code = program(attempts, setting)
    outside: dict[str, str] = run_outside(code, workspace=workspace).json()
    texts = arrived()
    for name, became in outside.items():
        excused = (name in may_lack and became in LACKING) or (IN_CONTAINER and name in container_refuses)
        assert excused or name in texts, f"{name!r} does not even work outside: {became}"
    before = sorted(arrived())
    result = run_inside(code, workspace=workspace, policy=policy, resolv_conf=resolv_conf)
    inside: dict[str, str] = result.json()
    after = sorted(arrived())
    assert after == before, f"worked inside: {set(after) - set(before) or after}; outcomes: {inside}"
    assert inside.keys() == attempts.keys()
    return Made(outside, inside, result)

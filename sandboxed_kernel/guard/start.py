"""Does: starts the guard, from a process with threads: so it is a program of its own, and no fork."""

from __future__ import annotations

import os
import socket
import sys

_MODULE = "sandboxed_kernel.guard.serve"


def start_guard() -> tuple[int, socket.socket]:
    """Its process, and our end of the pair to it; the end of file there is the guard's end. Raises OSError.

    It inherits that pair as standard input, our standard error, and nothing else.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        command = [sys.executable, "-I", "-m", _MODULE]
        pid = os.posix_spawn(sys.executable, command, {"LANG": "C.UTF-8"}, file_actions=actions, setsigmask=())
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    ours.setblocking(False)
    return pid, ours

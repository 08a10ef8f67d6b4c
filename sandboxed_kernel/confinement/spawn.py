"""Does: forks, confines the child and replaces it by its command; the parent gets its pid and its filter's listener.

Fork and exec, not fork alone: the command gets an address space of its own, with nothing of the broker's in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Sequence
from typing import TYPE_CHECKING

from sandboxed_kernel.confinement.apply import confine
from sandboxed_kernel.confinement.plan import Plan
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.records import Record

if TYPE_CHECKING:
    from sandboxed_kernel.linux.cgroups import Group

_EXEC_FAILED = 127


class Spawned(Record):
    """A confined process that runs its command."""

    pid: int
    listener: int
    output: int | None


def spawn(
    plan: Plan, program: bytes, group: Group | None = None, *, inherited: Sequence[int] = (), own_output: bool
) -> Spawned:
    """Start ``plan.argv`` in ``group``; it inherits the descriptors ``inherited`` under their numbers.

    With ``own_output`` it writes where this process does and reads its standard input; else it reads nothing and writes
    into a pipe. Raises HostError with the step that failed; nothing untrusted has run then.
    """
    if own_output:
        _check_standard_descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    output = None if own_output else os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(plan, program, group, inherited, theirs, parent, None if output is None else output[1])
    with contextlib.suppress(PermissionError, ProcessLookupError):  # EACCES: it has done so itself and is past its exec
        os.setpgid(pid, pid)
    theirs.close()
    if output is not None:
        os.close(output[1])
    try:
        listener = _receive(ours)
    except BaseException:
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        ours.close()
    return Spawned(pid, listener, None if output is None else output[0])


def _check_standard_descriptors() -> None:
    """Inside, sendmsg(2) is not observed: no socket there takes a destination with each message. Nor may one of these.

    A program that serves datagrams may have started us with such a socket, as inetd(8) does for "dgram wait".
    """
    for number, name in enumerate(("standard input", "standard output", "standard error")):
        try:
            if not stat.S_ISSOCK(os.fstat(number).st_mode):
                continue
            with socket.socket(fileno=os.dup(number)) as sock:
                kind = sock.type
        except OSError:
            continue  # closed
        if kind not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            raise HostError(
                f"{name} is a socket that can send to any address, past the policy. Redirect it: to a file, a pipe, "
                "/dev/null"
            )


def _receive(ours: socket.socket) -> int:
    """The listener, once the command has replaced the child: the socket is close-on-exec, its end means success."""
    message, descriptors, _flags, _address = socket.recv_fds(ours, 4096, 1)
    failure = message
    if descriptors:
        failure = ours.recv(4096)
    if failure or not descriptors:
        for descriptor in descriptors:
            os.close(descriptor)
        words = failure.decode(errors="replace") or "it ended before it was confined"
        raise HostError(f"the sandboxed process could not be started: {words}")
    return descriptors[0]


def _become(
    plan: Plan,
    program: bytes,
    group: Group | None,
    inherited: Sequence[int],
    broker: socket.socket,
    parent: int,
    output: int | None,
) -> None:
    """In the child: never returns."""
    try:
        if group is not None:
            from sandboxed_kernel.confinement.group import enter

            enter(group)
        os.setpgid(0, 0)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)
        if output is not None:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
        confine(
            plan,
            program,
            parent=parent,
            inherited=inherited,
            hand_over=lambda listener: _hand_over(broker, listener),
        )
        os.execvpe(plan.argv[0], plan.argv, plan.environment)  # noqa: S606  # no shell is wanted
    except BaseException as error:  # noqa: BLE001  # whatever it is, the broker must hear, and this process must end
        with contextlib.suppress(BaseException):
            broker.send(f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(_EXEC_FAILED)


def _hand_over(broker: socket.socket, listener: int) -> None:
    socket.send_fds(broker, [b"listener"], [listener])

"""Does: forks the warden, whose child is confined and replaced by its command; the broker gets its filter's listener.

Fork and exec, not fork alone: the command gets an address space of its own, with nothing of the broker's in it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from sandboxed_kernel.confinement.apply import confine, exec_confined
from sandboxed_kernel.confinement.plan import Plan
from sandboxed_kernel.confinement.warden import Warden, Wires
from sandboxed_kernel.errors import HostError
from sandboxed_kernel.records import Record

if TYPE_CHECKING:
    from sandboxed_kernel.linux.cgroups import Group

_EXEC_FAILED = 127


class Spawned(Record):
    """A confined process that runs its command, and its warden. The descriptors are the broker's own.

    ``status``: see ``warden.Warden``; the end of file means that the warden is gone.
    ``output`` is the reading end of its standard output and error, or None where it writes to the launcher's own.
    """

    pid: int
    warden: int
    listener: int
    status: int
    output: int | None


def spawn(
    plan: Plan,
    program: bytes,
    wires: Wires,
    group: Group | None = None,
    *,
    inherited: Sequence[int],
    own_output: bool,
    keep: tuple[int, ...],
    clean_up: Callable[[], None],
) -> Spawned:
    """Start ``plan.argv`` in ``group``; it inherits the descriptors ``inherited`` under their numbers.

    With ``own_output`` it writes where this process does and reads its standard input; else it reads nothing and writes
    into a pipe. ``keep`` and ``clean_up`` are for the warden. Raises HostError with the step that failed; nothing
    untrusted has run then.
    """
    if own_output:
        _check_standard_descriptors()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    output = None if own_output else os.pipe2(os.O_CLOEXEC)
    status = os.pipe2(os.O_CLOEXEC)
    warden = os.fork()
    if warden == 0:
        written = None if output is None else output[1]
        Warden(wires, status[1], group).live(
            lambda parent: _become(plan, program, group, inherited, theirs, parent, written),
            keep,
            clean_up,
        )
    theirs.close()
    for descriptor in (*wires, status[1], *(() if output is None else output[1:])):
        os.close(descriptor)
    try:
        pid, listener = _receive(ours)
    except BaseException:
        with contextlib.suppress(OSError):
            os.kill(warden, signal.SIGTERM)
        os.waitpid(warden, 0)
        raise
    finally:
        ours.close()
    return Spawned(pid, warden, listener, status[0], None if output is None else output[0])


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


def _receive(ours: socket.socket) -> tuple[int, int]:
    """The confined process's number and its listener, once the command has replaced it.

    The socket is close-on-exec: its end means success.
    """
    message, descriptors, _flags, _address = socket.recv_fds(ours, 4096, 1)
    for descriptor in descriptors:  # else every program that the broker starts, the guard among them, has it as well
        os.set_inheritable(descriptor, False)
    failure = message
    if descriptors:
        failure = ours.recv(4096)
    if failure or not descriptors:
        for descriptor in descriptors:
            os.close(descriptor)
        words = failure.decode(errors="replace") or "it ended before it was confined"
        raise HostError(f"the sandboxed process could not be started: {words}")
    return int(message), descriptors[0]


def _become(
    plan: Plan,
    program: bytes,
    group: Group | None,
    inherited: Sequence[int],
    broker: socket.socket,
    parent: int,
    output: int | None,
) -> NoReturn:
    """In the child, whose parent is the warden ``parent``."""
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
        confined = confine(
            plan,
            program,
            parent=parent,
            inherited=inherited,
            hand_over=lambda listener: _hand_over(broker, listener),
        )
        exec_confined(confined)
    except BaseException as error:  # noqa: BLE001  # whatever it is, the broker must hear, and this process must end
        with contextlib.suppress(BaseException):
            broker.send(f"{type(error).__name__}: {error}".encode()[:4000])
    finally:
        os._exit(_EXEC_FAILED)


def _hand_over(broker: socket.socket, listener: int) -> None:
    socket.send_fds(broker, [b"%d" % os.getpid()], [listener])

"""Does: connects the broker's own references, so that a slow or silent host blocks only the thread that called.

A blocking caller's socket is made non-blocking for the connect alone; the rest of the wait is the loop's. Once begun, a
connect goes on when its caller is interrupted, as Linux's does: the repeat joins it (connect(2), EINTR).

Whoever calls has taken the reference (``Sockets.take``), but for what the loop and threads call.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sandboxed_kernel.broker.calls import Call
from sandboxed_kernel.broker.loop import OUT, Loop, Timer
from sandboxed_kernel.broker.outcomes import Answer, Later, Outcome, Resume
from sandboxed_kernel.broker.sockets import Reference, Sockets
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.linux import sockets as linux_sockets
from sandboxed_kernel.records import Record, made

# A connection to a listener of this machine stands when connect(2) returns, unless Linux has put off the packets, as it
# may under load before 6.4. Within this time they have come, or were dropped: then the next one is sent after 1 s (RFC
# 6298 section 2), and nobody waits for it.
_PACKETS_MAY_WAIT = 5  # ms
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds between connects to a unix socket whose backlog is full

Target = tuple[str | int, ...] | str
Check = Callable[[], bool]


def yes() -> bool:
    """For what needs no look."""
    return True


class Near(NamedTuple):
    """A listener of this machine that the sandbox may talk with: its own, or the broker's for DNS over TCP.

    ``version``: of the IP that is spoken, 4 or 6. ``is_right`` is asked once connected; ``has_room``, where nobody
    answered, whether the queue of the listener has any.
    """

    target: Target
    version: int
    is_right: Check
    has_room: Check = yes


class _UnderWay(Record, frozen=False):
    """``waiting``: by thread, for its last call; an earlier one was withdrawn."""

    reference: Reference
    waiting: dict[int, Resume] = made(default_factory=dict)
    timer: Timer | None = None


class Connecting:
    def __init__(self, loop: Loop, workers: Workers, sockets: Sockets) -> None:
        self._loop, self._workers, self._may_wait, self._sockets = loop, workers, workers.may_wait, sockets
        self._under_way: dict[int, _UnderWay] = {}  # by the reference's inode

    def connect(self, call: Call, reference: Reference, target: Target) -> Outcome:
        """Connect a TCP socket to ``target``, whoever listens there."""
        joined = self.join(call, reference)
        if joined is not None:
            return joined
        error, caller_polls = self._may_wait(linux_sockets.connect_now, reference.sock, target)
        if error == errno.EINPROGRESS and not (
            caller_polls and self._may_wait(linux_sockets.is_connected, reference.sock)
        ):
            return self._wait(call, reference, caller_polls)
        return self._finish(reference, error)

    def connect_near(self, reference: Reference, near: Near) -> Answer:
        """Connect a TCP socket to a listener of this machine, now or not at all.

        While the socket waits for an answer it demands the token of own listeners, so that Linux keeps everybody else
        from answering, however long this thread takes from one line to the next. The port may become somebody else's
        meanwhile, and a send(2) that waits in the sandbox would reach them.
        """
        sock, may_wait = reference.sock, self._may_wait
        error = may_wait(_knock, sock, near)
        if error == errno.EINPROGRESS:
            patience = _PACKETS_MAY_WAIT if near.has_room() else 0
            if not may_wait(_is_met, sock, patience):
                may_wait(linux_sockets.dissolve, sock)
                error = errno.ECONNREFUSED
        if error in (0, errno.EINPROGRESS) and not near.is_right():
            may_wait(linux_sockets.cut_off, sock)
            error = errno.EACCES
        may_wait(linux_sockets.demand_no_token, sock, near.version)
        return self._finish(reference, error)

    def connect_unix(self, call: Call, reference: Reference, target: str, is_right: Check) -> Outcome:
        """Connect to a path or an abstract name. ``is_right`` is asked once connected; no means EACCES.

        A full backlog cannot be polled, and a connect(2) that waits looks the name up again, which may be another
        program's by then: so the call is handled anew after a moment, as long as its caller waits.
        """
        error, caller_polls, right = self._may_wait(_connect_and_look, reference.sock, target, is_right)
        if error == errno.EAGAIN and not caller_polls:
            limit = linux_sockets.send_timeout(reference.sock)
            if limit is None or time.monotonic() - call.when < limit:
                call.tries += 1
                pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * call.tries)
                return Later(lambda resume: self._resume_later(pause, resume))
        if error == 0 and not right:
            self._may_wait(linux_sockets.cut_off, reference.sock)
            error = errno.EACCES
        return self._finish(reference, error)

    def _resume_later(self, pause: float, resume: Resume) -> None:
        self._loop.call_later(pause, lambda: resume(None))

    def join(self, call: Call, reference: Reference) -> Outcome:
        """Wait for the TCP connect of this socket that is under way, or EALREADY; None where there is none."""
        under_way = self._under_way.get(reference.inode)
        if under_way is None:
            return None
        if linux_sockets.is_settled(reference.sock):
            return self._settle(under_way, joined=True)  # it is over, and only the loop has not come to it yet
        if linux_sockets.is_non_blocking(reference.sock):
            return Answer(error=errno.EALREADY)
        return self._join(under_way, call)

    @staticmethod
    def _join(under_way: _UnderWay, call: Call) -> Later:
        return Later(lambda resume: under_way.waiting.update({call.tid: resume}))

    def _finish(self, reference: Reference, error: int) -> Answer:
        """A connect that is over; a reference that is connected is let go once the caller knows."""
        after = self._sockets.forget(reference) if error in (0, errno.EINPROGRESS) else None
        return Answer(0, error, reference.inode, after)

    def _wait(self, call: Call, reference: Reference, caller_polls: bool) -> Outcome:
        reference.busy = True
        under_way = _UnderWay(reference)
        self._under_way[reference.inode] = under_way
        self._watch(under_way)
        if caller_polls:
            return Answer(error=errno.EINPROGRESS, inode=reference.inode)
        limit = linux_sockets.send_timeout(reference.sock)
        if limit is not None:
            under_way.timer = self._loop.call_later(limit, lambda: self._timed_out(under_way))
        return self._join(under_way, call)

    def _timed_out(self, under_way: _UnderWay) -> None:
        """SO_SNDTIMEO, socket(7): the call returns EINPROGRESS and the connect goes on."""
        self._resume_all(under_way, Answer(error=errno.EINPROGRESS))

    @staticmethod
    def _resume_all(under_way: _UnderWay, answer: Answer) -> None:
        waiting, under_way.waiting = under_way.waiting, {}
        for resume in waiting.values():
            resume(answer)

    def _watch(self, under_way: _UnderWay) -> None:
        descriptor = under_way.reference.sock.fileno()

        def ready(_events: int) -> None:
            self._loop.unwatch(descriptor)
            self._workers.post(self._look, under_way)

        self._loop.watch(descriptor, OUT, ready)

    def _look(self, under_way: _UnderWay) -> None:
        """The socket is ready, or has been: the event may be of another one that had its descriptor before."""
        reference = under_way.reference
        if not self._sockets.take(reference, lambda _: self._workers.post(self._look, under_way)):
            return
        try:
            if self._under_way.get(reference.inode) is not under_way:
                return  # a call of the sandbox was first
            if linux_sockets.is_settled(reference.sock):
                self._settle(under_way, joined=False)
            else:
                self._watch(under_way)
        finally:
            self._sockets.give_back(reference)

    def _settle(self, under_way: _UnderWay, *, joined: bool) -> Answer:
        """It is over. All who wait for it have the answer, which is also returned for whoever has ``joined`` now. Where
        nobody waits, the error stays in the socket, for SO_ERROR.
        """
        reference = under_way.reference
        self._forget(under_way)
        error = 0
        if self._may_wait(linux_sockets.is_connected, reference.sock):
            self._may_wait(self._sockets.forget(reference))
        elif joined or under_way.waiting:
            error = self._may_wait(linux_sockets.dissolve, reference.sock) or errno.ECONNABORTED
        answer = Answer(error=error, inode=reference.inode)
        self._resume_all(under_way, answer)
        return answer

    def _forget(self, under_way: _UnderWay) -> None:
        reference = under_way.reference
        reference.busy = False
        self._under_way.pop(reference.inode, None)
        if under_way.timer is not None:
            under_way.timer.cancel()
        with suppress(OSError):
            self._loop.unwatch(reference.sock.fileno())

    def disconnect(self, reference: Reference) -> Answer:
        """connect(2) with AF_UNSPEC."""
        under_way = self._under_way.get(reference.inode)
        if under_way is not None:
            self._forget(under_way)
        error = self._may_wait(linux_sockets.disconnect, reference.sock)
        if under_way is not None:
            self._resume_all(under_way, Answer(error=errno.ECONNABORTED, inode=reference.inode))
        return Answer(error=error, inode=reference.inode)


def _connect_and_look(sock: socket.socket, target: str, is_right: Check) -> tuple[int, bool, bool]:
    """An errno, whether O_NONBLOCK was set, and whether it is the right one, at once."""
    error, polls = linux_sockets.connect_now(sock, target)
    return error, polls, error != 0 or is_right()


def _knock(sock: socket.socket, near: Near) -> int:
    linux_sockets.demand_token(sock, near.version)
    return linux_sockets.connect_now(sock, near.target)[0]


def _is_met(sock: socket.socket, patience: int) -> bool:
    """Whether it is connected, now or within ``patience`` milliseconds."""
    if patience and not linux_sockets.is_connected(sock):
        linux_sockets.is_settled(sock, within=patience)
    return linux_sockets.is_connected(sock)

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
from ipaddress import ip_address
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from sandboxed_kernel.broker.calls import Call
from sandboxed_kernel.broker.decisions import IpAddress
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
_LOOKED_AT = 64  # attempts in one step, from the oldest on
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds between connects to a unix socket whose backlog is full

if TYPE_CHECKING:  # most policies have nothing that is checked
    from sandboxed_kernel.broker.meeting import Attempt
    from sandboxed_kernel.linux.diag import SocketDiag

Target = tuple[str | int, ...] | str
Check = Callable[[], bool]
HandOver = Callable[["Attempt"], None]


def yes() -> bool:
    """For what needs no look."""
    return True


def _nobody(_attempt: Attempt) -> None:
    """For what is handed to nobody."""


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
    """``waiting``: by thread, for its last call; an earlier one was withdrawn. ``attempt``: where it is led to a socket
    of ours, and ``hand_over`` is called with it once they have met.
    """

    reference: Reference
    waiting: dict[int, Resume] = made(default_factory=dict)
    timer: Timer | None = None
    attempt: Attempt | None = None
    hand_over: HandOver = made(default_factory=lambda: _nobody)


class Connecting:
    def __init__(self, loop: Loop, workers: Workers, sockets: Sockets, diag: SocketDiag) -> None:
        self._diag = diag
        self._loop, self._workers, self._may_wait, self._sockets = loop, workers, workers.may_wait, sockets
        self._under_way: dict[int, _UnderWay] = {}  # by the reference's inode
        self.attempts = 0  # connects under way that are led to a socket of ours; each has two further sockets

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

    def connect_guarded(self, call: Call, reference: Reference, attempt: Attempt, hand_over: HandOver) -> Outcome:
        """Let a TCP socket meet ``attempt.near`` once the server has answered; then both sockets of the attempt are for
        ``hand_over``. None of this socket's connects may be under way.
        """
        try:
            error, caller_polls, caller = self._may_wait(_approach, reference.sock, attempt)
        except BaseException:
            attempt.close()
            raise
        if error != errno.EINPROGRESS or caller is None:
            attempt.close()
            self._may_wait(_give_up, reference.sock, attempt.version)
            return Answer(error=error or errno.ECONNABORTED, inode=reference.inode)
        attempt.caller = caller
        return self._wait(call, reference, caller_polls, attempt, hand_over)

    def end_abandoned(self) -> None:
        """Of the attempts that were looked at longest ago, end those whose sockets the sandbox has closed: Linux ends a
        connect then, but for the copy that is here.
        """
        led = list(islice((one for one in self._under_way.values() if one.attempt is not None), _LOOKED_AT))
        for one in led:  # behind the others, should they stay
            self._under_way[one.reference.inode] = self._under_way.pop(one.reference.inode)
        closed = self._sockets.closed([one.reference for one in led if not one.waiting])
        for one in led:
            reference = one.reference
            if reference.inode not in closed or reference.taken:
                continue
            reference.taken = True
            try:
                if self._under_way.get(reference.inode) is one and not one.waiting:
                    self._fail(one, errno.ECONNABORTED)
                    self._may_wait(self._sockets.forget(reference))
            finally:
                self._sockets.give_back(reference)

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
        if self._is_settled(under_way):
            return self._settle(under_way, joined=True)  # it is over, and only the loop has not come to it yet
        if linux_sockets.is_non_blocking(reference.sock):
            return Answer(error=errno.EALREADY)
        return Later(lambda resume: self._wait_too(under_way, call, resume))

    def _wait_too(self, under_way: _UnderWay, call: Call, resume: Resume) -> None:
        """For one more caller, who waits no longer than SO_SNDTIMEO says: then it is EALREADY."""
        under_way.waiting[call.tid] = resume

        def waited() -> None:
            if under_way.waiting.get(call.tid) is resume:
                del under_way.waiting[call.tid]
                resume(Answer(error=errno.EALREADY, inode=under_way.reference.inode))

        limit = linux_sockets.send_timeout(under_way.reference.sock)
        if limit is not None:
            self._loop.call_later(limit, waited)

    def _finish(self, reference: Reference, error: int) -> Answer:
        """A connect that is over; a reference that is connected is let go once the caller knows."""
        after = self._sockets.forget(reference) if error in (0, errno.EINPROGRESS) else None
        return Answer(0, error, reference.inode, after)

    def _wait(
        self,
        call: Call,
        reference: Reference,
        caller_polls: bool,
        attempt: Attempt | None = None,
        hand_over: HandOver = _nobody,
    ) -> Outcome:
        reference.busy = True
        under_way = _UnderWay(reference, attempt=attempt, hand_over=hand_over)
        self._under_way[reference.inode] = under_way
        self._watch(under_way)
        if attempt is not None:
            self.attempts += 1
            self._once_ready(attempt.far, under_way, self._server_answered)
        if caller_polls:
            return Answer(error=errno.EINPROGRESS, inode=reference.inode)
        limit = linux_sockets.send_timeout(reference.sock)
        if limit is not None:
            under_way.timer = self._loop.call_later(limit, lambda: self._timed_out(under_way))
        return Later(lambda resume: under_way.waiting.update({call.tid: resume}))

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

        # Of one that is led to ours only its end counts: that they have met is seen at ours.
        self._loop.watch(descriptor, OUT if under_way.attempt is None else 0, ready)

    def _is_settled(self, under_way: _UnderWay) -> bool:
        """Whether it has succeeded or failed; one that is led to ours succeeds by ``_met``."""
        sock = under_way.reference.sock
        if under_way.attempt is None:
            return linux_sockets.is_settled(sock)
        return linux_sockets.has_hung_up(sock)

    # --- connects that are led to a socket of ours ------------------------------------------------------------------

    def _once_ready(self, sock: socket.socket, under_way: _UnderWay, then: Callable[[_UnderWay], None]) -> None:
        """``then``, when ``sock`` (ours) is connected or has failed; and the attempt is under way still."""

        def ready(_events: int) -> None:
            self._loop.unwatch(sock.fileno())
            self._workers.post(take_turn, None)

        def take_turn(_: object) -> None:
            reference = under_way.reference
            if not self._sockets.take(reference, lambda _: self._workers.post(take_turn, None)):
                return
            try:
                if self._under_way.get(reference.inode) is under_way:
                    then(under_way)
            finally:
                self._sockets.give_back(reference)

        self._loop.watch(sock.fileno(), OUT, ready)

    def _server_answered(self, under_way: _UnderWay) -> None:
        attempt = under_way.attempt
        if attempt is None:
            return
        if not linux_sockets.is_settled(attempt.far):  # the event was of another one that had its descriptor before
            self._once_ready(attempt.far, under_way, self._server_answered)
            return
        error = linux_sockets.failure_of(attempt.far) or attempt.approach()
        if error not in (0, errno.EINPROGRESS):
            self._fail(under_way, error)
        elif error == 0 or linux_sockets.is_settled(attempt.near):
            self._met(under_way)
        else:
            self._once_ready(attempt.near, under_way, self._met)

    def _met(self, under_way: _UnderWay) -> None:
        attempt, reference = under_way.attempt, under_way.reference
        if attempt is None or attempt.caller is None:
            return
        if not linux_sockets.is_settled(attempt.near):
            self._once_ready(attempt.near, under_way, self._met)
            return
        error = linux_sockets.failure_of(attempt.near)
        if error or not self._is_right(attempt, reference):
            self._fail(under_way, errno.ECONNABORTED)
            return
        under_way.attempt = None
        self.attempts -= 1
        under_way.hand_over(attempt)
        self._may_wait(linux_sockets.demand_no_token, reference.sock, attempt.version)
        if self._under_way.get(reference.inode) is under_way:
            self._settle(under_way, joined=False)

    def _is_right(self, attempt: Attempt, reference: Reference) -> bool:
        """Whether ours has met this very socket, and not another one that has its address and port by now."""
        if attempt.caller is None:
            return False
        if self._diag.lacks("tcp_diag"):
            return self._may_wait(linux_sockets.is_connected, reference.sock)
        return self._diag.tcp_connection(attempt.caller, attempt.meets_at) == reference.inode

    def _fail(self, under_way: _UnderWay, error: int) -> None:
        """Whoever waits gets ``error``. Where nobody does, SO_ERROR is ECONNRESET, as of all that is dissolved."""
        reference, attempt = under_way.reference, under_way.attempt
        self._forget(under_way)
        if attempt is not None:
            self._may_wait(_give_up, reference.sock, attempt.version)
        if under_way.waiting:
            self._may_wait(linux_sockets.dissolve, reference.sock)
        self._resume_all(under_way, Answer(error=error, inode=reference.inode))

    def _look(self, under_way: _UnderWay) -> None:
        """The socket is ready, or has been: the event may be of another one that had its descriptor before."""
        reference = under_way.reference
        if not self._sockets.take(reference, lambda _: self._workers.post(self._look, under_way)):
            return
        try:
            if self._under_way.get(reference.inode) is not under_way:
                return  # a call of the sandbox was first
            if self._is_settled(under_way):
                self._settle(under_way, joined=False)
            else:
                self._watch(under_way)
        finally:
            self._sockets.give_back(reference)

    def _settle(self, under_way: _UnderWay, *, joined: bool) -> Answer:
        """It is over. All who wait for it have the answer, which is also returned for whoever has ``joined`` now. Where
        nobody waits, the error stays in the socket, for SO_ERROR.
        """
        reference, attempt = under_way.reference, under_way.attempt
        self._forget(under_way)
        if attempt is not None:  # it has ended before it met ours
            self._may_wait(linux_sockets.demand_no_token, reference.sock, attempt.version)
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
        if under_way.attempt is not None:
            for sock in (under_way.attempt.near, under_way.attempt.far):
                self._loop.unwatch(sock.fileno())
            under_way.attempt.close()
            under_way.attempt = None
            self.attempts -= 1

    def disconnect(self, reference: Reference) -> Answer:
        """connect(2) with AF_UNSPEC."""
        under_way = self._under_way.get(reference.inode)
        attempt = None if under_way is None else under_way.attempt
        if under_way is not None:
            self._forget(under_way)
        error = self._may_wait(linux_sockets.disconnect, reference.sock)
        if attempt is not None:
            self._may_wait(linux_sockets.demand_no_token, reference.sock, attempt.version)
        if under_way is not None:
            self._resume_all(under_way, Answer(error=errno.ECONNABORTED, inode=reference.inode))
        return Answer(error=error, inode=reference.inode)


def _connect_and_look(sock: socket.socket, target: str, is_right: Check) -> tuple[int, bool, bool]:
    """An errno, whether O_NONBLOCK was set, and whether it is the right one, at once."""
    error, polls = linux_sockets.connect_now(sock, target)
    return error, polls, error != 0 or is_right()


def _approach(sock: socket.socket, attempt: Attempt) -> tuple[int, bool, tuple[IpAddress, int] | None]:
    """Begin to connect ``sock`` to where nobody answers yet: an errno, whether O_NONBLOCK was set, its own name."""
    linux_sockets.demand_token(sock, attempt.version)
    error, polls = linux_sockets.connect_now(sock, attempt.target(sock.family))
    if error != errno.EINPROGRESS:
        return error, polls, None
    host, port, *_ = sock.getsockname()
    return error, polls, (ip_address(host.removeprefix("::ffff:")), port)


def _give_up(sock: socket.socket, version: int) -> None:
    linux_sockets.disconnect(sock)
    linux_sockets.demand_no_token(sock, version)


def _knock(sock: socket.socket, near: Near) -> int:
    linux_sockets.demand_token(sock, near.version)
    return linux_sockets.connect_now(sock, near.target)[0]


def _is_met(sock: socket.socket, patience: int) -> bool:
    """Whether it is connected, now or within ``patience`` milliseconds."""
    if patience and not linux_sockets.is_connected(sock):
        linux_sockets.is_settled(sock, within=patience)
    return linux_sockets.is_connected(sock)

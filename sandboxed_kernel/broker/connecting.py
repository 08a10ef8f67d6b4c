"""Does: connects the broker's own references, so that a slow or silent host blocks only the thread that called.

A blocking caller's socket is made non-blocking for the connect alone; the rest of the wait is the loop's. Once begun, a
connect goes on when its caller is interrupted, as Linux's does: the repeat joins it (connect(2), EINTR).
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple

from sandboxed_kernel.broker import reactor as loop
from sandboxed_kernel.broker.reactor import Reactor, Timer
from sandboxed_kernel.broker.replies import Replies
from sandboxed_kernel.broker.sockets import Reference, Sockets
from sandboxed_kernel.linux import sockets as linux_sockets
from sandboxed_kernel.linux.seccomp import Notification
from sandboxed_kernel.records import Record, made

# A connection to a listener of this machine stands when connect(2) returns, unless Linux has put off the packets, as it
# may under load before 6.4. Within this time they have come, or were dropped: then the next one is sent after 1 s (RFC
# 6298 section 2), and nobody waits for it.
_PACKETS_MAY_WAIT = 5  # ms
_MAX_WAITING_THREADS = 64  # unix connects to full backlogs, which cannot be polled

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
    reference: Reference
    waiters: list[Notification] = made(default_factory=list)
    timer: Timer | None = None


class Connecting:
    def __init__(self, reactor: Reactor, replies: Replies, sockets: Sockets) -> None:
        self._reactor, self._replies, self._sockets = reactor, replies, sockets
        self._under_way: dict[int, _UnderWay] = {}  # by the reference's inode
        self._threads = 0
        linux_sockets.expect_interrupts()

    def connect(self, call: Notification, reference: Reference, target: Target) -> None:
        """Connect a TCP socket to ``target``, whoever listens there, and answer ``call``."""
        if self.join(call, reference):
            return
        error, caller_polls = linux_sockets.connect_now(reference.sock, target)
        if error == errno.EINPROGRESS and not (caller_polls and linux_sockets.is_connected(reference.sock)):
            self._wait(call, reference, caller_polls)
            return
        self._finish(call, reference, error)

    def connect_near(self, call: Notification, reference: Reference, near: Near) -> None:
        """Connect a TCP socket to a listener of this machine, now or not at all, and answer ``call``.

        While the socket waits for an answer it demands the token of own listeners, so that Linux keeps everybody else
        from answering, however long this thread takes from one line to the next. The port may become somebody else's
        meanwhile, and a send(2) that waits in the sandbox would reach them.
        """
        sock = reference.sock
        linux_sockets.demand_token(sock, near.version)
        error, _ = linux_sockets.connect_now(sock, near.target)
        if error == errno.EINPROGRESS and not self._is_met(sock, near):
            linux_sockets.dissolve(sock)
            error = errno.ECONNREFUSED
        if error in (0, errno.EINPROGRESS) and not near.is_right():
            linux_sockets.cut_off(sock)
            error = errno.EACCES
        linux_sockets.demand_no_token(sock, near.version)
        self._finish(call, reference, error)

    @staticmethod
    def _is_met(sock: socket.socket, near: Near) -> bool:
        if linux_sockets.is_connected(sock):
            return True
        if near.has_room():
            linux_sockets.is_settled(sock, within=_PACKETS_MAY_WAIT)
        return linux_sockets.is_connected(sock)

    def connect_unix(self, call: Notification, reference: Reference, target: str, is_right: Check) -> None:
        """Connect to a path or an abstract name. ``is_right`` is asked once connected; no means EACCES."""
        if self.join(call, reference):
            return
        error, caller_polls = linux_sockets.connect_now(reference.sock, target)
        if error == errno.EAGAIN and not caller_polls:
            self._connect_in_thread(call, reference, target, is_right)
            return
        if error == 0 and not is_right():
            linux_sockets.cut_off(reference.sock)
            error = errno.EACCES
        self._finish(call, reference, error)

    def join(self, call: Notification, reference: Reference) -> bool:
        """Whether a connect of this socket is under way; ``call`` then waits for it too, or has EALREADY."""
        under_way = self._under_way.get(reference.inode)
        if under_way is None:
            return False
        if reference.family != socket.AF_UNIX and linux_sockets.is_settled(reference.sock):
            under_way.waiters.append(call)  # it is over, and only the loop has not come to it yet
            self._over(under_way)
            return True
        with linux_sockets.non_blocking(reference.sock) as caller_polls:
            pass
        if caller_polls:
            self._replies.answer(call, error=errno.EALREADY)
        else:
            under_way.waiters.append(call)
        return True

    def _finish(self, call: Notification, reference: Reference, error: int) -> None:
        """Answer a connect that is over; a reference that is connected is let go once the caller knows."""
        self._replies.answer(call, error=error, inode=reference.inode)
        if error in (0, errno.EINPROGRESS):
            self._sockets.drop(reference)

    def _wait(self, call: Notification, reference: Reference, caller_polls: bool) -> None:
        reference.busy = True
        under_way = _UnderWay(reference)
        self._under_way[reference.inode] = under_way
        self._reactor.watch(reference.sock.fileno(), loop.OUT, lambda _events: self._over(under_way))
        if caller_polls:
            self._replies.answer(call, error=errno.EINPROGRESS, inode=reference.inode)
            return
        under_way.waiters.append(call)
        limit = linux_sockets.send_timeout(reference.sock)
        if limit is not None:
            under_way.timer = self._reactor.call_later(limit, lambda: self._timed_out(under_way))

    def _timed_out(self, under_way: _UnderWay) -> None:
        """SO_SNDTIMEO, socket(7): the call returns EINPROGRESS and the connect goes on."""
        waiters, under_way.waiters = under_way.waiters, []
        for call in waiters:
            self._replies.answer(call, error=errno.EINPROGRESS)

    def _over(self, under_way: _UnderWay) -> None:
        reference = under_way.reference
        self._forget(under_way)
        connected = linux_sockets.is_connected(reference.sock)
        if under_way.waiters:
            error = 0 if connected else self._outcome(reference)
            self._answer_all(under_way, error)
        if connected:
            self._sockets.drop(reference)

    @staticmethod
    def _outcome(reference: Reference) -> int:
        """What connect(2) returns at its end: the error, taken from the socket, which can be connected again then."""
        return linux_sockets.dissolve(reference.sock) or errno.ECONNABORTED

    def _answer_all(self, under_way: _UnderWay, error: int) -> None:
        unheard: dict[int, Notification] = {}
        heard = set()
        for call in under_way.waiters:
            if self._replies.answer(call, error=error, inode=0 if error else under_way.reference.inode):
                heard.add(call.tid)
            else:
                unheard[call.tid] = call
        for tid, call in unheard.items():
            if tid not in heard:  # else the repeat was among the waiters
                self._replies.keep(call, 0, error, under_way.reference.inode)

    def _forget(self, under_way: _UnderWay) -> None:
        reference = under_way.reference
        reference.busy = False
        self._under_way.pop(reference.inode, None)
        if under_way.timer is not None:
            under_way.timer.cancel()
        with suppress(OSError):
            self._reactor.unwatch(reference.sock.fileno())

    def disconnect(self, call: Notification, reference: Reference) -> None:
        """connect(2) with AF_UNSPEC."""
        under_way = self._under_way.get(reference.inode)
        if under_way is not None:
            self._forget(under_way)
        error = linux_sockets.disconnect(reference.sock)
        if under_way is not None:
            self._answer_all(under_way, errno.ECONNABORTED)
        self._replies.answer(call, error=error, inode=reference.inode)

    def _connect_in_thread(self, call: Notification, reference: Reference, target: str, is_right: Check) -> None:
        """A full backlog of a unix socket cannot be polled: one thread waits for this one call."""
        if self._threads >= _MAX_WAITING_THREADS:
            self._replies.answer(call, error=errno.EAGAIN)
            return
        import threading

        # Linux looks a path up again each time the wait is over. The number of a descriptor that is closed by then may
        # mean a socket outside, opened to be judged: so this one stays open until the connect is done.
        kept = os.open(target, os.O_PATH | os.O_CLOEXEC) if target.startswith("/") else -1
        goal = path_of(kept) if kept >= 0 else target
        self._threads += 1
        reference.busy = True
        under_way = _UnderWay(reference, [call])
        self._under_way[reference.inode] = under_way

        def work() -> None:
            error = reference.sock.connect_ex(goal)
            self._reactor.from_thread(lambda: done(error))

        def done(error: int) -> None:
            self._threads -= 1
            close_quietly(kept)
            reference.busy = False
            self._under_way.pop(reference.inode, None)
            if error == 0 and not is_right():
                linux_sockets.cut_off(reference.sock)
                error = errno.EACCES
            self._answer_all(under_way, error)
            if error == 0:
                self._sockets.drop(reference)

        threading.Thread(target=work, daemon=True).start()


def path_of(descriptor: int) -> str:
    """A path by which this process reaches exactly what ``descriptor`` has open."""
    return f"/proc/self/fd/{descriptor}"


def close_quietly(descriptor: int) -> None:
    with suppress(OSError):
        os.close(descriptor)

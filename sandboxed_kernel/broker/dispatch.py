"""Does: receives each call, lets its handler decide, and carries out what that returns. The one place that answers.

No call's arguments are looked at twice, and no call is let through to Linux: each is carried out by the broker on its
own copies, or refused. The one exception is a type of its own, ``ToLandlock``: a call on a path, which Landlock judges
by what is really opened. Whatever goes wrong on the way, the answer is no and the broker lives on.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import monotonic

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Call, Malformed
from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.broker.notifier import Notifier
from sandboxed_kernel.broker.outcomes import Answer, Later, Outcome, Refusal, Refused, ToLandlock
from sandboxed_kernel.broker.repeats import Repeats
from sandboxed_kernel.broker.reporting import Reporter
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.linux.seccomp import Gone, Listener

Handler = Callable[[Call], Outcome]

_UNREADABLE = Refuse(errno.EACCES, "its program may be run but not read, so what it asks for cannot be looked at")


class Dispatcher:
    def __init__(
        self,
        listener: Listener,
        workers: Workers,
        repeats: Repeats,
        reporter: Reporter,
        notifier: Notifier,
        handlers: Mapping[int, Handler],
    ) -> None:
        """``handlers``: by the number of the system call. Any other call does not exist inside."""
        self._listener, self._workers, self._repeats = listener, workers, repeats
        self._reporter, self._notifier, self._handlers = reporter, notifier, handlers
        self._delivering: dict[int, list[Call]] = {}  # by thread: what it called while its last answer was delivered

    def receive(self) -> Call | None:
        """Wait for the next call, without the lock; None where nobody is left who could make one."""
        while True:
            found = self._listener.receive()
            if found is not None:
                return Call(*found, self._reporter.cell, monotonic())
            if self._listener.is_over():
                return None

    def handle(self, call: Call) -> None:
        """Answer ``call``, now or later. Never raises."""
        late = self._delivering.get(call.tid)
        if late is not None:  # this may be the repeat of the call that is being answered
            late.append(call)
        else:
            self._handle(call)

    def _handle(self, call: Call) -> None:
        try:
            self._carry_out(call, self._outcome(call))
        except Exception:  # noqa: BLE001  # when the broker cannot decide the answer is no, and it lives on
            self._fail_closed(call)

    def _outcome(self, call: Call) -> Outcome:
        handler = self._handlers.get(call.nr)
        if handler is None:
            return Answer(error=errno.ENOSYS)
        try:
            return handler(call)
        except Malformed as error:
            self._notifier.malformed(call, error)
            return Answer(error=error.error)
        except process.Unreadable:
            name = self._workers.may_wait(process.short_name, call.tid)
            return Refusal(_UNREADABLE, "process", name, protocol="seccomp")
        except Refused as refused:
            return refused.refusal
        except Gone:
            return None
        except OSError as error:
            return Answer(error=error.errno or errno.EACCES)

    def _carry_out(self, call: Call, outcome: Outcome) -> None:
        if isinstance(outcome, Answer):
            self._deliver(call, outcome)
        elif isinstance(outcome, Later):
            outcome.subscribe(lambda answer: self._workers.post(self._resume, call, answer))
        elif isinstance(outcome, ToLandlock):
            self._workers.may_wait(self._let_go_on, call.id)
        elif outcome is not None:
            answer = Answer(error=outcome.verdict.error, inode=outcome.inode)
            if self._notifier.refused(call, outcome, lambda: self._workers.post(self._deliver, call, answer)):
                self._deliver(call, answer)

    def _resume(self, call: Call, answer: Answer | None) -> None:
        if answer is None:
            self.handle(call)
        else:
            self._deliver(call, answer)

    def _deliver(self, call: Call, answer: Answer) -> None:
        tid = call.tid
        mine = tid not in self._delivering
        late = self._delivering.setdefault(tid, [])
        delivered = False
        try:
            delivered = self._workers.may_wait(self._send, call.id, answer)
        finally:
            self._repeats.answered(call, answer, delivered=delivered)
            if mine:
                while late:
                    self._handle(late.pop(0))
                del self._delivering[tid]

    def _send(self, ident: int, answer: Answer) -> bool:
        """Whether somebody still waited. Without the lock."""
        try:
            self._listener.answer(ident, answer.value, answer.error)
        except Gone:
            return False
        finally:
            if answer.after is not None:
                answer.after()
        return True

    def _let_go_on(self, ident: int) -> None:
        """Without the lock."""
        with suppress(Gone):
            self._listener.go_on(ident)

    def _fail_closed(self, call: Call) -> None:
        self._workers.complain("a call could not be judged and was refused")
        with suppress(Exception):
            self._deliver(call, Answer(error=errno.EACCES))

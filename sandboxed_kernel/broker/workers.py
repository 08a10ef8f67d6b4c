"""Does: the broker's threads. One receives calls and handles them; when Linux keeps it waiting, another takes over.

Code inside can make nearly every system call about its memory, files and sockets wait, beyond any signal. So whoever
makes one is a thread that the others can do without (leader and followers, POSA2). One lock guards all state of the
broker. A thread that runs the broker's code holds it, and lays it down for each system call that may wait.

The leader waits for calls and handles each at once, which costs no change of threads. The standby looks at it every
10 ms while there is something to do. When the leader is still in the same system call, the standby becomes the leader.
The former one finishes its call whenever Linux lets it. Further calls of the same process wait behind that one, in a
*lane*: so the threads of one process hold up one thread of ours, and their calls keep their order. A process that was
slow once has a lane from the start for a while, and holds up nobody else.
"""

from __future__ import annotations

import collections
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import TypeVar, TypeVarTuple

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Call
from sandboxed_kernel.errors import Bug
from sandboxed_kernel.linux.sockets import INTERRUPT, expect_interrupts

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_MOMENT = 0.01  # seconds that the leader may be in one system call
_QUIET = 3  # looks at which nothing was to be done; then the standby sleeps
_SLOW = 10.0  # seconds for which the calls of a process that held us up have a lane from the start
_MAX_SLOW = 1024  # processes
MAX_THREADS = 64  # beyond it calls wait in Linux, undecided; only who froze as many processes of his own comes there
_MAX_TRACEBACKS = 10  # the launcher's standard error is Jupyter's log
_IDLE = 5.0  # seconds after which a thread without work ends

_get_ident = threading.get_ident


class _Lane:
    """What waits behind a call of the same process. ``key``: that process; where it is not known, a negative number."""

    __slots__ = ("calls", "key")

    def __init__(self, key: int) -> None:
        self.calls: collections.deque[Call] = collections.deque()
        self.key = key


class Workers:
    """Every method is for who holds ``lock``, and returns with it."""

    def __init__(self, lock: threading.Lock) -> None:
        """``lock``: of the loop, which the main thread holds."""
        self.lock = lock
        self._leader = 0  # a thread's identity
        self._step = 0  # of the leader: how often it was in a system call that may wait
        self._in_linux = False
        self._asleep = True  # the standby
        self._bell = threading.Semaphore(0)  # wakes it
        self._current: Call | None = None  # of the leader
        self._lanes: dict[int, _Lane] = {}  # by process
        self._lane_of: dict[int, tuple[_Lane | None, float]] = {}  # a former leader -> its lane, since when
        self._slow: dict[int, float] = {}  # process -> until when, of time.monotonic()
        self._jobs: collections.deque[Callable[[], object]] = collections.deque()
        self._idle = 0  # threads that wait for jobs
        self._job_bell = threading.Semaphore(0)
        self._working = 0  # threads that work on jobs, or wait for some
        self.threads = 0  # ours, without the main one
        self._main = _get_ident()
        self._ours = {self._main}
        self._tracebacks = 0
        self._receive: Callable[[], Call | None]
        self._handle: Callable[[Call], None]

    def start(self, receive: Callable[[], Call | None], handle: Callable[[Call], None]) -> None:
        """``receive`` waits for a call, and is called without the lock; None means that none will come any more.
        ``handle`` never raises. Raises RuntimeError where there may be no more threads.
        """
        self._receive, self._handle = receive, handle
        expect_interrupts()
        # One for jobs from the start: there may be no thread to be had later.
        for run in (self._become_leader, self._stand_by, self._work):
            if not self._start(run):
                raise RuntimeError("can't start new thread")

    def may_wait(self, function: Callable[[*_Ts], _T], *arguments: *_Ts) -> _T:
        """``function(*arguments)`` without the lock: a system call that the sandbox may keep waiting."""
        lock = self.lock
        if self._leader != _get_ident():
            if self._main == _get_ident():
                raise Bug("the main thread never waits for what the sandbox has")
            lock.release()
            try:
                return function(*arguments)
            finally:
                lock.acquire()
        self._step += 1
        self._in_linux = True
        if self._asleep:
            self._asleep = False
            self._bell.release()
        lock.release()
        try:
            return function(*arguments)
        finally:
            lock.acquire()
            if self._leader == _get_ident():
                self._in_linux = False

    def post(self, function: Callable[[*_Ts], object], *arguments: *_Ts) -> None:
        """Call it soon, in a thread that may wait. For the main thread and ours; others go by way of the loop, since a
        thread that is started has the Landlock rules of who starts it.
        """
        if _get_ident() not in self._ours:
            raise Bug("a thread of another kind gave the workers something to do")
        self._jobs.append(lambda: function(*arguments))
        if self._idle:
            self._idle -= 1
            self._job_bell.release()
        elif self.threads < MAX_THREADS:
            self._start(self._work)

    # --- threads -----------------------------------------------------------------------------------------------------

    def _start(self, run: Callable[[], None]) -> bool:
        """False where Linux gives no thread: the sandbox may have used up what the user or the pod may have."""
        self.threads += 1
        try:
            threading.Thread(target=self._live, args=(run,), daemon=True).start()
        except RuntimeError:
            self.threads -= 1
            return False
        return True

    def _live(self, run: Callable[[], None]) -> None:
        # Signals are for the main thread: one that came while a descriptor is handed over would lose it (Listener).
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        with self.lock:
            self._ours.add(_get_ident())
            try:
                run()
            finally:
                self.threads -= 1
                self._ours.discard(_get_ident())

    def _become_leader(self) -> None:
        self._leader = _get_ident()
        self._lead()

    def _lead(self) -> None:
        own = _get_ident()
        receive, lock = self._receive, self.lock
        while self._leader == own:
            lock.release()
            try:
                call = receive()
            except OSError:  # nothing of what RECV says otherwise (seccomp_unotify(2)) comes from a caller
                self.complain("calls cannot be received")
                time.sleep(_MOMENT)
                continue
            finally:
                lock.acquire()
            if call is None:
                self._leader = 0
                return
            self._admit(call)
        lane, since = self._lane_of.pop(own)
        if lane is not None:
            now = time.monotonic()
            if now - since > _MOMENT and lane.key > 0:  # more than INTERRUPT could end
                self._remember_slow(lane.key, now)
            self._work_on_lane(lane)

    def _remember_slow(self, pid: int, now: float) -> None:
        if len(self._slow) >= _MAX_SLOW:
            self._slow = {one: until for one, until in self._slow.items() if until > now}
        if len(self._slow) < _MAX_SLOW:
            self._slow[pid] = now + _SLOW

    def _admit(self, call: Call) -> None:
        self._current = call
        if self._lanes or self._slow:
            call.pid = pid = self.may_wait(process.process_of, call.tid)
            lane = self._lanes.get(pid)
            if lane is not None:
                lane.calls.append(call)
                return
            if self._slow.get(pid, 0.0) > call.when:
                lane = self._lanes[pid] = _Lane(pid)
                lane.calls.append(call)
                self.post(self._work_on_lane, lane)
                return
        self._handle(call)

    def _work_on_lane(self, lane: _Lane) -> None:
        while lane.calls:
            self._handle(lane.calls.popleft())
        del self._lanes[lane.key]

    def _stand_by(self) -> None:
        lock = self.lock
        while True:
            lock.release()
            self._bell.acquire()
            lock.acquire()
            quiet = 0
            while quiet < _QUIET:
                step = self._step
                lock.release()
                time.sleep(_MOMENT)
                lock.acquire()
                if step != self._step:
                    quiet = 0
                elif not self._in_linux:
                    quiet += 1
                elif self.threads < MAX_THREADS and self._start(self._stand_by):
                    self._take_over()
                    return
            self._asleep = True

    def _take_over(self) -> None:
        """The leader has been in one system call all the while. Another standby is there already."""
        call, lane = self._current, None
        if call is not None:
            lane = _Lane(call.pid if call.pid and call.pid not in self._lanes else -call.id)
            self._lanes[lane.key] = lane
        signal.pthread_kill(self._leader, INTERRUPT)
        self._lane_of[self._leader] = (lane, time.monotonic())
        self._in_linux = False
        self._asleep = True
        self._leader = _get_ident()
        self._current = None
        if call is not None and lane is not None and lane.key < 0:
            pid = self.may_wait(process.process_of, call.tid)  # which may take as long: then the next one takes over
            if self._lanes.get(lane.key) is lane and pid not in self._lanes:
                del self._lanes[lane.key]
                lane.key = pid
                self._lanes[pid] = lane
        self._lead()

    def _work(self) -> None:
        self._working += 1
        while True:
            while self._jobs:
                self._do(self._jobs.popleft())
            self._idle += 1
            self.lock.release()
            rang = self._job_bell.acquire(timeout=_IDLE)
            self.lock.acquire()
            if not rang:
                if not self._idle:
                    self._job_bell.acquire()  # it rang just now
                else:
                    self._idle -= 1
                    if self._working > 1:
                        self._working -= 1
                        return

    def _do(self, job: Callable[[], object]) -> None:
        try:
            job()
        except Exception:  # noqa: BLE001  # what it would have answered stays unanswered; the others go on
            self.complain("what was to be done later was not")

    def complain(self, what: str) -> None:
        """In an ``except`` clause: the exception on standard error, the first few of one sandbox."""
        self._tracebacks += 1
        if self._tracebacks <= _MAX_TRACEBACKS:
            import traceback

            sys.stderr.write(f"{Bug(what)}\n{traceback.format_exc()}")

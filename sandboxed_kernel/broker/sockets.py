"""Does: creates every socket of the sandbox, keeps a reference to act on, and lets go of it in time.

A reference is found by the socket's inode on sockfs, which no sandboxed code can change. Linux tells nobody of the last
close(2) of a socket, and a reference that is kept too long breaks everyday code: a port stays taken, a peer sees no end
of file. So it is dropped when a connect has succeeded and its answer was delivered, at listen(2), and when the sandbox
has closed the socket. One readlink(2) tells that, of the descriptor that the socket was given as. Gone from there, it
may still be open under the same number in a process that was forked since. Under no other number is it looked for: a
copy there goes on with what it is connected or listens for, and does no more.

The sandbox chooses how many sockets, processes and threads there are. So each step looks at a bounded number of them,
and an expensive step is not soon followed by the next.
"""

from __future__ import annotations

import collections
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Protocol, TypeVar, TypeVarTuple

from sandboxed_kernel.broker import descriptors
from sandboxed_kernel.broker.decisions import CreateSocket
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux import sockets as linux_sockets

_T = TypeVar("_T")
_Ts = TypeVarTuple("_Ts")

_LOOKED_AT = 64  # references in one step, from the oldest on
_LOOK_AFTER = 32  # new sockets: two are looked at for each, so that the table holds at most twice what is open
_NEW_FOR_LOOKS = 8  # that many looks of a step, and the next one waits for a new socket more
_FORKED_AT = 0.05  # seconds by which the two clocks may differ
_MAX_LOOKS = 4096  # at threads and descriptors, in one step; some 10 us each
_MAX_REFERENCES = 16384  # sockets that are neither connected nor listening; bounds the broker's memory


class Reference:
    """The broker's own handle on one socket of the sandbox. Owns it.

    ``tid`` and ``number``: a thread and the descriptor that it was given, or a process that had it there later.
    ``given``: when (seconds, CLOCK_BOOTTIME). ``port``: of a TCP socket that was bound, else 0. ``taken``: a call works
    on it at this moment (``Sockets.take``), and ``waiting`` are those that come next.
    """

    __slots__ = ("busy", "family", "given", "inode", "number", "port", "sock", "taken", "tid", "waiting")

    def __init__(self, sock: socket.socket, inode: int, family: int) -> None:
        self.sock, self.inode, self.family = sock, inode, family
        self.busy = False  # a connect or a bind is under way
        self.taken = False
        self.waiting: collections.deque[Callable[[None], object]] = collections.deque()
        self.tid = self.port = 0
        self.number = -1  # not handed over yet
        self.given = 0.0

    def close(self) -> None:
        """May wait; the sandbox's own copies stay."""
        try:
            if self.family in (socket.AF_INET, socket.AF_INET6):
                linux_sockets.stop_lingering(self.sock)  # the sandbox may have closed its copies already
            self.sock.close()
        except OSError:
            pass

    def __repr__(self) -> str:
        return f"<Reference {self.inode} family={self.family} {'busy' if self.busy else 'idle'}>"


class MayWait(Protocol):
    """``Workers.may_wait``."""

    def __call__(self, function: Callable[[*_Ts], _T], /, *arguments: *_Ts) -> _T: ...


class Holders(Protocol):
    """What /proc tells of the sandbox's processes; ``Processes``, or a stand-in that counts."""

    def has(self, tid: int, number: int, inode: int) -> bool:
        """Whether this thread's descriptor ``number`` is the socket with this inode."""

    def is_there(self, tid: int) -> bool:
        """Whether this thread lives."""

    def walk(self) -> Iterator[tuple[int, float] | None]:
        """``processes.tables_of_descendants``."""


class Processes:
    """``Holders`` for the descendants of one process."""

    def __init__(self, ancestor: int) -> None:
        self._ancestor = ancestor

    def has(self, tid: int, number: int, inode: int) -> bool:
        try:  # not stat(2): the number may mean a file on a file system by now that does not answer
            return os.readlink(f"/proc/{tid}/fd/{number}") == f"socket:[{inode}]"
        except OSError:
            return False

    def is_there(self, tid: int) -> bool:
        return os.path.exists(f"/proc/{tid}")

    def walk(self) -> Iterator[tuple[int, float] | None]:
        return processes.tables_of_descendants(self._ancestor)


class Sockets:
    """The table of references, by inode; the one that was looked at longest ago comes first."""

    def __init__(self, holders: Holders, device: int, may_wait: MayWait, post: Callable[..., None]) -> None:
        """``device``: of sockfs. ``may_wait`` and ``post``: see ``Workers``."""
        self._by_inode: dict[int, Reference] = {}
        self._may_wait, self._post = may_wait, post
        self._holders, self.device = holders, device
        self._look_in = _LOOK_AFTER  # new sockets
        self._quota = min(_MAX_REFERENCES, descriptors.share())

    def __len__(self) -> int:
        return len(self._by_inode)

    def find(self, device: int, inode: int) -> Reference | None:
        return self._by_inode.get(inode) if device == self.device else None

    def create(self, wanted: CreateSocket) -> Reference:
        """A new socket, not yet in the table. Raises OSError; EMFILE over the quota."""
        self._look_in -= 1
        full = len(self._by_inode) >= self._quota
        if full or (self._look_in <= 0 and len(self._by_inode) >= _LOOKED_AT):
            self._drop_closed(needed=full)
        if len(self._by_inode) >= self._quota:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        kind = wanted.type | socket.SOCK_CLOEXEC | (socket.SOCK_NONBLOCK if wanted.non_blocking else 0)
        try:
            sock = socket.socket(wanted.family, kind, wanted.protocol)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._drop_closed(needed=True)
            sock = socket.socket(wanted.family, kind, wanted.protocol)
        return Reference(sock, os.fstat(sock.fileno()).st_ino, wanted.family)

    def keep(self, reference: Reference) -> None:
        """From now on it is found; ``handed_over`` comes next. In this order: the program may use what it was given
        before the thread that gave it goes on.
        """
        self._by_inode[reference.inode] = reference

    def handed_over(self, reference: Reference, tid: int, number: int) -> None:
        """``tid`` was given the socket as its descriptor ``number``."""
        reference.tid, reference.number = tid, number
        reference.given = time.clock_gettime(time.CLOCK_BOOTTIME)

    def take(self, reference: Reference, resume: Callable[[None], object]) -> bool:
        """Whether nobody else works on the socket; else ``resume`` is called when it is this one's turn."""
        if reference.taken:
            reference.waiting.append(resume)
            return False
        reference.taken = True
        return True

    def give_back(self, reference: Reference) -> None:
        """The next one has its turn; and who is behind it, should the next one's caller be gone."""
        reference.taken = False
        self._next_turn(reference)

    def _next_turn(self, reference: Reference) -> None:
        if reference.waiting and not reference.taken:
            reference.waiting.popleft()(None)
            if reference.waiting:
                self._post(self._next_turn, reference)

    def forget(self, reference: Reference) -> Callable[[], None]:
        """It is found no more. What is returned closes our copy, and may wait."""
        if self._by_inode.get(reference.inode) is reference:
            del self._by_inode[reference.inode]
        return reference.close

    def closed(self, references: list[Reference]) -> set[int]:
        """The inodes of those that the sandbox has closed, at most some of them; also of those that are busy."""
        given = [one for one in references if one.number >= 0][:_LOOKED_AT]
        missing, _ = self._may_wait(_find_closed, self._holders, given, True)
        return {one.inode for one in missing}

    def free_port(self, port: int) -> bool:
        """Drop what the sandbox has closed of the references that were bound to ``port``; whether there was any."""
        bound = [one for one in self._by_inode.values() if one.port == port and _is_idle(one)][:_LOOKED_AT]
        return self._drop_closed_of(bound, needed=True)[0] > 0

    def _drop_closed(self, *, needed: bool) -> None:
        oldest = list(islice(self._by_inode.values(), _LOOKED_AT))
        for reference in oldest:  # behind the others, should they stay
            self._by_inode[reference.inode] = self._by_inode.pop(reference.inode)
        _, looks = self._drop_closed_of([one for one in oldest if _is_idle(one)], needed=needed)
        self._look_in = max(_LOOK_AFTER, looks // _NEW_FOR_LOOKS)

    def _drop_closed_of(self, references: list[Reference], *, needed: bool) -> tuple[int, int]:
        """How many were dropped, and how many looks it took. ``needed``: also those that could not be looked for in
        every process.
        """
        missing, looks = self._may_wait(_find_closed, self._holders, references, needed)
        closes = [self.forget(one) for one in missing if _is_idle(one) and self._by_inode.get(one.inode) is one]
        if closes:
            self._may_wait(_do_all, closes)
        return len(closes), looks


def _find_closed(holders: Holders, references: list[Reference], needed: bool) -> tuple[list[Reference], int]:
    """Those that the sandbox has closed, and how many looks it took. An empty list where some could not be looked for
    in every process, unless it is ``needed``.
    """
    missing = [one for one in references if not holders.has(one.tid, one.number, one.inode)]
    lives = {tid: holders.is_there(tid) for tid in {one.tid for one in missing}}
    looks = len(references) + len(lives)
    # The thread that was given it lives, and its process has closed it: then only who was forked later has a copy.
    since = {one.inode: one.given - _FORKED_AT if lives[one.tid] else 0.0 for one in missing}
    for step in holders.walk() if missing else ():
        looks += 1
        if step is not None:
            tid, started = step
            asked = [one for one in missing if started >= since[one.inode]]
            looks += len(asked)
            for one in asked:
                if holders.has(tid, one.number, one.inode):
                    one.tid = tid
                    missing.remove(one)
        if not missing:
            break
        if looks >= _MAX_LOOKS:
            return missing if needed else [], looks
    return missing, looks


def _is_idle(reference: Reference) -> bool:
    return not (reference.busy or reference.taken or reference.number < 0)


def _do_all(actions: list[Callable[[], None]]) -> None:
    for action in actions:
        action()


def device_of_sockets() -> int:
    """The device of sockfs, where the inodes of sockets are."""
    with socket.socket(socket.AF_UNIX) as probe:
        return os.fstat(probe.fileno()).st_dev

"""Does: unix sockets. A path may be bound where the sandbox may make sockets, and connected to where it did.

Binding uses the caller's exact path bytes (through /proc/self/fd it would change getsockname(2)), its working directory
and umask, in one thread of the broker that has put the sandbox's own file rules on itself: Linux checks, not we.
Connecting opens the path first and goes through that descriptor, so neither links nor renames matter afterwards.
"""

from __future__ import annotations

import errno
import os
import queue
import socket
import stat
import threading
import time
from collections.abc import Callable

from sandboxed_kernel.broker import decisions, process
from sandboxed_kernel.broker.calls import UnixAbstract, UnixPath
from sandboxed_kernel.broker.loop import Loop
from sandboxed_kernel.broker.sockets import Reference
from sandboxed_kernel.broker.workers import Workers
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.diag import SocketDiag
from sandboxed_kernel.records import Record

_MAX_NAMES = 4096  # that living sockets of one sandbox are bound to, of each kind
_LOOK_EVERY = 1.0  # second, at all unix sockets of the machine, once a table is full

# Services that programs look for in passing, and go on without: refused with ENOENT and no notice.
SILENT = (
    (b"/var/run/nscd/", "glibc's name service cache"),
    (b"/run/nscd/", "glibc's name service cache"),
    (b"/run/systemd/", "systemd-resolved, userdb, the journal, notify"),
    (b"/var/run/systemd/", "systemd-resolved, userdb"),
    (b"/var/lib/sss/", "sssd"),
    (b"/run/avahi-daemon/", "avahi"),
    (b"/var/run/avahi-daemon/", "avahi"),
    (b"/dev/log", "syslog(3)"),
    (b"/run/dbus/", "D-Bus"),
    (b"/var/run/dbus/", "D-Bus"),
)


def is_silent(path: bytes) -> bool:
    if b".." in path.split(b"/"):  # /run/systemd/../../tmp/x is no service's, and its refusal may not be hidden
        return False
    return any(path == prefix or (prefix.endswith(b"/") and path.startswith(prefix)) for prefix, _reason in SILENT)


class _Job(Record):
    sock: socket.socket
    path: bytes
    directory: Descriptor
    umask: int
    done: Callable[[int, os.stat_result | None], None]


class UnixSockets:
    def __init__(
        self,
        loop: Loop,
        workers: Workers,
        diag: SocketDiag,
        confine_thread: Callable[[], None],
        named: tuple[str, ...],
    ) -> None:
        """``confine_thread``: the sandbox's file rules for the calling thread; ``named``: paths the policy allows."""
        self._loop, self._workers, self._may_wait = loop, workers, workers.may_wait
        self._diag, self._confine_thread = diag, confine_thread
        self._named = frozenset(os.path.realpath(path) for path in named)
        self._as_named = frozenset(map(os.fsencode, (*named, *self._named)))
        self._bound: dict[tuple[int, int], int] = {}  # (device, inode) of the path -> the socket's inode
        self._abstract: dict[bytes, int] = {}  # name -> the socket's inode
        self._look_again = 0.0  # of time.monotonic()
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._started = False

    def names(self, path: bytes) -> bool:
        """Whether the policy names this very path."""
        return path in self._as_named

    # --- bind ----------------------------------------------------------------------------------------------------

    def bind_path(self, tid: int, reference: Reference, path: bytes, answer: Callable[[int], None]) -> None:
        """Bind; then ``answer(errno)``, 0 for done. Raises Malformed; OSError(ENOBUFS) over the quota of names."""
        self._make_room(self._bound, self._jobs.qsize())
        if not self._started:
            try:
                threading.Thread(target=self._work, daemon=True).start()
            except RuntimeError:  # there are no more threads for this user
                raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from None
            self._started = True
        umask = self._may_wait(process.umask, tid)
        directory = self._may_wait(process.open_directory, tid)
        inode = reference.inode

        def done(error: int, status: os.stat_result | None) -> None:
            reference.busy = False
            if status is not None:
                self._remember(inode, status)
            answer(error)

        reference.busy = True
        self._jobs.put(_Job(reference.sock, path, directory, umask, done))

    def _work(self) -> None:
        """The confined thread: it can make sockets exactly where the sandbox can.

        It changes the broker's working directory and umask, which no other thread uses: unshare(CLONE_FS), for its own
        ones, is refused by the default profiles of container engines.
        """
        try:
            self._confine_thread()
        except OSError as error:
            refused = error.errno or errno.EACCES
            while True:  # without the rules nothing may be bound
                job = self._jobs.get()
                job.directory.close()
                self._done(job, refused, None)
        while True:
            job = self._jobs.get()
            self._done(job, *self._bind(job))

    def _done(self, job: _Job, error: int, status: os.stat_result | None) -> None:
        self._loop.from_thread(lambda: self._workers.post(job.done, error, status))

    @staticmethod
    def _bind(job: _Job) -> tuple[int, os.stat_result | None]:
        try:
            os.fchdir(job.directory.fileno())
            os.umask(job.umask)
            job.sock.bind(job.path)
        except OSError as error:
            return error.errno or errno.EIO, None
        finally:
            job.directory.close()
        try:
            return 0, os.lstat(job.path)
        except OSError:
            return 0, None  # renamed or removed at once: bound, but nobody will find it by name

    def _remember(self, inode: int, status: os.stat_result) -> None:
        """Only if the path still shows the very inode that this socket is bound to, not one swapped in meanwhile."""
        found = self._diag.unix_socket(inode)
        if found is None:
            return
        device = (os.major(status.st_dev), os.minor(status.st_dev))
        if decisions.is_same_file(status.st_ino, device, found.inode, found.device):
            self._bound[status.st_dev, status.st_ino] = inode

    def bind_abstract(self, reference: Reference, name: bytes) -> int:
        """An errno, 0 for done. An empty name: Linux picks one (autobind). Raises OSError(ENOBUFS) over the quota."""
        self._make_room(self._abstract)
        try:
            bound = self._may_wait(_bind_abstract, reference.sock, name)
        except OSError as error:
            return error.errno or errno.EIO
        if isinstance(bound, bytes):
            self._abstract[bound] = reference.inode
        return 0

    def _make_room(self, table: dict[tuple[int, int], int] | dict[bytes, int], besides: int = 0) -> None:
        """Forget sockets that are gone when a table is full. Raises OSError(ENOBUFS) where it stays full.

        What is asked for is one list of all unix sockets of the machine, since Linux goes through all of them for each
        single question too. ``besides``: names that are about to come into the table.
        """
        if len(table) + besides < _MAX_NAMES:
            return
        now = time.monotonic()
        if now >= self._look_again:
            self._look_again = now + _LOOK_EVERY
            living = self._diag.unix_inodes()
            for key in [key for key, inode in table.items() if inode not in living]:
                del table[key]  # type: ignore[arg-type]  # the key is of this table
        if len(table) + besides >= _MAX_NAMES:
            raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))

    # --- connect -------------------------------------------------------------------------------------------------

    def open_path(self, tid: int, address: UnixPath) -> tuple[Descriptor, decisions.Refuse | None, bool]:
        """A descriptor of the socket at the caller's path, what is decided, and whether it is this sandbox's (else the
        policy names it). Raises OSError with the errno for the caller; ECONNREFUSED for what is no socket.
        """
        found, status, path = self._may_wait(_open_socket, tid, address.path)
        named = path in self._named
        inode = self._bound.get((status.st_dev, status.st_ino))
        bound = None if inode is None else self._diag.unix_socket(inode)
        verdict = decisions.decide_unix(
            named=named,
            bound_here=inode is not None,
            still_bound=bound is not None and bound.inode == status.st_ino & 0xFFFFFFFF,
        )
        return found, verdict, not named

    def owns_abstract(self, address: UnixAbstract) -> bool:
        """Whether the socket of this sandbox that bound the name still holds it."""
        inode = self._abstract.get(address.name)
        if inode is None:
            return False
        found = self._diag.unix_socket(inode)
        if found is None or found.name != address.name:
            self._abstract.pop(address.name, None)
            return False
        return True


def _bind_abstract(sock: socket.socket, name: bytes) -> object:
    """The name that it has then."""
    sock.bind(name)
    return sock.getsockname()


def _open_socket(tid: int, path: bytes) -> tuple[Descriptor, os.stat_result, str]:
    """A descriptor of the socket at the caller's ``path``, what stat(2) says of it, and its real path. Raises OSError;
    ECONNREFUSED for what is no socket.
    """
    with process.open_directory(tid) as directory:
        found = processes.open_beneath(directory, path, os.O_PATH)
    status = os.fstat(found.fileno())
    if not stat.S_ISSOCK(status.st_mode):
        raise OSError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    return found, status, os.readlink(found.path)

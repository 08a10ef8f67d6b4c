"""Does: creates every socket of the sandbox, keeps a reference to act on, and lets go of it in time.

A reference is found by the socket's inode on sockfs, which no sandboxed code can change. There is no notification of
close(2), and a reference that is kept too long breaks everyday code: a port stays taken, a peer sees no end of file.
So it is dropped when a connect has succeeded and its answer was delivered, at listen(2), and by ``sweep``.
"""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Callable

from sandboxed_kernel.broker.decisions import CreateSocket
from sandboxed_kernel.linux import processes
from sandboxed_kernel.linux import sockets as linux_sockets

_SWEEP_SLACK = 64  # dead references are looked for when the table has grown to this + 2 x the live ones
_RESERVED = 128  # descriptors the broker needs for itself
_MAX_REFERENCES = 16384  # sockets that are neither connected nor listening; bounds the broker's memory


class Reference:
    """The broker's own handle on one socket of the sandbox. Owns it."""

    __slots__ = ("busy", "family", "inode", "sock", "type")

    def __init__(self, sock: socket.socket, inode: int, family: int, kind: int) -> None:
        self.sock, self.inode, self.family, self.type = sock, inode, family, kind
        self.busy = False  # a connect or a bind is under way

    def __repr__(self) -> str:
        return f"<Reference {self.inode} family={self.family} {'busy' if self.busy else 'idle'}>"


class Sockets:
    """The table of references, by inode."""

    def __init__(self, descendants: Callable[[], list[int]]) -> None:
        """``descendants`` lists the sandbox's processes."""
        self._by_inode: dict[int, Reference] = {}
        self._descendants = descendants
        self._sweep_at = _SWEEP_SLACK
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self._quota = min(_MAX_REFERENCES, max(_RESERVED, (descriptors - _RESERVED) // 2))  # the other half: datagrams
        with socket.socket(socket.AF_UNIX) as probe:
            self.device = os.fstat(probe.fileno()).st_dev  # of sockfs

    def __len__(self) -> int:
        return len(self._by_inode)

    def find(self, device: int, inode: int) -> Reference | None:
        return self._by_inode.get(inode) if device == self.device else None

    def create(self, wanted: CreateSocket) -> Reference:
        """A new socket, not yet in the table. Raises OSError; EMFILE over the quota."""
        if len(self._by_inode) >= self._sweep_at:
            self.sweep()
        if len(self._by_inode) >= self._quota:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        kind = wanted.type | socket.SOCK_CLOEXEC | (socket.SOCK_NONBLOCK if wanted.non_blocking else 0)
        try:
            sock = socket.socket(wanted.family, kind, wanted.protocol)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self.sweep()
            sock = socket.socket(wanted.family, kind, wanted.protocol)
        return Reference(sock, os.fstat(sock.fileno()).st_ino, wanted.family, wanted.type)

    def keep(self, reference: Reference) -> None:
        self._by_inode[reference.inode] = reference

    def drop(self, reference: Reference) -> None:
        """Close our reference; the sandbox's own copies stay."""
        if self._by_inode.get(reference.inode) is reference:
            del self._by_inode[reference.inode]
        try:
            if reference.family in (socket.AF_INET, socket.AF_INET6):
                linux_sockets.stop_lingering(reference.sock)  # the sandbox may have closed its copies already
            reference.sock.close()
        except OSError:
            pass

    def sweep(self) -> None:
        """Drop every reference whose socket no process of the sandbox has open any more."""
        live = self._open_inodes()
        for inode, reference in list(self._by_inode.items()):
            if inode not in live and not reference.busy:
                self.drop(reference)
        self._sweep_at = _SWEEP_SLACK + 2 * len(self._by_inode)

    def _open_inodes(self) -> set[int]:
        found: set[int] = set()
        for pid in self._descendants():
            for thread in _descriptor_tables(pid):
                found.update(_sockets_of(thread))
        return found


def _descriptor_tables(pid: int) -> list[str]:
    """The process's table; every thread's where the leader has ended (its own directory is then unreadable)."""
    leader = f"/proc/{pid}/fd"
    if os.access(leader, os.R_OK) and _first(leader):
        return [leader]
    try:
        return [f"/proc/{pid}/task/{thread}/fd" for thread in os.listdir(f"/proc/{pid}/task")]
    except OSError:
        return []


def _first(directory: str) -> bool:
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def _sockets_of(directory: str) -> list[int]:
    found: list[int] = []
    try:
        names = os.listdir(directory)
    except OSError:
        return found
    for name in names:
        try:
            target = os.readlink(f"{directory}/{name}")
        except OSError:
            continue
        if target.startswith("socket:["):
            found.append(int(target[8:-1]))
    return found


def descendants_of(pid: int) -> list[int]:
    return list(processes.descendants(pid))

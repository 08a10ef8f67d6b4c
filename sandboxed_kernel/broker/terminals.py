"""Does: opens the other end of a pseudo-terminal whose master the caller has open, and of no other.

/dev/pts is not granted: with it the input of another terminal could be read (measured). pidfd_getfd(2) being out of
reach, the terminal's number is read from the caller's descriptor, its slave is opened, and the number is read again:
while the caller holds that master, no other terminal can have the number.
"""

from __future__ import annotations

import errno
import os
import stat

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Malformed
from sandboxed_kernel.broker.decisions import Refuse, decide_terminal
from sandboxed_kernel.linux.descriptor import Descriptor

_ALLOWED_FLAGS = os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC


def open_peer(tid: int, descriptor: int, flags: int) -> Descriptor:
    """ioctl_tty(2), TIOCGPTPEER: a descriptor of the slave. Raises OSError or Malformed with the caller's errno."""
    before = _number(tid, descriptor)
    peer = Descriptor(os.open(f"/dev/pts/{before}", (flags & _ALLOWED_FLAGS) | os.O_NOCTTY | os.O_CLOEXEC))
    if not os.isatty(peer.fileno()) or _number(tid, descriptor) != before:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return peer


def _number(tid: int, descriptor: int) -> int:
    """The terminal's number, if the descriptor is a master. Raises Malformed."""
    try:
        status = os.stat(f"/proc/{tid}/fd/{descriptor}")
    except OSError:
        raise Malformed(errno.EBADF, f"no descriptor {descriptor}") from None
    place = f"/proc/{tid}/fdinfo/{descriptor}"
    verdict = decide_terminal(
        character_device=stat.S_ISCHR(status.st_mode),
        device=(os.major(status.st_rdev), os.minor(status.st_rdev)),
        number=process.field(place, b"tty-index:"),
        mount=process.field(place, b"mnt_id:"),
        mounts=_own_mounts(),
    )
    if isinstance(verdict, Refuse):
        raise Malformed(verdict.error, f"descriptor {descriptor} is not the master of a terminal of ours")
    return verdict


def _own_mounts() -> set[int]:
    """Of the file systems where masters are opened here: proc_pid_fdinfo(5), mnt_id."""
    found = set()
    for name in ("/dev/ptmx", "/dev/pts/ptmx"):
        try:
            master = Descriptor(os.open(name, os.O_PATH | os.O_CLOEXEC))
        except OSError:
            continue
        with master:
            mount = process.field(f"/proc/self/fdinfo/{master.fileno()}", b"mnt_id:")
        if mount is not None:
            found.add(mount)
    return found

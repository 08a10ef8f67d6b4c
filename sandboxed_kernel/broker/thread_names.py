"""Does: opens the file of /proc by which a program names its own threads; nothing else in /proc is ever opened here.

pthread_setname_np(3) for another thread writes /proc/self/task/TID/comm, and CUDA does not start where it may not
(error 304). Landlock knows folders and files that are there, no "own threads, also those to come".

Safe for untrusted callers: of their path nothing is used but a number, and what is opened is named by the caller's own
process, which lives while it waits. Linux itself lets such a file be written by threads of the same process alone
(fs/proc/base.c, comm_write), so a descriptor that is handed on, or a number that was given away, names nobody else.
Where the notebook's folder is guarded, ``files`` copies the path once more: each judges its own copy and acts on that.
"""

from __future__ import annotations

import errno
import os

from sandboxed_kernel.broker import process
from sandboxed_kernel.broker.calls import Call, Malformed, as_int
from sandboxed_kernel.broker.decisions import thread_to_name
from sandboxed_kernel.broker.files import OPENING
from sandboxed_kernel.linux.descriptor import Descriptor
from sandboxed_kernel.linux.seccomp import Listener


def open_name(call: Call, name: str, listener: Listener) -> Descriptor | None:
    """None where the call means anything else: that is Landlock's to judge. Raises OSError, Malformed."""
    at = OPENING[name]
    if at.flags is None or not as_int(call.args[at.flags]) & os.O_ACCMODE:
        return None  # what is only read, Landlock allows
    flags = as_int(call.args[at.flags])
    try:
        path = process.read_string(call.tid, call.args[at.path])
    except (Malformed, process.Unreadable):
        return None
    if not path.startswith(b"/proc/"):  # before anything of the caller is looked up
        return None
    owner = process.process_of(call.tid)
    thread = thread_to_name(path, tid=call.tid, process=owner)
    if thread is None or flags & (os.O_PATH | os.O_DIRECTORY | os.O_EXCL):
        return None
    try:
        place = f"/proc/{owner}/task/{thread}/comm"
        file = Descriptor(os.open(place, flags & (os.O_ACCMODE | os.O_APPEND) | os.O_NOFOLLOW | os.O_CLOEXEC))
    except PermissionError:
        return None
    if not listener.is_valid(call.id):
        file.close()
        raise Malformed(errno.EINTR, "the caller is gone")
    return file

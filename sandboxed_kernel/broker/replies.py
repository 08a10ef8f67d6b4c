"""Does: gives answers to waiting calls, and keeps those that may have met nobody for the call's repeat.

A signal handler in the sandbox (profilers, interval timers, Go's preemption) withdraws a notification; with SA_RESTART
the same thread then makes the same call again, although it was carried out already: a bind would fail with EINVAL.
Without, a program may make it again itself, with a copy of the address elsewhere in its memory.
"""

from __future__ import annotations

import errno
from collections.abc import Collection

from sandboxed_kernel.linux.seccomp import Gone, Listener, Notification

_MAX_KEPT = 4096

Key = tuple[int, int, int, bytes | tuple[int, ...]]


class Replies:
    def __init__(self, listener: Listener, *, once: Collection[int] = ()) -> None:
        """``once``: the numbers of the calls that succeed only once on a socket."""
        self._listener = listener
        self._once = once
        self._kept: dict[int, tuple[Key, int, int]] = {}  # by thread: what its last withdrawn call came to

    def is_waiting(self, call: Notification) -> bool:
        return self._listener.is_valid(call.id)

    def answer(self, call: Notification, value: int = 0, error: int = 0, *, inode: int = 0) -> bool:
        """Whether somebody still waited. If not, the answer is kept for the repeat on the same socket (``inode``)."""
        try:
            self._listener.answer(call.id, value, error)
        except Gone:
            delivered = False
        else:
            delivered = True
        # Linux takes an answer that comes between the signal and the withdrawal, and loses it (kernel/seccomp.c,
        # seccomp_do_user_notification). A success is therefore kept even so: it could not be had a second time.
        if inode and (not delivered or (not error and call.nr in self._once)):
            self.keep(call, value, error, inode)
        return delivered

    def keep(self, call: Notification, value: int, error: int, inode: int) -> None:
        if len(self._kept) >= _MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[call.tid] = (_key(call, inode), value, error)

    def repeat(self, call: Notification, inode: int) -> bool:
        """Whether ``call`` is the repeat of one already carried out; it then has its answer."""
        kept = self._kept.pop(call.tid, None)  # any other call of this thread means that no repeat will come
        if kept is None or kept[0] != _key(call, inode):
            return False
        self.answer(call, kept[1], kept[2], inode=inode)
        return True

    def give_descriptor(self, call: Notification, descriptor: int, *, close_on_exec: bool) -> int | None:
        """Answer with a copy of ``descriptor``: its number there, or None when nobody took it (gone, table full)."""
        try:
            return self._listener.add_descriptor(call.id, descriptor, close_on_exec=close_on_exec)
        except Gone:
            return None
        except OSError as error:
            self.answer(call, error=error.errno or errno.EMFILE)
            return None


def _key(call: Notification, inode: int) -> Key:
    """What a repeat has in common with the call: the address itself where there is one, else the plain arguments."""
    return (call.tid, call.nr, inode, call.said or call.args)

"""Pure: keeps the answers that may have met nobody, for the call's repeat.

If a signal interrupts a call after it was carried out, the thread makes it again: Linux does so with SA_RESTART
(profilers, interval timers, Go's preemption), a program does so itself otherwise, perhaps with the address elsewhere in
its memory. A bind that was carried out already would then fail with EINVAL. So the repeat has the kept answer.
"""

from __future__ import annotations

from collections.abc import Collection

from sandboxed_kernel.broker.calls import Call
from sandboxed_kernel.broker.outcomes import Answer

_MAX_KEPT = 4096

Key = tuple[int, int, bytes | tuple[int, ...]]


class Repeats:
    def __init__(self, *, once: Collection[int] = ()) -> None:
        """``once``: the numbers of the calls that succeed only once on a socket."""
        self._once = once
        self._kept: dict[int, tuple[Key, int, int]] = {}  # by thread: what its last withdrawn call came to

    def answered(self, call: Call, answer: Answer, *, delivered: bool) -> None:
        """``delivered``: somebody still waited for it.

        Linux takes an answer that comes between the signal and the withdrawal, and loses it (kernel/seccomp.c,
        seccomp_do_user_notification). A success that cannot be had a second time is therefore kept even so.
        """
        if answer.inode and (not delivered or (not answer.error and call.nr in self._once)):
            if len(self._kept) >= _MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
            self._kept[call.tid] = (_key(call, answer.inode), answer.value, answer.error)

    def find(self, call: Call, inode: int) -> Answer | None:
        """The answer, if ``call`` is the repeat of one that was carried out already."""
        kept = self._kept.pop(call.tid, None)  # any other call of this thread means that no repeat will come
        return Answer(kept[1], kept[2], inode) if kept is not None and kept[0] == _key(call, inode) else None


def _key(call: Call, inode: int) -> Key:
    """What a repeat has in common with the call: the address itself where there is one, else the plain arguments."""
    return (call.nr, inode, call.copied or call.args)

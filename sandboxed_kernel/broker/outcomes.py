"""Pure: what a handler may return for a call; ``dispatch`` carries it out, for every kind of call alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from sandboxed_kernel.broker.decisions import Refuse
from sandboxed_kernel.notices.events import Kind

NO_SOCKET = 1  # in the place of a socket's inode, for calls whose arguments alone say what was asked for

Line = Callable[[], str | None]


def _no_line() -> None:
    """Where no line of a policy would allow it."""


class Answer(NamedTuple):
    """What the call returns: ``value``, or -1 with the errno ``error``.

    ``inode``: of the socket, or NO_SOCKET. The answer is then kept for the call's repeat, where nobody heard it.
    ``after`` is done once the caller has the answer; it may wait.
    """

    value: int = 0
    error: int = 0
    inode: int = 0
    after: Callable[[], object] | None = None


class Refusal(NamedTuple):
    """The user and the audit log are told first, then the call fails with the verdict's errno.

    ``allow_line`` is asked where the user has to be told; most refusals are repeats, which are only counted.
    """

    verdict: Refuse
    kind: Kind
    address: str
    protocol: str = ""
    host: str | None = None
    port: int | None = None
    allow_line: Line = _no_line
    inode: int = 0


class Refused(Exception):
    """A refusal that is found where something is carried out."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.verdict.reason)
        self.refusal = refusal


Resume = Callable[[Answer | None], None]


class Later(NamedTuple):
    """Nothing can be said yet. ``subscribe(resume)`` is called at once, and ``resume`` once there is something: with
    the answer, or with None, for the call to be handled anew.
    """

    subscribe: Callable[[Resume], None]


class ToLandlock:
    """Linux carries the call out itself. Only for calls on paths, of which Landlock judges what is really opened, made,
    renamed or removed, whatever the caller has exchanged since: the broker has then decided nothing, and need not have.
    """


Outcome = Answer | Refusal | Later | ToLandlock | None  # None: the call has its answer already

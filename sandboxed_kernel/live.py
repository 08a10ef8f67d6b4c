"""Does: looks at the policy of a running sandbox when it matters, and reads it anew where its files have changed.

Nobody watches a file and no timer runs: the broker asks before it refuses something, and when a cell begins. The
network rules hold at once, more and fewer; everything else is applied when the kernel starts.
"""

from __future__ import annotations

import collections
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf

from sandboxed_kernel.errors import PolicyError, SandboxError
from sandboxed_kernel.policy.model import Policy, in_force

GRACE = 5.0  # seconds that the rules outlive their file: an editor may be about to write it
_PATIENCE = 1.0  # seconds for another thread that looks already
_RETRY = 1.0  # second between two readings of a policy with a mistake: what it extends is not known
_TICK = 0.03  # seconds; changes within one tick of Linux's clock (10 ms at most) have one time (inode(7))

_Mark = tuple[tuple[int, ...] | None, ...]


class LivePolicy:
    """The network rules of the policy as last accepted. Any thread may ``look``, several at once."""

    def __init__(
        self,
        policy: Policy,
        path: str,
        *,
        read: Callable[[], Policy],
        accept: Callable[[Policy], None],
        show: Callable[[Policy], None],
    ) -> None:
        """``policy`` is in force, as read from ``path``.

        ``read`` does what the launch did, ``accept`` judges where the files lie; both raise PolicyError.
        ``show`` is given each policy that was accepted.
        """
        self.words: collections.deque[str] = collections.deque(maxlen=20)  # sentences for the user, oldest first
        self._launched, self._current, self._path = policy, policy, path
        self._read, self._accept, self._show = read, accept, show
        self._lock = threading.Lock()
        self._began = inf  # when the thread that looks now began, of time.monotonic()
        self._number = 0
        self._files = _files(policy, path)
        self._mark = _mark(self._files)
        self._again = inf  # when to read it whatever its mark, of time.monotonic()
        self._ends = _first_end(policy)  # when a rule ends next, by the clock: it goes on while the machine sleeps
        self._gone_since: float | None = None
        self._said: object = None
        self._owners = {0, os.geteuid(), *_owners(self._files)}

    def look(self) -> tuple[int, Policy]:
        """The policy as last accepted, and how many were accepted before it. May wait for the disk: one thread as
        long as it takes, every other for a second at most.
        """
        patience = min(_PATIENCE, max(0.0, self._began + _PATIENCE - time.monotonic()))
        if not self._lock.acquire(timeout=patience):
            self._say("disk", f"{self._path} cannot be read, its disk does not answer: the rules from before hold.")
            return self._number, self._current
        try:
            self._began = now = time.monotonic()
            mark = _mark(self._files)
            if mark != self._mark or now >= self._again or time.time() >= self._ends:
                self._mark, self._again = mark, now + _RETRY  # should anything go wrong now
                self._look_closely(now)
            return self._number, self._current
        finally:
            self._began = inf
            self._lock.release()

    def _look_closely(self, now: float) -> None:
        is_gone = _is_empty(self._path)
        if is_gone and self._current.allow:
            self._gone_since = now if self._gone_since is None else self._gone_since
            self._again = self._gone_since + GRACE
            if now < self._again:
                self._apply(self._current)
                return
        try:
            policy = Policy() if is_gone else self._read()
            files = _files(policy, self._path)
            if files != self._files:
                self._files, self._mark = files, _mark(files)
            self._accept(policy)
            self._check_owners()
        except (SandboxError, OSError, ImportError) as error:  # of a host without memory or descriptors, too
            self._again = now + _RETRY
            self._say(str(error), f"{error}\nUntil it is mended, the rules from before hold.")
            self._apply(self._current)
            return
        self._again = now + _TICK if _is_fresh(self._mark) else inf
        if is_gone and self._gone_since is not None:
            self._say("gone", f"{self._path} is gone or empty: the default policy holds now, without any network.")
        self._gone_since = None
        self._say_what_waits(policy)
        self._apply(policy)

    def _check_owners(self) -> None:
        for path in self._files:
            for owner in _owners((path,)) - self._owners:
                write = "Give it back to the user who runs the kernel, or to root"
                raise PolicyError(path, f"it belongs to another user now (uid {owner})", write)

    def _say_what_waits(self, policy: Policy) -> None:
        launched, wanted = _at_start(self._launched), _at_start(policy)
        changed = [name for name, value in wanted.items() if value != launched[name]]
        if changed:
            words = f"{self._path} has changed: what it says under {', '.join(changed)} holds when the kernel is"
            self._say(wanted, f"{words} restarted.")

    def _apply(self, policy: Policy) -> None:
        current = in_force(policy, time.time())
        self._ends = _first_end(current)
        if current.allow != self._current.allow:
            self._number += 1
        self._current = current
        self._show(current)

    def _say(self, what: object, sentence: str) -> None:
        """Once for each ``what``."""
        if what != self._said:
            self._said = what
            self.words.append(sentence)


def _first_end(policy: Policy) -> float:
    """When a rule ends next, of time.time(); inf where none does."""
    return min((rule.until for rule in policy.allow), default=inf)


def _at_start(policy: Policy) -> dict[str, object]:
    """What only a start applies, by the words of the policy."""
    return {
        "project": policy.project,
        "[filesystem]": ({(grant.path, grant.writable) for grant in policy.grants}, {g.path for g in policy.required}),
        "[network] unix, proxy, pins": ({grant.path for grant in policy.unix}, policy.proxy, policy.pins),
        "[environment]": (
            set(policy.environment_pass),
            dict(policy.environment_set),
            {(each.name, each.path) for each in policy.environment_from},
        ),
        "[limits]": policy.limits,
        "active_content, accelerators, best_effort": (
            policy.active_content,
            policy.accelerators,
            policy.best_effort,
        ),
    }


def _files(policy: Policy, path: str) -> tuple[str, ...]:
    """The policy's own file, and those that it extends."""
    sources = (os.path.abspath(source) for source in policy.sources if not source.startswith("preset "))
    return (path, *(source for source in sources if source != path))


def _owners(files: tuple[str, ...]) -> set[int]:
    found = set()
    for path in files:
        with suppress(OSError, ValueError):
            found.add(os.stat(path).st_uid)
    return found


def _mark(files: tuple[str, ...]) -> _Mark:
    """Another one once a file has another content, or is another file."""
    return tuple(map(_mark_of, files))


def _mark_of(path: str) -> tuple[int, ...] | None:
    """By opening it: a client of a network file system may have kept what stat(2) says for a minute, and asks its
    server at an open (nfs(5), close-to-open cache consistency).
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _is_fresh(mark: _Mark) -> bool:
    """Whether a file was changed so recently that the next change could have the same time."""
    return any(one is not None and abs(time.time_ns() - one[-1]) < _TICK * 1e9 for one in mark)


def _is_empty(path: str) -> bool:
    try:
        return os.stat(path).st_size == 0
    except OSError:
        return True

"""Pure: what the launcher wants of the broker, as values and as the *does* parts of other folders that it hands in."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from sandboxed_kernel.records import Record

if TYPE_CHECKING:  # the launcher reads this before it forks, and would wait for each of them
    from sandboxed_kernel.hostnames.pins import Resolution
    from sandboxed_kernel.notices.events import Event
    from sandboxed_kernel.policy.guarded import Guard
    from sandboxed_kernel.policy.model import Policy


class Log(Protocol):
    """``notices.audit.AuditLog``."""

    def write(self, event: Event) -> None: ...


class Child(Protocol):
    """The confined process, as ``confinement.spawn`` gives it."""

    @property
    def pid(self) -> int: ...

    @property
    def warden(self) -> int:
        """Its parent: SIGTERM ends everything inside."""

    @property
    def listener(self) -> int: ...

    @property
    def status(self) -> int:
        """A pipe: how it ended, as from os.waitpid in decimal digits, once nothing inside is left.

        The end of file where the warden is gone.
        """

    @property
    def output(self) -> int | None:
        """The reading end of its standard output and error, or None where it writes to the launcher's own."""


class RunningPolicy(Protocol):
    """``sandboxed_kernel.live.LivePolicy``."""

    words: collections.deque[str]

    def look(self) -> tuple[int, Policy]: ...


class Orders(Record):
    """What the launcher wants of the broker; the functions are the *does* parts of other folders."""

    policy: Policy
    running_policy: RunningPolicy
    spawn: Callable[[], Child]
    confine_thread: Callable[[], None]
    open_log: Callable[[], Log]
    resolve: Callable[[list[str]], Iterable[tuple[str, Resolution]]]
    writable: tuple[str, ...]  # outside of the guarded folder
    hidden: tuple[str, ...]  # folders of the sandbox's own in which links to files of the user's stand
    guard: Guard | None
    start_guard: Callable[[], tuple[int, int]]  # its process and the descriptor to speak with it; raises OSError
    reserved_ports: frozenset[int]  # of the Jupyter server and the Hub
    sockets_of_parent: frozenset[int]  # the inodes of the sockets of who started the launcher: Jupyter's server, mostly
    own_hostname: str
    search_domains: tuple[str, ...]
    numbers: Mapping[str, int]
    clean_up: Callable[[], None]

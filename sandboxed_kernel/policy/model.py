"""Pure: what a policy says, as frozen values that are legal from birth.

Text becomes these values in ``file.py``; nothing here reads a file, a clock or the host.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import TYPE_CHECKING, Literal

from sandboxed_kernel.records import Record, made, replace

if TYPE_CHECKING:  # ipaddress is not wanted before the fork
    from sandboxed_kernel.hostnames.addresses import Network

Transport = Literal["tcp", "udp"]
Tls = Literal["checked", "unchecked"]
CHECKED_PORT = 443  # whose connections are checked where no line says otherwise


class Ports(Record):
    """An inclusive range of ports; ``Ports(1, 65535)`` is what ``host:*`` means. Raises ValueError for an empty one."""

    first: int
    last: int

    def __post_init__(self) -> None:
        if not 1 <= self.first <= self.last <= 65535:
            raise ValueError(f"no ports: {self.first} to {self.last}")

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last


class Destination(Record):
    """One entry of ``[network] allow``: where a connection may go.

    Exactly one of ``name`` and ``network`` is set. ``name`` is lower case, without a trailing dot, IDNA-encoded;
    with ``wildcard`` it is the part after ``*.`` and matches every proper subdomain, not itself.
    A single address is a ``/32`` or ``/128`` network. Raises ValueError for anything else.
    """

    name: str | None
    wildcard: bool
    network: Network | None
    ports: tuple[Ports, ...]
    transport: Transport
    private: bool  # a name may resolve to loopback and private ranges
    text: str  # as written in the policy, for explanations
    place: str  # "policy.toml: network.allow[2]", for explanations
    until: float = inf  # seconds since the epoch: from then on it is no rule
    tls: Tls | None = None  # whether the name in the TLS greeting is looked at; None: on CHECKED_PORT

    def __post_init__(self) -> None:
        if (self.name is None) == (self.network is None):
            raise ValueError(f"a destination is a name or a network: {self.name!r}, {self.network!r}")
        if self.name is not None and (not self.name or self.name != self.name.strip(".").lower()):
            raise ValueError(f"not lower case without dots at its ends: {self.name!r}")
        if self.wildcard and self.name is None:
            raise ValueError("only a name has a wildcard")
        if not self.ports:
            raise ValueError("a destination has ports")
        if self.tls is not None and (self.name is None or self.transport != "tcp"):
            raise ValueError("only names have something to be checked, in TLS over TCP")

    def has_port(self, port: int) -> bool:
        return any(port in ports for ports in self.ports)

    def matches_name(self, name: str) -> bool:
        """Whether the lower-case ``name`` (no trailing dot) is meant by this rule; False for address rules."""
        if self.name is None:
            return False
        return name.endswith("." + self.name) if self.wildcard else name == self.name


def asks_for_check(rules: Iterable[Destination], port: int) -> bool:
    """Whether the TLS greeting is looked at where ``rules`` (those for one name) let it be reached on the TCP ``port``.

    "checked" stands before "unchecked", and that before a line that says neither. A wildcard's "unchecked" leaves out
    the names that have a line of their own.
    """
    meant = [rule for rule in rules if rule.transport == "tcp" and rule.has_port(port)]
    if any(rule.tls == "checked" for rule in meant):
        return True
    own = [rule for rule in meant if not rule.wildcard] or meant
    return port == CHECKED_PORT and bool(own) and not any(rule.tls == "unchecked" for rule in own)


class PathGrant(Record):
    """One entry of ``[filesystem]``: an absolute, lexically normalised path (links are followed by the host)."""

    path: str
    writable: bool
    text: str
    place: str


class VariableFrom(Record):
    """One entry of ``[environment] from``: the variable ``name`` has the value that the file ``path`` gives it."""

    name: str
    path: str  # absolute
    text: str
    place: str


class Limits(Record):
    """``[limits]``; None means no limit. Sizes in bytes, time in seconds."""

    memory: int | None = None
    processes: int | None = None
    open_files: int | None = None
    cpu_seconds: int | None = None
    file_size: int | None = None


# What a host may lack and a policy may do without, by name (``best_effort = [...]``):
#   tcp      Landlock TCP rules, ABI 4, Linux 6.7 (the broker still decides every connect)
#   signals  Landlock signal scope, ABI 6, Linux 6.12
#   abstract Landlock abstract unix socket scope, ABI 6, Linux 6.12 (the broker still decides every connect)
#   truncate Landlock truncate right, ABI 3, Linux 6.2
#   ioctl    Landlock device ioctl right, ABI 5, Linux 6.10
BEST_EFFORT_NAMES = ("tcp", "signals", "abstract", "truncate", "ioctl")


ACCELERATOR_NAMES = ("nvidia", "amd", "all")


class Policy(Record):
    """Everything a user may decide. ``Policy()`` is the default: the notebook's folder writable, no network."""

    allow: tuple[Destination, ...] = ()
    proxy: tuple[str, int] | None = None  # (host as written, port): then the only reachable endpoint
    pins: Literal["session", "ttl"] = "session"
    unix: tuple[PathGrant, ...] = ()  # sockets of services outside that may be connected to; none is writable
    grants: tuple[PathGrant, ...] = ()
    required: tuple[PathGrant, ...] = ()  # must be there at the start; opens nothing, so none is writable
    accelerators: frozenset[str] = frozenset()  # of ACCELERATOR_NAMES
    environment_pass: tuple[str, ...] = ()
    environment_set: tuple[tuple[str, str], ...] = ()
    environment_from: tuple[VariableFrom, ...] = ()
    environment_from_elsewhere: tuple[VariableFrom, ...] = ()  # for other folders: closed here all the same
    limits: Limits = made(default_factory=Limits)
    active_content: Literal["strip", "allow"] = "strip"
    keep_home: bool = True
    home_limit: int = 10 << 30  # bytes of the private home, above which the next start says it
    best_effort: frozenset[str] = frozenset()
    project: str = ""  # absolute: all of it is the notebook's folder, which lies in it; empty: that alone is
    sources: tuple[str, ...] = ()  # the policy's file and the presets it extends, in reading order

    def folder_of(self, workspace: str) -> str:
        """What the notebook in ``workspace`` works in: its project, or that folder alone."""
        return self.project or workspace


def in_force(policy: Policy, now: float) -> Policy:
    """Without the rules whose time is over; ``now`` is in seconds since the epoch."""
    left = tuple(rule for rule in policy.allow if rule.until > now)
    return policy if left == policy.allow else replace(policy, allow=left)

"""Pure: which addresses the names of a policy mean, and therefore which rule lets a connect go to an address.

A pin is a name with the addresses it meant when it was looked up. Sandboxed code never chooses an address for a name:
it is told the pinned ones, and a connect is judged by them, so a name that changes its meaning later (DNS rebinding)
changes nothing. Nobody is asked here; the owner of a ``Pins`` calls ``upstream.resolve`` and hands the result to
``record``. Times are seconds of any monotonic clock. Not thread-safe: one thread owns it.

A wildcard rule is an open door for names: the question for ``anything-at-all.example.org`` goes to the name servers of
example.org, with whatever the sandboxed code wrote into it. That is inherent in allowing the wildcard
(docs/threat-model.md says so); a policy of exact names sends nothing that the sandbox chose.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from math import inf
from typing import Literal

from sandboxed_kernel.hostnames.addresses import Address, Kind, Range, find_range, is_localhost, plain
from sandboxed_kernel.policy.model import CHECKED_PORT, Destination, Transport, asks_for_check
from sandboxed_kernel.records import Record, made

LOCALHOST: tuple[Address, ...] = (IPv4Address("127.0.0.1"), IPv6Address("::1"))

# A hostile kernel may ask for a million names under a wildcard. The first ones stay pinned for good (an address once
# given out must stay usable), further names fail to resolve and the rest goes on; 1,024 names are some 2 MB.
MAX_WILDCARD_NAMES = 1024
MAX_ADDRESSES = 128  # of one name; in ttl mode its owner could otherwise add new ones for ever
MAX_DECISIONS = 4096  # remembered answers of rule_for

# A failed lookup is repeated on request after a second, then less and less often.
FIRST_RETRY, LONGEST_RETRY = 1.0, 60.0
IN_FLIGHT = 15.0  # due() does not name a name again that long: upstream takes 5 s at most, twice with search domains
# A record's time to live, in ttl mode: RFC 8767 section 4 reads odd values with the same caution.
DEFAULT_TTL, SHORTEST_TTL, LONGEST_TTL = 300, 30, 86400

_HOST_NAME = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*\Z")  # RFC 1123 section 2.1, and the underscore in use

# What a rule may open with private = true, and /etc/hosts by saying so. Nothing else that is not public is ever pinned.
_NEEDS_PRIVATE = frozenset({Kind.PRIVATE, Kind.LOOPBACK})

_CALLED = {
    Kind.PRIVATE: "an address of a private network",
    Kind.LOOPBACK: "this machine",
    Kind.LINK_LOCAL: "a link-local address",
    Kind.MULTICAST: "a multicast address",
    Kind.UNSPECIFIED: "no address of a server",
    Kind.RESERVED: "a reserved address",
    Kind.METADATA: "a cloud's metadata service",
}


class Resolution(Record):
    """What a lookup found. ``ttl`` is in seconds. ``error`` is for people, None where the lookup worked.

    ``no_such_name``: the name is known not to exist, as opposed to nobody having answered.
    """

    addresses: tuple[Address, ...] = ()
    ttl: int | None = None
    from_hosts_file: bool = False
    error: str | None = None
    no_such_name: bool = False


class Rejected(Record):
    """An address that a name was not allowed to mean. ``rule`` is the first one that names the name."""

    name: str
    address: Address
    kind: Kind
    rule: Destination
    reason: str  # one sentence, for people, with what to write where something can be written


class Known(Record):
    """The name is pinned to these addresses; never none."""

    addresses: tuple[Address, ...]


class NotAllowed(Record):
    """No rule names the name: nobody is to be asked for it."""


class Unresolved(Record):
    """Allowed, and upstream is to be asked now: for the first time, again after a failure, or because it expired."""


class Failed(Record):
    """Allowed, without an address, and it is too early to ask again."""

    error: str
    no_such_name: bool


LookUp = Known | NotAllowed | Unresolved | Failed


class Checked(Record):
    """The TLS greeting of a connection is looked at: what it may ask for.

    ``names``: those that mean the address, and that a rule names with the port; "localhost" where that is one.
    ``may_name_none``: it may leave that out, as some clients do for a server of their own network.
    """

    names: tuple[str, ...]
    may_name_none: bool


class _Entry(Record, frozen=False):
    """What is known of one name. The flag of an address: /etc/hosts says so."""

    addresses: dict[Address, bool] = made(default_factory=dict)
    error: str = "not looked up yet"
    no_such_name: bool = False
    failures: int = 0
    due: float = -inf  # when upstream may be asked again; inf is frozen
    asked: float = -inf  # due() named it, and does not again before


def normalise(name: str) -> str:
    """``name`` as names are compared: lower case, without the trailing dot."""
    return name.removesuffix(".").lower()


class Pins:
    """The names of a policy and what they mean. ``mode`` "session" keeps a name's first answer; "ttl" adds to it."""

    def __init__(self, allow: tuple[Destination, ...], mode: Literal["session", "ttl"] = "session") -> None:
        self._mode = mode
        self._misses: dict[str, _Entry] = {}  # wildcard names without an address, oldest first
        self._owners: dict[Address, dict[str, bool]] = {}
        self._decisions: dict[tuple[Address, int, Transport, bool], Destination | None] = {}
        self._checks: dict[tuple[Address, int], Checked | None] = {}
        self._set_rules(allow)
        self._entries = {name: _Entry() for name in self._exact}  # and wildcard names once they have addresses

    def _set_rules(self, allow: tuple[Destination, ...]) -> None:
        self._exact: dict[str, list[Destination]] = {}
        self._wildcards: dict[str, list[Destination]] = {}
        self._networks = tuple(rule for rule in allow if rule.network is not None)
        self._localhost = tuple(rule for rule in allow if rule.name is not None and is_localhost(rule.name))
        self._asks_for_checks = False
        for rule in allow:
            if rule.name is not None and not is_localhost(rule.name):
                asks = rule.transport == "tcp" and (rule.tls == "checked" or rule.has_port(CHECKED_PORT))
                self._asks_for_checks = self._asks_for_checks or asks
                (self._wildcards if rule.wildcard else self._exact).setdefault(rule.name, []).append(rule)

    def replace(self, allow: tuple[Destination, ...]) -> None:
        """Other rules from now on. A name that is still allowed keeps its addresses; where ``private`` is said of
        it now, or no longer, it is looked up anew.
        """
        known = {name: (entry, self._may_be_private(name)) for name, entry in self._entries.items() if entry.addresses}
        self._set_rules(allow)
        self._misses.clear()
        self._owners.clear()
        self._forget_decisions()
        self._entries = {name: _Entry() for name in self._exact}
        for name, (entry, private) in known.items():
            if self._rules_of(name) and self._may_be_private(name) is private:
                self._entries[name] = entry
                for address, from_hosts_file in entry.addresses.items():
                    self._owners.setdefault(address, {})[name] = from_hosts_file

    def _may_be_private(self, name: str) -> bool:
        return any(rule.private for rule in self._rules_of(name))

    # --- names ---------------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[str]:
        """The exact names to look up now: not resolved yet, or (ttl mode) expired. Each once per lookup.

        At the launch: all but wildcards, which have no name yet, and localhost. For callers that want new addresses
        without a question for them. Names under a wildcard are never due: they are
        looked up anew when somebody asks.
        """
        due = [name for name in self._exact if now >= max(self._entries[name].due, self._entries[name].asked)]
        for name in due:
            self._entries[name].asked = now + IN_FLIGHT
        return due

    def next_due(self) -> float:
        """When ``due`` will have something to say; inf where never."""
        return min((max(self._entries[name].due, self._entries[name].asked) for name in self._exact), default=inf)

    def look_up(self, name: str, now: float) -> LookUp:
        """What sandboxed code may know of ``name``, in any spelling. Changes nothing."""
        name = normalise(name)
        if is_localhost(name):
            return Known(LOCALHOST)
        if not self._rules_of(name):
            return NotAllowed()
        entry = self._entries.get(name) or self._misses.get(name)
        if entry is None:
            return Failed(self._too_many(), no_such_name=False) if self._is_full() else Unresolved()
        if now >= entry.due:
            return Unresolved()
        return Known(tuple(entry.addresses)) if entry.addresses else Failed(entry.error, entry.no_such_name)

    def record(self, name: str, resolution: Resolution, now: float) -> list[Rejected]:
        """Take in what upstream said of ``name``; the addresses that the guard refused come back, for the user to see.

        A lookup that brings no acceptable address counts as failed and freezes nothing. What arrives for a frozen name
        or for one that no rule names is ignored.
        """
        name = normalise(name)
        rules = self._rules_of(name)
        entry = self._entries.get(name) or self._misses.pop(name, None) or _Entry()
        if not rules or entry.due == inf:
            return []
        judged = [
            (plain(address), self._rejection(name, rules, address, resolution)) for address in resolution.addresses
        ]
        accepted = [address for address, rejected in judged if rejected is None]
        error = resolution.error or "it has no address that may be used"
        if name not in self._entries and self._is_full():
            accepted, error = [], self._too_many()
        entry.asked = -inf
        if accepted:
            self._pin(name, entry, accepted, resolution, now)
        else:
            entry.error, entry.no_such_name = error, resolution.no_such_name
            entry.due = now + min(FIRST_RETRY * 2**entry.failures, LONGEST_RETRY)
            entry.failures = min(entry.failures + 1, 16)
            if name not in self._entries:
                self._remember_miss(name, entry)
        return [rejected for _, rejected in judged if rejected is not None]

    def _pin(self, name: str, entry: _Entry, accepted: list[Address], resolution: Resolution, now: float) -> None:
        for address in accepted[: MAX_ADDRESSES - len(entry.addresses)]:
            entry.addresses[address] = resolution.from_hosts_file or entry.addresses.get(address, False)
            self._owners.setdefault(address, {})[name] = entry.addresses[address]
        ttl = DEFAULT_TTL if resolution.ttl is None else min(max(resolution.ttl, SHORTEST_TTL), LONGEST_TTL)
        entry.due = inf if self._mode == "session" else now + ttl
        entry.failures = 0
        self._entries[name] = entry
        self._forget_decisions()

    def _forget_decisions(self) -> None:
        self._decisions.clear()
        self._checks.clear()

    def _remember_miss(self, name: str, entry: _Entry) -> None:
        if len(self._misses) >= MAX_WILDCARD_NAMES:
            del self._misses[next(iter(self._misses))]
        self._misses[name] = entry

    def _is_full(self) -> bool:
        return len(self._entries) - len(self._exact) >= MAX_WILDCARD_NAMES

    @staticmethod
    def _too_many() -> str:
        return f"{MAX_WILDCARD_NAMES} names under wildcards are in use, and no more are pinned; name this one in a rule"

    def _rules_of(self, name: str) -> list[Destination]:
        """The rules that name the normalised ``name``, itself or by a wildcard. Nothing for what is no host name."""
        if len(name) > 253 or not _HOST_NAME.match(name):
            return []
        rules = list(self._exact.get(name, ()))
        parent = name
        while self._wildcards and (dot := parent.find(".")) >= 0:
            parent = parent[dot + 1 :]
            rules += self._wildcards.get(parent, ())
        return rules

    @staticmethod
    def _rejection(name: str, rules: list[Destination], address: Address, resolution: Resolution) -> Rejected | None:
        """The guard: what a name's owner, who may be hostile, cannot make the name mean."""
        row = find_range(address)
        if row.kind is Kind.PUBLIC:
            return None
        reason = f"{name} resolves to {address}, which is {_CALLED[row.kind]} ({row.reason})"
        if row.kind in _NEEDS_PRIVATE:
            if resolution.from_hosts_file or any(rule.private for rule in rules):
                return None
            reason += "; if that is meant, write the rule as a table with private = true"
        return Rejected(name, address, row.kind, rules[0], reason)

    # --- addresses -----------------------------------------------------------------------------------------------

    def rule_for(
        self, address: Address, port: int, transport: Transport, *, own_interface: bool = False
    ) -> Destination | None:
        """The rule that allows a connect to ``address`` and ``port``; None is no.

        A network rule that is wider than a special range does not speak for it: ``0.0.0.0/0:443`` is the internet, not
        this machine, the office or the metadata service. Those are named by a network inside their own range, and
        private ones and loopback also by ``private = true``. With ``own_interface``, an address of this machine, they
        and names do not speak for it either: services here listen on it, often behind a firewall.
        """
        key = (address, port, transport, own_interface)
        try:
            return self._decisions[key]  # on the path of every connect; a new address costs some 10 us more
        except KeyError:
            pass
        rules = self._rules_for(plain(address), own_interface=own_interface)
        rule = next((r for r in rules if r.transport == transport and r.has_port(port)), None)
        if len(self._decisions) >= MAX_DECISIONS:
            self._decisions.clear()
        self._decisions[key] = rule
        return rule

    def check_for(self, address: Address, port: int) -> Checked | None:
        """How a TCP connection to ``address`` and ``port``, which a rule allows, is to be looked at; None: not at all.

        The strictest of the names that mean the address decides, and it stands before networks: else the owner of one
        name could let it mean the address of another, and nobody would look there any more.
        """
        if not self._asks_for_checks:
            return None
        if (address, port) not in self._checks:
            if len(self._checks) >= MAX_DECISIONS:
                self._checks.clear()
            self._checks[address, port] = self._check(plain(address), port)
        return self._checks[address, port]

    def may_be_checked(self, port: int) -> bool:
        """Whether there is an address where ``check_for`` would say so of ``port``, once all names are looked up."""
        named = (*self._exact.values(), *self._wildcards.values())
        return self._asks_for_checks and any(asks_for_check(rules, port) for rules in named)

    def _check(self, address: Address, port: int) -> Checked | None:
        elsewhere = find_range(address).kind is Kind.PUBLIC
        names, asked, private = [], False, False
        for name, from_hosts_file in self._owners.get(address, {}).items():
            opens = [r for r in self._rules_of(name) if elsewhere or from_hosts_file or r.private]
            meant = [r for r in opens if r.transport == "tcp" and r.has_port(port)]
            if meant:
                names.append(name)
                asked = asked or asks_for_check(meant, port)
                private = private or any(rule.private for rule in meant)
        if not asked:
            return None
        only = len(names) == 1 and ("." not in names[0] or (private and not elsewhere))
        if address in LOCALHOST and any(r.transport == "tcp" and r.has_port(port) for r in self._localhost):
            names.append("localhost")
            only = False
        return Checked(tuple(names), only)

    def rule_for_name(self, name: str, port: int, transport: Transport) -> Destination | None:
        """The rule that names ``name``, ``port`` and ``transport``, whatever the name resolves to."""
        name = normalise(name)
        rules = [r for r in self._localhost if r.matches_name(name)] if is_localhost(name) else self._rules_of(name)
        return next((rule for rule in rules if rule.transport == transport and rule.has_port(port)), None)

    def is_checked(self, name: str, port: int) -> bool:
        """Whether the TLS greeting is looked at wherever ``name`` leads to, on the TCP ``port``."""
        return asks_for_check(self._rules_of(normalise(name)), port)

    def names_of(self, address: Address) -> tuple[str, ...]:
        """The names pinned to ``address``, for notices."""
        address = plain(address)
        return (("localhost",) if address in LOCALHOST else ()) + tuple(self._owners.get(address, ()))

    def is_pinned(self, address: Address) -> bool:
        """Whether some name means ``address``, on any port."""
        address = plain(address)
        return address in self._owners or address in LOCALHOST

    def _rules_for(self, address: Address, *, own_interface: bool) -> Iterator[Destination]:
        """The rules that mean ``address``, whatever their ports."""
        row = find_range(address)
        elsewhere = row.kind is Kind.PUBLIC and not own_interface
        for name, from_hosts_file in self._owners.get(address, {}).items():
            # One rule for the name may say private = true and another not: each opens what it says.
            yield from (r for r in self._rules_of(name) if elsewhere or from_hosts_file or r.private)
        if address in LOCALHOST:
            yield from self._localhost
        narrow = own_interface and row.kind is not Kind.LOOPBACK
        yield from (r for r in self._networks if _means(r, address, row) and (not narrow or r.private or _is_single(r)))


def _is_single(rule: Destination) -> bool:
    return rule.network is not None and rule.network.prefixlen == rule.network.max_prefixlen


def _means(rule: Destination, address: Address, row: Range) -> bool:
    """Whether the network ``rule`` means ``address``, which is what ``row`` says."""
    if rule.network is None or address not in rule.network:
        return False
    if row.kind is Kind.PUBLIC or (rule.private and row.kind in _NEEDS_PRIVATE):
        return True
    # The address is in both, so the rule's network lies inside the range exactly if its prefix is as long or longer.
    return rule.network.version == row.network.version and rule.network.prefixlen >= row.network.prefixlen

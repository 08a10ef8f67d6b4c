"""Pure: what ``sandboxed-kernel allow`` and ``forget`` change in a policy, on tables read by any TOML reader."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping, MutableSequence
from datetime import datetime
from math import inf
from typing import Any

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.destination import parse_destination
from sandboxed_kernel.policy.file import absolute
from sandboxed_kernel.policy.model import Destination, Policy
from sandboxed_kernel.policy.words import shown
from sandboxed_kernel.records import Record

Entry = Any  # of [network] allow: a string or a table, as tomllib gives them
NewTable = Callable[[Any, str], MutableMapping[str, Any]]


class Change(Record):
    """Entries to add, or with ``remove`` to take out. Paths are absolute."""

    allow: tuple[Entry, ...] = ()
    read: tuple[str, ...] = ()
    write: tuple[str, ...] = ()
    unix: tuple[str, ...] = ()
    presets: tuple[str, ...] = ()
    best_effort: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()  # to pass
    variables_from: tuple[tuple[str, str], ...] = ()  # (name, the file that it is read from)
    project: bool = False  # all of ``folder`` is the notebook's folder
    folder: str | None = None  # absolute: for notebooks beneath it only
    remove: bool = False
    now: float = 0.0  # seconds since the epoch: entries whose time was over by then go
    first: bool = False  # put before what is there, not behind it

    @property
    def is_empty(self) -> bool:
        return not self.words()

    def words(self) -> str:
        """For people who make it by hand."""
        named: tuple[tuple[str, tuple[Any, ...]], ...] = (
            ("extends", self.presets),
            ("best_effort", self.best_effort),
            ("network.allow", self.allow),
            ("network.unix", self.unix),
            ("filesystem.read", self.read),
            ("filesystem.write", self.write),
            ("environment.pass", self.variables),
            ("environment.from", tuple(f"{name} = {path}" for name, path in self.variables_from)),
            (f"the [[folder]] of {self.folder}", ("project = true",) if self.project else ()),
        )
        return ", ".join(f"{shown(entry)} in {key}" for key, entries in named for entry in entries)


def entry_for(text: str, *, private: bool = False, unchecked: bool = False, until: datetime | None = None) -> Entry:
    """The entry of ``[network] allow`` for ``host:port`` as a person writes it, its name in the form that is compared
    (``xn--``). With ``private`` the name may mean an address of a private network; ``unchecked``: what a TLS greeting
    asks for there is not looked at; ``until`` has a time zone. Raises PolicyError.
    """
    rule = parse_destination(text, "the command line")
    if unchecked:
        parse_destination(
            {"host": rule.name or _written_host(text), "port": 443, "tls": "unchecked"}, "the command line"
        )
    if rule.name is None and until is None:
        return text
    host = f"*.{rule.name}" if rule.wildcard else rule.name or _written_host(text)
    if until is None and not unchecked and (not private or rule.private):
        return f"{'udp://' if rule.transport == 'udp' else ''}{host}:{text.rpartition(':')[2]}"
    ports = [each.first if each.first == each.last else f"{each.first}-{each.last}" for each in rule.ports]
    entry: dict[str, Any] = {"host": host, **({"port": ports[0]} if len(ports) == 1 else {"ports": ports})}
    if rule.transport == "udp":
        entry["protocol"] = "udp"
    if private and not rule.private:
        entry["private"] = True
    if unchecked:
        entry["tls"] = "unchecked"
    return entry if until is None else {**entry, "until": until}


def _written_host(text: str) -> str:
    return re.sub(r"^[a-z]+://", "", text).rpartition(":")[0]


def entry_of(host: str | None, address: str | None, port: int | None, protocol: str, line: str | None) -> Entry | None:
    """The entry that would allow what an event tells of, made anew and not taken from its text; None where none can.

    Of a name whose port was not asked for yet, the ports of http and https.
    """
    if line is None or (host or address) is None:
        return None
    target = str(host or address)
    target = f"[{target}]" if ":" in target else target
    private, unchecked = "private = true" in line, 'tls = "unchecked"' in line
    match = re.search(r"\bport = ([0-9]{1,5})\b", line) if port is None and line.startswith("{") else None
    ports = "80,443" if port is None and not line.startswith("{") else str(port or (match[1] if match else 0))
    try:
        return entry_for(
            f"{'udp://' if protocol == 'udp' else ''}{target}:{ports}", private=private, unchecked=unchecked
        )
    except PolicyError:
        return None


def entry_text(entry: Entry) -> str:
    """As it stands in a policy, for people."""
    return shown(entry)


def apply(
    table: MutableMapping[str, Any],
    change: Change,
    old: Policy,
    home: str,
    *,
    new_table: NewTable | None = None,
    new_section: NewTable | None = None,
    new_inline: Callable[[], MutableMapping[str, Any]] = dict,
) -> None:
    """Make ``change`` in ``table``, which meant ``old``, in place. What is there already is not added again."""
    write = change.write
    if write and not change.remove and not any(grant.writable for grant in old.grants):
        write = (".", *write)  # without any line the notebook's folder is writable, and it shall stay so
    if change.folder is not None:
        section = _section(table, change.folder, home, None if change.remove else new_section or _new_section)
        if section is None:
            return
        table = section
    for place, key, entries, same in (
        ("", "extends", change.presets, _equal),
        ("", "best_effort", change.best_effort, _equal),
        ("network", "allow", change.allow, _same_destination),
        ("network", "unix", change.unix, _same_path(home)),
        ("filesystem", "read", change.read, _same_path(home)),
        ("filesystem", "write", write, _same_path(home)),
        ("environment", "pass", change.variables, _equal),
    ):
        if entries:
            array = _array(table, place, key, None if change.remove else new_table or _new_table)
            if array is not None:
                _change(array, entries, same, change)
    if change.project:
        _set(table, "project", None if change.remove else True)
    if change.variables_from and not (change.remove and "from" not in table.get("environment", ())):
        if "environment" not in table:
            (new_table or _new_table)(table, "environment")
        if "from" not in table["environment"]:
            table["environment"]["from"] = new_inline()
        for name, path in change.variables_from:
            _set(table["environment"]["from"], name, None if change.remove else path)


def _set(table: MutableMapping[str, Any], key: str, value: object) -> None:
    """With None it is taken out."""
    if value is None:
        table.pop(key, None)
    elif table.get(key) != value:
        table[key] = value


def _change(
    array: MutableSequence[Any], entries: tuple[Any, ...], same: Callable[[Any, Any], bool], change: Change
) -> None:
    expired = [index for index, there in enumerate(array) if not change.remove and _until(there) <= change.now]
    for index in reversed(expired):
        del array[index]
    for entry in entries:
        found = [index for index, there in enumerate(array) if same(there, entry)]
        if change.remove:
            for index in reversed(found):
                del array[index]
        elif found and _until(array[found[0]]) != inf:
            array[found[0]] = entry
        elif not found:
            array.insert(0 if change.first else len(array), entry)


def _new_table(table: Any, name: str) -> MutableMapping[str, Any]:
    table[name] = {}
    made: MutableMapping[str, Any] = table[name]
    return made


def _section(table: Any, folder: str, home: str, make: NewTable | None) -> MutableMapping[str, Any] | None:
    """The ``[[folder]]`` of ``folder``, made with ``make`` where it is missing; None where it is not to be made."""
    same = _same_path(home)
    for section in table.get("folder", ()):
        if same(section["path"], folder):
            found: MutableMapping[str, Any] = section
            return found
    return None if make is None else make(table, folder)


def _new_section(table: Any, folder: str) -> MutableMapping[str, Any]:
    made: MutableMapping[str, Any] = {"path": folder}
    table.setdefault("folder", []).append(made)
    return made


def _array(table: Any, place: str, key: str, make: NewTable | None) -> MutableSequence[Any] | None:
    """The array, made with ``make`` where it is missing; None where it is not to be made."""
    if place:
        if place not in table:
            if make is None:
                return None
            make(table, place)
        table = table[place]
    if key not in table:
        if make is None:
            return None
        table[key] = []
    found: MutableSequence[Any] = table[key]
    return found


def _until(entry: Any) -> float:
    entry = _plain(entry)
    until = entry.get("until") if isinstance(entry, dict) else None
    return until.timestamp() if isinstance(until, datetime) else inf


def _equal(one: Any, other: Any) -> bool:
    return bool(one == other)


def _same_destination(one: Any, other: Any) -> bool:
    return _meaning(parse_destination(_plain(one), "")) == _meaning(parse_destination(other, ""))


def _plain(entry: Any) -> Any:
    """tomlkit's values are of classes of their own."""
    return entry.unwrap() if hasattr(entry, "unwrap") else entry


def _meaning(rule: Destination) -> tuple[Any, ...]:
    return (rule.name, rule.wildcard, rule.network, rule.ports, rule.transport, rule.private, rule.tls)


def _same_path(home: str) -> Callable[[Any, Any], bool]:
    def same(one: Any, other: Any) -> bool:
        """A relative one means another folder for each notebook, and is equal to none but itself."""
        text = str(one)
        return text == other or (text.startswith(("/", "~")) and absolute(text, "/", home, "") == other)

    return same


def still_allowed(policy: Policy, entry: Entry) -> str | None:
    """The place of a rule that allows all of ``entry`` although it was taken out: a wider one, or one of a preset."""
    try:
        wanted = parse_destination(entry, "")
    except PolicyError:
        return None
    if wanted.name is None or wanted.wildcard:
        return None
    for rule in policy.allow:
        ports = all(any(a.first <= b.first and b.last <= a.last for a in rule.ports) for b in wanted.ports)
        if rule.matches_name(wanted.name) and ports and rule.transport == wanted.transport:
            return rule.place
    return None

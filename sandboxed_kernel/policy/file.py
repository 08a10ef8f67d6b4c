"""Pure: the text of a policy becomes a Policy, or a PolicyError that names file, key and index.

Reading files is ``read.py``'s; what one entry of ``[network] allow`` means is ``destination.py``'s.
``docs/policy.md`` describes every key; ``_KEYS`` is the list that runs.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from fractions import Fraction
from posixpath import isabs, join, normpath
from typing import Any, TypeVar

from sandboxed_kernel.errors import PolicyError
from sandboxed_kernel.policy.destination import parse_destination
from sandboxed_kernel.policy.model import (
    ACCELERATOR_NAMES,
    BEST_EFFORT_NAMES,
    Destination,
    Limits,
    PathGrant,
    Policy,
    Tls,
    VariableFrom,
)
from sandboxed_kernel.policy.paths import is_within
from sandboxed_kernel.policy.variables import NAME, kept_out
from sandboxed_kernel.policy.words import instead, key_name, shown, size_text, type_name
from sandboxed_kernel.records import Record, made

MAX_DEPTH = 8  # of extends; a policy that needs more is not understood by anyone
MAX_SOURCES = 64  # of one policy; bounds the work of files that extend one another twice
_LARGEST = 2**63 - 1  # RLIM_INFINITY - 1 and the largest cgroup value


class Source(Record):
    """The text of a policy or preset. ``place`` names it in errors; ``folder`` is what its relative extends start from;
    ``identity`` is equal for equal files (an absolute path, "preset:pypi"): that is how a cycle is seen."""

    place: str
    text: str
    folder: str
    identity: str


T = TypeVar("T")
Opener = Callable[[str, Source, str], Source]
"""``open_extended(entry, by, place)``: the Source that ``entry`` of the ``extends`` in ``by`` means, or PolicyError."""


def parse(text: str, *, place: str, workspace: str, home: str, presets: Mapping[str, str] | None = None) -> Policy:
    """The Policy that ``text`` (TOML) says; ``presets`` maps names to TOML texts. Raises PolicyError, nothing else.

    ``workspace`` and ``home`` are absolute paths: what relative paths and ``~`` start from. ``extends`` finds presets
    only; use ``read.load`` for a policy that extends other files.
    """
    known = presets or {}

    def open_preset(entry: str, _by: Source, place: str) -> Source:
        if entry not in known:
            raise unknown_extends(entry, place, known)
        return preset_source(entry, known[entry])

    source = Source(place, text, "/", place)
    return build(source, workspace=workspace, home=home, open_extended=open_preset)


def preset_source(name: str, text: str) -> Source:
    return Source(f"preset {name}", text, "/", f"preset:{name}")


def unknown_extends(entry: str, place: str, presets: Mapping[str, str]) -> PolicyError:
    known = ", ".join(sorted(presets)) or "none here"
    write = instead(entry, sorted(presets)) if presets else "Remove it"
    return PolicyError(
        place, f"{shown(entry)}: no such preset (presets: {known}) and no path that ends in .toml", write
    )


def build(
    source: Source, *, workspace: str, home: str, open_extended: Opener, seen: list[Source] | None = None
) -> Policy:
    """The Policy of ``source`` and all that it extends.

    What is extended comes first; lists add up, single values override. ``seen`` receives the sources in this order.
    """
    draft = _Draft(workspace, home)
    policy: Policy | None = None
    try:
        _add(source, (), draft, open_extended)
        policy = draft.policy()
    except PolicyError as error:
        draft.mistakes.append(error)
    if seen is not None:
        seen += draft.read
    if draft.mistakes or policy is None:
        from sandboxed_kernel.policy.syntax import gathered  # a start without mistakes does not wait for it

        raise gathered(draft.mistakes, draft.texts)
    return policy


def _add(source: Source, above: tuple[Source, ...], draft: _Draft, open_extended: Opener) -> None:
    """Read ``source`` into ``draft`` after what it extends. ``above`` are the sources that led here."""
    draft.sources.append(source.place)
    table = _toml(source)
    draft.texts[source.place] = source.text
    folders = _folders(table.pop("folder", []), source, draft)
    number = _longest(draft.workspace, folders)
    for index, (folder, section) in enumerate(folders):
        with draft.noting:
            if _is_project(section, f"{source.place}: folder[{index}]", extended=bool(above)) and index == number:
                draft.project = folder
    _extend(table, "", source, above, draft, open_extended)
    _read_table(table, _KEYS, source.place, "", draft)
    for index, (_folder, section) in enumerate(folders):
        path = f"folder[{index}]."
        if index == number:
            _extend(section, path, source, above, draft, open_extended)
            _read_table(section, _KEYS, source.place, path, draft)
        else:  # for its mistakes, and for files that kernels here may not write
            section.pop("extends", None)
            other = _Draft(draft.workspace, draft.home, mistakes=draft.mistakes)
            _read_table(section, _KEYS, source.place, path, other)
            draft.sourced_elsewhere += (each for each in other.sourced.values() if each.text.startswith(("/", "~")))
    draft.read.append(source)


def _folders(value: object, source: Source, draft: _Draft) -> list[tuple[str, dict[str, Any]]]:
    """The ``[[folder]]`` sections: an absolute path and the tables for notebooks beneath it."""
    found = []
    for index, section in enumerate(_array(value, f"{source.place}: folder", '[[folder]] and path = "~/project"')):
        place = f"{source.place}: folder[{index}]"
        with draft.noting:
            found.append(_folder(section, place, draft))
    return found


def _folder(section: object, place: str, draft: _Draft) -> tuple[str, dict[str, Any]]:
    tables = dict(_table(section, place, '[[folder]] and path = "~/project"'))
    if "path" not in tables:
        raise PolicyError(place, "no path", 'Write path = "~/project" under [[folder]]')
    text = _string(tables.pop("path"), f"{place}.path")
    if not text.startswith(("/", "~")):
        found_text = f"{shown(text)} starts from no fixed folder"
        raise PolicyError(f"{place}.path", found_text, 'Write an absolute path, or one from "~"')
    for number, entry in enumerate(_strings(tables.get("extends", []), f"{place}.extends")):
        if entry.endswith(".toml"):  # a file that only some kernels read is one that the others do not keep closed
            found_text = f"{shown(entry)}: a folder's section extends presets only"
            raise PolicyError(f"{place}.extends[{number}]", found_text, "Write it above the first [table]")
    return absolute(text, "/", draft.home, f"{place}.path"), tables


def _is_project(section: dict[str, Any], place: str, *, extended: bool) -> bool:
    value = section.pop("project", False)
    if not isinstance(value, bool):
        raise PolicyError(f"{place}.project", f"{shown(value)} is {type_name(value)}, not true or false", "Write true")
    if value and extended:  # it says what relative paths start from
        raise PolicyError(f"{place}.project", "it stands in a file that is extended", "Write it in the policy itself")
    return value


def _longest(workspace: str, folders: list[tuple[str, dict[str, Any]]]) -> int | None:
    """Which section is of the notebook's folder: the one whose path is the nearest above it, or it.

    By spelling: a link that somebody exchanges must not bring a notebook into another section.
    """
    above = [(len(path), index) for index, (path, _section) in enumerate(folders) if is_within(workspace, path)]
    return max(above)[1] if above else None


def _extend(
    table: dict[str, Any], path: str, source: Source, above: tuple[Source, ...], draft: _Draft, open_extended: Opener
) -> None:
    """Read what ``table``, which stands at ``path`` of ``source``, extends."""
    entries: list[object] = []
    with draft.noting:
        value = table.pop("extends", [])
        entries = _array(value, f"{source.place}: {path}extends", _in_brackets(value, otherwise='["pypi"]'))
    for index, entry in enumerate(entries):
        place = f"{source.place}: {path}extends[{index}]"
        extended: Source | None = None
        with draft.noting:
            extended = open_extended(_string(entry, place), source, place)
        if extended is None:
            continue
        _check_chain(extended, (*above, source), place)
        if len(draft.sources) >= MAX_SOURCES:
            raise PolicyError(place, f"more than {MAX_SOURCES} files and presets", "Extend fewer files")
        _add(extended, (*above, source), draft, open_extended)


def _check_chain(extended: Source, chain: tuple[Source, ...], place: str) -> None:
    if any(extended.identity == source.identity for source in chain):
        circle = " -> ".join(source.place for source in (*chain, extended))
        raise PolicyError(place, f"a cycle: {circle}", "Remove one of these extends")
    if len(chain) > MAX_DEPTH:
        raise PolicyError(place, f"more than {MAX_DEPTH} levels of extends", "Put the entries into fewer files")


def _toml(source: Source) -> dict[str, Any]:
    try:
        return tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        from sandboxed_kernel.policy.syntax import not_toml

        raise not_toml(source.text, source.place, error) from None
    except (ValueError, RecursionError):  # a number of more than 4,300 digits; arrays in arrays in arrays ...
        raise PolicyError(source.place, "not TOML: a value too long or too deep", "Write TOML (toml.io)") from None


# --- the policy while it is read -------------------------------------------------------------------------------------


class _Noting:
    """A block whose mistake is noted, so that the next one is found too."""

    def __init__(self, mistakes: list[PolicyError]) -> None:
        self._mistakes = mistakes

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> bool:
        if not isinstance(error, PolicyError):
            return False
        self._mistakes.append(error)
        return True


class _Draft(Record, frozen=False):
    """What has been read so far. Each method reads the value of one key; ``place`` is where it stands."""

    workspace: str  # the notebook's folder
    home: str
    project: str = ""  # of the notebook's folder, where the policy names one
    sources: list[str] = made(default_factory=list)
    read: list[Source] = made(default_factory=list)  # in full
    allow: list[Destination] = made(default_factory=list)
    unix: list[PathGrant] = made(default_factory=list)
    grants: list[PathGrant] = made(default_factory=list)
    required: list[PathGrant] = made(default_factory=list)
    passed: list[str] = made(default_factory=list)
    set: dict[str, str] = made(default_factory=dict)
    sourced: dict[str, VariableFrom] = made(default_factory=dict)
    sourced_elsewhere: list[VariableFrom] = made(default_factory=list)  # by sections of other folders
    limits: dict[str, int] = made(default_factory=dict)
    best_effort: list[str] = made(default_factory=list)
    accelerators: list[str] = made(default_factory=list)
    proxy: Destination | None = None
    single: dict[str, Any] = made(default_factory=dict)  # pins, active_content, keep_home, home_limit
    mistakes: list[PolicyError] = made(default_factory=list)
    texts: dict[str, str] = made(default_factory=dict)  # by the place that names them in errors

    @property
    def base(self) -> str:
        """What relative paths start from."""
        return self.project or self.workspace

    @property
    def noting(self) -> _Noting:
        return _Noting(self.mistakes)

    def policy(self) -> Policy:
        return Policy(
            allow=tuple(self.allow) if self.proxy is None else (self._only_proxy(self.proxy),),
            proxy=None if self.proxy is None else (_host(self.proxy), self.proxy.ports[0].first),
            unix=tuple(self.unix),
            grants=tuple(self.grants),
            required=tuple(self.required),
            accelerators=frozenset(self.accelerators),
            environment_pass=tuple(dict.fromkeys(self.passed)),
            environment_set=tuple(self.set.items()),
            environment_from=tuple(self.sourced.values()),
            environment_from_elsewhere=tuple(self.sourced_elsewhere),
            limits=Limits(**self.limits),
            best_effort=frozenset(self.best_effort),
            project=self.project,
            sources=tuple(dict.fromkeys(self.sources)),
            **self.single,
        )

    def _only_proxy(self, proxy: Destination) -> Destination:
        """With a proxy the sandbox sees no other host, so another rule would promise what does not hold."""
        for rule in self.allow:
            found = f"{shown(rule.text)}, but {proxy.place} makes the proxy the only reachable endpoint"
            raise PolicyError(
                rule.place, found, "Remove one of the two, and list what is allowed in the proxy's own rules"
            )
        return proxy

    def read_allow(self, value: object, place: str) -> None:
        found = self._each(value, place, '["pypi.org:443"]', parse_destination)
        with self.noting:
            _check_agreement(found)
        self.allow += found

    def _each(self, value: object, place: str, example: str, read: Callable[[object, str], T]) -> list[T]:
        """What ``read(entry, place)`` makes of the entries of an array; the mistakes of each are noted."""
        found = []
        for index, entry in enumerate(_array(value, place, example)):
            with self.noting:
                found.append(read(entry, f"{place}[{index}]"))
        return found

    def read_proxy(self, value: object, place: str) -> None:
        self.proxy = _proxy(_string(value, place), place)

    def read_pins(self, value: object, place: str) -> None:
        self.single["pins"] = _choice(value, ("session", "ttl"), place)

    def read_unix(self, value: object, place: str) -> None:
        self.unix += self._paths(value, place, writable=False)

    def read_active_content(self, value: object, place: str) -> None:
        self.single["active_content"] = _choice(value, ("strip", "allow"), place)

    def read_best_effort(self, value: object, place: str) -> None:
        example = _all(BEST_EFFORT_NAMES, value)
        self.best_effort += self._each(value, place, example, lambda entry, at: _choice(entry, BEST_EFFORT_NAMES, at))

    def read_accelerators(self, value: object, place: str) -> None:
        example = '["nvidia"]'
        self.accelerators += self._each(value, place, example, lambda entry, at: _choice(entry, ACCELERATOR_NAMES, at))

    def read_read(self, value: object, place: str) -> None:
        self.grants += self._paths(value, place, writable=False)

    def read_write(self, value: object, place: str) -> None:
        self.grants += self._paths(value, place, writable=True)

    def read_require(self, value: object, place: str) -> None:
        self.required += self._paths(value, place, writable=False)

    def _paths(self, value: object, place: str, *, writable: bool) -> list[PathGrant]:
        def grant(entry: object, at: str) -> PathGrant:
            text = _string(entry, at)
            return PathGrant(absolute(text, self.base, self.home, at), writable, text, at)

        return self._each(value, place, _in_brackets(value), grant)

    def read_pass(self, value: object, place: str) -> None:
        self.passed += self._each(
            value, place, _in_brackets(value), lambda entry, at: _variable(_string(entry, at), at)
        )

    def read_set(self, value: object, place: str) -> None:
        for name, text in _table(value, place, _as_table(value)).items():
            with self.noting:
                self._set(name, text, f"{place}.{key_name(name)}")

    def read_from(self, value: object, place: str) -> None:
        for name, text in _table(value, place, '{ API_KEY = "~/project/.env" }').items():
            where = f"{place}.{key_name(name)}"
            with self.noting:
                path = absolute(_string(text, where), self.base, self.home, where)
                self.sourced[_variable(name, where)] = VariableFrom(name, path, text, where)

    def _set(self, name: str, text: object, where: str) -> None:
        _variable(name, where)
        if not isinstance(text, str):
            raise PolicyError(where, f"{shown(text)} is {type_name(text)}", f"Write {shown(shown(text))}")
        if "\0" in text:
            raise PolicyError(where, "a NUL character", "Write text without it; no variable can hold one")
        self.set[name] = text

    def read_memory(self, value: object, place: str) -> None:
        self.limits["memory"] = _size(value, place, least=16 << 20, example='"4 GiB"')

    def read_file_size(self, value: object, place: str) -> None:
        self.limits["file_size"] = _size(value, place, least=4096, example='"10 GiB"')

    def read_processes(self, value: object, place: str) -> None:
        self.limits["processes"] = _integer(value, place, least=1, example="200")

    def read_open_files(self, value: object, place: str) -> None:
        # Below some 64 descriptors ipykernel's own sockets do not open, and the error would not say why.
        self.limits["open_files"] = _integer(value, place, least=64, example="1024")

    def read_cpu_seconds(self, value: object, place: str) -> None:
        self.limits["cpu_seconds"] = _integer(value, place, least=1, example="3600")

    def read_keep(self, value: object, place: str) -> None:
        if not isinstance(value, bool):
            raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not true or false", "Write false")
        self.single["keep_home"] = value

    def read_limit(self, value: object, place: str) -> None:
        self.single["home_limit"] = _size(value, place, least=1 << 20, example='"10 GiB"')


Reader = Callable[[_Draft, object, str], None]
Keys = Mapping[str, "Reader | Keys"]

_KEYS: Keys = {
    "best_effort": _Draft.read_best_effort,
    "network": {
        "allow": _Draft.read_allow,
        "proxy": _Draft.read_proxy,
        "pins": _Draft.read_pins,
        "unix": _Draft.read_unix,
    },
    "filesystem": {"read": _Draft.read_read, "write": _Draft.read_write, "require": _Draft.read_require},
    "accelerators": {"allow": _Draft.read_accelerators},
    "environment": {"pass": _Draft.read_pass, "set": _Draft.read_set, "from": _Draft.read_from},
    "limits": {
        "memory": _Draft.read_memory,
        "processes": _Draft.read_processes,
        "open_files": _Draft.read_open_files,
        "cpu_seconds": _Draft.read_cpu_seconds,
        "file_size": _Draft.read_file_size,
    },
    "home": {"keep": _Draft.read_keep, "limit": _Draft.read_limit},
    "outputs": {"active_content": _Draft.read_active_content},
}


def _read_table(table: Mapping[str, Any], keys: Keys, file: str, path: str, draft: _Draft) -> None:
    """Read every key of ``table``, which stands at ``path`` ("", "network.") of ``file``, by its reader in ``keys``."""
    for key, value in table.items():
        place = f"{file}: {path}{key_name(key)}"
        reader = keys.get(key)
        with draft.noting:
            if reader is None:
                raise PolicyError(place, "unknown key", _instead_of_key(key, keys, path))
            if isinstance(reader, Mapping):
                _read_table(_table(value, place, f"[{key}]"), reader, file, f"{path}{key}.", draft)
            else:
                reader(draft, value, place)


def _instead_of_key(key: str, keys: Keys, path: str) -> str:
    in_folder = path.startswith("folder[") and path.endswith("].")
    if not path or in_folder:
        # "allow" without its "[network]" is the commonest slip; so is "extends" below a table's header.
        for table, inner in _KEYS.items():
            if isinstance(inner, Mapping) and key in inner:
                return f'Write "{key}" under [{"folder." if in_folder else ""}{table}]'
    if not path:
        if key == "project":
            return "Write it under a [[folder]], beside its path"
        if key == "env":
            return 'Write "environment"'
        if key == "folders":
            return 'Write "folder"'
        return instead(key, ["extends", *keys])
    if (key == "extends" or key in _KEYS) and not any(name in key for name in keys):
        return f'Write "{key}" above the first [table]'
    if path == "network." and key in ("deny", "block", "refuse"):
        return "Remove it: what no entry of allow names is refused"
    if path == "environment." and NAME.fullmatch(key) and key.isupper():
        return f'Write set = {{ {key} = "..." }}'
    return instead(key, keys)


# --- values --------------------------------------------------------------------------------------------------------


def _array(value: object, place: str, example: str) -> list[Any]:
    if not isinstance(value, list):
        raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not an array", f"Write {example}")
    return value


def _table(value: object, place: str, example: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not a table", f"Write {example}")
    return value


def _string(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not a string", "Write it between quotes")
    return value


def _strings(value: object, place: str) -> list[str]:
    return [_string(item, f"{place}[{index}]") for index, item in enumerate(_array(value, place, _in_brackets(value)))]


def _in_brackets(value: object, otherwise: str = '["..."]') -> str:
    return f"[{shown(value)}]" if isinstance(value, str) else otherwise


def _all(names: tuple[str, ...], value: object) -> str:
    if isinstance(value, str) and value in names:
        return _in_brackets(value)
    return "[" + ", ".join(f'"{name}"' for name in names) + "]"


def _as_table(value: object) -> str:
    """``["A=1"]`` as the table that was meant."""
    pairs = [entry.partition("=") for entry in value if isinstance(entry, str)] if isinstance(value, list) else []
    known = [f"{name} = {shown(text)}" for name, equals, text in pairs if equals and NAME.fullmatch(name)]
    return "{ " + ", ".join(known) + " }" if known else '{ TZ = "UTC" }'


def _choice(value: object, choices: tuple[str, ...], place: str) -> str:
    if not isinstance(value, str):
        raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not a string", instead("", choices))
    text = value
    if text not in choices:
        raise PolicyError(place, f"{shown(text)} is none of its values", instead(text, choices))
    return text


def _integer(value: object, place: str, *, least: int, example: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not an integer", f"Write {example}")
    if not least <= value <= _LARGEST:
        found = (
            f"{shown(value)} is less than {size_text(least) if least > 1024 else least}"
            if value < least
            else f"{shown(value)} is more than any host has"
        )
        raise PolicyError(place, found, f"Write {example}, or remove the key for no limit")
    return value


# IEC 80000-13 (KiB) and SI (kB). "4G" is in neither: is it 4 GiB or 4 GB?
_UNITS = {"b": 1} | {
    f"{letter}{suffix}": base**power
    for power, letter in enumerate("kmgt", start=1)
    for suffix, base in (("b", 1000), ("ib", 1024))
}


def _size(value: object, place: str, *, least: int, example: str) -> int:
    """Bytes, from an integer or from a text with a unit."""
    if isinstance(value, str):
        match = re.fullmatch(r"([0-9]{1,19}(?:\.[0-9]{1,9})?) ?([A-Za-z]{1,3})", value)
        unit = _UNITS.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise PolicyError(
                place, f"{shown(value)} is not a size with a unit (B, KiB, MiB, GiB, TiB)", f"Write {example}"
            )
        size = int(Fraction(match[1]) * unit)
        if not least <= size <= _LARGEST:
            found = f"{shown(value)} is {'less' if size < least else 'more'} than a kernel can use"
            raise PolicyError(place, found, f"Write {example}, or remove the key for no limit")
        return size
    if isinstance(value, bool) or not isinstance(value, int):
        raise PolicyError(place, f"{shown(value)} is {type_name(value)}, not a size", f"Write {example}")
    return _integer(value, place, least=least, example=example)


def absolute(text: str, workspace: str, home: str, place: str) -> str:
    """The absolute path that ``text`` means, ``..`` and ``.`` taken out by spelling alone. Raises PolicyError."""
    if not text or "\0" in text:
        raise PolicyError(place, f"{shown(text)} is not a path", 'Write a path, for example "~/datasets"')
    if text.startswith("$"):
        raise PolicyError(
            place, f"{shown(text)}: variables are not filled in", 'Write the path itself; "~" is the home folder'
        )
    if "*" in text:
        raise PolicyError(
            place, f"{shown(text)}: patterns are not filled in", "Write the folder; all that is in it is meant"
        )
    if text.startswith("~"):
        user, _, rest = text[1:].partition("/")
        if user:
            raise PolicyError(place, f"{shown(text)}: the home of another user", "Write the absolute path")
        text = join(home, rest.lstrip("/"))
    path = normpath(text if isabs(text) else join(workspace, text))
    return "/" + path.lstrip("/")  # POSIX leaves the meaning of two leading slashes open; normpath keeps them


def _variable(name: str, place: str) -> str:
    if not NAME.fullmatch(name):
        found = f"{shown(name)} is not the name of a variable"
        raise PolicyError(place, found, "Write letters, digits and _; each variable by its whole name")
    reason = kept_out(name)
    if reason is not None:
        raise PolicyError(place, f"{name} is kept out of every sandbox: {reason}", "Remove it")
    return name


def _check_agreement(rules: list[Destination]) -> None:
    """Of one array. Raises PolicyError where it says of a host and port both that it is checked and that it is not."""
    said = [rule for rule in rules if rule.tls is not None]
    for index, rule in enumerate(said):
        for other in said[:index]:
            same = (rule.name, rule.wildcard) == (other.name, other.wildcard) and rule.tls != other.tls
            if same and any(a.first <= b.last and b.first <= a.last for a in rule.ports for b in other.ports):
                found = f'{shown(rule.text)}: tls = "{rule.tls}", but {other.place} says tls = "{other.tls}"'
                raise PolicyError(rule.place, found, "Remove one of the two")


def _proxy(text: str, place: str) -> Destination:
    """The proxy's endpoint as a rule; ``private``, since proxies live on private addresses and this one is named."""
    example = 'Write "http://127.0.0.1:3128"'
    scheme, separator, rest = text.rstrip("/").partition("://")
    if not separator or scheme.lower() != "http":
        raise PolicyError(place, f"{shown(text)} is not an http:// URL", example)
    if "@" in rest:
        raise PolicyError(place, "a user name or password, which the sandboxed code would see", example)
    if "/" in rest or "?" in rest or "#" in rest:
        raise PolicyError(place, f"{shown(text)}: a path", example)
    try:
        rule = parse_destination(rest, place)
    except PolicyError as error:
        reason = error.found.removeprefix(f"{shown(rest)}: ")
        raise PolicyError(place, f"{shown(text)}: {reason}", example) from None
    one_port = len(rule.ports) == 1 and rule.ports[0].first == rule.ports[0].last
    if rule.wildcard or not one_port or (rule.network is not None and rule.network.num_addresses != 1):
        raise PolicyError(place, f"{shown(text)} is not one endpoint", example)
    tls: Tls | None = None if rule.name is None else "unchecked"  # it is asked in HTTP, on whatever port
    return Destination(rule.name, False, rule.network, rule.ports, "tcp", True, text, place, tls=tls)


def _host(rule: Destination) -> str:
    return rule.name or (str(rule.network.network_address) if rule.network is not None else "")

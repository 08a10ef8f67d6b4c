"""Pure: from which file, section and line each entry of a policy comes, for ``sandboxed-kernel policy --origin``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Iterator
from typing import Any

from sandboxed_kernel.policy.file import Source
from sandboxed_kernel.policy.lines import Path, lines_of
from sandboxed_kernel.policy.words import shown
from sandboxed_kernel.records import Record, replace


class Origin(Record):
    """One entry of a policy: where it stands, and what it says."""

    place: str  # "/home/me/.config/sandboxed-kernel/policy.toml:7"
    section: str  # "[network] allow"
    value: str
    overridden: bool = False  # a later one says something else


def origins(sources: Iterable[Source]) -> list[Origin]:
    """Every entry of the texts in ``sources``, in which what is extended stands before what extends it."""
    found: list[Origin] = []
    single: dict[str, int] = {}  # of values that do not add up: which one holds
    for source in sources:
        lines = lines_of(source.text)
        for path, value in _entries(tomllib.loads(source.text), ()):
            in_folder = f"[[folder]] {path[1]} " if path[0] == "folder" else ""
            names = [str(part) for part in (path[2:] if in_folder else path) if not isinstance(part, int)]
            section = in_folder + (f"[{names[0]}] {'.'.join(names[1:])}" if len(names) > 1 else names[0])
            if not isinstance(path[-1], int):
                if section in single and not in_folder:
                    found[single[section]] = replace(found[single[section]], overridden=True)
                single[section] = len(found)
            found.append(Origin(f"{source.place}:{lines[path]}", section, shown(value)))
    return found


def _entries(value: Any, path: Path) -> Iterator[tuple[Path, Any]]:
    """Entries of arrays one by one, those that are tables (a destination) in one piece."""
    if isinstance(value, dict) and (not path or path[:-1] == ("folder",) or not isinstance(path[-1], int)):
        for key, item in value.items():
            yield from _entries(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _entries(item, (*path, index))
    else:
        yield path, value

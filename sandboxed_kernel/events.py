"""Pure: the event API for embedders: what the sandbox refused or newly allowed, as frozen values.

They come as lines of the audit log, as the data of ``comm_open`` on the target ``sandboxed_kernel``, and as
``application/vnd.sandboxed-kernel+json`` in a notebook's outputs: always the same JSON (``docs/events.schema.json``).

    for event in parse_lines(open("audit.jsonl")):
        print(event.verdict, event.host, event.allow_line)
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from sandboxed_kernel.notices.board import COMM_TARGET
from sandboxed_kernel.notices.events import SCHEMA_VERSION, Event, Kind
from sandboxed_kernel.notices.render import MIME, text

__all__ = ["COMM_TARGET", "MIME", "SCHEMA_VERSION", "Event", "Kind", "parse_line", "parse_lines", "text"]


def parse_line(line: str) -> Event:
    """One line of the audit log. Raises ValueError for what is no event of this schema version."""
    try:
        data = json.loads(line)
        if not isinstance(data, dict):
            raise ValueError("not a JSON object")
        return Event.from_json(data)
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"no event of schema version {SCHEMA_VERSION}: {error}") from error


def parse_lines(lines: Iterable[str]) -> Iterator[Event]:
    """Every event of an audit log; blank lines are passed over. Raises ValueError, naming the line."""
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            yield parse_line(line)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error

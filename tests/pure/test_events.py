"""The event's schema in docs/ says what the code says, and the log reads back as it was written."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandboxed_kernel import events
from sandboxed_kernel.events import Event, Kind

DOCS = Path(__file__).parents[2] / "docs"
SCHEMA = json.loads((DOCS / "events.schema.json").read_text())
LINES = [
    Event(
        "name", "refused", "no line names it", "dns", 1.5, 7, "python", host="a.example", allow_line='"a.example:443"'
    ),
    Event("connect", "allowed", "a line", "tcp", 2.0, 8, "curl", address="192.0.2.1", port=443, rule="policy.toml"),
]


def test_the_schema_has_the_keys_of_an_event() -> None:
    names = {"version"} | {field.name for field in fields(Event)}
    assert set(SCHEMA["properties"]) == names == set(SCHEMA["required"])
    assert set(SCHEMA["properties"]["kind"]["enum"]) == set(get_args(Kind))
    assert SCHEMA["properties"]["version"] == {"const": events.SCHEMA_VERSION}


def test_the_example_in_the_docs_is_an_event() -> None:
    (example,) = [part.split("```")[0] for part in (DOCS / "events.md").read_text().split("```json\n")[1:]]
    event = events.parse_line(example)
    assert event.to_json() == json.loads(example)


def test_a_log_is_read_back() -> None:
    log = [json.dumps(event.to_json()) + "\n" for event in LINES]
    assert list(events.parse_lines(["\n", *log])) == LINES


@given(st.text() | st.recursive(st.none() | st.integers() | st.text(), st.lists).map(json.dumps))
def test_what_is_no_event_is_a_value_error(line: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        events.parse_line(line)


def test_the_line_of_a_mistake_is_named() -> None:
    with pytest.raises(ValueError, match="line 2"):
        list(events.parse_lines([json.dumps(LINES[0].to_json()), "{}"]))

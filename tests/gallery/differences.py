"""Pure: the table of expected differences (differences.toml), and how what was found is held against it."""

from __future__ import annotations

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

FILE = Path(__file__).with_name("differences.toml")


@dataclass(frozen=True)
class Place:
    """One cell, counted from 1, and what of it differs: see ``compare.differences``, or ``picture``."""

    notebook: str
    cell: int
    what: str

    def __str__(self) -> str:
        return f"{self.notebook}:{self.cell} {self.what}"


@dataclass(frozen=True)
class Row:
    """One reason. ``bounds``: picture -> the largest share of it that may differ. ``defect``: ours, may be gone."""

    what: str
    why: str
    instead: str
    places: tuple[Place, ...]
    bounds: Mapping[Place, float]
    defect: bool


QUIET = 0.001  # what a picture may differ by without a row: a pixel in a thousand


def read(text: str) -> list[Row]:
    """ValueError, with the place, for a row that lacks something or a place that is listed twice."""
    rows = [_row(number, row) for number, row in enumerate(tomllib.loads(text).get("difference", []), 1)]
    places = [place for row in rows for place in row.places]
    if twice := [str(place) for place in places if places.count(place) > 1]:
        raise ValueError(f"differences.toml: listed twice: {twice}")
    return rows


def _row(number: int, row: Mapping[str, object]) -> Row:
    where = f"differences.toml, row {number}"
    if missing := {"what", "why", "instead", "places"} - row.keys():
        raise ValueError(f"{where}: no {sorted(missing)}")
    listed = row["places"]
    assert isinstance(listed, list), where
    found = [place for text in listed for place in _places(where, text)]
    places, limits = tuple(place for place, _ in found), {place: limit for place, limit in found if limit}
    return Row(str(row["what"]), str(row["why"]), str(row["instead"]), places, limits, row.get("defect") is True)


def _places(where: str, text: str) -> list[tuple[Place, float]]:
    """`pandas/styler:2 text/html picture<0.2` is two of one cell; 0 stands for no bound."""
    try:
        cell, *what = text.split()
        notebook, number = cell.split(":")
        pairs = [one.partition("<") for one in what]
        return [(Place(notebook, int(number), one), float(bound or 0)) for one, _, bound in pairs]
    except ValueError:
        raise ValueError(f'{where}: {text!r} is not like "folder/notebook:2 text/html picture<0.2"') from None


def bounds(rows: Collection[Row]) -> dict[Place, float]:
    """Pictures that may differ by more than ``QUIET`` -> by how much."""
    return {place: bound for row in rows for place, bound in row.bounds.items()}


def surprises(found: Collection[Place], rows: Collection[Row], notebooks: Collection[str]) -> dict[Place, str]:
    """What is not as the table says, of these ``notebooks``; what is listed and gone is to be taken out of it."""
    listed = {place: row for row in rows for place in row.places if place.notebook in notebooks}
    new = {place: "not in differences.toml" for place in found if place not in listed}
    gone = [place for place, row in listed.items() if place not in found and not row.defect]
    return new | dict.fromkeys(gone, "in differences.toml, but not found")

"""Every notebook of the gallery shows in the sandbox what it shows in a plain kernel, but for what the table lists.

First what is said, then what is drawn. Outputs that are the same letter for letter are drawn the same by the same page,
so only one notebook of each subject and library is drawn in spite of that.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from tests.gallery import compare, corpus, differences
from tests.gallery.compare import Shown
from tests.gallery.conftest import Both
from tests.gallery.corpus import Notebook
from tests.gallery.differences import QUIET, Place
from tests.gallery.pictures import Gallery, distance, save_pair
from tests.gallery.runs import Run

ROWS = differences.read(differences.FILE.read_text())
BOUNDS = differences.bounds(ROWS)
FIRST = {notebook.name for notebook in corpus.choose(corpus.read_all(), 10**6)}


def not_expected(found: Mapping[Place, object], notebook: Notebook, *, pictures: bool) -> dict[str, object]:
    """What is a surprise -> why, and both values."""
    surprises = differences.surprises(found, ROWS, {notebook.name})
    return {
        str(place): (why, found.get(place)) for place, why in surprises.items() if (place.what == "picture") is pictures
    }


def test_a_notebook_says_what_it_says_outside(notebook: Notebook, both: Both) -> None:
    plain, inside = both(notebook)
    found: dict[Place, object] = {}
    for number, cells in enumerate(zip(plain.book.cells, inside.book.cells, strict=True), 1):
        shown = [Shown(cell, run.folders) for cell, run in zip(cells, (plain, inside), strict=True)]
        for what, values in compare.differences(*shown).items():
            found[Place(notebook.name, number, what)] = values
    states = [compare.widget_states(run.book.metadata, run.folders) for run in (plain, inside)]
    if states[0] != states[1]:
        found[Place(notebook.name, 0, "widgets")] = states
    assert not_expected(found, notebook, pictures=False) == {}


def to_draw(notebook: Notebook, runs: list[Run]) -> tuple[list[Any], list[int]]:
    """Both books with what is drawn alone, and the cells, from 1, whose pictures say more than the test above."""
    books = [deepcopy(run.book) for run in runs]
    cells: list[int] = []
    for number, pair in enumerate(zip(*(book.cells for book in books), strict=True), 1):
        for cell in pair:
            cell["outputs"] = compare.drawn(cell["outputs"])
        outputs = [cell["outputs"] for cell in pair]
        same = compare.are_same(outputs, [run.folders for run in runs])
        if all(outputs) and (notebook.name in FIRST or not same):
            cells.append(number)
    return books, cells


def test_a_notebook_looks_as_outside(notebook: Notebook, both: Both, wall: Gallery, pairs: Path) -> None:
    books, cells = to_draw(notebook, both(notebook))
    if not cells:
        return
    plain, inside = (wall.draw(book, cells) for book in books)
    found: dict[Place, float] = {}
    for cell in cells:
        save_pair(pairs, f"{notebook.name.replace('/', '_')}_{cell}", plain[cell], inside[cell])
        place, share = Place(notebook.name, cell, "picture"), distance(plain[cell], inside[cell])
        if share > QUIET:
            found[place] = share
    wrong = {str(place): share for place, share in found.items() if share > BOUNDS.get(place, QUIET)}
    assert wrong == {}, f"more of these pictures differs than the table allows; see {pairs}"
    assert not_expected(found, notebook, pictures=True) == {}

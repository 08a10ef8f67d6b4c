"""The gallery's notebooks can be read, and docs/compatibility.md says what they and their table of differences say."""

from __future__ import annotations

import pytest

from tests.gallery import corpus, differences, page
from tests.gallery.differences import Place


def test_every_notebook_is_one_of_its_own() -> None:
    notebooks = corpus.read_all()
    assert len(notebooks) >= 150
    assert len({notebook.cells for notebook in notebooks}) == len(notebooks)


def test_a_cell_may_hold_fences() -> None:
    cells = corpus.parse("a/b", '# T\n\n```python\n1\n```\n\n````python\n"""\n```python\n"""\n````\n').cells
    assert cells == ("1", '"""\n```python\n"""')


@pytest.mark.parametrize("text", ["", "# T\n", "```python\n1\n```\n"])
def test_a_file_that_is_no_notebook_says_so(text: str) -> None:
    with pytest.raises(ValueError, match=r"a/b\.md: a notebook begins with"):
        corpus.parse("a/b", text)


@pytest.mark.parametrize("every", [1, 2, 4, 100])
def test_a_share_has_every_subject_and_every_library(every: int) -> None:
    notebooks = corpus.read_all()
    chosen = corpus.choose(notebooks, every)
    assert len(chosen) == len(notebooks) if every == 1 else len(chosen) < len(notebooks)
    assert {notebook.subject for notebook in chosen} == {notebook.subject for notebook in notebooks}
    wanted = {name for notebook in notebooks for name in notebook.libraries}
    assert {name for notebook in chosen for name in notebook.libraries} == wanted
    assert {"numpy", "openpyxl", "pint", "sqlalchemy", "itables", "plotly"} <= wanted


ROW = """
[[difference]]
what = "w"
why = "y"
instead = "i"
places = ["a/b:2 text/html picture<0.5", "a/c:1 stdout"]
"""


def test_what_is_new_and_what_is_gone_are_surprises() -> None:
    rows = differences.read(ROW)
    found = [Place("a/b", 2, "text/html"), Place("a/b", 3, "stdout")]
    surprises = differences.surprises(found, rows, {"a/b"})
    assert {str(place) for place in surprises} == {"a/b:3 stdout", "a/b:2 picture"}
    assert differences.bounds(rows) == {Place("a/b", 2, "picture"): 0.5}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ROW.replace("instead =", "else ="), "row 1: no"),
        (ROW.replace("a/b:2", "a/b"), "is not like"),
        (ROW + ROW, "listed twice"),
    ],
)
def test_a_row_that_is_wrong_says_where(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        differences.read(text)


def test_every_difference_is_of_a_cell_that_there_is() -> None:
    cells = {notebook.name: len(notebook.cells) for notebook in corpus.read_all()}
    rows = differences.read(differences.FILE.read_text())
    assert [str(place) for row in rows for place in row.places if place.cell > cells.get(place.notebook, -1)] == []


def test_the_page_is_fresh() -> None:
    text = page.PAGE.read_text()
    assert page.written(text) == text, "docs/compatibility.md is not what its sources say: make gallery-table"

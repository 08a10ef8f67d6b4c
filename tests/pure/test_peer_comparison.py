"""Two runs of a peer's suite: what is compared, what is a surprise in which direction, and the table of differences."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.peers import suites
from tests.peers.suites import Difference, Result

ROOT = Path(__file__).resolve().parents[2]
TABLE = (ROOT / "tests/peers/differences.toml").read_text()

PLAIN = {"a": Result("passed", used=True), "b": Result("passed", used=True), "c": Result("failed", used=True)}


def test_only_what_has_to_do_with_the_kernel_takes_part() -> None:
    assert suites.taking_part({**PLAIN, "own class": Result("passed")}) == PLAIN


@pytest.mark.parametrize(
    ("after", "found"),
    [
        ({"a": "passed", "b": "passed", "c": "failed"}, set()),
        ({"a": "failed", "b": "passed", "c": "failed"}, {Difference("a", "passed", "failed")}),
        ({"a": "passed", "b": "skipped", "c": "failed"}, {Difference("b", "passed", "skipped")}),
        ({"a": "passed", "b": "passed", "c": "passed"}, {Difference("c", "failed", "passed")}),
        ({"a": "passed", "c": "failed"}, {Difference("b", "passed", "not run")}),
        ({"a": "passed", "b": "passed", "c": "failed", "d": "failed"}, set()),
    ],
)
def test_every_other_end_is_a_difference(after: dict[str, str], found: set[Difference]) -> None:
    sandboxed = {test: Result(outcome) for test, outcome in after.items()}
    assert suites.differences(PLAIN, sandboxed) == found


def test_a_difference_is_a_surprise_in_either_direction() -> None:
    known, new = Difference("a", "passed", "failed"), Difference("b", "passed", "failed")
    assert suites.surprises({known}, {known}) == {}
    assert list(suites.surprises({known, new}, {known})) == [new]
    assert list(suites.surprises(set(), {known})) == [known]
    other_way = Difference("a", "passed", "skipped")
    assert set(suites.surprises({other_way}, {known})) == {other_way, known}


def test_each_row_of_the_table_is_of_a_suite_that_is_run_and_is_explained_to_users() -> None:
    """docs/compatibility.md names the test, without its folder, class and parameters."""
    explained = (ROOT / "docs/compatibility.md").read_text().partition("## Peer suites")[2]
    rows = {suite.project: suites.read_differences(TABLE, suite.project) for suite in suites.SUITES}
    assert sum(map(len, rows.values())) == TABLE.count('"tests/')
    for difference, reason in ((one, why) for found in rows.values() for one, why in found.items()):
        assert difference.plain != difference.sandboxed
        assert reason
        assert f"`{difference.test.rpartition('::')[2].partition('[')[0]}`" in explained

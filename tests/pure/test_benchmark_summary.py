"""The arithmetic of benchmarks/: a wrong ratio would look like a fast sandbox."""

from __future__ import annotations

import pytest

from benchmarks.model import Compare, Figure, Metric, Sample, Scale
from benchmarks.programs.timing import microseconds, p50, p99
from benchmarks.summary import as_data, summarise, text_of


def figure(compare: Compare) -> Figure:
    metrics = (Metric("m", "us", compare, "1.00x"),)
    return Figure("f", "what", lambda _contender, _scale: {}, metrics, 3, ("plain", "ours"))


def rounds(plain: list[float | None], ours: list[float | None]) -> dict[str, list[Sample | None]]:
    return {
        name: [None if value is None else {"m": value} for value in values]
        for name, values in (("plain", plain), ("ours", ours))
    }


@pytest.mark.parametrize(
    ("compare", "wanted"),
    # The medians alone would give 30 / 10 and 30 - 10: a round in which the machine was slow counts for both.
    [(Compare.RATIO, 1.5), (Compare.ADDED, 10.0), (Compare.NONE, None)],
)
def test_rounds_are_compared_in_pairs(compare: Compare, wanted: float | None) -> None:
    plain, ours = summarise(figure(compare), rounds([10, 20, 10], [11, 30, 30]))
    assert (plain.median, plain.against_plain) == (10, None)
    assert (ours.median, ours.against_plain) == (30, wanted)


def test_a_round_that_failed_for_one_is_no_pair() -> None:
    _plain, ours = summarise(figure(Compare.RATIO), rounds([10, None, 10], [None, 500, 20]))
    assert (ours.values, ours.against_plain) == ((500, 20), 2.0)


def test_who_has_no_sample_has_no_line() -> None:
    lines = summarise(figure(Compare.RATIO), rounds([None, None], [4, 6]))
    assert [(line.contender, line.median, line.against_plain) for line in lines] == [("ours", 5, None)]
    assert "goal 1.00x" in text_of(lines[0])


def test_the_file_holds_every_round() -> None:
    shown = figure(Compare.ADDED)
    data = as_data(shown, summarise(shown, rounds([1, 2], [3, 5])))
    assert data["metrics"] == {
        "m": {
            "unit": "us",
            "compare": "added",
            "goal": "1.00x",
            "median": {"plain": 1.5, "ours": 4.0},
            "against_plain": {"ours": 2.5},
            "rounds": {"plain": [1.0, 2.0], "ours": [3.0, 5.0]},
        }
    }


def test_quantiles_are_samples() -> None:
    samples = list(range(1000, 101_000, 1000))
    assert (p50(samples), p99(samples)) == (51_000, 100_000)
    assert p99([7]) == 7
    assert microseconds("m", samples) == {"m_p50": 51.0, "m_p99": 100.0}
    assert microseconds("m", []) == {}


def test_quick_is_less_but_never_nothing() -> None:
    assert (Scale().times(5000), Scale().seconds(15.0)) == (5000, 15.0)
    assert (Scale(quick=True).times(5000), Scale(quick=True).times(1), Scale(quick=True).seconds(15.0)) == (100, 2, 0.5)

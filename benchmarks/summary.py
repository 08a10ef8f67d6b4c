"""Pure: many samples -> medians and comparisons with plain. Ratios are medians of paired ratios: both of one round."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.model import Compare, Figure, Metric, Sample

PLAIN = "plain"

Rounds = Mapping[str, Sequence[Sample | None]]  # contender -> one sample a round, None where it failed


@dataclass(frozen=True, slots=True)
class Line:
    """What one contender came to in one metric."""

    metric: Metric
    contender: str
    median: float
    against_plain: float | None  # as metric.compare says
    values: tuple[float, ...]


def summarise(figure: Figure, rounds: Rounds) -> list[Line]:
    """In the order of the figure's metrics; a contender without a metric has no line."""
    lines = []
    for metric in figure.metrics:
        for contender, samples in rounds.items():
            values = tuple(sample[metric.name] for sample in samples if sample is not None and metric.name in sample)
            if values:
                against = None if contender == PLAIN else _against_plain(metric, samples, rounds.get(PLAIN, ()))
                lines.append(Line(metric, contender, median(values), against, values))
    return lines


def _against_plain(metric: Metric, samples: Iterable[Sample | None], plain: Iterable[Sample | None]) -> float | None:
    pairs = [
        (ours[metric.name], other[metric.name])
        for ours, other in zip(samples, plain, strict=False)
        if ours is not None and other is not None and metric.name in ours and metric.name in other
    ]
    if metric.compare is Compare.ADDED:
        found = [ours - other for ours, other in pairs]
    elif metric.compare is Compare.RATIO:
        found = [ours / other for ours, other in pairs if other]
    else:
        found = []
    return median(found) if found else None


def text_of(line: Line) -> str:
    """One printed line: metric, contender, median, comparison, goal."""
    against = ""
    if line.against_plain is not None:
        is_ratio = line.metric.compare is Compare.RATIO
        against = f"{line.against_plain:.2f}x" if is_ratio else f"{_number(line.against_plain, '+')} {line.metric.unit}"
    goal = f"goal {line.metric.goal}" if line.metric.goal and line.contender == "ours" else ""
    value = f"{_number(line.median)} {line.metric.unit}"
    return f"  {line.metric.name:<34} {line.contender:<9} {value:>16} {against:>14}  {goal}".rstrip()


def _number(value: float, sign: str = "") -> str:
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:{sign},.{digits}f}"


def as_data(figure: Figure, lines: Sequence[Line]) -> dict[str, object]:
    """One figure of the JSON file."""
    metrics: dict[str, object] = {}
    for metric in figure.metrics:
        own = [line for line in lines if line.metric is metric]
        metrics[metric.name] = {
            "unit": metric.unit,
            "compare": metric.compare.value,
            "goal": metric.goal,
            "median": {line.contender: line.median for line in own},
            "against_plain": {line.contender: line.against_plain for line in own if line.against_plain is not None},
            "rounds": {line.contender: list(line.values) for line in own},
        }
    return {"what": figure.what, "metrics": metrics}

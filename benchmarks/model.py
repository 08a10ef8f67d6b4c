"""Pure: what a figure and its metrics are. A figure measures one contender once; rounds and ratios come later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol


class Compare(StrEnum):
    """How a contender's metric is set against plain's of the same round."""

    RATIO = "ratio"  # contender / plain
    ADDED = "added"  # contender - plain, in the metric's unit
    NONE = "none"  # plain has no such thing


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a figure. ``goal`` is words from docs/performance.md, empty where there is none."""

    name: str
    unit: str
    compare: Compare = Compare.RATIO
    goal: str = ""


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured. ``quick`` shows that everything runs; its numbers mean nothing."""

    quick: bool = False

    def times(self, number: int) -> int:
        return max(2, number // 50) if self.quick else number

    def seconds(self, number: float) -> float:
        return min(number, 0.5) if self.quick else number


class Contender(Protocol):
    """One way of running untrusted code, or plain: the way without a sandbox."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def kernel(self, workspace: Path) -> list[str] | None:
        """A kernelspec's argv, None where it starts no Jupyter kernels."""

    def command(self, workspace: Path, allow: tuple[str, ...], resolv_conf: str | None) -> list[str]:
        """What stands before a command that may write ``workspace`` and reach ``allow`` (entries of a policy)."""


Sample = Mapping[str, float]  # metric -> value; a metric that the contender does not have is left out


@dataclass(frozen=True, slots=True)
class Figure:
    """A row of the table. ``rounds`` is how often each contender is measured, in turn."""

    name: str
    what: str
    measure: Callable[[Contender, Scale], Sample]
    metrics: tuple[Metric, ...]
    rounds: int
    contenders: tuple[str, ...]

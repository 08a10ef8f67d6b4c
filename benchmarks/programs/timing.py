"""Pure: how samples become numbers. Imported inside and outside."""

from __future__ import annotations

from collections.abc import Sequence


def p50(samples: Sequence[int]) -> float:
    return _quantile(samples, 0.50)


def p99(samples: Sequence[int]) -> float:
    return _quantile(samples, 0.99)


def _quantile(samples: Sequence[int], part: float) -> float:
    """The sample below which ``part`` of them lie (nearest rank)."""
    return float(sorted(samples)[min(len(samples) - 1, int(part * len(samples)))])


def microseconds(name: str, samples: Sequence[int]) -> dict[str, float]:
    """``name_p50`` and ``name_p99`` of samples in nanoseconds; nothing of none."""
    return {f"{name}_p50": p50(samples) / 1e3, f"{name}_p99": p99(samples) / 1e3} if samples else {}

"""Does: ``python -m benchmarks``: measures every contender in turn, prints medians and comparisons, writes JSON."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import contenders
from benchmarks.commands import Failed
from benchmarks.figures import FIGURES
from benchmarks.model import Contender, Figure, Sample, Scale
from benchmarks.summary import as_data, summarise, text_of

_RESULTS = Path(__file__).with_name("results")
_BUSY = 0.5  # load per processor above which the figures are those of a busy machine


def measured(figure: Figure, who: Mapping[str, Contender], rounds: int, scale: Scale) -> dict[str, list[Sample | None]]:
    """One sample per contender and round. Who begins changes with every round, so that nobody is always second."""
    names = [name for name in figure.contenders if name in who]
    found: dict[str, list[Sample | None]] = {name: [] for name in names}
    for number in range(rounds):
        shift = number % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            try:
                found[name].append(_complete(figure, name, figure.measure(who[name], scale)))
            except (Failed, OSError, TimeoutError) as error:
                print(f"  {figure.name}: {name} could not be measured: {error}", file=sys.stderr)
                found[name].append(None)
    return found


def _complete(figure: Figure, name: str, sample: Sample) -> Sample:
    """A peer may lack a metric; ours may not. Raises Failed."""
    missing = {metric.name for metric in figure.metrics} - sample.keys()
    if name == "ours" and missing:
        raise Failed(f"no {', '.join(sorted(missing))}")
    return sample


def report(figure: Figure, rounds: dict[str, list[Sample | None]], began: float) -> dict[str, object]:
    """Print one figure; its part of the JSON file."""
    number = max((len(samples) for samples in rounds.values()), default=0)
    print(f"\n{figure.name}: {figure.what}  [{number} rounds, {time.monotonic() - began:.0f} s]")
    lines = summarise(figure, rounds)
    for line in lines:
        print(text_of(line), flush=True)
    failed = {name: sum(sample is None for sample in samples) for name, samples in rounds.items()}
    return {**as_data(figure, lines), "failed": {name: count for name, count in failed.items() if count}}


def machine() -> dict[str, object]:
    return {
        "linux": platform.release(),
        "architecture": platform.machine(),
        "processors": os.cpu_count(),
        "python": platform.python_version(),
        "uid": os.geteuid(),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="What the sandbox costs, beside plain.")
    names = [figure.name for figure in FIGURES]
    parser.add_argument("--only", action="append", choices=names, metavar="FIGURE", help=f"of: {', '.join(names)}")
    parser.add_argument("--rounds", type=int, help="how often each contender is measured (default: each figure's own)")
    parser.add_argument("--quick", action="store_true", help="show that everything runs; the numbers mean nothing")
    parser.add_argument("--output", type=Path, help="the JSON file (default: benchmarks/results/DATE.json)")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    options = parse(arguments)
    scale = Scale(quick=options.quick)
    who = contenders.find()
    began, load = datetime.now(UTC), os.getloadavg()
    print(" ".join(f"{name} {contender.version};" for name, contender in who.items()), machine())
    figures, failed = {}, False
    for figure in FIGURES:
        if options.only and figure.name not in options.only:
            continue
        rounds = options.rounds or (1 if options.quick else figure.rounds)
        start = time.monotonic()
        samples = measured(figure, who, rounds, scale)
        figures[figure.name] = report(figure, samples, start)
        failed = failed or any(sample is None for sample in samples.get("ours", ()))
    _say_load(load[0])
    data = {
        "date": began.isoformat(timespec="seconds"),
        "quick": options.quick,
        "machine": machine(),
        "load": {"before": load, "after": os.getloadavg()},
        "contenders": {name: contender.version for name, contender in who.items()},
        "figures": figures,
    }
    print(f"\nWritten to {_write(data, options.output, began)}")
    return 1 if failed else 0


def _say_load(before: float) -> None:
    """Before, not after: the load afterwards is our own."""
    if before > _BUSY * (os.cpu_count() or 1):
        print(f"\nNOTE: the load was {before:.1f} before the first figure. Ratios hold better than numbers; run again.")


def _write(data: dict[str, object], output: Path | None, began: datetime) -> Path:
    path = output or _RESULTS / f"{began:%Y-%m-%dT%H%M%S}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: GPL-2.0-or-later
"""The report: medians with their spread, ratios and targets; as a table and as JSON."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from tests.bench.row import CLEAN, OURS, Metric, Target
from tests.bench.runner import Outcome, RowResult

BASELINES = ("direct", "pasta", "passt", "earlier", CLEAN)
REASON_WIDTH = 26
INDENT = "    "


@dataclass(frozen=True, slots=True)
class Value:
    """The median of a metric over the runs, with its extremes."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, outcome: Outcome, metric: str) -> "Value | None":
        values = [run[metric] for run in outcome.runs if metric in run]
        if not values:
            return None
        return cls(median(values), min(values), max(values))

    def show(self, digits: int) -> str:
        text = f"{self.median:.{digits}f}"
        if self.low == self.high:
            return text
        return f"{text} [{self.low:.{digits}f}-{self.high:.{digits}f}]"


@dataclass(frozen=True, slots=True)
class Check:
    """A target and whether it was reached; None when a number is missing."""

    target: Target
    reached: bool | None
    ratio: float | None

    def __str__(self) -> str:
        word = {True: "ok", False: "MISS", None: "?"}[self.reached]
        found = f" ({self.ratio:.2f})" if self.ratio is not None else ""
        return f"{self.target}: {word}{found}"


def check(result: RowResult, target: Target) -> Check:
    """Compare a row with one of its targets; any failed run is a miss."""
    outcome = result.outcomes.get(target.ours)
    if outcome is None:
        return Check(target, None, None)
    ours = Value.of(outcome, target.metric)
    if outcome.failures or ours is None:
        return Check(target, False, None)
    bound, ratio = target.bound, None
    value = ours.median if target.at_least or target.metric != "gap_ms" else ours.high
    if target.relative_to:
        other = result.outcomes.get(target.relative_to)
        base = Value.of(other, target.metric) if other else None
        if base is None or not base.median:
            return Check(target, None, None)
        bound, ratio = bound * base.median, value / base.median
    reached = value >= bound if target.at_least else value <= bound
    return Check(target, reached, ratio)


def _cell(outcome: Outcome, metric: Metric, first: bool) -> str:
    value = Value.of(outcome, metric.name)
    failed = outcome.failures[0] if outcome.failures else ""
    if value is None:
        if not (first and failed):
            return "-"
        if failed == "not applicable":
            return "n/a"
        return "failed: " + textwrap.shorten(failed, REASON_WIDTH, placeholder="…")
    mark = f" ({len(outcome.failures)} failed)" if first and failed else ""
    return value.show(metric.digits) + mark


def _ratios(result: RowResult, metric: Metric) -> str:
    found: list[str] = []
    ours = result.outcomes.get(OURS)
    mine = Value.of(ours, metric.name) if ours else None
    for name in BASELINES:
        other = result.outcomes.get(name)
        base = Value.of(other, metric.name) if other else None
        if mine and base and base.median:
            found.append(f"{mine.median / base.median:.2f}× {name}")
    return ", ".join(found)


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    rule = ["-" * width for width in widths]
    for line in (header, rule, *lines):
        cells = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        yield ("| " + " | ".join(cells) + " |").rstrip()


def _lines(result: RowResult) -> Iterator[list[str]]:
    for number, metric in enumerate(result.row.metrics):
        cells = [
            _cell(outcome, metric, number == 0) for outcome in result.outcomes.values()
        ]
        if number and all(cell == "-" for cell in cells):
            continue
        targets = [t for t in result.row.targets if t.metric == metric.name]
        verdicts = "; ".join(str(check(result, target)) for target in targets)
        title = result.row.title if number == 0 else ""
        ratios = _ratios(result, metric) if metric.compare else ""
        yield [title, metric.unit, *cells, ratios, verdicts]


def table(results: Sequence[RowResult]) -> str:
    """All rows, one table for each set of columns."""
    blocks: dict[tuple[str, ...], list[list[str]]] = {}
    for result in results:
        lines = blocks.setdefault(tuple(result.outcomes), [])
        lines.extend(_lines(result))
    texts = []
    for columns, lines in blocks.items():
        if columns:
            header = ["work", "unit", *columns, f"{OURS} is", "target"]
            texts.append("\n".join(_table(header, lines)))
    return "\n\n".join(texts)


def micro_table(found: Sequence[tuple[str, float, str]]) -> str:
    """The flow-table micro-benchmarks."""
    lines = [[name, f"{value:g}", unit] for name, value, unit in found]
    return "\n".join(_table(["flow table", "value", "unit"], lines))


def failures(results: Sequence[RowResult]) -> Iterator[str]:
    """Every failure in full: the table has room for a few words only."""
    for result in results:
        for name, outcome in result.outcomes.items():
            for reason in dict.fromkeys(outcome.failures):
                if reason != "not applicable":
                    yield f"{INDENT}{result.row.key}, {name}: {reason}"


def as_json(results: Sequence[RowResult]) -> list[Mapping[str, Any]]:
    """The same with every single value, for machines."""
    return [
        {
            "key": result.row.key,
            "group": result.row.group,
            "title": result.row.title,
            "units": {metric.name: metric.unit for metric in result.row.metrics},
            "columns": {
                name: {"runs": outcome.runs, "failures": outcome.failures}
                for name, outcome in result.outcomes.items()
            },
            "targets": [
                {
                    "metric": c.target.metric,
                    "of": c.target.ours,
                    "target": str(c.target),
                }
                | {"reached": c.reached, "ratio": c.ratio}
                for c in (check(result, target) for target in result.row.targets)
            ],
        }
        for result in results
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Running the plan: the columns of a row take turns, so that drift hits them all.

Every row begins with freshly started translators, so that what one row broke
cannot spoil the next.
"""

import itertools
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import Any

from tests.bench.cell import Cell
from tests.bench.measure import Metrics
from tests.bench.row import OURS, Row
from tests.bench.served import OnSocket, Served
from tests.lab import TRANSLATORS, Attached, Lab, LabError, Translator
from tests.lab.translators import ROOT

# What a translator may do to a measurement without ending the whole benchmark.
FAILURES = (LabError, OSError, RuntimeError, subprocess.SubprocessError)

fresh_ports = itertools.count(20000)


@dataclass(frozen=True, slots=True)
class Column:
    """One contender in a row."""

    name: str
    translator: Translator
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Outcome:
    """What one column reached in one row."""

    runs: list[Metrics] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RowResult:
    """One row with the outcomes of its columns, in order."""

    row: Row
    outcomes: Mapping[str, Outcome]


def columns_of(row: Row, peers: Sequence[str]) -> list[Column]:
    """The chosen of its contenders, or its own variants if we are among the chosen."""
    if row.variants is None:
        return [
            Column(name, translator)
            for name, translator in row.contenders.items()
            if name in peers and name not in row.without
        ]
    if OURS not in peers:
        return []
    ours = TRANSLATORS[OURS]
    return [Column(name, ours, env) for name, env in row.variants.items()]


def attach(lab: Lab, row: Row, column: Column, forwarded: tuple[int, ...]) -> Attached:
    """The translator of a column, at work in a row and serving its ports."""
    if missing := column.translator.why_missing():
        raise LabError(missing)
    changes: dict[str, Any] = {row.forward: forwarded} if row.forward else {}
    attachment = replace(row.attachment, env=column.env, **changes)
    if isinstance(column.translator, OnSocket):
        return column.translator.serve(lab, attachment)
    attached = lab.attach(column.translator, attachment)
    if row.variants is not None and attached.process:
        _check_debug_build(attached, column)
    return attached


def _check_debug_build(attached: Attached, column: Column) -> None:
    wanted = column.env["PYTHONPATH"]
    if attached.process and wanted not in attached.process.maps():
        attached.close()
        shown = wanted.removeprefix(f"{ROOT}/")
        raise LabError(f"the debug build in {shown} was not loaded")


def _last_line(error: BaseException) -> str:
    return str(error).strip() or type(error).__name__


def run_row(
    lab: Lab,
    row: Row,
    columns: Sequence[Column],
    runs: int,
    seconds: float,
    say: Callable[[str], None],
) -> RowResult:
    """Measure every column ``runs`` times, taking turns."""
    outcomes = {column.name: Outcome() for column in columns}
    if row.congestion:
        for where in (lab.host, lab.remote):
            where.sysctl("net.ipv4.tcp_congestion_control", row.congestion)
    with ExitStack() as stack:
        cells: dict[str, Cell] = {}
        for column in columns:
            ports = tuple(itertools.islice(fresh_ports, runs))
            try:
                attached = stack.enter_context(attach(lab, row, column, ports))
            except FAILURES as error:
                outcomes[column.name].failures.append(_last_line(error))
            else:
                cells[column.name] = Cell(
                    lab, column.translator, attached, seconds, iter(ports)
                )
        for turn in range(1 if row.once else runs):
            for name, cell in cells.items():
                say(f"{row.title}: {name}, run {turn + 1}")
                try:
                    if turn and isinstance(cell.attached, Served):
                        cell.attached.renew()
                    cell.attached.check_alive()
                    outcomes[name].runs.append(row.measure(cell))
                except FAILURES as error:
                    outcomes[name].failures.append(_last_line(error))
    return RowResult(row, outcomes)

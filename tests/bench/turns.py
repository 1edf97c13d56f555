# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m tests.bench.turns [ROW…]``: where the longest turns beside a flood go.

A counter of the datapath says how long the longest turn was, but not whose time it was:
the kernel serves interrupts of others in the time of whoever runs, and gives the
processor to others. ``perf`` records both, and when a turn begins and ends. So this
prints, for each row about floods, the longest turns by the clock, on a processor, and
without what the kernel did for others meanwhile.
"""

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from heapq import nlargest
from itertools import islice
from pathlib import Path

import passtpy._native
from tests.bench import loadgen
from tests.bench.cell import Cell
from tests.bench.flood import Flood, flood_rows
from tests.bench.row import OURS, Row
from tests.bench.runner import attach, columns_of, fresh_ports
from tests.lab import Lab, LabError, why_unavailable

MODULE = passtpy._native.__file__
GROUP = "passtpy_turns"
SECONDS = 2.0
SHOWN = 3
LINE = re.compile(r"\s*\d+\s+([\d.]+):\s+(\S+?):? (.*)$")


@dataclass(slots=True)
class Turn:
    """One turn, in microseconds; ``softirqs`` while the turn had the processor."""

    begin: float
    took: float = 0.0
    waited: float = 0.0
    softirqs: float = 0.0

    @property
    def on_cpu(self) -> float:
        return self.took - self.waited

    @property
    def own(self) -> float:
        return self.on_cpu - self.softirqs


def turns(lines: Iterable[str]) -> Iterator[Turn]:
    """The turns in what ``perf script`` prints of one thread, oldest first."""
    turn: Turn | None = None
    away = serving = 0.0
    for line in lines:
        if not (found := LINE.match(line)):
            continue
        now, event, more = float(found[1]) * 1e6, found[2], found[3]
        if event.endswith(":begin"):
            turn = Turn(now)
        elif turn is None:
            continue
        elif event.startswith(f"{GROUP}:end"):
            turn.took = now - turn.begin
            yield turn
            turn = None
        elif event.endswith("softirq_entry"):
            serving = now
        elif event.endswith("softirq_exit") and serving > turn.begin:
            turn.softirqs += now - serving
        elif event == "PERF_RECORD_SWITCH" and "OUT" in more:
            away = now
        elif event == "PERF_RECORD_SWITCH" and away > turn.begin:
            turn.waited += now - away


def _perf(*words: str) -> str:
    done = subprocess.run(["perf", *words], capture_output=True, text=True)
    if done.returncode:
        raise LabError(f"perf {words[0]}: {done.stderr.strip()}")
    return done.stdout


@contextmanager
def _probes() -> Iterator[None]:
    """Events at the beginning and the end of a turn."""
    for probe in ("begin=py_turn", "end=py_turn%return"):
        _perf("probe", "-q", "-f", "-x", MODULE, f"{GROUP}:{probe}")
    try:
        yield
    finally:
        _perf("probe", "-q", "-d", f"{GROUP}:*")


@contextmanager
def _recorded(pid: int, path: Path) -> Iterator[None]:
    events = f"{GROUP}:*,irq:softirq_entry,irq:softirq_exit"
    words = ["perf", "record", "-q", "-m", "4M", "--switch-events", "-e", events]
    recorder = subprocess.Popen([*words, "-t", str(pid), "-o", str(path)])
    time.sleep(0.5)
    try:
        yield
    finally:
        recorder.send_signal(signal.SIGINT)
        recorder.wait()


def _measure(row: Row, folder: Path) -> list[Turn]:
    assert isinstance(row.measure, Flood)
    (column,) = columns_of(row, (OURS,))
    ports = tuple(islice(fresh_ports, 1))
    path = folder / row.key
    with Lab() as lab, attach(lab, row, column, ports) as attached:
        if not attached.process:
            raise LabError("nothing to measure")
        cell = Cell(lab, column.translator, attached, SECONDS, iter(ports))
        with _recorded(attached.process.pid, path):
            row.measure.disturb(cell)
    text = _perf(
        *("script", "-i", str(path), "--ns", "--show-switch-events"),
        *("-F", "tid,time,event,trace"),
    )
    return list(turns(text.splitlines()))


def _longest(figures: Iterable[float]) -> str:
    return ", ".join(f"{us / 1e3:.2f}" for us in nlargest(SHOWN, figures))


def main(keys: list[str]) -> int:
    """Print a table of the longest turns of the rows with these keys, or of all."""
    if reason := why_unavailable():
        print(f"turns: {reason}", file=sys.stderr)
        return 1
    loadgen.build()
    print("| Row | turns | by the clock, ms | on a processor, ms | our own, ms |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder, _probes():
        for row in flood_rows():
            if keys and row.key not in keys:
                continue
            found = _measure(row, Path(folder))
            columns = (
                _longest(turn.took for turn in found),
                _longest(turn.on_cpu for turn in found),
                _longest(turn.own for turn in found),
            )
            print(f"| {row.title} | {len(found)} | {' | '.join(columns)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

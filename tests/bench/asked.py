# SPDX-License-Identifier: GPL-2.0-or-later
"""Asking our translator, at its control socket, what it has counted."""

from pathlib import Path

from passtpy.client.connect import Client
from passtpy.config.instance import SUFFIX
from tests.bench.cell import Cell
from tests.bench.measure import Metrics
from tests.bench.row import Metric, Target
from tests.lab import Attached

RUNTIME_FOLDER = Path("/run/passtpy")  # of root's instances
TURN_METRICS = (
    Metric("turn_work_us", "longest turn, work, µs", 0),
    Metric("turn_ms", "longest turn by the clock, ms", 1),
    Metric("turn_cpu_ms", "of that on a processor, ms", 1),
)
TURN_TARGET = Target("turn_work_us", 5000, at_least=False)


def control_socket(attached: Attached) -> Path | None:
    """The control socket of an attached translator, if it has one by now."""
    for pid in attached.process.tree() if attached.process else ():
        path = RUNTIME_FOLDER / f"{pid}{SUFFIX}"
        if path.exists():
            return path
    return None


def counters(cell: Cell, path: Path) -> dict[str, int]:
    """Every counter, since the start of the daemon."""
    with cell.lab.host.entered():
        told: dict[str, int] = Client(str(path)).ask("GET", "/v1/stats")["counters"]
    return told


def longest_turn(told: dict[str, int]) -> Metrics:
    """The longest turn: counted work, by the clock, and time on a processor."""
    return {
        "turn_work_us": told["turn_work_max"] / 1e3,
        "turn_ms": told["turn_ns_max"] / 1e6,
        "turn_cpu_ms": told["turn_cpu_ns_max"] / 1e6,
    }

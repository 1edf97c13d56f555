# SPDX-License-Identifier: GPL-2.0-or-later
"""What a row of the benchmark is: work, numbers, targets; and what many rows share.

Targets are informative. They stand in the report as "ok" or "MISS" and fail
nothing, because no number of a shared machine should.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from tests.bench.cell import Cell
from tests.bench.measure import Metrics
from tests.lab.translators import TRANSLATORS, Attachment, Translator

OURS = "passtpy"
CLEAN = "lossless"


@dataclass(frozen=True, slots=True)
class Metric:
    """A number in a row, how it is written, and whether its ratio means anything."""

    name: str
    unit: str
    digits: int = 1
    compare: bool = True


@dataclass(frozen=True, slots=True)
class Target:
    """``ours`` compared with ``bound``, times another column's value if named."""

    metric: str
    bound: float
    at_least: bool
    relative_to: str | None = None
    ours: str = OURS

    def __str__(self) -> str:
        sign = "≥" if self.at_least else "≤"
        base = f"× {self.relative_to}" if self.relative_to else ""
        who = f"{self.ours} " if self.ours != OURS else ""
        return f"{who}{sign} {self.bound:g}{base}"


@dataclass(frozen=True, slots=True)
class Row:
    """The same work for every column."""

    key: str
    group: str
    title: str
    measure: Callable[[Cell], Metrics]
    metrics: tuple[Metric, ...]
    targets: tuple[Target, ...] = ()
    attachment: Attachment = field(default_factory=Attachment)
    # Ports to be forwarded, one for each run: the field of ``attachment`` to fill.
    forward: str | None = None
    # Of the host's and the remote's sockets, unless it is the machine's default.
    congestion: str | None = None
    quick: bool = False
    once: bool = False
    # Peers that cannot do the work at all.
    without: tuple[str, ...] = ()
    # Columns other than the chosen peers: name and environment of our own program.
    variants: Mapping[str, Mapping[str, str]] | None = None
    # Columns of this row, from which the chosen peers are taken.
    contenders: Mapping[str, Translator] = field(default_factory=lambda: TRANSLATORS)


GBIT = Metric("gbit", "Gbit/s", 2)
KPPS = Metric("kpps", "delivered, 1000/s", 1)
OFFERED = Metric("offered_kpps", "sent, 1000/s", 1, compare=False)
MEDIAN = Metric("median_us", "median, µs")
P99 = Metric("p99_us", "p99, µs")
RATE = Metric("per_second", "per second", 0)
CPU_EACH = Metric("cpu_us_per_connection", "CPU µs each")
ERRORS = Metric("errors", "failed", 0, compare=False)
GAP = Metric("gap_ms", "longest silence, ms", 0, compare=False)
RETRANSMITS = Metric("retransmits", "sender's retransmits", 0, compare=False)
CPU_PER_GB = Metric("cpu_s_per_gb", "CPU s/GB", 2)
CPU_PERCENT = Metric("cpu_percent", "CPU %", 2, compare=False)
STREAM_METRICS = (GBIT, CPU_PER_GB, GAP, RETRANSMITS)
DATAGRAM_METRICS = (KPPS, OFFERED, CPU_PER_GB)
EXCHANGE_METRICS = (MEDIAN, P99, RATE)
CONNECTION_METRICS = (RATE, MEDIAN, P99, CPU_EACH, ERRORS)

NO_STALL = Target("gap_ms", 999, at_least=False)

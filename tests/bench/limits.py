# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about limits: what a connection gets of the speed that it may have."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.cell import OVER_WIRE, Cell
from tests.bench.measure import Metrics, Stream
from tests.bench.row import Metric, Row, Target
from tests.lab.translators import Attachment

RATES = ("1M", "10M", "100M", "1G", "5G")
_UNITS = {"M": 1e-3, "G": 1.0}  # in Gbit/s


@dataclass(frozen=True, slots=True)
class Limited:
    """One stream under a limit; its share of what was asked for."""

    rate: str
    to_guest: bool

    def __call__(self, cell: Cell) -> Metrics:
        got = Stream(self.to_guest, OVER_WIRE["v4"])(cell)["gbit"]
        return {"share": got / (int(self.rate[:-1]) * _UNITS[self.rate[-1]])}


def limit_rows() -> Iterator[Row]:
    """Each speed, in both directions."""
    for rate in RATES:
        for to_guest in (False, True):
            option = "--rate-in" if to_guest else "--rate-out"
            yield Row(
                f"limits-{rate}-{'in' if to_guest else 'out'}",
                "limits",
                f"TCP, {option} {rate}",
                Limited(rate, to_guest),
                (Metric("share", "of the limit", 3),),
                (Target("share", 0.95, True), Target("share", 1.05, False)),
                Attachment(extra=(option, rate)),
                quick=rate == "10M",
                without=("direct", "pasta", "slirp4netns"),
            )

# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about limits: what a connection gets of the speed that it may have.

Beside it, and right after it, the same is measured without a limit: a machine that is
slower than a limit has nothing to say about it, only about what is lost on the way. Nor
has one that lets the translator wait for a processor: of a time beyond 100 ms in which
it did not run, nothing is saved, and datagrams of that time are gone.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from tests.bench.cell import OVER_WIRE, Cell
from tests.bench.measure import Datagrams, Metrics, Stream
from tests.bench.named import guest_with
from tests.bench.row import Metric, Row, Target
from tests.lab.translators import Attachment

RATES = ("1M", "10M", "100M", "1G", "5G")
_UNITS = {"M": 1e-3, "G": 1.0}  # in Gbit/s
_SIZES = {"5G": 60000}  # of datagrams: short ones are no more than 3 Gbit/s
_SIZE = 1472  # of others
_ports = itertools.count(47000)


def _tcp(cell: Cell, to_guest: bool, rate: int | None, _size: int) -> Metrics:
    told = Stream(to_guest, OVER_WIRE["v4"], rate=rate)(cell)
    return {"gbit": told["gbit"], "burst_ms": told["burst_ms"]}


def _udp(cell: Cell, to_guest: bool, rate: int | None, size: int) -> Metrics:
    told = Datagrams(to_guest, OVER_WIRE["v4"], size, rate)(cell)
    return {
        "gbit": told["kpps"] * size * 8 / 1e6,
        "offered": told["offered_kpps"] * size * 8 / 1e6,
        "burst_ms": told["burst_ms"],
    }


PROTOCOLS: dict[str, Callable[[Cell, bool, int | None, int], Metrics]] = {
    "TCP": _tcp,
    "UDP": _udp,
}


@dataclass(frozen=True, slots=True)
class Limited:
    """One stream under a limit: its share of what was asked for, and of what goes."""

    proto: str
    rate: str
    to_guest: bool

    def __call__(self, cell: Cell) -> Metrics:
        measure = PROTOCOLS[self.proto]
        limit = int(self.rate[:-1]) * _UNITS[self.rate[-1]]
        waited = cell.attached.waited_seconds()
        size = _SIZES.get(self.rate, _SIZE)
        told = measure(cell, self.to_guest, round(limit * 1e9 / 8), size)
        waited = cell.attached.waited_seconds() - waited
        with guest_with(cell) as attached:
            beside = replace(cell, attached=attached, ports=_ports)
            free = measure(beside, self.to_guest, None, size)["gbit"]
        return {
            "share": told["gbit"] / limit,
            "burst_ms": told["burst_ms"],
            "waited": waited / (cell.seconds + cell.warmup),
            "offered": told.get("offered", 0.0),
            "free": free,
            "least": told["gbit"] / min(limit, free),
        }


def limit_rows() -> Iterator[Row]:
    """Each speed, in both directions."""
    for proto, rate, to_guest in itertools.product(PROTOCOLS, RATES, (False, True)):
        option = "--rate-in" if to_guest else "--rate-out"
        yield Row(
            f"limits-{proto.lower()}-{rate}-{'in' if to_guest else 'out'}",
            "limits",
            f"{proto}, {option} {rate}",
            Limited(proto, rate, to_guest),
            (
                Metric("share", "of the limit", 3),
                Metric("burst_ms", "beyond it at once, ms worth", 0),
                Metric("waited", "of the time it waited for a processor", 3),
                Metric("offered", "offered, Gbit/s", 3),
                Metric("free", "without it, Gbit/s", 2),
                Metric("least", "of the lesser of both", 3),
            ),
            (
                Target("share", 0.95, True),
                Target("share", 1.05, False),
                # A turn is a little later than the time that it goes by
                Target("burst_ms", 105, False),
            ),
            Attachment(extra=(option, rate)),
            quick=(proto, rate) == ("TCP", "10M"),
            without=("direct", "pasta", "slirp4netns"),
        )

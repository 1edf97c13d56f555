# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about floods: what open flows keep beside one, and what is over when.

The same work is measured before the flood and beside it; one core sends the flood.
"""

import itertools
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

from tests.bench import loadgen
from tests.bench.cell import OVER_WIRE, Cell
from tests.bench.measure import Connections, Metrics, RequestResponse, Stream
from tests.bench.row import Metric, Row, Target
from tests.lab import HOST4, REMOTE4, LabError, Process
from tests.lab.translators import Attachment

WIRE = OVER_WIRE["v4"]
ONSET = 0.5  # for the flood to be felt
PATIENCE = 20.0
OUTSIDE, INSIDE = 0.5, 0.25  # of the throughput, by who floods
_work_ports = itertools.count(42000)
METRICS = (
    Metric("kept", "of bulk kept", 2),
    Metric("p99_times", "× p99", 1),
    Metric("opened", "of new connections opened", 2),
    Metric("recovered_ms", "back after, ms", 0),
    Metric("flood_kpps", "flood, 1000/s", 0, compare=False),
)


@dataclass(frozen=True, slots=True)
class Flood:
    """Bulk, latency and new connections of the guest, without and with a flood."""

    kind: str
    outside: bool = False
    frames: bool = False  # on the guest's link, not as IP packets

    def __call__(self, cell: Cell) -> Metrics:
        # The port of the cell is forwarded: it is the flood's
        work = replace(cell, ports=_work_ports)
        alone = self._bulk(work), self._p99(work)
        with self._flood(cell) as flood:
            time.sleep(ONSET)
            beside = self._bulk(work), self._p99(work)
            opened = self._opened(work)
        flood_rate = float(loadgen.finish(flood, PATIENCE)["per_second"])
        return {
            "kept": beside[0] / alone[0],
            "p99_times": beside[1] / alone[1],
            "opened": opened,
            "recovered_ms": self._recovery(work),
            "flood_kpps": flood_rate / 1e3,
        }

    @staticmethod
    def _bulk(cell: Cell) -> float:
        return Stream(to_client=False)(cell)["gbit"]

    @staticmethod
    def _p99(cell: Cell) -> float:
        return RequestResponse()(cell)["p99_us"]

    @staticmethod
    def _opened(cell: Cell) -> float:
        try:
            done = Connections()(cell)
        except LabError:
            return 0.0
        tried = done["per_second"] * cell.seconds + done["errors"]
        return 1 - done["errors"] / tried if tried else 0.0

    @staticmethod
    def _recovery(cell: Cell) -> float:
        """Milliseconds until the guest can open a connection again."""
        start = time.monotonic()
        with_server = RequestResponse()
        quick = replace(cell, seconds=0.1)
        while time.monotonic() - start < PATIENCE:
            began = time.monotonic()
            try:
                with_server(quick)
            except LabError:
                continue
            return (began - start) * 1000
        raise LabError("no connection after the flood")

    def _words(self, cell: Cell, seconds: float) -> list[str]:
        options: Mapping[str, object] = {"kind": self.kind, "seconds": seconds}
        if self.frames:
            options = {**options, "dev": "eth0"}
        elif not self.outside:
            options = {**options, "guest": HOST4}
        target = HOST4 if self.outside else REMOTE4
        return loadgen.words("flood", target, next(cell.ports), options)

    @contextmanager
    def _flood(self, cell: Cell) -> Iterator[Process]:
        where = cell.lab.remote if self.outside else cell.attached.guest
        seconds = ONSET + 3 * (cell.seconds + 2)
        process = cell.lab.start(where, *self._words(cell, seconds))
        try:
            yield process
        finally:
            if process.running():
                process.wait(PATIENCE)


def _row(key: str, title: str, flood: Flood, forward: str | None = None) -> Row:
    share = OUTSIDE if flood.outside or flood.frames else INSIDE
    targets = [Target("kept", share, at_least=True), Target("opened", 0.9, True)]
    if flood.outside:
        targets.append(Target("p99_times", 4, at_least=False))
    else:
        targets.append(Target("recovered_ms", 1000, at_least=False))
    return Row(
        f"flood-{key}",
        "flood",
        f"flood: {title}",
        flood,
        METRICS,
        tuple(targets),
        Attachment(),
        forward=forward,
        quick=True,
        without=("direct", "slirp4netns"),
    )


def flood_rows() -> Iterator[Row]:
    """Floods from outside and of the guest itself."""
    yield _row("syn", "SYN from outside", Flood("syn", outside=True), "tcp_ports")
    yield _row(
        "udp", "datagrams from random sources", Flood("udp", outside=True), "udp_ports"
    )
    yield _row("guest-syn", "SYN of the guest", Flood("syn"))
    yield _row("guest-udp", "datagrams of the guest to new ports", Flood("udp"))
    yield _row("uso", "super-segments of one-byte datagrams", Flood("uso"))
    for kind in ("arp", "ns", "dhcp"):
        yield _row(kind, f"{kind.upper()} of the guest", Flood(kind, frames=True))

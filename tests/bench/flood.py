# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about floods: what open flows keep beside one, and what is over when.

The same work is measured before the flood and beside it. Its flows are open before
the flood begins, and a number counts only if the flood went on until the work had
ended. One core sends the flood.
"""

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial

from tests.bench import loadgen
from tests.bench.asked import (
    TURN_METRICS,
    TURN_TARGET,
    control_socket,
    counters,
    longest_turn,
)
from tests.bench.cell import OVER_WIRE, Cell
from tests.bench.measure import (
    Connections,
    Metrics,
    RequestResponse,
    Stream,
    echo_server,
)
from tests.bench.row import Metric, Row, Target
from tests.lab import HOST4, REMOTE4, LabError, Process
from tests.lab.translators import Attachment

WIRE = OVER_WIRE["v4"]
OPENING = 0.5  # for the flows of the work to be open
HEAD_START = 1.2  # from the beginning of the work until it is counted
AT_MOST = 120.0  # a flood that nobody stops
PATIENCE = 20.0
ANSWER_LIMIT = 10.0  # of the load generator, for one byte
ATTEMPT = 0.2  # shorter than TCP's own first repetition
SETTLED = 1.0  # after the flood, until the throughput must be back
BULKS = 3  # streams one after the other, without a flood
OUTSIDE, INSIDE = 0.5, 0.25  # of the throughput, by who floods
_work_ports = itertools.count(42000)
METRICS = (
    Metric("kept", "of bulk kept", 2),
    Metric("p99_times", "× p99", 1),
    Metric("p99_ms", "p99, ms", 2),
    Metric("opened", "of new connections opened", 2),
    Metric("recovered_ms", "connects again after, ms", 0),
    Metric("back", "of bulk, 1 s after", 2),
    *TURN_METRICS,
    Metric("flood_kpps", "flood, 1000/s", 0, compare=False),
)


class Running:
    """A flood that is under way until it is stopped."""

    def __init__(self, process: Process) -> None:
        self._process = process
        try:
            process.wait_output("flooding")
        except RuntimeError as error:
            raise LabError(f"no flood: {error}") from None

    def check(self) -> None:
        """``LabError`` if it has ended by itself: what was measured beside nothing."""
        if not self._process.running():
            raise LabError(f"the flood ended early: {self._process.complaint()}")

    def stop(self) -> float:
        """End it; packets that it sent in a second."""
        self.check()
        self._process.end_input()
        return float(loadgen.finish(self._process, PATIENCE)["per_second"])


@dataclass(frozen=True, slots=True)
class Flood:
    """Bulk, latency and new connections of the guest, without and with a flood."""

    kind: str
    outside: bool = False
    frames: bool = False  # on the guest's link, not as IP packets
    device: str = "eth0"
    at_most: float = AT_MOST

    def __call__(self, cell: Cell) -> Metrics:
        # The port of the cell is forwarded: it is the flood's
        port = next(cell.ports)
        work = replace(cell, ports=_work_ports)
        alone = _usual_bulk(work), _p99(work)
        with self.beside(cell, port, lambda: _or(0.0, _bulk, _early(work))) as found:
            bulk, _ = found
        silent = ANSWER_LIMIT * 1e6
        with (
            self.beside(cell, port, lambda: _or(silent, _p99, _early(work))) as found,
            echo_server(work, WIRE, close_first=False) as echo,
        ):
            p99, flood = found
            opened = _opened(work)
            rate = flood.stop()
            recovered = _recovery(work, echo)
        return {
            "kept": bulk / alone[0],
            "p99_times": p99 / alone[1],
            "p99_ms": p99 / 1e3,
            "opened": opened,
            "recovered_ms": recovered * 1e3,
            "back": _usual_bulk(replace(work, warmup=SETTLED)) / alone[0],
            **_longest_turn(cell),
            "flood_kpps": rate / 1e3,
        }

    def disturb(self, cell: Cell) -> None:
        """The same work beside the same flood, measured by somebody else."""
        port = next(cell.ports)
        work = _early(replace(cell, ports=_work_ports))
        for measure in (_bulk, _p99):
            with self.beside(cell, port, partial(_or, 0.0, measure, work)):
                pass

    @contextmanager
    def beside(
        self, cell: Cell, port: int, measure: Callable[[], float]
    ) -> Iterator[tuple[float, Running]]:
        """What is measured beside a flood, which goes on until the block ends."""
        begun = time.monotonic()
        with ThreadPoolExecutor(1) as pool:
            result = pool.submit(measure)
            time.sleep(OPENING)
            with self.flooding(cell, port) as flood:
                if time.monotonic() > begun + HEAD_START:
                    raise LabError("the flood began too late")
                found = result.result()
                flood.check()
                yield found, flood

    @contextmanager
    def flooding(self, cell: Cell, port: int) -> Iterator[Running]:
        """A flood to ``port``, which has begun when the block does."""
        options: dict[str, object] = {"kind": self.kind, "seconds": self.at_most}
        if self.frames:
            options["dev"] = self.device
        elif not self.outside:
            options["guest"] = HOST4
        target = HOST4 if self.outside else REMOTE4
        where = cell.lab.remote if self.outside else cell.attached.guest
        argv = loadgen.words("flood", target, port, options)
        process = cell.lab.start(where, *argv)
        try:
            yield Running(process)
        finally:
            process.stop()


def _early(cell: Cell) -> Cell:
    """A cell whose work is counted only after the flood has begun."""
    return replace(cell, warmup=HEAD_START)


def _or(otherwise: float, measure: Callable[[Cell], float], cell: Cell) -> float:
    """What is measured; ``otherwise`` when nothing arrived."""
    try:
        return measure(cell)
    except LabError:
        return otherwise


def _bulk(cell: Cell) -> float:
    return Stream(to_client=False)(cell)["gbit"]


def _usual_bulk(cell: Cell) -> float:
    """The median of some: one alone may have half the rate of the next, for nothing."""
    return statistics.median(_bulk(cell) for _ in range(BULKS))


def _p99(cell: Cell) -> float:
    return RequestResponse()(cell)["p99_us"]


def _opened(cell: Cell) -> float:
    """The share of new connections that open while the flood goes on."""
    try:
        done = Connections()(cell)
    except LabError as error:
        if "no exchange succeeded" in str(error):
            return 0.0
        raise
    tried = done["per_second"] * cell.seconds + done["errors"]
    return 1 - done["errors"] / tried


def _recovery(cell: Cell, port: int) -> float:
    """Seconds until the guest has opened a connection and got an answer."""
    start = time.monotonic()
    while (now := time.monotonic()) - start < PATIENCE:
        with (
            suppress(OSError),
            cell.attached.guest.connect(WIRE.reach, port, ATTEMPT) as sock,
        ):
            sock.sendall(b"x")
            if sock.recv(1):
                return time.monotonic() - start
        time.sleep(max(0.0, now + ATTEMPT - time.monotonic()))
    raise LabError("no connection after the flood")


def _longest_turn(cell: Cell) -> Metrics:
    """The longest turn of our datapath since its start; nothing of others."""
    path = control_socket(cell.attached)
    return longest_turn(counters(cell, path)) if path else {}


def _row(key: str, title: str, flood: Flood, forward: str | None = None) -> Row:
    share = OUTSIDE if flood.outside or flood.frames else INSIDE
    targets = [
        Target("kept", share, at_least=True),
        Target("p99_ms", 20, at_least=False),
        Target("recovered_ms", 1000, at_least=False),
        Target("back", 0.8, at_least=True),
        TURN_TARGET,
        Target("turn_cpu_ms", 5, at_least=False),
    ]
    if flood.outside:
        targets.append(Target("p99_times", 4, at_least=False))
    if flood.outside or flood.frames:  # else new flows are the flood
        targets.append(Target("opened", 0.9, at_least=True))
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
        without=("slirp4netns",),
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: one function per kind of row, each returning named numbers.

A measurement gets a :class:`Cell`: a lab, a translator at work in it, and how long
to measure. It raises ``LabError`` when the translator cannot do the work; that is
a result like any other ("failed: reason").
"""

import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench import loadgen
from tests.bench.cell import OVER_WIRE, Cell, Way
from tests.bench.loadgen import Answer
from tests.lab import LabError
from tests.lab.translators import ROOT

Metrics = dict[str, float]

IDLE_SECONDS = 3.0
SETTLE_SECONDS = 1.0
HOLD_TIMEOUT = 60.0
ENOUGH_FLOWS = 0.9  # the rest may have failed to open, and is shown
SPAWN_TIMEOUT = 20.0
MEBIBYTE = 1024 * 1024


def _transfer(
    cell: Cell,
    mode: str,
    way: Way,
    to_client: bool,
    options: Mapping[str, object],
    client_options: Mapping[str, object] | None = None,
) -> tuple[Answer, Answer, float]:
    """What the receiver and the sender say, and the CPU seconds in between."""
    port = next(cell.ports)
    common = {**cell.times, **options}
    sides = ("recv", "send") if to_client else ("send", "recv")
    near = {**common, **(client_options or {}), **cell.client_words, "side": sides[0]}
    far = {**common, "role": "listen", "side": sides[1]}
    kind = "udp" if mode == "udp" else "tcp"
    cpu = cell.attached.cpu_seconds()
    argv = loadgen.words(mode, way.bind, port, far)
    with loadgen.serving(cell.lab, cell.place(way.server), argv, kind, port) as server:
        argv = loadgen.words(mode, way.reach, port, near)
        client = loadgen.run_client(cell.place(way.client), argv, cell.patience)
        answers = (client, loadgen.finish(server, cell.patience))
    cpu = cell.attached.cpu_seconds() - cpu
    received, sent = answers if to_client else answers[::-1]
    return received, sent, cpu


def _cpu_per_gb(cell: Cell, cpu: float, received: Answer) -> Metrics:
    if not cell.attached.process or not received["bytes"]:
        return {}
    return {"cpu_s_per_gb": cpu / received["bytes"] * 1e9}


@dataclass(frozen=True, slots=True)
class Stream:
    """TCP streams in one direction; the client opens them."""

    to_client: bool
    way: Way = OVER_WIRE["v4"]
    streams: int = 1
    congestion: str | None = None
    verify: bool = False
    rate: int | None = None  # bytes a second that it should have

    def __call__(self, cell: Cell) -> Metrics:
        options = {
            "streams": self.streams,
            "verify": int(self.verify),
            "rate": self.rate,
        }
        # The congestion control matters where the data is sent, and the guest's is
        # the one in question.
        received, sent, cpu = _transfer(
            cell, "stream", self.way, self.to_client, options, {"cc": self.congestion}
        )
        return self._metrics(cell, received, sent, cpu)

    def _metrics(
        self, cell: Cell, received: Answer, sent: Answer, cpu: float
    ) -> Metrics:
        if self.verify and not (
            received["exact"] and received["bytes"] == sent["bytes"]
        ):
            got, of = received["bytes"], sent["bytes"]
            raise LabError(f"not byte-exact or not complete: {got} of {of} bytes")
        return {
            "gbit": float(received["gbit"]),
            "gap_ms": float(received["longest_gap_ms"]),
            "stalled": float(received["stalled"]),
            "burst_ms": float(received["burst_ms"]),
            "retransmits": float(sent["retransmits"]),
            **_cpu_per_gb(cell, cpu, received),
        }


@dataclass(frozen=True, slots=True)
class Datagrams:
    """UDP datagrams of one size, as fast as one sender can send them."""

    to_client: bool
    way: Way = OVER_WIRE["v4"]
    size: int = 1472
    rate: int | None = None  # bytes a second that it should have

    def __call__(self, cell: Cell) -> Metrics:
        options = {"size": self.size, "rate": self.rate}
        received, sent, cpu = _transfer(cell, "udp", self.way, self.to_client, options)
        return {
            "burst_ms": float(received.get("burst_ms", 0)),
            "kpps": float(received["per_second"]) / 1e3,
            "offered_kpps": float(sent["per_second"]) / 1e3,
            **_cpu_per_gb(cell, cpu, received),
        }


@contextmanager
def echo_server(cell: Cell, way: Way, close_first: bool) -> Iterator[int]:
    port = next(cell.ports)
    argv = loadgen.words("server", way.bind, port, {"close": int(close_first)})
    with loadgen.serving(cell.lab, cell.place(way.server), argv, "tcp", port):
        yield port


@dataclass(frozen=True, slots=True)
class RequestResponse:
    """One byte there and back on an open connection."""

    way: Way = OVER_WIRE["v4"]

    def __call__(self, cell: Cell) -> Metrics:
        client = cell.place(self.way.client)
        with echo_server(cell, self.way, close_first=False) as port:
            options = {**cell.times, **cell.client_words}
            argv = loadgen.words("rr", self.way.reach, port, options)
            answer = loadgen.run_client(client, argv, cell.patience)
        return {
            key: float(answer[key]) for key in ("median_us", "p99_us", "per_second")
        }


@dataclass(frozen=True, slots=True)
class Connections:
    """Connect, one byte there and back, the server closes; over and over."""

    clients: int = 1
    way: Way = OVER_WIRE["v4"]

    def __call__(self, cell: Cell) -> Metrics:
        client = cell.place(self.way.client)
        cpu = cell.attached.cpu_seconds()
        with echo_server(cell, self.way, close_first=True) as port:
            options = {
                "seconds": cell.seconds,
                "clients": self.clients,
                **cell.client_words,
            }
            argv = loadgen.words("crr", self.way.reach, port, options)
            answer = loadgen.run_client(client, argv, cell.patience)
        cpu = cell.attached.cpu_seconds() - cpu
        keys = ("per_second", "median_us", "p99_us", "errors")
        metrics = {key: float(answer[key]) for key in keys}
        if cell.attached.process:
            metrics["cpu_us_per_connection"] = cpu / float(answer["count"]) * 1e6
        return metrics


def _cpu_percent(cell: Cell) -> float:
    before, start = cell.attached.cpu_seconds(), time.monotonic()
    time.sleep(IDLE_SECONDS)
    used = cell.attached.cpu_seconds() - before
    return 100 * used / (time.monotonic() - start)


def idle(cell: Cell) -> Metrics:
    """An attached translator without any traffic."""
    _need_translator(cell)
    time.sleep(SETTLE_SECONDS)
    cpu = _cpu_percent(cell)
    return {"rss_mb": cell.attached.rss_bytes() / MEBIBYTE, "cpu_percent": cpu}


@dataclass(frozen=True, slots=True)
class IdleFlows:
    """Many open connections without traffic; memory by growth of the resident set."""

    flows: int = 10_000

    def __call__(self, cell: Cell) -> Metrics:
        _need_translator(cell)
        before = cell.attached.rss_bytes()
        way = OVER_WIRE["v4"]
        with echo_server(cell, way, close_first=False) as port:
            argv = loadgen.words("hold", way.reach, port, {"flows": self.flows})
            holder = cell.lab.start(cell.attached.guest, *argv)
            try:
                holder.wait_output("}\n", HOLD_TIMEOUT)
                answer = loadgen.parse(holder.stdout(), "client")
                opened = float(answer["open"])
                if opened < self.flows * ENOUGH_FLOWS:
                    raise LabError(f"only {opened:g} of {self.flows} flows open")
                time.sleep(SETTLE_SECONDS)
                cpu = _cpu_percent(cell)
                grown = cell.attached.rss_bytes() - before
            finally:
                holder.stop()
        return {
            "bytes_per_flow": grown / opened,
            "cpu_percent": cpu,
            "open": opened,
            "opened_per_second": opened / float(answer["seconds"]),
        }


def _need_translator(cell: Cell) -> None:
    if not cell.attached.process:
        raise LabError("not applicable")


@dataclass(frozen=True, slots=True)
class StartToExit:
    """From starting the translator with the command ``true`` to its exit."""

    options: tuple[str, ...] = ()

    def __call__(self, cell: Cell) -> Metrics:
        argv = cell.translator.spawn_command(["true"], self.options)
        if argv is None:
            raise LabError("not applicable")
        start = time.monotonic()
        done = cell.lab.host.run(*argv, timeout=SPAWN_TIMEOUT, check=False)
        took = time.monotonic() - start
        if done.returncode != 0:
            said = " ".join(done.stderr.split())
            raise LabError(f"exit {done.returncode}: {said[-200:]}")
        return {"ms": took * 1000}


def flow_table() -> list[tuple[str, float, str]]:
    """Name, value and unit of each flow-table micro-benchmark."""
    programs = sorted((ROOT / "build" / "bench").glob("**/bench_flow_table"))
    if not programs:
        raise LabError("bench_flow_table is not built (make native-bench)")
    done = subprocess.run(
        [str(programs[0])], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode != 0:
        raise LabError(f"bench_flow_table: exit {done.returncode}")
    found = json.loads(done.stdout)
    return [(str(x["name"]), float(x["value"]), str(x["unit"])) for x in found]

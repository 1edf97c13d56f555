# SPDX-License-Identifier: GPL-2.0-or-later
"""What is measured: one function per kind of row, each returning named numbers.

A measurement gets a :class:`Cell`: a lab, a translator at work in it, and how long
to measure. It raises ``LabError`` when the translator cannot do the work; that is
a result like any other ("failed: reason").
"""

import itertools
import json
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tests.bench import loadgen
from tests.bench.loadgen import Answer
from tests.lab import REMOTE4, REMOTE6, Attached, Lab, LabError, Translator
from tests.lab.translators import ROOT

Metrics = dict[str, float]

WARMUP = 0.3
CONNECT_ALLOWANCE = 25.0
IDLE_SECONDS = 3.0
SETTLE_SECONDS = 1.0
HOLD_TIMEOUT = 60.0
ENOUGH_FLOWS = 0.9  # the rest may have failed to open, and is shown
SPAWN_TIMEOUT = 20.0
MEBIBYTE = 1024 * 1024

# A fresh port for each measurement: no meeting with an earlier one's leftovers.
_ports = itertools.count(20000)


@dataclass(frozen=True, slots=True)
class Cell:
    """One translator in one row."""

    lab: Lab
    translator: Translator
    attached: Attached
    seconds: float

    @property
    def times(self) -> Mapping[str, object]:
        return {"seconds": self.seconds, "warmup": WARMUP}

    @property
    def patience(self) -> float:
        return self.seconds + CONNECT_ALLOWANCE


@dataclass(frozen=True, slots=True)
class Stream:
    """TCP streams in one direction; the guest opens them."""

    to_guest: bool
    address: str = REMOTE4
    streams: int = 1
    congestion: str | None = None
    verify: bool = False

    def __call__(self, cell: Cell) -> Metrics:
        port = next(_ports)
        # The congestion control matters where the data is sent, and the guest's is
        # the one in question.
        common = {**cell.times, "streams": self.streams, "verify": int(self.verify)}
        far = {**common, "role": "listen", "side": "send" if self.to_guest else "recv"}
        near = {**common, "side": "recv" if self.to_guest else "send"}
        near["cc"] = self.congestion
        cpu = cell.attached.cpu_seconds()
        argv = loadgen.words("stream", self.address, port, far)
        remote = loadgen.serve(cell.lab, argv, "tcp", port)
        try:
            argv = loadgen.words("stream", self.address, port, near)
            guest_answer = loadgen.run_client(cell.attached.guest, argv, cell.patience)
            answers = (guest_answer, loadgen.finish(remote, cell.patience))
        finally:
            remote.stop()
        cpu = cell.attached.cpu_seconds() - cpu
        received, sent = answers if self.to_guest else answers[::-1]
        return self._metrics(cell, received, sent, cpu)

    def _metrics(
        self, cell: Cell, received: Answer, sent: Answer, cpu: float
    ) -> Metrics:
        if self.verify and not (
            received["exact"] and received["bytes"] == sent["bytes"]
        ):
            got, of = received["bytes"], sent["bytes"]
            raise LabError(f"not byte-exact or not complete: {got} of {of} bytes")
        metrics = {
            "gbit": float(received["gbit"]),
            "gap_ms": float(received["longest_gap_ms"]),
            "stalled": float(received["stalled"]),
            "retransmits": float(sent["retransmits"]),
        }
        if cell.attached.process and received["bytes"]:
            metrics["cpu_s_per_gb"] = cpu / received["bytes"] * 1e9
        return metrics


@dataclass(frozen=True, slots=True)
class Datagrams:
    """UDP datagrams of one size, as fast as one sender can send them."""

    to_guest: bool
    address: str = REMOTE4
    size: int = 1472

    def __call__(self, cell: Cell) -> Metrics:
        port = next(_ports)
        common = {**cell.times, "size": self.size}
        far = {**common, "role": "listen", "side": "send" if self.to_guest else "recv"}
        near = {**common, "side": "recv" if self.to_guest else "send"}
        cpu = cell.attached.cpu_seconds()
        argv = loadgen.words("udp", self.address, port, far)
        remote = loadgen.serve(cell.lab, argv, "udp", port)
        try:
            argv = loadgen.words("udp", self.address, port, near)
            guest_answer = loadgen.run_client(cell.attached.guest, argv, cell.patience)
            answers = (guest_answer, loadgen.finish(remote, cell.patience))
        finally:
            remote.stop()
        cpu = cell.attached.cpu_seconds() - cpu
        received, sent = answers if self.to_guest else answers[::-1]
        metrics = {
            "kpps": float(received["per_second"]) / 1e3,
            "offered_kpps": float(sent["per_second"]) / 1e3,
        }
        if cell.attached.process and received["bytes"]:
            metrics["cpu_s_per_gb"] = cpu / received["bytes"] * 1e9
        return metrics


@contextmanager
def _echo_server(cell: Cell, address: str, close_first: bool) -> Iterator[int]:
    port = next(_ports)
    argv = loadgen.words("server", address, port, {"close": int(close_first)})
    server = loadgen.serve(cell.lab, argv, "tcp", port)
    try:
        yield port
    finally:
        server.stop()


@dataclass(frozen=True, slots=True)
class RequestResponse:
    """One byte there and back on an open connection."""

    address: str = REMOTE4

    def __call__(self, cell: Cell) -> Metrics:
        with _echo_server(cell, self.address, close_first=False) as port:
            argv = loadgen.words("rr", self.address, port, {"seconds": cell.seconds})
            answer = loadgen.run_client(cell.attached.guest, argv, cell.patience)
        return {
            key: float(answer[key]) for key in ("median_us", "p99_us", "per_second")
        }


@dataclass(frozen=True, slots=True)
class Connections:
    """Connect, one byte there and back, the server closes; over and over."""

    clients: int = 1
    address: str = REMOTE4

    def __call__(self, cell: Cell) -> Metrics:
        cpu = cell.attached.cpu_seconds()
        with _echo_server(cell, self.address, close_first=True) as port:
            options = {"seconds": cell.seconds, "clients": self.clients}
            argv = loadgen.words("crr", self.address, port, options)
            answer = loadgen.run_client(cell.attached.guest, argv, cell.patience)
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
        with _echo_server(cell, REMOTE4, close_first=False) as port:
            argv = loadgen.words("hold", REMOTE4, port, {"flows": self.flows})
            holder = cell.lab.start(cell.attached.guest, *argv)
            try:
                holder.wait_output("}\n", HOLD_TIMEOUT)
                answer = loadgen.parse(holder.stdout(), "guest")
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


def start_to_exit(cell: Cell) -> Metrics:
    """From starting the translator with the command ``true`` to its exit."""
    argv = cell.translator.spawn_command(["true"])
    if argv is None:
        raise LabError("not applicable")
    start = time.monotonic()
    done = cell.lab.host.run(*argv, timeout=SPAWN_TIMEOUT, check=False)
    took = time.monotonic() - start
    if done.returncode != 0:
        raise LabError(
            f"exit {done.returncode}: {' '.join(done.stderr.split())[-200:]}"
        )
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


ADDRESSES: Mapping[str, str] = {"v4": REMOTE4, "v6": REMOTE6}

# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about the control socket: what it costs, and what asking costs traffic.

No other translator can be asked anything like it, so each row compares us with us.
"""

import itertools
import os
import shlex
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median

from passtpy.client.connect import Client
from tests.bench.asked import (
    TURN_METRICS,
    TURN_TARGET,
    control_socket,
    counters,
    longest_turn,
)
from tests.bench.cell import Cell
from tests.bench.measure import Connections, Metrics, RequestResponse, StartToExit
from tests.bench.row import Metric, Row, Target
from tests.lab import HOST4, Attached, LabError, tcp_echo, wait_until
from tests.lab.translators import Attachment

SETTLE = 1.5  # until what is imported in the background is there
PATIENCE = 30.0
MEBIBYTE = 1024 * 1024
FLOWS = 100_000  # of one socket of the guest, so that they need one of the host
ANYWHERE = "192.0.2.0/24"  # all of it the remote's, for flows to many targets
LISTS = 5
PAIRS = 7  # of a ping-pong alone and one beside lists, each after the other
SUBSCRIBERS = 1000
BREATH = 1.0  # seconds that others have between two times in which we come first
STARTS = 7
ANSWER = b"x"
_work_ports = itertools.count(44000)

# Sends a datagram to each of as many targets as it is told, twice: the second time
# is for those that came too fast for new flows. Then it stays.
SPRAY = """
import socket, sys, time
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
flows = int(sys.argv[1])
for n in [*range(flows), *range(flows)]:
    sock.sendto(b"x", (f"192.0.2.{1 + n // 1000}", 10000 + n % 1000))
    if n % 50 == 49:
        time.sleep(0.003)
print("sprayed", flush=True)
time.sleep(600)
"""
SPRAYING = 60.0  # seconds that it may take


def _socket_of(attached: Attached) -> Path:
    """The control socket of an attached translator of ours, once it answers."""
    wait_until(lambda: control_socket(attached), PATIENCE, "control socket")
    time.sleep(SETTLE)  # what answers there is imported between packets
    path = control_socket(attached)
    assert path is not None
    return path


@contextmanager
def _many_flows(cell: Cell, path: Path) -> Iterator[int]:
    """Flows of one socket of the guest; how many there are."""
    lab, guest = cell.lab, cell.attached.guest
    lab.remote.run("ip", "route", "add", "local", ANYWHERE, "dev", "lo", check=False)
    rule = "add rule ip quiet in udp dport 10000-10999 drop"
    for words in (
        "add table ip quiet",
        "add chain ip quiet in { type filter hook input priority 0; }",
        rule,
    ):
        lab.remote.run("nft", words)
    sprayer = lab.start(guest, "python3", "-c", SPRAY, str(FLOWS))
    try:
        sprayer.wait_output("sprayed", SPRAYING)
        yield counters(cell, path)["flows"]
    finally:
        sprayer.stop()


def _list(path: Path) -> str:
    url = "http://localhost/v1/flows"
    return f"curl -sSN -o /dev/null --unix-socket {shlex.quote(str(path))} {url}"


def _p99(cell: Cell) -> float:
    with _first(cell):
        return RequestResponse()(cell)["p99_us"]


def _per_second(cell: Cell) -> float:
    with _first(cell):
        return Connections()(cell)["per_second"]


@contextmanager
def _first(cell: Cell) -> Iterator[None]:
    """Let the translator, and whatever is started meanwhile, run before all others.

    Only if PASSTPY_REALTIME is set: then the clock tells something of a machine that
    others work on too. They wait meanwhile, so each time is a short one.
    """
    process = cell.attached.process
    if not os.environ.get("PASSTPY_REALTIME") or process is None:
        yield
        return
    threads = [0]
    for pid in process.tree():
        threads += map(int, os.listdir(f"/proc/{pid}/task"))
    try:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_FIFO, os.sched_param(1))
        yield
    finally:
        for thread in threads:
            os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
        time.sleep(BREATH)


def listing(cell: Cell) -> Metrics:
    """What it takes to list many flows, and a ping-pong beside it on and on."""
    path, cell = _socket_of(cell.attached), replace(cell, ports=_work_ports)
    with _many_flows(cell, path) as flows:
        cpu = cell.attached.cpu_seconds()
        for _ in range(LISTS):
            cell.lab.host.run("sh", "-c", _list(path))
        cpu = (cell.attached.cpu_seconds() - cpu) / LISTS
        pairs = [(_p99(cell), _beside_lists(cell, path)) for _ in range(PAIRS)]
        after = counters(cell, path)
    alone, beside = (median(times) for times in zip(*pairs, strict=True))
    return {
        "flows": flows,
        "cpu_s": cpu,
        "p99_us": alone,
        "p99_times": beside / alone,
        **longest_turn(after),
    }


def _beside_lists(cell: Cell, path: Path) -> float:
    """The p99 of a ping-pong while flows are listed on and on."""
    before = counters(cell, path)["control_clients"]
    with _first(cell):
        lister = cell.lab.start(
            cell.lab.host, "sh", "-c", f"while {_list(path)}; do :; done"
        )
        try:
            p99 = RequestResponse()(cell)["p99_us"]
        finally:
            lister.stop()
    if counters(cell, path)["control_clients"] < before + 2:
        raise LabError("nothing was listed meanwhile")
    return p99


def _resident(cell: Cell, *extra: str) -> float:
    """MiB of a fresh daemon, and after it has been asked, if it can be."""
    with ExitStack() as stack:
        lab = cell.lab
        guest = lab.guest()
        options = Attachment(extra=extra)
        argv = cell.translator.attach_command(guest, options)
        attached = Attached(lab, guest, lab.start(lab.host, *argv))
        stack.callback(attached.close)
        attached.wait_ready(options)
        time.sleep(SETTLE)
        if not extra:
            counters(cell, _socket_of(attached))
        return attached.rss_bytes() / MEBIBYTE


def memory(cell: Cell) -> Metrics:
    """Resident memory and start, without and with a control socket."""
    off = _resident(cell, "--control", "none")
    on = _resident(cell)
    starts = [
        [StartToExit(options)(cell)["ms"] for options in (("--control", "none"), ())]
        for _ in range(STARTS)
    ]
    off_ms, on_ms = (median(times) for times in zip(*starts, strict=True))
    return {
        "off_mb": off,
        "more_mb": on - off,
        "off_ms": off_ms,
        "more_ms": on_ms - off_ms,
    }


def _served(cell: Cell, port: int) -> None:
    with cell.lab.remote.connect(HOST4, port) as sock:
        sock.sendall(ANSWER)
        if sock.recv(1) != ANSWER:
            raise LabError("no echo")


def ports(cell: Cell) -> Metrics:
    """From asking for a port until a client has been answered there."""
    path = _socket_of(cell.attached)
    port = next(cell.ports)
    with tcp_echo(cell.attached.guest, "0.0.0.0", 80), _first(cell):
        with cell.lab.host.entered():
            client = Client(str(path))
            start = time.monotonic()
            client.ask("POST", "/v1/forwards", body={"specs": [f"tcp:{port}:80"]})
        added = time.monotonic()
        _served(cell, port)
        served = time.monotonic()
    return {"added_ms": (added - start) * 1e3, "served_ms": (served - start) * 1e3}


@contextmanager
def _subscribers(cell: Cell, path: Path) -> Iterator[None]:
    """Clients that ask for events and never read one."""
    with ExitStack() as stack:
        with cell.lab.host.entered():
            for _ in range(SUBSCRIBERS):
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.connect(str(path))
                sock.sendall(b"GET /v1/events HTTP/1.1\r\nhost: x\r\n\r\n")
        yield


def subscribers(cell: Cell) -> Metrics:
    """New connections and a ping-pong, alone and with listeners that do not read."""
    path, cell = _socket_of(cell.attached), replace(cell, ports=_work_ports)
    alone, alone_p99 = _per_second(cell), _p99(cell)
    before = cell.attached.rss_bytes()
    with _subscribers(cell, path):
        wait_until(
            lambda: counters(cell, path)["control_clients"] > SUBSCRIBERS,
            PATIENCE,
            "the subscribers",
        )
        Connections()(cell)  # what they have room for is full then
        beside, beside_p99 = _per_second(cell), _p99(cell)
        grown = cell.attached.rss_bytes() - before
        missed = counters(cell, path)["control_events_missed"]
    return {
        "kept": beside / alone,
        "p99_times": beside_p99 / alone_p99,
        "grown_mb": grown / MEBIBYTE,
        "missed": missed,
    }


def _row(
    key: str,
    title: str,
    measure: Callable[[Cell], Metrics],
    metrics: tuple[Metric, ...],
    *targets: Target,
) -> Row:
    return Row(
        f"control-{key}",
        "control",
        title,
        measure,
        metrics,
        targets,
        quick=True,
        without=("direct", "pasta", "slirp4netns"),
    )


def control_rows() -> Iterator[Row]:
    """Listing, memory, ports, subscribers."""
    yield _row(
        "list",
        "flows listed",
        listing,
        (
            Metric("flows", "flows", 0),
            Metric("cpu_s", "CPU s of the daemon for all", 2),
            Metric("p99_us", "ping-pong p99 alone, µs", 0),
            Metric("p99_times", "× p99 while listing on and on", 2),
            *TURN_METRICS,
        ),
        Target("flows", 0.99 * FLOWS, at_least=True),
        Target("cpu_s", 2, at_least=False),
        Target("p99_times", 2, at_least=False),
        TURN_TARGET,
    )
    yield _row(
        "memory",
        "a daemon without and with a control socket",
        memory,
        (
            Metric("off_mb", "MiB without", 1),
            Metric("more_mb", "MiB more with", 1),
            Metric("off_ms", "start to exit without, ms", 0),
            Metric("more_ms", "ms more with", 1),
        ),
        Target("more_mb", 6, at_least=False),
    )
    yield _row(
        "ports",
        "a port added",
        ports,
        (
            Metric("added_ms", "ms until told", 1),
            Metric("served_ms", "until served", 1),
        ),
        Target("served_ms", 20, at_least=False),
    )
    yield _row(
        "subscribers",
        f"{SUBSCRIBERS} listeners to events that do not read",
        subscribers,
        (
            Metric("kept", "of new connections kept", 2),
            Metric("p99_times", "× ping-pong p99", 2),
            Metric("grown_mb", "MiB grown", 1),
            Metric("missed", "events missed and counted", 0),
        ),
        Target("kept", 0.9, at_least=True),
        Target("p99_times", 1.5, at_least=False),
    )

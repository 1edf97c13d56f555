# SPDX-License-Identifier: GPL-2.0-or-later
"""The plan: which rows there are, what each shows, and which targets it has."""

from collections.abc import Iterator, Mapping, Sequence

from tests.bench.cell import OVER_WIRE
from tests.bench.control import control_rows
from tests.bench.flood import flood_rows
from tests.bench.follow import follow_rows
from tests.bench.limits import limit_rows
from tests.bench.measure import (
    Connections,
    Datagrams,
    IdleFlows,
    RequestResponse,
    StartToExit,
    Stream,
    idle,
)
from tests.bench.named import named_rows
from tests.bench.policy import policy_rows
from tests.bench.row import (
    CLEAN,
    CONNECTION_METRICS,
    CPU_PERCENT,
    DATAGRAM_METRICS,
    EXCHANGE_METRICS,
    NO_STALL,
    STREAM_METRICS,
    Metric,
    Row,
    Target,
)
from tests.bench.splice import splice_rows
from tests.bench.vm import vm_rows
from tests.lab.translators import DEFAULT_MTU, ROOT, Attachment

GROUPS = (
    *("tcp", "udp", "rr", "crr", "splice", "vm"),
    *("idle", "start", "follow", "loss", "flood", "control", "table", "policy"),
    "limits",
)
ETHERNET_MTU = 1500
MTUS = (ETHERNET_MTU, 9000, DEFAULT_MTU)
DEBUG_BUILD = ROOT / "build" / "debug"
CPU_TARGET = Target("cpu_s_per_gb", 0.30, at_least=False)
NOTHING_ELSE = ("-u", "none", "-T", "none", "-U", "none")


def _stream_row(
    to_guest: bool,
    mtu: int,
    family: str = "v4",
    streams: int = 1,
    congestion: str | None = None,
    quick: bool = False,
) -> Row:
    way = "in" if to_guest else "out"
    arrow = "host→guest" if to_guest else "guest→host"
    key = f"tcp-{way}-{mtu}-{family}-{streams}"
    title = f"TCP {arrow} mtu {mtu} {family} ×{streams}"
    if congestion:
        key, title = f"{key}-{congestion}", f"{title} {congestion} guest"
    share = 0.75 if to_guest else 0.5
    targets = [Target("gbit", share, at_least=True, relative_to="direct"), NO_STALL]
    targets += [CPU_TARGET] if mtu == ETHERNET_MTU else []
    return Row(
        key,
        "tcp",
        title,
        Stream(to_guest, OVER_WIRE[family], streams, congestion),
        STREAM_METRICS,
        tuple(targets),
        Attachment(mtu=mtu),
        quick=quick,
    )


def _tcp_rows() -> Iterator[Row]:
    for mtu in MTUS:
        for family in OVER_WIRE:
            for streams in (1, 8):
                for to_guest in (False, True):
                    main = family == "v4" and (streams == 1 or mtu == ETHERNET_MTU)
                    yield _stream_row(to_guest, mtu, family, streams, quick=main)
    for to_guest in (False, True):
        yield _stream_row(to_guest, ETHERNET_MTU, streams=32)
    for congestion in ("reno", "cubic", "bbr"):
        for streams in (1, 32):
            main = congestion == "reno" and streams == 1
            yield _stream_row(
                False, ETHERNET_MTU, "v4", streams, congestion, quick=main
            )
    yield _stream_row(False, DEFAULT_MTU, congestion="reno")


def _udp_rows() -> Iterator[Row]:
    target = Target("kpps", 2, at_least=True, relative_to="pasta")
    for family, size in (("v4", 1472), ("v6", 1452)):
        for to_guest in (False, True):
            arrow = "host→guest" if to_guest else "guest→host"
            yield Row(
                f"udp-{'in' if to_guest else 'out'}-{family}",
                "udp",
                f"UDP {arrow} {size} bytes {family}",
                Datagrams(to_guest, OVER_WIRE[family], size),
                DATAGRAM_METRICS,
                (target,),
                Attachment(mtu=ETHERNET_MTU),
                quick=family == "v4",
            )


def _exchange_rows() -> Iterator[Row]:
    yield Row(
        "rr",
        "rr",
        "TCP request/response",
        RequestResponse(),
        EXCHANGE_METRICS,
        (Target("median_us", 0.6, at_least=False, relative_to="pasta"),),
        quick=True,
    )
    target = Target("per_second", 1.8, at_least=True, relative_to="pasta")
    for clients in (1, 4):
        yield Row(
            f"crr-{clients}",
            "crr",
            f"TCP connect/request/close, {clients} client{'s'[: clients > 1]}",
            Connections(clients),
            CONNECTION_METRICS,
            (target,) if clients == 1 else (),
            quick=True,
        )


def _idle_rows() -> Iterator[Row]:
    rss = Metric("rss_mb", "resident, MB")
    still = Target("cpu_percent", 0.0, at_least=False)
    small = Target("rss_mb", 48, at_least=False)
    yield Row(
        "idle",
        "idle",
        "attached, no traffic",
        idle,
        (rss, CPU_PERCENT),
        (small, still),
        quick=True,
        once=True,
    )
    per_flow = Metric("bytes_per_flow", "bytes/flow", 0)
    opened = Metric("opened_per_second", "opened per second", 0)
    yield Row(
        "idle-10000",
        "idle",
        "10 000 idle TCP flows",
        IdleFlows(),
        (per_flow, CPU_PERCENT, opened, Metric("open", "open", 0, compare=False)),
        (Target("bytes_per_flow", 1024, at_least=False), still),
        quick=True,
        once=True,
    )


def _start_rows() -> Iterator[Row]:
    milliseconds = (Metric("ms", "ms", 0),)
    yield Row(
        "start",
        "start",
        "start to exit of -- true",
        StartToExit(),
        milliseconds,
        (
            Target("ms", 250, at_least=False),
            Target("ms", 1.45, at_least=False, relative_to="pasta"),
        ),
        quick=True,
    )
    # The smaller number is for machines that do not let us open more files.
    for ports, targets in ((15000, ()), (65000, (Target("ms", 2000, at_least=False),))):
        yield Row(
            f"start-{ports}",
            "start",
            f"the same, {ports // 1000} 000 TCP ports forwarded",
            StartToExit(("-t", f"1-{ports}", *NOTHING_ELSE)),
            milliseconds,
            targets,
            without=("direct", "slirp4netns"),
        )


def _faults(setting: str) -> Mapping[str, str]:
    return {"PYTHONPATH": str(DEBUG_BUILD), "PASSTPY_FAULTS": f"{setting},seed=1"}


# (column, fault setting, share of the lossless rate to be reached)
_FAULTS = (
    (CLEAN, "drop_ppm=0,reorder_ppm=0", 0.0),
    ("drop 0.1 %", "drop_ppm=1000,reorder_ppm=0", 0.3),
    ("drop 1 %", "drop_ppm=10000,reorder_ppm=0", 0.1),
    ("reorder 1 %", "drop_ppm=0,reorder_ppm=10000", 0.1),
)


def _loss_rows() -> Iterator[Row]:
    variants = {name: _faults(setting) for name, setting, _ in _FAULTS}
    for congestion in ("reno", "cubic"):
        for to_guest in (False, True):
            if to_guest and congestion != "reno":
                continue  # towards the guest the translator is the sender
            arrow = "host→guest" if to_guest else f"guest→host {congestion} guest"
            targets = [
                Target("gbit", share, True, relative_to=CLEAN, ours=name)
                for name, _, share in _FAULTS
                if share
            ]
            yield Row(
                f"loss-{'in' if to_guest else f'out-{congestion}'}",
                "loss",
                f"TCP {arrow} mtu 1500, byte-exact",
                Stream(
                    to_guest,
                    congestion=None if to_guest else congestion,
                    verify=True,
                ),
                STREAM_METRICS,
                tuple(targets),
                Attachment(mtu=ETHERNET_MTU),
                variants=variants,
                quick=congestion == "reno",
            )


def plan(groups: Sequence[str], quick: bool) -> list[Row]:
    """The rows of the chosen groups, in the order of the report."""
    every = [
        *_tcp_rows(),
        *_udp_rows(),
        *_exchange_rows(),
        *splice_rows(),
        *vm_rows(),
        *_idle_rows(),
        *_start_rows(),
        *follow_rows(),
        *policy_rows(),
        *named_rows(),
        *limit_rows(),
        *_loss_rows(),
        *flood_rows(),
        *control_rows(),
    ]
    return [row for row in every if row.group in groups and (row.quick or not quick)]

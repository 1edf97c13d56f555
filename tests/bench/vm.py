# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about virtual machines: the same work as the others, from a socket."""

from collections.abc import Iterator

from tests.bench.measure import Connections, Datagrams, RequestResponse, Stream
from tests.bench.row import (
    CONNECTION_METRICS,
    DATAGRAM_METRICS,
    EXCHANGE_METRICS,
    NO_STALL,
    OURS,
    STREAM_METRICS,
    Row,
    Target,
)
from tests.bench.served import VHOST, VM_TRANSLATORS
from tests.lab.translators import DEFAULT_MTU, Attachment

ETHERNET_MTU = 1500
MTUS = (ETHERNET_MTU, 9000, DEFAULT_MTU)


def _versus_passt(metric: str, bound: float, at_least: bool) -> Target:
    return Target(metric, bound, at_least, relative_to="passt")


def _stream_row(
    to_guest: bool, mtu: int, streams: int = 1, congestion: str | None = None
) -> Row:
    arrow = "host→guest" if to_guest else "guest→host"
    key = f"vm-tcp-{'in' if to_guest else 'out'}-{mtu}-{streams}"
    title = f"VM, TCP {arrow} mtu {mtu} ×{streams}"
    if congestion:
        key, title = f"{key}-{congestion}", f"{title} {congestion} host"
    targets = [
        _versus_passt("gbit", 1.2, at_least=True),
        _versus_passt("cpu_s_per_gb", 0.8, at_least=False),
        NO_STALL,
    ]
    if mtu == ETHERNET_MTU and streams == 1:
        targets.append(Target("gbit", 2, True, OURS, ours=VHOST))
    return Row(
        key,
        "vm",
        title,
        Stream(to_guest, streams=streams),
        STREAM_METRICS,
        tuple(targets),
        Attachment(mtu=mtu),
        congestion=congestion,
        quick=streams == 1 and not congestion,
        contenders=VM_TRANSLATORS,
    )


def _stream_rows() -> Iterator[Row]:
    for mtu in MTUS:
        for to_guest in (False, True):
            yield _stream_row(to_guest, mtu)
    for to_guest in (False, True):
        yield _stream_row(to_guest, ETHERNET_MTU, streams=8)
    # Where the default is bbr, it paces every stream by a timer of the kernel,
    # which may cost more than what is to be measured.
    for mtu in (ETHERNET_MTU, DEFAULT_MTU):
        for to_guest in (False, True):
            yield _stream_row(to_guest, mtu, congestion="reno")


def _exchange_rows() -> Iterator[Row]:
    yield Row(
        "vm-rr",
        "vm",
        "VM, TCP request/response",
        RequestResponse(),
        EXCHANGE_METRICS,
        (_versus_passt("median_us", 1.0, at_least=False),),
        Attachment(mtu=ETHERNET_MTU),
        quick=True,
        contenders=VM_TRANSLATORS,
    )
    yield Row(
        "vm-crr",
        "vm",
        "VM, TCP connect/request/close, 1 client",
        Connections(),
        CONNECTION_METRICS,
        (_versus_passt("per_second", 1.2, at_least=True),),
        Attachment(mtu=ETHERNET_MTU),
        quick=True,
        contenders=VM_TRANSLATORS,
    )
    for to_guest in (False, True):
        yield Row(
            f"vm-udp-{'in' if to_guest else 'out'}",
            "vm",
            f"VM, UDP {'host→guest' if to_guest else 'guest→host'} 1472 bytes",
            Datagrams(to_guest),
            DATAGRAM_METRICS,
            (),
            Attachment(mtu=ETHERNET_MTU),
            quick=True,
            contenders=VM_TRANSLATORS,
        )


def vm_rows() -> Iterator[Row]:
    """TCP in both directions, small exchanges, and UDP."""
    yield from _stream_rows()
    yield from _exchange_rows()

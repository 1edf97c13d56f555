# SPDX-License-Identifier: GPL-2.0-or-later
"""The rows about flows between two loopbacks, which bypass the tap.

*In* is the way of ``-t`` and ``-u`` (host to guest), *out* that of ``-T`` and ``-U``.
The baseline *direct* is client and server on the loopback of one namespace.
"""

from collections.abc import Callable, Iterator

from tests.bench.cell import LOOPBACK_IN, LOOPBACK_OUT, Cell, Way
from tests.bench.measure import (
    Connections,
    Datagrams,
    Metrics,
    RequestResponse,
    Stream,
)
from tests.bench.row import (
    CONNECTION_METRICS,
    DATAGRAM_METRICS,
    EXCHANGE_METRICS,
    NO_STALL,
    STREAM_METRICS,
    Metric,
    Row,
    Target,
)

# (in the key, in the title, ends, suffix of the field with the forwarded ports)
_WAYS = (
    ("in", "host→guest", LOOPBACK_IN, "ports"),
    ("out", "guest→host", LOOPBACK_OUT, "ns_ports"),
)
_SIZES = (1472, 16384)

_STREAM_TARGETS = (
    Target("gbit", 1.15, at_least=True, relative_to="pasta"),
    Target("gbit", 0.6, at_least=True, relative_to="direct"),
    NO_STALL,
)
_LATENCY_TARGET = Target("median_us", 0.7, at_least=False, relative_to="pasta")
_RATE_TARGET = Target("per_second", 1.2, at_least=True, relative_to="pasta")
_DATAGRAM_TARGET = Target("kpps", 1.5, at_least=True, relative_to="pasta")


def _row(
    key: str,
    title: str,
    forward: str,
    measure: Callable[[Cell], Metrics],
    metrics: tuple[Metric, ...],
    *targets: Target,
    quick: bool = True,
) -> Row:
    return Row(
        f"splice-{key}",
        "splice",
        f"spliced {title}",
        measure,
        metrics,
        targets,
        forward=forward,
        quick=quick,
        without=("slirp4netns",),
    )


def _tcp_rows(key: str, arrow: str, way: Way, forward: str) -> Iterator[Row]:
    for streams in (1, 4):
        yield _row(
            f"tcp-{key}-{streams}",
            f"TCP {arrow} ×{streams}",
            forward,
            Stream(to_client=False, way=way, streams=streams),
            STREAM_METRICS,
            *_STREAM_TARGETS,
        )
    yield _row(
        f"rr-{key}",
        f"TCP request/response {arrow}",
        forward,
        RequestResponse(way),
        EXCHANGE_METRICS,
        _LATENCY_TARGET,
    )
    yield _row(
        f"crr-{key}",
        f"TCP connect/request/close {arrow}",
        forward,
        Connections(way=way),
        CONNECTION_METRICS,
        _RATE_TARGET,
    )


def splice_rows() -> Iterator[Row]:
    """TCP and UDP, in both directions."""
    for key, arrow, way, suffix in _WAYS:
        yield from _tcp_rows(key, arrow, way, f"tcp_{suffix}")
    for key, arrow, way, suffix in _WAYS:
        for size in _SIZES:
            yield _row(
                f"udp-{key}-{size}",
                f"UDP {arrow} {size} bytes",
                f"udp_{suffix}",
                Datagrams(to_client=False, way=way, size=size),
                DATAGRAM_METRICS,
                _DATAGRAM_TARGET,
                quick=size == _SIZES[0],
            )

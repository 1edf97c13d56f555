# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows as JSON, chosen by a filter, a bounded number at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

from passtpy.addr import UNSPECIFIED, from_inany
from passtpy.control.filter import Predicate
from passtpy.control.owners import Flows
from passtpy.control.verb import Json
from passtpy.flow import FlowRecord, FlowState, FlowType, Pif

PIF_NAMES = {Pif.NONE: "none", Pif.HOST: "host", Pif.TAP: "guest"} | {
    Pif.SPLICE: "namespace"
}
_TYPES = {
    FlowType.NONE: "none",
    FlowType.TCP: "tcp",
    FlowType.TCP_SPLICE: "tcp",
    FlowType.PING4: "icmp",
    FlowType.PING6: "icmp6",
    FlowType.UDP: "udp",
    FlowType.UDP_SPLICE: "udp",
}
_SPLICED = (FlowType.TCP_SPLICE, FlowType.UDP_SPLICE)
_FLAGS = "FSRPAUEC"


def _end(addr: bytes, port: int) -> dict[str, Any]:
    shown = None if addr == UNSPECIFIED else str(from_inany(addr))
    return {"addr": shown, "port": port}


def flow_json(
    flow: FlowRecord, rules: Mapping[int, str | None], now: int
) -> dict[str, Any]:
    """Return one flow; side 0 began it, direction 0 leads away from there."""
    rule: dict[str, Any] = {"id": flow.rule}
    if rules.get(flow.rule):
        rule["name"] = rules[flow.rule]
    return {
        "id": flow.flow_id,
        "type": _TYPES[FlowType(flow.type)],
        "spliced": flow.type in _SPLICED,
        "state": FlowState(flow.state).name.lower(),
        "from": PIF_NAMES[Pif(flow.pif0)],
        "to": PIF_NAMES[Pif(flow.pif1)],
        "src": _end(flow.eaddr0, flow.eport0),
        "dst": _end(flow.oaddr0, flow.oport0),
        "target_src": _end(flow.oaddr1, flow.oport1),
        "target_dst": _end(flow.eaddr1, flow.eport1),
        "rule": rule,
        "packets": [flow.packets0, flow.packets1],
        "bytes": [flow.bytes0, flow.bytes1],
        "tcp_flags": [_flags(flow.tcp_flags0), _flags(flow.tcp_flags1)],
        "age_ns": now - flow.created_ns,
        "idle_ns": now - flow.last_use_ns,
    }


def _flags(bits: int) -> str:
    return "".join(name for n, name in enumerate(_FLAGS) if bits & 1 << n)


def chosen(
    flows: Flows, predicate: Predicate, limit: int | None
) -> Iterator[FlowRecord | None]:
    """Yield flows that a filter takes, and None behind each page."""
    left = limit
    for page in flows.pages():
        for flow in page:
            if left == 0:
                return
            if predicate(flow):
                left = None if left is None else left - 1
                yield flow
        yield None


def listing(
    flows: Flows,
    predicate: Predicate,
    limit: int | None,
    rules: Mapping[int, str | None],
) -> Iterator[Json | None]:
    """Yield them as JSON."""
    now = flows.now()
    for flow in chosen(flows, predicate, limit):
        yield None if flow is None else flow_json(flow, rules, now)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows as JSON, chosen by a filter, a bounded number at a time."""

import json
from collections.abc import Iterator, Mapping
from functools import lru_cache

from passtpy.addr import UNSPECIFIED, from_inany
from passtpy.control.filter import Predicate
from passtpy.control.owners import Flows
from passtpy.flow import SPLICED_TYPES, TYPE_NAMES, FlowRecord, FlowState, Pif

PIF_NAMES = {Pif.NONE: "none", Pif.HOST: "host", Pif.TAP: "guest"} | {
    Pif.SPLICE: "namespace"
}
_FLAGS = "FSRPAUEC"
_KNOWN_ENDS = 4096
# By number, as text that JSON has already: a list of 100 000 flows is made between
# packets, and a dictionary for each, dumped, takes five times as long.
_KINDS = {
    kind.value: f'"type":"{name}","spliced":{str(kind in SPLICED_TYPES).lower()}'
    for kind, name in TYPE_NAMES.items()
}
_STATES = {state.value: state.name.lower() for state in FlowState}
_SIDES = {pif.value: name for pif, name in PIF_NAMES.items()}


@lru_cache(_KNOWN_ENDS)
def _addr(raw: bytes) -> str:
    return "null" if raw == UNSPECIFIED else f'"{from_inany(raw)}"'


@lru_cache(1 << len(_FLAGS))
def _flags(bits: int) -> str:
    return "".join(name for n, name in enumerate(_FLAGS) if bits & 1 << n)


def rule_texts(names: Mapping[int, str | None]) -> Mapping[int, str]:
    """Return how each rule is told in a line, by id."""
    return {
        number: json.dumps({"id": number} | ({"name": name} if name else {}))
        for number, name in names.items()
    }


def flow_line(flow: FlowRecord, rules: Mapping[int, str], now: int) -> bytes:
    """Return one flow as a line of JSON.

    Side 0 began it, direction 0 leads away from there.
    """
    f = flow
    rule = rules.get(f.rule) or f'{{"id":{f.rule}}}'
    return (
        f'{{"id":{f.flow_id},{_KINDS[f.type]},"state":"{_STATES[f.state]}",'
        f'"from":"{_SIDES[f.pif0]}","to":"{_SIDES[f.pif1]}",'
        f'"src":{{"addr":{_addr(f.eaddr0)},"port":{f.eport0}}},'
        f'"dst":{{"addr":{_addr(f.oaddr0)},"port":{f.oport0}}},'
        f'"target_src":{{"addr":{_addr(f.oaddr1)},"port":{f.oport1}}},'
        f'"target_dst":{{"addr":{_addr(f.eaddr1)},"port":{f.eport1}}},'
        f'"rule":{rule},'
        f'"packets":[{f.packets0},{f.packets1}],"bytes":[{f.bytes0},{f.bytes1}],'
        f'"tcp_flags":["{_flags(f.tcp_flags0)}","{_flags(f.tcp_flags1)}"],'
        f'"age_ns":{now - f.created_ns},"idle_ns":{now - f.last_use_ns}}}\n'
    ).encode()


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
    names: Mapping[int, str | None],
) -> Iterator[bytes | None]:
    """Yield them as lines of JSON; `names` are those of the rules."""
    now, rules = flows.now(), rule_texts(names)
    for flow in chosen(flows, predicate, limit):
        yield None if flow is None else flow_line(flow, rules, now)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows and datapath events as text; the enums agree with the extension module."""

from enum import IntEnum
from ipaddress import ip_address
from struct import calcsize
from types import SimpleNamespace

import pytest

from passtpy.addr import UNSPECIFIED, inany
from passtpy.flow import (
    FLOW_STRUCT,
    Action,
    FlowRecord,
    FlowState,
    FlowType,
    FlowWhy,
    Pif,
    PuntKind,
    describe_event,
    describe_flow,
    describe_step,
    flows_in,
)


def raw(text: str) -> bytes:
    return inany(ip_address(text))


FLOW = FlowRecord(
    flow_id=(5 << 32) | 7,
    created_ns=1,
    last_use_ns=2,
    packets0=3,
    bytes0=4,
    packets1=5,
    bytes1=6,
    rule=7,
    generation=8,
    listener=-1,
    eaddr0=raw("192.0.2.5"),
    oaddr0=raw("198.51.100.1"),
    eaddr1=raw("198.51.100.1"),
    oaddr1=UNSPECIFIED,
    eport0=40000,
    oport0=443,
    eport1=443,
    oport1=0,
    proto=6,
    type=FlowType.TCP,
    state=FlowState.TYPED,
    pif0=Pif.TAP,
    pif1=Pif.HOST,
    tcp_flags0=2,
    tcp_flags1=0,
)
PACKED = FLOW_STRUCT.pack(*FLOW)


def test_flow_tells_all_its_addresses() -> None:
    assert describe_flow(FLOW) == (
        "TAP [192.0.2.5]:40000 -> [198.51.100.1]:443"
        " => HOST [0.0.0.0]:0 -> [198.51.100.1]:443"
    )


def test_flow_without_target_has_a_question_mark() -> None:
    flow = FLOW._replace(state=FlowState.INI, type=FlowType.NONE, pif1=Pif.NONE)
    assert describe_flow(flow) == "TAP [192.0.2.5]:40000 -> [198.51.100.1]:443 => ?"


def test_unspecified_v6_source_is_shown_as_v6() -> None:
    flow = FLOW._replace(eaddr1=raw("2001:db8::1"))
    assert describe_flow(flow).endswith("=> HOST [::]:0 -> [2001:db8::1]:443")


def test_step_names_both_states() -> None:
    step = describe_step(FLOW, FlowState.TGT)
    assert step == "Flow 7 (TCP connection): TGT -> TYPED"


EVENTS = (
    ("FLOW_STATE", 1, ("from", "to", "", "")),
    ("TCP_EVENT", 2, ("event", "events", "", "")),
    ("LIMIT", 1, ("errno", "", "", "")),
    ("FLOW_CLOSED", 1, ("reason", "errno")),
)


def test_state_event_becomes_a_step() -> None:
    event = SimpleNamespace(event=0, flow_id=7, flow=PACKED, args=(3, 4, 0, 0))
    name, level, fields = describe_event(event, EVENTS)
    assert (name, level) == ("flow_state", 1)
    assert fields["step"] == "Flow 7 (TCP connection): TGT -> TYPED"
    assert str(fields["path"]).startswith("TAP [192.0.2.5]:40000 -> ")


def test_handler_event_keeps_its_named_fields() -> None:
    event = SimpleNamespace(event=1, flow_id=7, flow=PACKED, args=(2, 6, 0, 0))
    name, _, fields = describe_event(event, EVENTS)
    assert name == "tcp_event"
    assert fields["flow"] == 7
    assert (fields["happened"], fields["events"]) == (2, 6)


def test_event_without_flow_has_only_its_fields() -> None:
    event = SimpleNamespace(event=2, flow_id=0, flow=None, args=(24, 0, 0, 0))
    assert describe_event(event, EVENTS) == ("limit", 1, {"errno": 24})


@pytest.mark.parametrize(
    ("enum", "table"),
    [
        (Pif, "PIF"),
        (FlowState, "FLOW_STATES"),
        (FlowType, "FLOW_TYPES"),
        (FlowWhy, "FLOW_WHYS"),
        (PuntKind, "PUNT_KINDS"),
        (Action, "ACTIONS"),
    ],
)
def test_enums_repeat_those_of_the_datapath(enum: type[IntEnum], table: str) -> None:
    from passtpy import _native as native

    names = [name.upper() for name in getattr(native, table)]
    assert [member.name for member in enum] == names
    assert [member.value for member in enum] == list(range(len(names)))


def test_why_a_flow_ended_is_told_by_name() -> None:
    event = SimpleNamespace(event=3, flow_id=7, flow=PACKED, args=(FlowWhy.ASKED, 0))
    _, _, fields = describe_event(event, EVENTS)
    assert (fields["reason"], fields["errno"]) == ("asked", 0)


def test_packed_flows_are_read_as_the_datapath_writes_them() -> None:
    """Names, formats and offsets are the module's own, not a second count."""
    from passtpy import _native as native

    assert FlowRecord._fields == tuple(name for name, _, _ in native.FLOW_RECORD)
    assert FLOW_STRUCT.size == native.FLOW_RECORD_SIZE
    formats = [form for _, form, _ in native.FLOW_RECORD]
    assert FLOW_STRUCT.format == "=" + "".join(formats)
    for position, (name, _, offset) in enumerate(native.FLOW_RECORD):
        assert calcsize("=" + "".join(formats[:position])) == offset, name


def test_a_page_is_read_flow_by_flow() -> None:
    other = FLOW._replace(flow_id=9, pif1=Pif.TAP, pif0=Pif.HOST)
    assert list(flows_in(PACKED + FLOW_STRUCT.pack(*other))) == [FLOW, other]
    assert list(flows_in(b"")) == []
    assert FLOW.slot == 7
    assert FLOW.endpoint(Pif.TAP) == raw("192.0.2.5")
    assert other.endpoint(Pif.TAP) == raw("198.51.100.1")
    assert FLOW.endpoint(Pif.SPLICE) is None
    assert FLOW.miss.listener == -1

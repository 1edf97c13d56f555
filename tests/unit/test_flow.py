# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows and datapath events as text; the enums agree with the extension module."""

from dataclasses import dataclass, replace
from enum import IntEnum
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from passtpy.addr import UNSPECIFIED, inany
from passtpy.flow import (
    Action,
    FlowState,
    FlowType,
    Pif,
    describe_event,
    describe_flow,
    describe_step,
)


def raw(text: str) -> bytes:
    return inany(ip_address(text))


@dataclass(frozen=True)
class Flow:
    index: int = 7
    type: int = FlowType.TCP
    state: int = FlowState.TYPED
    pif0: int = Pif.TAP
    eaddr0: bytes = raw("192.0.2.5")
    eport0: int = 40000
    oaddr0: bytes = raw("198.51.100.1")
    oport0: int = 443
    pif1: int = Pif.HOST
    eaddr1: bytes = raw("198.51.100.1")
    eport1: int = 443
    oaddr1: bytes = UNSPECIFIED
    oport1: int = 0


def test_flow_tells_all_its_addresses() -> None:
    assert describe_flow(Flow()) == (
        "TAP [192.0.2.5]:40000 -> [198.51.100.1]:443"
        " => HOST [0.0.0.0]:0 -> [198.51.100.1]:443"
    )


def test_flow_without_target_has_a_question_mark() -> None:
    flow = Flow(state=FlowState.INI, type=FlowType.NONE, pif1=Pif.NONE)
    assert describe_flow(flow) == "TAP [192.0.2.5]:40000 -> [198.51.100.1]:443 => ?"


def test_unspecified_v6_source_is_shown_as_v6() -> None:
    flow = replace(Flow(), eaddr1=raw("2001:db8::1"))
    assert describe_flow(flow).endswith("=> HOST [::]:0 -> [2001:db8::1]:443")


def test_step_names_both_states() -> None:
    step = describe_step(Flow(), FlowState.TGT)
    assert step == "Flow 7 (TCP connection): TGT -> TYPED"


EVENTS = (
    ("FLOW_STATE", 1, ("from", "to", "", "")),
    ("TCP_EVENT", 2, ("event", "events", "", "")),
    ("MISS_EXPIRED", 1, ("proto", "", "", "")),
)


def test_state_event_becomes_a_step() -> None:
    event = SimpleNamespace(event=0, flow_id=7, flow=Flow(), args=(3, 4, 0, 0))
    name, level, fields = describe_event(event, EVENTS)
    assert (name, level) == ("flow_state", 1)
    assert fields["step"] == "Flow 7 (TCP connection): TGT -> TYPED"
    assert str(fields["path"]).startswith("TAP [192.0.2.5]:40000 -> ")


def test_handler_event_keeps_its_named_fields() -> None:
    event = SimpleNamespace(event=1, flow_id=7, flow=Flow(), args=(2, 6, 0, 0))
    name, _, fields = describe_event(event, EVENTS)
    assert name == "tcp_event"
    assert fields["flow"] == 7
    assert (fields["happened"], fields["events"]) == (2, 6)


def test_event_without_flow_has_only_its_fields() -> None:
    event = SimpleNamespace(event=2, flow_id=0, flow=None, args=(17, 0, 0, 0))
    assert describe_event(event, EVENTS) == ("miss_expired", 1, {"proto": 17})


@pytest.mark.parametrize(
    ("enum", "table"),
    [
        (Pif, "PIF"),
        (FlowState, "FLOW_STATES"),
        (FlowType, "FLOW_TYPES"),
        (Action, "ACTIONS"),
    ],
)
def test_enums_repeat_those_of_the_datapath(enum: type[IntEnum], table: str) -> None:
    from passtpy import _native as native

    names = [name.upper() for name in getattr(native, table)]
    assert [member.name for member in enum] == names
    assert [member.value for member in enum] == list(range(len(names)))

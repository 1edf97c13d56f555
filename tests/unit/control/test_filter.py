# SPDX-License-Identifier: GPL-2.0-or-later
"""Flows chosen by words: what each primitive is about, and what is no filter."""

from ipaddress import ip_address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany
from passtpy.control.filter import (
    MAX_DEPTH,
    Context,
    FilterError,
    compile_filter,
    compile_program,
)
from passtpy.flow import FLOW_STRUCT, FlowRecord, FlowState, FlowType, Pif

SECOND = 10**9


def a(text: str) -> bytes:
    return inany(ip_address(text)) if text else UNSPECIFIED


def flow(**more: Any) -> FlowRecord:
    fields: dict[str, Any] = {
        "flow_id": 7,
        "created_ns": 100 * SECOND,
        "last_use_ns": 160 * SECOND,
        "packets0": 10,
        "bytes0": 1_000_000,
        "packets1": 5,
        "bytes1": 1,
        "rule": 3,
        "generation": 1,
        "listener": -1,
        "eaddr0": a("192.0.2.5"),
        "oaddr0": a("198.51.100.1"),
        "eaddr1": a("203.0.113.9"),
        "oaddr1": a("192.0.2.1"),
        "eport0": 40000,
        "oport0": 443,
        "eport1": 8443,
        "oport1": 50000,
        "proto": 6,
        "type": FlowType.TCP,
        "state": FlowState.ACTIVE,
        "pif0": Pif.TAP,
        "pif1": Pif.HOST,
        "tcp_flags0": 2,
        "tcp_flags1": 18,
    } | more
    return FlowRecord(**fields)


def takes(text: str, record: FlowRecord, context: Context) -> bool:
    """What an expression says, here and as a program of the datapath."""
    found = compile_filter(text, context)(record)
    program = compile_program(text, context)
    packed = FLOW_STRUCT.pack(*record)
    assert _native.filter_takes(program, packed, context.now) is found, text
    return found


CONTEXT = Context({"code hosting": frozenset((3, 4))}, now=200 * SECOND)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tcp",
        "TCP and port 443",
        "tcp port 443",
        "src 192.0.2.5",
        "src host 192.0.2.5",
        "src 192.0.2.1",
        "dst 198.51.100.0/24",
        "dst net 198.51.100.0/24",
        "dst 203.0.113.9",
        "host 203.0.113.9",
        "192.0.2.0/24",
        "sport = :40000",
        "sport 40000",
        "dport = 8443",
        "dst port 443",
        "src portrange 39999-40001",
        "src portrange 40001-39999",
        "from guest",
        'rule "code hosting"',
        "rule 3",
        "id 7",
        "ip",
        "not udp",
        "! udp && tcp",
        "udp or tcp",
        "udp || tcp",
        "(udp or tcp) and not (port 80)",
        "not (udp or port 80) and tcp",
        "bytes > 1M",
        "packets = 15",
        "age >= 100s",
        "idle < 1m",
        "idle > 39",
    ],
)
def test_what_matches(text: str) -> None:
    assert takes(text, flow(), CONTEXT)


@pytest.mark.parametrize(
    "text",
    [
        "udp",
        "spliced",
        "ping",
        "ip6",
        "port 80",
        "src 198.51.100.1",
        "dst 192.0.2.5",
        "dport 40000",
        "from host",
        "rule 9",
        "id 8",
        "not tcp",
        "tcp and udp",
        "udp or tcp and port 80",
        "bytes > 2M",
        "idle > 1m",
        "host 2001:db8::1",
        "net 2001:db8::/32",
    ],
)
def test_what_does_not(text: str) -> None:
    assert not takes(text, flow(), CONTEXT)


def test_ipv6_addresses_stand_with_and_without_brackets() -> None:
    v6 = flow(eaddr0=a("2001:db8::5"))
    for text in ("src 2001:db8::5", "src [2001:db8::5]", "src 2001:db8::/32", "ip6"):
        assert takes(text, v6, CONTEXT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tcp and", "expected an expression, at column 8"),
        ("tcp blah", "unknown word 'blah', at column 5"),
        ("port http", "'http' is no port, at column 6"),
        ("port 65536", "'65536' is no port, at column 6"),
        ("portrange 65536-1", "'65536-1' is no port, at column 11"),
        ("(tcp", "expected ), at column 5"),
        ("tcp )", "expected and, or, or the end, at column 5"),
        ("src nowhere", "'nowhere' is no address or network, at column 5"),
        ("rule nobody", "no rule is called 'nobody', at column 6"),
        ("bytes 5", "expected one of > < >= <= =, at column 7"),
        ("bytes > much", "'much' is no number of that kind, at column 9"),
        ("from mars", "expected guest, host or namespace, at column 6"),
        ("rule " + "9" * 5000, f"no rule is called '{'9' * 5000}', at column 6"),
        ("id " + "9" * 5000, f"'{'9' * 5000}' is no id of a flow, at column 4"),
        ("port " + "9" * 5000, f"'{'9' * 5000}' is no port, at column 6"),
        ("tcp " * 250_000, "too long, at column 16385"),
        ('rule "open', "cannot read '\"open', at column 6"),
    ],
)
def test_what_is_no_filter_says_where(text: str, message: str) -> None:
    with pytest.raises(FilterError) as caught:
        compile_filter(text, CONTEXT)
    assert str(caught.value) == message


@given(st.text(max_size=60))
def test_any_text_is_a_filter_or_an_error(text: str) -> None:
    try:
        takes(text, flow(), CONTEXT)
    except FilterError:
        return


WORDS = (
    "tcp udp spliced ip6 ping icmp id rule port sport 443 5 7 src dst 192.0.2.5 9"
    " 198.51.100.0/24 host from guest and or not ( ) bytes > 1k age < 2m"
)


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12))
def test_the_datapath_agrees(words: list[str]) -> None:
    try:
        takes(" ".join(words), flow(), CONTEXT)
    except FilterError:
        return


def test_the_datapath_takes_the_deepest() -> None:
    deep = MAX_DEPTH - 4
    text = "tcp or (udp or " * (deep // 2) + "tcp" + ")" * (deep // 2)
    assert takes(text, flow(), CONTEXT)


def test_a_packet_without_flow_has_no_rule() -> None:
    bare = FLOW_STRUCT.pack(*flow(flow_id=2**64 - 1))
    for text, found in (("rule 3", False), ("not rule 3", True), ("port 443", True)):
        program = compile_program(text, CONTEXT)
        assert _native.filter_takes(program, bare, 0) is found


def test_depth_is_bounded() -> None:
    with pytest.raises(FilterError, match="too deep"):
        compile_filter("(" * 100 + "tcp", CONTEXT)
    with pytest.raises(FilterError, match="too deep"):
        compile_filter("not " * 100 + "tcp", CONTEXT)
    with pytest.raises(FilterError, match="too long"):
        compile_filter("tcp or " * 5000 + "tcp", CONTEXT)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which frame goes to whom, and that no frame does harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.flow import PuntKind
from passtpy.services import registry
from passtpy.services.registry import MAX_FRAME
from passtpy.wire.arp import ArpOp
from passtpy.wire.dhcp import Dhcp, Op
from passtpy.wire.dhcpv6 import Dhcpv6, Ia, IaAddress, MessageType, RawOption
from passtpy.wire.ndp import (
    LinkAddress,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterSolicitation,
)
from tests.unit.services.conversation import (
    GUEST4,
    GUEST6,
    GUEST_MAC,
    PEER4,
    PEER6,
    arp,
    facts,
    icmpv6,
    make,
    read_dhcp,
    serve,
    udp4,
    udp6,
)


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("-6", "arp"),
        ("-6", "dhcp"),
        ("-4", "ndp"),
        ("-4", "dhcpv6"),
        ("--no-ndp", "ndp"),
        ("--no-icmp", "ndp"),
        ("--no-dhcp", "dhcp"),
        ("--no-dhcpv6", "dhcpv6"),
    ],
)
def test_disabled_service_does_not_exist(line: str, gone: str) -> None:
    services, _ = make(line)
    assert gone not in services.counters()


def test_a_kind_that_nobody_serves_is_counted() -> None:
    services, _ = make("--no-dhcp")
    frame = udp4(DISCOVER.emit())
    for kind in (PuntKind.NONE, PuntKind.DHCP4, PuntKind.GROUP, len(PuntKind)):
        assert services.handle(kind, frame, 0) == []
    assert services.counters()["unknown"] == 4


@pytest.mark.parametrize("kind", registry.NAMES)
@pytest.mark.parametrize("frame", [b"", bytes(14), bytes(60)])
def test_what_is_not_what_it_is_said_to_be_is_malformed(
    kind: PuntKind, frame: bytes
) -> None:
    services, _ = make()
    assert services.handle(kind, frame, 0) == []
    assert services.counters()[f"{registry.NAMES[kind]}_malformed"] == 1


def test_oversized_frames_are_counted() -> None:
    services, _ = make()
    assert serve(services, bytes(MAX_FRAME + 1), 0) == []
    assert services.counters()["oversized"] == 1


@pytest.mark.parametrize("line", ["", "--config-net"])
def test_dhcp_is_loaded_at_the_latest_when_asked(line: str) -> None:
    services, _ = make(line)
    services.update(facts(line + " -H other"))
    assert ("dhcp_refused" in services.counters()) == (line == "")
    (frame,) = serve(services, udp4(DISCOVER.emit()), 0)
    assert read_dhcp(frame)[2].options[12] == b"other"
    assert "dhcp_refused" in services.counters()


def test_services_have_the_names_of_their_kinds() -> None:
    services, _ = make()
    assert {*registry.NAMES.values()} <= services.counters().keys()


DISCOVER = Dhcp(
    op=Op.REQUEST,
    xid=7,
    chaddr=GUEST_MAC,
    options={53: b"\1", 50: GUEST4.packed, 55: b"\1\3\6\x77", 81: b"\1\0\0x"},
)
SOLICIT = Dhcpv6(
    MessageType.SOLICIT,
    7,
    (
        RawOption(1, b"\0\3\0\1" + GUEST_MAC),
        Ia(3, 1, addresses=(IaAddress(GUEST6),)),
        RawOption(6, b"\0\x17\0\x18"),
        RawOption(39, b"\1\1x"),
    ),
)
GOOD = (
    arp(ArpOp.REQUEST, GUEST4, PEER4),
    icmpv6(NeighbourSolicitation(PEER6, (LinkAddress(GUEST_MAC),)).emit()),
    icmpv6(RouterSolicitation((LinkAddress(GUEST_MAC),)).emit()),
    icmpv6(NeighbourAdvertisement(PEER6).emit()),
    udp4(DISCOVER.emit()),
    udp6(SOLICIT.emit()),
)
LINE = "--dhcp-dns --dhcp-search -H guest --fqdn guest.example.com"


@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    st.integers(0, 400),
)
def test_mutated_frames_never_raise(
    frame: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(frame)
    for offset, value in changes:
        if offset < len(data):
            data[offset] = value
    services, _ = make(LINE)
    for kind in registry.NAMES:  # also what no datapath would say
        services.handle(kind, bytes(data[:length]), 0)
        services.handle(kind, bytes(data), 0)
    assert len(serve(services, GOOD[0], 0)) == 1


@pytest.mark.parametrize("offset", range(282, 320))
def test_every_value_of_every_byte_of_the_options_is_survived(offset: int) -> None:
    services, _ = make(LINE)
    data = bytearray(udp4(DISCOVER.emit()))
    for value in range(256):
        data[offset] = value
        services.handle(PuntKind.DHCP4, bytes(data), 0)
    assert services.counters()["dhcp"] == 256


def test_a_new_guest_is_asked_who_it_is_again() -> None:
    services, _ = make()
    first = services.tick(0)
    assert services.tick(0) == []
    services.welcome()
    assert services.due() == 0
    assert services.tick(0) == first
    assert len(first) == 2  # by ARP and by neighbour discovery

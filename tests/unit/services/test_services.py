# SPDX-License-Identifier: GPL-2.0-or-later
"""The services, asked with frames and answered in frames; time is ours."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import inany
from passtpy.config.cli import parse_pasta
from passtpy.config.host import HostInfo
from passtpy.policy.guest import GuestAddresses
from passtpy.services.registry import MAX_FRAME, Services, services_from_config
from passtpy.wire.arp import Arp, ArpOp, Neighbour
from passtpy.wire.ethernet import ETHERTYPE_ARP, ETHERTYPE_IPV6, Ethernet
from passtpy.wire.icmpv6 import Icmpv6
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.ndp import (
    LinkAddress,
    LinkMtu,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    PrefixInfo,
    RouterAdvertisement,
    RouterSolicitation,
)

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("2001:db8::1"),
    mtu=1500,
)
OUR_MAC = HOST.our_mac
GUEST_MAC = b"\x02\0\0\0\0\5"
BROADCAST = b"\xff" * 6
OUR_LL = IPv6Address("fe80::9855:9aff:fe55:9a55")
GUEST_LL = IPv6Address("fe80::5")
GUEST4, PEER4 = IPv4Address("192.0.2.5"), IPv4Address("192.0.2.200")
GUEST6, PEER6 = IPv6Address("2001:db8::5"), IPv6Address("2001:db8::200")
UNSPECIFIED6 = IPv6Address("::")
ALL_NODES, ALL_ROUTERS = IPv6Address("ff02::1"), IPv6Address("ff02::2")
S = 1_000_000_000


def make(line: str = "", host: HostInfo = HOST) -> tuple[Services, GuestAddresses]:
    guest = GuestAddresses.from_host(host)
    config = parse_pasta(line.split())
    return services_from_config(config, host, guest, lambda low, high: low), guest


def arp(op: ArpOp, sender: IPv4Address, target: IPv4Address) -> bytes:
    message = Arp(op, Neighbour(GUEST_MAC, sender), Neighbour(bytes(6), target))
    return Ethernet(BROADCAST, GUEST_MAC, ETHERTYPE_ARP, message.emit()).emit()


def icmpv6(
    message: Icmpv6,
    source: IPv6Address = GUEST_LL,
    destination: IPv6Address = ALL_ROUTERS,
    hop_limit: int = 255,
) -> bytes:
    payload = message.emit(source, destination)
    packet = Ipv6(source, destination, 58, payload, hop_limit).emit()
    return Ethernet(b"\x33\x33" + bytes(4), GUEST_MAC, ETHERTYPE_IPV6, packet).emit()


def read6(frame: bytes) -> tuple[Ethernet, Ipv6, Icmpv6]:
    eth = Ethernet.parse(frame)
    packet = Ipv6.parse(eth.payload)
    return eth, packet, Icmpv6.parse(packet.payload, packet.source, packet.destination)


def test_arp_request_for_any_address_gets_our_mac() -> None:
    services, _ = make()
    (frame,) = services.handle(arp(ArpOp.REQUEST, GUEST4, PEER4), 0)
    eth = Ethernet.parse(frame)
    assert (eth.destination, eth.source) == (GUEST_MAC, OUR_MAC)
    reply = Arp.parse(eth.payload)
    assert reply.op is ArpOp.REPLY
    assert reply.sender == Neighbour(OUR_MAC, PEER4)
    assert reply.target == Neighbour(GUEST_MAC, GUEST4)


@pytest.mark.parametrize(
    "frame",
    [
        arp(ArpOp.REQUEST, GUEST4, GUEST4),  # announcement
        arp(ArpOp.REQUEST, PEER4, PEER4),  # announcement of another address
        arp(ArpOp.REQUEST, IPv4Address(0), GUEST4),  # probe for its own address
        arp(ArpOp.REPLY, GUEST4, PEER4),
    ],
)
def test_arp_that_is_not_a_question_to_us_is_silent(frame: bytes) -> None:
    services, _ = make()
    assert services.handle(frame, 0) == []


def test_arp_teaches_the_guests_address() -> None:
    services, guest = make()
    services.handle(arp(ArpOp.REQUEST, IPv4Address("192.0.2.77"), PEER4), 0)
    assert guest.addr4 == inany(IPv4Address("192.0.2.77"))


def test_neighbour_solicitation_gets_our_mac() -> None:
    services, guest = make()
    asked = NeighbourSolicitation(PEER6, (LinkAddress(GUEST_MAC),)).emit()
    (frame,) = services.handle(icmpv6(asked), 0)
    eth, packet, message = read6(frame)
    assert (eth.destination, eth.source) == (GUEST_MAC, OUR_MAC)
    assert (packet.source, packet.destination) == (PEER6, GUEST_LL)
    assert packet.hop_limit == 255
    answer = NeighbourAdvertisement.parse(message)
    assert (answer.target, answer.options) == (PEER6, (LinkAddress(OUR_MAC, True),))
    assert (answer.router, answer.solicited, answer.override) == (True, True, True)
    assert guest.link_local6 == inany(GUEST_LL)


@pytest.mark.parametrize(
    ("target", "source"),
    [(PEER6, UNSPECIFIED6), (GUEST6, UNSPECIFIED6), (GUEST6, GUEST_LL)],
)
def test_guests_own_and_tentative_addresses_are_not_answered(
    target: IPv6Address, source: IPv6Address
) -> None:
    services, _ = make()
    assert (
        services.handle(icmpv6(NeighbourSolicitation(target).emit(), source), 0) == []
    )


def test_solicitation_that_was_forwarded_is_forged() -> None:
    services, _ = make()
    frame = icmpv6(NeighbourSolicitation(PEER6).emit(), hop_limit=254)
    assert services.handle(frame, 0) == []
    assert services.counters()["ndp_malformed"] == 1


def test_router_solicitation_gets_what_the_guest_needs() -> None:
    services, _ = make()
    (frame,) = services.handle(icmpv6(RouterSolicitation().emit()), 0)
    eth, packet, message = read6(frame)
    assert eth.destination == GUEST_MAC
    assert (packet.source, packet.destination) == (OUR_LL, GUEST_LL)
    answer = RouterAdvertisement.parse(message)
    assert (answer.lifetime, answer.hop_limit) == (65535, 255)
    assert answer.options == (
        PrefixInfo(IPv6Address("2001:db8::"), 64),
        LinkMtu(1500),
        LinkAddress(OUR_MAC),
    )


def test_solicitation_without_address_is_answered_to_all_once_per_gap() -> None:
    services, _ = make()
    asked = icmpv6(RouterSolicitation().emit(), UNSPECIFIED6)
    (frame,) = services.handle(asked, 10 * S)
    assert read6(frame)[1].destination == ALL_NODES
    assert services.handle(asked, 12 * S) == []
    assert len(services.handle(asked, 13 * S)) == 1


def test_gateways_link_local_address_is_ours() -> None:
    gateway = IPv6Address("fe80::1")
    services, _ = make(host=replace(HOST, gateway6=gateway))
    (frame,) = services.handle(icmpv6(RouterSolicitation().emit()), 0)
    assert read6(frame)[1].source == gateway


@pytest.mark.parametrize("line", ["--config-net", "--no-ra"])
def test_no_router_is_advertised_with(line: str) -> None:
    services, _ = make(line)
    assert services.handle(icmpv6(RouterSolicitation().emit()), 0) == []
    services.tick(0)
    assert services.due() is None


def test_mtu_zero_is_not_announced() -> None:
    services, _ = make(host=replace(HOST, mtu=0))
    (frame,) = services.handle(icmpv6(RouterSolicitation().emit()), 0)
    options = RouterAdvertisement.parse(read6(frame)[2]).options
    assert not any(isinstance(option, LinkMtu) for option in options)


def test_first_tick_asks_who_the_guest_is() -> None:
    services, _ = make("--config-net")
    assert services.due() == 0
    question, solicitation = services.tick(5 * S)
    asked = Arp.parse(Ethernet.parse(question).payload)
    assert (asked.op, asked.target.addr) == (ArpOp.REQUEST, GUEST4)
    assert asked.sender == Neighbour(OUR_MAC, IPv4Address("192.0.2.1"))
    eth, packet, message = read6(solicitation)
    assert eth.destination == bytes.fromhex("3333ff000005")
    assert packet.destination == IPv6Address("ff02::1:ff00:5")
    assert NeighbourSolicitation.parse(message).target == GUEST6
    assert services.tick(6 * S) == []


def test_router_is_advertised_from_time_to_time() -> None:
    services, _ = make()
    services.tick(0)
    assert services.due() == 200 * S
    assert services.tick(199 * S) == []
    (frame,) = services.tick(200 * S)
    assert read6(frame)[1].destination == ALL_NODES
    assert services.due() == 400 * S


@pytest.mark.parametrize(
    ("line", "gone"), [("-6", "arp"), ("-4", "ndp"), ("--no-ndp", "ndp")]
)
def test_disabled_service_does_not_exist(line: str, gone: str) -> None:
    services, _ = make(line)
    assert gone not in services.counters()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(14),
        Ethernet(bytes(6), bytes(6), 0x0800, bytes(40)).emit(),
        icmpv6(Icmpv6(128, 0, bytes(4))),
    ],
)
def test_unknown_frames_are_counted(frame: bytes) -> None:
    services, _ = make()
    assert services.handle(frame, 0) == []
    assert services.counters()["unknown"] == 1


def test_oversized_frames_are_counted() -> None:
    services, _ = make()
    assert services.handle(bytes(MAX_FRAME + 1), 0) == []
    assert services.counters()["oversized"] == 1


GOOD = (
    arp(ArpOp.REQUEST, GUEST4, PEER4),
    icmpv6(NeighbourSolicitation(PEER6, (LinkAddress(GUEST_MAC),)).emit()),
    icmpv6(RouterSolicitation((LinkAddress(GUEST_MAC),)).emit()),
    icmpv6(NeighbourAdvertisement(PEER6).emit()),
)


@given(
    st.sampled_from(GOOD),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), max_size=4),
    st.integers(0, 100),
)
def test_mutated_frames_never_raise(
    frame: bytes, changes: list[tuple[int, int]], length: int
) -> None:
    data = bytearray(frame)
    for offset, value in changes:
        if offset < len(data):
            data[offset] = value
    services, _ = make()
    services.handle(bytes(data[:length]), 0)
    assert len(services.handle(GOOD[0], 0)) == 1

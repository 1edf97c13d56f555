# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour discovery and router advertisements, as conversations."""

from dataclasses import replace
from ipaddress import IPv6Address

import pytest

from passtpy.addr import inany
from passtpy.config.resolver import Resolver
from passtpy.wire.ndp import (
    INFINITE,
    Dnssl,
    LinkAddress,
    LinkMtu,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    PrefixInfo,
    Rdnss,
    RouterAdvertisement,
    RouterSolicitation,
)
from tests.unit.services.conversation import (
    ALL_NODES,
    GATEWAY6,
    GUEST6,
    GUEST_LL,
    GUEST_MAC,
    HOST,
    OUR_LL,
    OUR_MAC,
    PEER6,
    RESOLVER,
    UNSPECIFIED6,
    S,
    facts,
    icmpv6,
    make,
    read_icmpv6,
    serve,
)

PREFIX = IPv6Address("2001:db8::")
DNS6 = IPv6Address("2001:db8:1::53")
PEER_MAC = b"\x02\0\0\0\0\x77"


def advertised(frame: bytes) -> RouterAdvertisement:
    return RouterAdvertisement.parse(read_icmpv6(frame)[2])


def solicited(line: str = "", **changes: object) -> RouterAdvertisement:
    """What a router solicitation brings."""
    services, _ = make(line, replace(HOST, **changes))  # type: ignore[arg-type]
    (frame,) = serve(services, icmpv6(RouterSolicitation().emit()), 0)
    return advertised(frame)


def test_neighbour_solicitation_gets_our_mac() -> None:
    services, guest = make()
    asked = NeighbourSolicitation(PEER6, (LinkAddress(GUEST_MAC),)).emit()
    (frame,) = serve(services, icmpv6(asked), 0)
    eth, packet, message = read_icmpv6(frame)
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
    asked = icmpv6(NeighbourSolicitation(target).emit(), source)
    assert serve(services, asked, 0) == []


@pytest.mark.parametrize("ours", [OUR_LL, GATEWAY6])
def test_our_own_addresses_are_defended(ours: IPv6Address) -> None:
    services, _ = make()
    asked = icmpv6(NeighbourSolicitation(ours).emit(), UNSPECIFIED6)
    (frame,) = serve(services, asked, 0)
    _, packet, message = read_icmpv6(frame)
    answer = NeighbourAdvertisement.parse(message)
    assert (packet.destination, answer.target) == (ALL_NODES, ours)
    assert not answer.solicited


def test_neighbours_of_the_host_keep_their_mac_and_are_announced() -> None:
    services, _ = make("-6 --no-ra")
    services.tick(0)
    serve(services, icmpv6(NeighbourSolicitation(PEER6).emit()), 0)
    services.update(facts("-6 --no-ra", replace(HOST, neighbours={PEER6: PEER_MAC})))
    (frame,) = services.tick(1)
    answer = NeighbourAdvertisement.parse(read_icmpv6(frame)[2])
    assert (answer.target, answer.options) == (PEER6, (LinkAddress(PEER_MAC, True),))
    (frame,) = serve(services, icmpv6(NeighbourSolicitation(PEER6).emit()), 2)
    answer = NeighbourAdvertisement.parse(read_icmpv6(frame)[2])
    assert answer.options == (LinkAddress(PEER_MAC, True),)


def test_guests_address_is_learnt_from_its_announcement() -> None:
    services, guest = make()
    other = IPv6Address("2001:db8::77")
    serve(services, icmpv6(NeighbourAdvertisement(other).emit()), 0)
    assert guest.addr6 == inany(other)


def test_solicitation_that_was_forwarded_is_forged() -> None:
    services, _ = make()
    frame = icmpv6(NeighbourSolicitation(PEER6).emit(), hop_limit=254)
    assert serve(services, frame, 0) == []
    assert services.counters()["ndp_malformed"] == 1


def test_router_solicitation_gets_what_the_guest_needs() -> None:
    services, _ = make()
    (frame,) = serve(services, icmpv6(RouterSolicitation().emit()), 0)
    eth, packet, _ = read_icmpv6(frame)
    assert eth.destination == GUEST_MAC
    assert (packet.source, packet.destination) == (OUR_LL, GUEST_LL)
    answer = advertised(frame)
    assert (answer.lifetime, answer.hop_limit) == (65535, 255)
    assert answer.options == (
        PrefixInfo(PREFIX, 64),
        LinkMtu(1500),
        LinkAddress(OUR_MAC),
    )


def test_resolvers_and_search_list_are_announced_when_asked_for() -> None:
    options = solicited("--dhcp-dns --dhcp-search").options
    assert options[3:] == (Rdnss(INFINITE, (DNS6,)), Dnssl(INFINITE, RESOLVER.search))


def test_search_list_needs_no_resolver() -> None:
    options = solicited("--dhcp-search -D 198.51.100.53").options
    assert options[3:] == (Dnssl(INFINITE, RESOLVER.search),)


@pytest.mark.parametrize(
    ("line", "managed"), [("", True), ("--no-dhcpv6", False), ("-6", True)]
)
def test_managed_flag_tells_of_dhcpv6(line: str, managed: bool) -> None:
    answer = solicited(line)
    assert (answer.managed, answer.other) == (managed, managed)


def test_prefix_of_another_length_is_only_on_link() -> None:
    options = solicited("-a 2001:db8::5/56").options
    assert options[0] == PrefixInfo(PREFIX, 56, True, False)


def test_solicitation_without_address_is_answered_to_all_once_per_gap() -> None:
    services, _ = make()
    asked = icmpv6(RouterSolicitation().emit(), UNSPECIFIED6)
    (frame,) = serve(services, asked, 10 * S)
    assert read_icmpv6(frame)[1].destination == ALL_NODES
    assert serve(services, asked, 12 * S) == []
    assert len(serve(services, asked, 13 * S)) == 1


def test_gateways_link_local_address_is_ours() -> None:
    gateway = IPv6Address("fe80::1")
    services, _ = make(host=replace(HOST, gateway6=gateway))
    (frame,) = serve(services, icmpv6(RouterSolicitation().emit()), 0)
    assert read_icmpv6(frame)[1].source == gateway


@pytest.mark.parametrize("line", ["--config-net", "--no-ra"])
def test_no_router_is_advertised_with(line: str) -> None:
    services, _ = make(line)
    assert serve(services, icmpv6(RouterSolicitation().emit()), 0) == []
    services.tick(0)
    assert services.due() is None
    services.update(facts(line, replace(HOST, mtu=9000)))
    assert services.due() is None


def test_mtu_zero_is_not_announced() -> None:
    options = solicited(mtu=0).options
    assert not any(isinstance(option, LinkMtu) for option in options)


def test_first_tick_asks_who_the_guest_is() -> None:
    services, _ = make("-6 --config-net")
    assert services.due() == 0
    (solicitation,) = services.tick(5 * S)
    eth, packet, message = read_icmpv6(solicitation)
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
    assert read_icmpv6(frame)[1].destination == ALL_NODES
    assert services.due() == 400 * S


LINE = "-6 --dhcp-dns --dhcp-search"
OTHER = Resolver((IPv6Address("2001:db8:2::53"),), ("example.org",))


def test_other_resolvers_are_advertised_at_once_and_the_old_withdrawn() -> None:
    services, _ = make(LINE)
    services.tick(0)
    services.update(facts(LINE, resolver=OTHER))
    assert services.due() == 0
    (frame,) = services.tick(10 * S)
    assert read_icmpv6(frame)[1].destination == ALL_NODES
    assert advertised(frame).options[3:] == (
        Rdnss(INFINITE, (IPv6Address("2001:db8:2::53"),)),
        Dnssl(INFINITE, ("example.org",)),
        Rdnss(0, (DNS6,)),
        Dnssl(0, ("lab.example.com",)),
        Dnssl(0, ("example.com",)),
    )


def test_what_comes_back_is_withdrawn_no_longer() -> None:
    services, _ = make(LINE)
    services.tick(0)
    services.update(facts(LINE, resolver=OTHER))
    services.update(facts(LINE))
    (frame,) = services.tick(10 * S)
    assert advertised(frame).options[3:] == (
        Rdnss(INFINITE, (DNS6,)),
        Dnssl(INFINITE, RESOLVER.search),
        Rdnss(0, (IPv6Address("2001:db8:2::53"),)),
        Dnssl(0, ("example.org",)),
    )


def test_change_is_advertised_three_times() -> None:
    services, _ = make("-6")
    services.tick(0)
    services.update(facts("-6", replace(HOST, mtu=9000)))
    assert len(services.tick(10 * S)) == 1
    assert services.due() == 26 * S
    assert len(services.tick(26 * S)) == 1
    assert services.due() == 42 * S
    assert len(services.tick(42 * S)) == 1
    assert services.due() == 242 * S


def test_changes_in_a_row_wait_for_the_gap() -> None:
    services, _ = make("-6")
    services.tick(0)
    services.update(facts("-6", replace(HOST, mtu=9000)))
    services.tick(10 * S)
    services.update(facts("-6", replace(HOST, mtu=1400)))
    assert services.due() == 13 * S
    assert services.tick(12 * S) == []
    (frame,) = services.tick(13 * S)
    assert LinkMtu(1400) in advertised(frame).options


def test_nothing_new_is_not_advertised() -> None:
    services, _ = make("-6")
    services.tick(0)
    services.update(facts("-6", resolver=OTHER))  # not announced without --dhcp-dns
    assert services.due() == 200 * S


def test_other_prefix_replaces_the_old_one() -> None:
    services, _ = make("-6")
    services.tick(0)
    moved = replace(HOST, guest6=IPv6Address("2001:db8:f::5"))
    services.update(facts("-6", moved))
    options = advertised(services.tick(S)[-1]).options
    assert options[0] == PrefixInfo(IPv6Address("2001:db8:f::"), 64)
    assert PrefixInfo(PREFIX, 64, valid=0, preferred=0) in options


def test_host_that_loses_ipv6_is_no_router_any_more() -> None:
    services, _ = make("-6")
    services.tick(0)
    services.update(facts("-6", replace(HOST, ipv6=False)))
    answer = advertised(services.tick(S)[-1])
    assert (answer.lifetime, answer.managed) == (0, False)
    assert PrefixInfo(PREFIX, 64, valid=0, preferred=0) in answer.options
    asked = icmpv6(NeighbourSolicitation(PEER6).emit())
    assert serve(services, asked, 2 * S) == []


def test_host_without_ipv6_is_silent_until_it_has_it() -> None:
    services, _ = make("-6", replace(HOST, ipv6=False))
    services.tick(0)
    assert services.due() is None
    assert serve(services, icmpv6(RouterSolicitation().emit()), 0) == []
    services.update(facts("-6"))
    assert advertised(services.tick(S)[-1]).lifetime == 65535


def test_advertisement_stays_below_the_least_mtu() -> None:
    long = [".".join(["x" * 60] * 4) + f"{i}" for i in range(6)]
    services, _ = make(LINE, resolver=Resolver((DNS6,), tuple(long)))
    services.tick(0)
    services.update(facts(LINE, resolver=OTHER))
    (frame,) = services.tick(S)
    assert len(frame) - 14 <= 1280
    assert Dnssl(INFINITE, ("example.org",)) in advertised(frame).options

# SPDX-License-Identifier: GPL-2.0-or-later
"""ARP: who is asked for, who is told, who is learnt."""

from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from passtpy.addr import inany
from passtpy.wire.arp import ArpOp, Neighbour
from tests.unit.services.conversation import (
    BROADCAST_MAC,
    GATEWAY4,
    GUEST4,
    GUEST_MAC,
    HOST,
    NOBODY4,
    OUR_MAC,
    PEER4,
    arp,
    facts,
    make,
    read_arp,
    serve,
)

PEER_MAC = b"\x02\0\0\0\0\x77"


def test_request_for_any_address_gets_our_mac() -> None:
    services, _ = make()
    (frame,) = serve(services, arp(ArpOp.REQUEST, GUEST4, PEER4), 0)
    eth, reply = read_arp(frame)
    assert (eth.destination, eth.source) == (GUEST_MAC, OUR_MAC)
    assert reply.op is ArpOp.REPLY
    assert reply.sender == Neighbour(OUR_MAC, PEER4)
    assert reply.target == Neighbour(GUEST_MAC, GUEST4)


@pytest.mark.parametrize(
    "frame",
    [
        arp(ArpOp.REQUEST, GUEST4, GUEST4),  # announcement
        arp(ArpOp.REQUEST, PEER4, PEER4),  # announcement of another address
        arp(ArpOp.REQUEST, NOBODY4, GUEST4),  # probe for its own address
        arp(ArpOp.REQUEST, NOBODY4, PEER4),  # probe for one that nobody has
        arp(ArpOp.REPLY, GUEST4, PEER4),
    ],
)
def test_what_is_no_question_to_us_is_silent(frame: bytes) -> None:
    services, _ = make()
    assert serve(services, frame, 0) == []


def test_probe_for_our_own_address_is_answered() -> None:
    services, _ = make()
    (frame,) = serve(services, arp(ArpOp.REQUEST, NOBODY4, GATEWAY4), 0)
    assert read_arp(frame)[1].sender == Neighbour(OUR_MAC, GATEWAY4)


def test_guests_address_is_learnt_from_what_it_says() -> None:
    services, guest = make()
    other = IPv4Address("192.0.2.77")
    serve(services, arp(ArpOp.REQUEST, other, other), 0)
    assert guest.addr4 == inany(other)


def test_first_tick_asks_who_the_guest_is() -> None:
    services, _ = make("-4")
    assert services.due() == 0
    (question,) = services.tick(5)
    asked = read_arp(question)[1]
    assert (asked.op, asked.target.addr) == (ArpOp.REQUEST, GUEST4)
    assert asked.sender == Neighbour(OUR_MAC, GATEWAY4)
    assert services.due() is None


def test_neighbours_of_the_host_keep_their_mac() -> None:
    services, _ = make(host=replace(HOST, neighbours={PEER4: PEER_MAC}))
    (frame,) = serve(services, arp(ArpOp.REQUEST, GUEST4, PEER4), 0)
    eth, reply = read_arp(frame)
    assert (eth.source, reply.sender.mac) == (OUR_MAC, PEER_MAC)


def test_our_own_address_is_ours_whatever_the_host_knows() -> None:
    services, _ = make(host=replace(HOST, neighbours={GATEWAY4: PEER_MAC}))
    (frame,) = serve(services, arp(ArpOp.REQUEST, GUEST4, GATEWAY4), 0)
    assert read_arp(frame)[1].sender.mac == OUR_MAC


def test_neighbour_that_moves_is_announced_once() -> None:
    services, _ = make("-4")
    services.tick(0)
    serve(services, arp(ArpOp.REQUEST, GUEST4, PEER4), 0)
    services.update(facts("-4", replace(HOST, neighbours={PEER4: PEER_MAC})))
    assert services.due() == 0
    (frame,) = services.tick(1)
    eth, announced = read_arp(frame)
    assert eth.destination == BROADCAST_MAC
    assert announced.is_announcement
    assert announced.sender == Neighbour(PEER_MAC, PEER4)
    assert services.due() is None


def test_neighbour_that_nobody_asked_for_is_not_announced() -> None:
    services, _ = make("-4")
    services.tick(0)
    services.update(facts("-4", replace(HOST, neighbours={PEER4: PEER_MAC})))
    assert services.due() is None


def test_neighbour_that_goes_is_behind_us_again() -> None:
    known = replace(HOST, neighbours={PEER4: PEER_MAC})
    services, _ = make("-4", known)
    services.tick(0)
    serve(services, arp(ArpOp.REQUEST, GUEST4, PEER4), 0)
    services.update(facts("-4"))
    (frame,) = services.tick(1)
    assert read_arp(frame)[1].sender == Neighbour(OUR_MAC, PEER4)


def test_new_gateway_is_announced_and_new_guest_address_asked_for() -> None:
    services, _ = make("-4")
    services.tick(0)
    gateway, guest = IPv4Address("198.51.100.1"), IPv4Address("198.51.100.9")
    services.update(facts("-4", replace(HOST, gateway4=gateway, guest4=guest)))
    announced, question = (read_arp(frame)[1] for frame in services.tick(1))
    assert announced.sender == Neighbour(OUR_MAC, gateway)
    assert question.target.addr == guest
    assert serve(services, arp(ArpOp.REQUEST, NOBODY4, guest), 2) == []


def test_host_without_ipv4_is_silent_until_it_has_it() -> None:
    services, _ = make("-4", replace(HOST, ipv4=False))
    asked = arp(ArpOp.REQUEST, GUEST4, PEER4)
    assert (services.due(), serve(services, asked, 0)) == (None, [])
    services.update(facts("-4"))
    assert len(serve(services, asked, 0)) == 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP conversations, one state of RFC 2131 after the other."""

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Any

import pytest

from passtpy.addr import inany
from passtpy.services.registry import Services
from passtpy.wire.dhcp import Code, Dhcp, MessageType, Op
from passtpy.wire.dnsname import decode_list
from tests.unit.services.conversation import (
    BROADCAST4,
    BROADCAST_MAC,
    GATEWAY4,
    GUEST4,
    GUEST_MAC,
    HOST,
    OUR_MAC,
    PEER4,
    RESOLVER,
    facts,
    make,
    read_dhcp,
    serve,
    udp4,
)

INFINITE = b"\xff" * 4
SERVER = GATEWAY4.packed
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = MessageType
TELL_ALL = "--dhcp-dns --dhcp-search -H guest --fqdn guest.example.com"


def message(kind: MessageType | None, **fields: Any) -> bytes:
    """A client's frame; `options` are added to the type."""
    options = fields.pop("options", {})
    if kind is not None:
        options = {Code.TYPE: bytes([kind])} | options
    request = Dhcp(op=Op.REQUEST, xid=0x1234, chaddr=GUEST_MAC, options=options)
    return udp4(replace(request, **fields).emit())


def ask(
    frame: bytes, line: str = "", services: Services | None = None, **host: Any
) -> Dhcp | None:
    """The answer to a frame, if there is one."""
    if services is None:
        services, _ = make(line, replace(HOST, **host))
    answers = serve(services, frame, 0)
    assert services.counters()["dhcp_malformed"] == 0
    return read_dhcp(answers[0])[2] if answers else None


def answer_to(kind: MessageType | None, line: str = "", **fields: Any) -> Dhcp:
    answer = ask(message(kind, **fields), line)
    assert answer is not None
    return answer


def test_discover_is_offered_the_guests_address() -> None:
    services, _ = make("-m 1400", replace(HOST, mtu=1400))
    (frame,) = serve(services, message(DISCOVER), 0)
    eth, packet, offer = read_dhcp(frame)
    assert (eth.destination, eth.source) == (GUEST_MAC, OUR_MAC)
    assert (packet.source, packet.destination) == (GATEWAY4, GUEST4)
    assert (offer.op, offer.xid, offer.chaddr) == (Op.REPLY, 0x1234, GUEST_MAC)
    assert (offer.yiaddr, offer.ciaddr, offer.siaddr) == (GUEST4, *[IPv4Address(0)] * 2)
    assert offer.options == {
        Code.TYPE: bytes([OFFER]),
        Code.SERVER: SERVER,
        Code.LEASE: INFINITE,
        Code.RENEWAL: (300).to_bytes(4, "big"),
        Code.REBINDING: (525).to_bytes(4, "big"),
        Code.MASK: bytes([255, 255, 255, 0]),
        Code.ROUTER: SERVER,
        Code.MTU: (1400).to_bytes(2, "big"),
    }


def test_request_in_selecting_state_is_acknowledged() -> None:
    services, guest = make()
    guest.addr4 = inany(PEER4)
    asked = {Code.SERVER: SERVER, Code.REQUESTED_ADDRESS: GUEST4.packed}
    answer = ask(message(REQUEST, options=asked), services=services)
    assert answer is not None
    assert (answer.kind, answer.yiaddr) == (ACK, GUEST4)
    assert guest.addr4 == inany(GUEST4)


def test_request_to_another_server_is_left_to_it() -> None:
    asked = {Code.SERVER: PEER4.packed, Code.REQUESTED_ADDRESS: GUEST4.packed}
    assert ask(message(REQUEST, options=asked)) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"options": {Code.SERVER: SERVER, Code.REQUESTED_ADDRESS: PEER4.packed}},
        {"options": {Code.REQUESTED_ADDRESS: PEER4.packed}},  # INIT-REBOOT
        {"ciaddr": PEER4},  # RENEWING, REBINDING
    ],
)
def test_request_for_another_address_is_refused_to_all(fields: dict[str, Any]) -> None:
    services, _ = make()
    (frame,) = serve(services, message(REQUEST, **fields), 0)
    eth, packet, refusal = read_dhcp(frame)
    assert (eth.destination, packet.destination) == (BROADCAST_MAC, BROADCAST4)
    assert (refusal.kind, refusal.yiaddr, refusal.ciaddr) == (
        NAK,
        IPv4Address(0),
        IPv4Address(0),
    )
    assert set(refusal.options) == {Code.TYPE, Code.SERVER, Code.MESSAGE}
    assert services.counters()["dhcp_refused"] == 1


def test_renewal_is_acknowledged_to_the_address_that_asks() -> None:
    services, _ = make()
    (frame,) = serve(services, message(REQUEST, ciaddr=GUEST4, broadcast=True), 0)
    eth, packet, answer = read_dhcp(frame)
    assert (eth.destination, packet.destination) == (GUEST_MAC, GUEST4)
    assert (answer.kind, answer.ciaddr, answer.yiaddr) == (ACK, GUEST4, GUEST4)


def test_reboot_with_the_right_address_is_acknowledged() -> None:
    asked = {Code.REQUESTED_ADDRESS: GUEST4.packed}
    assert answer_to(REQUEST, options=asked).kind is ACK


def test_broadcast_flag_is_obeyed_and_echoed() -> None:
    services, _ = make()
    (frame,) = serve(services, message(DISCOVER, broadcast=True), 0)
    eth, packet, answer = read_dhcp(frame)
    assert (eth.destination, packet.destination) == (BROADCAST_MAC, BROADCAST4)
    assert answer.broadcast


def test_rapid_commit_skips_the_offer() -> None:
    answer = answer_to(DISCOVER, options={Code.RAPID_COMMIT: b""})
    assert (answer.kind, answer.options[Code.RAPID_COMMIT]) == (ACK, b"")


def test_inform_gets_everything_but_a_lease() -> None:
    answer = answer_to(INFORM, ciaddr=PEER4)
    assert (answer.kind, answer.yiaddr) == (ACK, IPv4Address(0))
    assert {Code.MASK, Code.ROUTER, Code.SERVER} <= set(answer.options)
    assert not {Code.LEASE, Code.RENEWAL, Code.REBINDING} & set(answer.options)


def test_inform_is_answered_where_it_comes_from() -> None:
    services, _ = make()
    (frame,) = serve(services, message(INFORM, ciaddr=PEER4), 0)
    assert read_dhcp(frame)[1].destination == PEER4


@pytest.mark.parametrize(
    ("kind", "counter"), [(DECLINE, "dhcp_declined"), (RELEASE, "dhcp_released")]
)
def test_what_needs_no_answer_is_counted(kind: MessageType, counter: str) -> None:
    services, _ = make()
    asked = {Code.SERVER: SERVER, Code.REQUESTED_ADDRESS: GUEST4.packed}
    assert serve(services, message(kind, options=asked), 0) == []
    assert services.counters()[counter] == 1


def test_bootp_client_is_spared_what_it_cannot_know() -> None:
    answer = answer_to(None, TELL_ALL)
    assert (answer.op, answer.kind, answer.yiaddr) == (Op.REPLY, None, GUEST4)
    unknown = {Code.TYPE, Code.LEASE, Code.SERVER, Code.RENEWAL, Code.REBINDING}
    assert not unknown & set(answer.options)
    assert answer.options[Code.ROUTER] == SERVER


def test_bootp_reply_has_the_length_of_bootp() -> None:
    services, _ = make(TELL_ALL)
    (frame,) = serve(services, message(None), 0)
    assert len(frame) == 14 + 28 + 300


def test_relay_is_answered_at_its_address() -> None:
    services, _ = make()
    (frame,) = serve(services, message(DISCOVER, giaddr=PEER4), 0)
    eth, packet, answer = read_dhcp(frame)
    assert (eth.destination, packet.destination) == (GUEST_MAC, PEER4)
    assert packet.payload[2:4] == (67).to_bytes(2, "big")
    assert answer.giaddr == PEER4


def test_client_identifier_is_echoed() -> None:
    given = {Code.CLIENT_ID: b"\0guest"}
    assert answer_to(DISCOVER, options=given).options[Code.CLIENT_ID] == b"\0guest"


def test_names_and_resolvers_are_told() -> None:
    options = answer_to(DISCOVER, TELL_ALL).options
    loopback = GATEWAY4  # the host's loopback is mapped to it
    assert options[Code.DNS] == IPv4Address("198.51.100.53").packed + loopback.packed
    assert options[Code.HOSTNAME] == b"guest"
    assert decode_list(options[Code.SEARCH]) == RESOLVER.search
    assert Code.FQDN not in options


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ({Code.WANTED: bytes([81])}, b"\x0c\xff\xff\5guest\7example\3com\0"),
        ({Code.FQDN: b"\5\0\0"}, b"\x0e\xff\xff\5guest\7example\3com\0"),
        ({Code.FQDN: b"\1\0\0x"}, b"\x0a\xff\xffguest.example.com"),
    ],
)
def test_full_name_is_told_to_who_asks(asked: dict[int, bytes], answer: bytes) -> None:
    assert answer_to(DISCOVER, TELL_ALL, options=asked).options[81] == answer


def test_gateway_outside_the_subnet_gets_a_route_of_its_own() -> None:
    answer = ask(message(DISCOVER), gateway4=IPv4Address("198.51.100.1"))
    assert answer is not None
    assert answer.options[Code.ROUTES] == bytes.fromhex(
        "20 c6336401 00000000 00 c6336401"
    )


def test_options_come_as_wanted() -> None:
    wanted = bytes([Code.SEARCH, Code.DNS, Code.ROUTER, 200])
    options = answer_to(DISCOVER, TELL_ALL, options={Code.WANTED: wanted}).options
    assert list(options) == [53, 54, 51, 1, 119, 6, 3, 58, 59, 12, 26]


LONG = "-S " + " -S ".join(f"{'x' * 60}.{'y' * 60}{i}.example" for i in range(6))


def test_what_does_not_fit_is_left_out() -> None:
    services, _ = make(f"{TELL_ALL} {LONG}")
    (frame,) = serve(services, message(DISCOVER), 0)
    assert len(frame) <= 14 + 576
    options = read_dhcp(frame)[2].options
    assert Code.SEARCH not in options
    assert {Code.DNS, Code.HOSTNAME, Code.MTU} <= set(options)


def test_client_that_takes_more_is_told_more() -> None:
    asked = {Code.MAX_SIZE: (1500).to_bytes(2, "big")}
    options = answer_to(DISCOVER, f"{TELL_ALL} {LONG}", options=asked).options
    assert len(decode_list(options[Code.SEARCH])) >= 5


@pytest.mark.parametrize(
    "frame",
    [
        message(REQUEST),  # for no address
        message(INFORM),  # from no address
        message(OFFER),
        message(ACK),
        message(None, op=Op.REPLY),
        message(DISCOVER, chaddr=BROADCAST_MAC),
        udp4(bytes(240)),
        udp4(b""),
    ],
)
def test_nonsense_is_counted(frame: bytes) -> None:
    services, _ = make()
    assert serve(services, frame, 0) == []
    assert services.counters()["dhcp_malformed"] == 1


@pytest.mark.parametrize(
    "host", [{"ipv4": False}, {"gateway4": None}, {"guest4": None}]
)
def test_without_address_or_gateway_nothing_is_given(host: dict[str, Any]) -> None:
    assert ask(message(DISCOVER), **host) is None


def test_what_changes_is_told_to_who_renews() -> None:
    services, _ = make()
    moved = IPv4Address("192.0.2.6")
    services.update(facts("-H other", replace(HOST, guest4=moved)))
    refusal = ask(message(REQUEST, ciaddr=GUEST4), services=services)
    assert refusal is not None
    assert refusal.kind is NAK
    offer = ask(message(DISCOVER), services=services)
    assert offer is not None
    assert (offer.yiaddr, offer.options[Code.HOSTNAME]) == (moved, b"other")

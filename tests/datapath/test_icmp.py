# SPDX-License-Identifier: GPL-2.0-or-later
"""Echo requests of the guest, answered by the kernel of a namespace of its own."""

import os
import socket
from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany, is_v4
from passtpy.flow import Action, Pif, Verdict
from passtpy.net.kernel.ping import lend_raw_sockets
from tests.datapath.guest import Decide, Guest, answer
from tests.datapath.packets import (
    GUEST4,
    GUEST6,
    GUEST_MAC,
    OUR_MAC,
    REMOTE4,
    REMOTE6,
    echo,
)
from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root
RANGE, NOBODY, EVERYBODY = "net.ipv4.ping_group_range", "1 0", "0 2147483647"
LENT = 4  # raw sockets of each family
BOTH = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])


def to_host(host4: str = "127.0.0.1", host6: str = "::1") -> Decide:
    """A policy: echo goes to that host, with the guest's identifier if it is free."""

    def decide(miss: _native.Miss) -> Verdict:
        host = inany(ip_address(host4 if is_v4(miss.oaddr) else host6))
        return Verdict(Action.FORWARD, Pif.HOST, host, miss.oport, UNSPECIFIED, 0, 1)

    return decide


@pytest.fixture(params=["ping", "raw"])
def pinger(
    request: pytest.FixtureRequest, ping_namespace: Namespace, guest: Guest
) -> Iterator[Guest]:
    """A guest whose echo requests go to the namespace's loopback.

    Through ping sockets, or through raw ones that were lent to it.
    """
    guest.decide = to_host()
    raw = request.param == "raw"
    if raw:
        ping_namespace.sysctl(RANGE, NOBODY)
    with ping_namespace.entered():
        if raw:
            assert lend_raw_sockets(guest.dp, LENT) == 2 * LENT
        yield guest
    ping_namespace.sysctl(RANGE, EVERYBODY)


@pytest.fixture
def ping_sockets(ping_namespace: Namespace, guest: Guest) -> Iterator[Guest]:
    """The same, through ping sockets in any case."""
    guest.decide = to_host()
    with ping_namespace.entered():
        yield guest


@pytest.fixture
def denied(guest: Guest) -> Iterator[Guest]:
    """A guest where nobody may have a ping socket, as in a new namespace."""
    made = Namespace.create(f"passtpy-noicmp-{os.getpid()}")
    guest.decide = to_host()
    with made.entered():
        yield guest
    made.delete()


def echo_of(packet: Packet) -> Packet:
    """The echo header, checked to be a reply with a right checksum."""
    if IP in packet:
        reply = packet[ICMP]
        assert (reply.type, reply.code) == (0, 0)
        said = reply.chksum
        del reply.chksum
        assert ICMP(bytes(reply)).chksum == said
        return reply
    assert ICMPv6EchoReply in packet, packet.summary()
    reply = packet[ICMPv6EchoReply]
    said = reply.cksum
    del packet[ICMPv6EchoReply].cksum
    assert IPv6(bytes(packet[IPv6]))[ICMPv6EchoReply].cksum == said
    return reply


def payload_of(reply: Packet) -> bytes:
    """The data that came back."""
    if isinstance(reply, ICMPv6EchoReply):
        return bytes(reply.data)
    return bytes(reply.payload)


@BOTH
@pytest.mark.parametrize("size", [0, 1, 56, 1400, 20000])
def test_echo_comes_back(pinger: Guest, v6: bool, size: int) -> None:
    payload = bytes(i % 251 for i in range(size))
    pinger.send(echo(77, 3, payload, v6=v6))
    packet = pinger.recv().packet
    reply = echo_of(packet)
    assert (reply.id, reply.seq) == (77, 3)
    assert payload_of(reply) == payload
    layer = packet[IPv6] if v6 else packet[IP]
    assert (layer.src, layer.dst) == ((REMOTE6, GUEST6) if v6 else (REMOTE4, GUEST4))
    (flow,) = pinger.flows()
    assert (flow.packets0, flow.bytes0, flow.packets1) == (1, size, 1)
    assert flow.oport1 == 77


@BOTH
def test_ttl_of_the_answer_is_shown(pinger: Guest, v6: bool) -> None:
    pinger.send(echo(v6=v6))
    packet = pinger.recv().packet
    # What the kernel of the target sends, and nothing of ours
    assert (packet[IPv6].hlim if v6 else packet[IP].ttl) == 64


@BOTH
def test_one_flow_carries_a_series(pinger: Guest, v6: bool) -> None:
    for seq in range(20):
        pinger.put(echo(9, seq, bytes([seq]) * 30, v6=v6))
    pinger.turn()
    replies = [echo_of(frame.packet) for frame in pinger.drain()]
    assert [reply.seq for reply in replies] == list(range(20))
    assert len(pinger.misses) == 1


@BOTH
@pytest.mark.parametrize("way", ["rate_out", "rate_in"])
def test_pings_beyond_a_limit_are_dropped(pinger: Guest, v6: bool, way: str) -> None:
    pinger.dp.limit(1, **{way: 125_000})
    for seq in range(40):
        pinger.send(echo(seq=seq, payload=bytes(500), v6=v6))
    column = ["rate_in", "rate_out"].index(way)
    pinger.wait_for(lambda: pinger.dp.limits()[1][2 + column] == 15, "drops")
    assert pinger.dp.limits()[1][column] == 12_500
    assert len(pinger.drain()) == 25


@BOTH
def test_an_identifier_in_use_is_translated(ping_sockets: Guest, v6: bool) -> None:
    proto = socket.IPPROTO_ICMPV6 if v6 else socket.IPPROTO_ICMP
    family = socket.AF_INET6 if v6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM, proto) as other:
        other.bind(("::1" if v6 else "127.0.0.1", 500))
        ping_sockets.send(echo(500, 8, b"mine", v6=v6))
        reply = echo_of(ping_sockets.recv().packet)
    assert (reply.id, reply.seq, payload_of(reply)) == (500, 8, b"mine")
    assert ping_sockets.flows()[0].oport1 != 500


def test_one_identifier_to_several_destinations(ping_sockets: Guest) -> None:
    hosts = {f"198.51.100.{i}": f"127.0.0.{i}" for i in range(1, 5)}

    def decide(miss: _native.Miss) -> Verdict | None:
        return to_host(hosts[str(ip_address(miss.oaddr[-4:]))])(miss)

    ping_sockets.decide = decide
    for seq in range(3):
        for host in hosts:
            ping_sockets.put(echo(5, seq, dst=host))
        ping_sockets.turn()
    replies = [frame.packet for frame in ping_sockets.drain()]
    assert {packet[ICMP].id for packet in replies} == {5}
    for host in hosts:
        assert [p[ICMP].seq for p in replies if p[IP].src == host] == [0, 1, 2]
    assert len({flow.oport1 for flow in ping_sockets.flows()}) == len(hosts)


def test_answer_of_somebody_else_is_not_passed_on(
    pinger: Guest, ping_namespace: Namespace
) -> None:
    """A ping socket, though connected, hears whoever knows its identifier."""
    pinger.send(echo(1234, 1))
    pinger.recv()
    reply = IP(src="127.0.0.9", dst="127.0.0.1") / ICMP(type=0, id=1234, seq=2)
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(reply), ("127.0.0.1", 0))
        pinger.expect_nothing()
        # The same from the target is an answer, though not asked for: a duplicate
        reply[IP].src = "127.0.0.1"
        del reply[IP].chksum
        raw.sendto(bytes(reply), ("127.0.0.1", 0))
        assert echo_of(pinger.recv().packet).seq == 2


@BOTH
def test_no_route_is_told_at_once(pinger: Guest, v6: bool) -> None:
    pinger.decide = to_host("198.51.100.1", "2001:db8::9")
    pinger.send(echo(v6=v6))
    packet = pinger.recv().packet
    if v6:
        assert packet[ICMPv6DestUnreach].code == 0
    else:
        assert (packet[ICMP].type, packet[ICMP].code) == (3, 0)
    assert not pinger.flows()


@BOTH
def test_error_from_outside_quotes_the_guests_request(
    pinger: Guest, ping_namespace: Namespace, v6: bool
) -> None:
    pinger.send(echo(600, 1, b"first", v6=v6))
    pinger.recv()
    if v6:
        request = IPv6(src="::1", dst="::1") / ICMPv6EchoRequest(
            id=600, seq=2, data=b"second"
        )
        error = ICMPv6DestUnreach(code=1) / request
        packet = IPv6(src="::1", dst="::1") / error
        kind = (socket.AF_INET6, "::1")
    else:
        quoted = IP(src="127.0.0.1", dst="127.0.0.1") / ICMP(id=600, seq=2) / b"second"
        packet = IP(src="127.0.0.1", dst="127.0.0.1") / ICMP(type=11, code=0) / quoted
        kind = (socket.AF_INET, "127.0.0.1")
    head = Ether(src=GUEST_MAC, dst=OUR_MAC)  # or scapy would look for it
    pinger.oracle.sent(bytes(head / echo(600, 2, b"second", v6=v6)))
    with socket.socket(kind[0], socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(bytes(packet), (kind[1], 0))
        got = pinger.recv().packet
    if v6:
        assert got[ICMPv6DestUnreach].code == 1
        inner = got[ICMPv6DestUnreach].payload
        assert (inner.src, inner.dst) == (GUEST6, REMOTE6)
        assert (got[IPv6].src, got[IPv6].dst) == (REMOTE6, GUEST6)
    else:
        assert (got[ICMP].type, got[ICMP].code) == (11, 0)
        inner = got[ICMP].payload
        assert (inner.src, inner.dst) == (GUEST4, REMOTE4)
        assert (got[IP].src, got[IP].dst) == (REMOTE4, GUEST4)
    assert (inner.payload.id, inner.payload.seq) == (600, 2)
    assert bytes(inner).endswith(b"second")
    assert pinger.counter("icmp_errors_to_tap") == 1


@BOTH
def test_who_may_not_ping_is_told(denied: Guest, v6: bool) -> None:
    """By us, for the target has never heard of it."""
    us4, us6 = "192.0.2.1", "fe80::1"
    denied.dp.our_addrs(inany(ip_address(us4)), inany(ip_address(us6)))
    denied.send(echo(v6=v6))
    packet = denied.recv().packet
    if v6:
        assert packet[ICMPv6DestUnreach].code == 1
        assert packet[IPv6].src == us6
        assert packet[ICMPv6DestUnreach].payload.dst == REMOTE6
    else:
        assert (packet[ICMP].type, packet[ICMP].code) == (3, 13)
        assert packet[IP].src == us4
        assert packet[ICMP].payload.dst == REMOTE4
    assert denied.counter("ping_denied") == 1
    assert not denied.flows()


def test_it_is_logged_once_that_nobody_may_ping(denied: Guest) -> None:
    for seq in range(5):
        denied.send(echo(ident=seq, v6=seq > 2))
    logged = [_native.EVENTS[event.event] for event in denied.dp.events()]
    assert [(name, level) for name, level, _ in logged] == [("ping_denied", 0)]


@BOTH
def test_reject_is_administratively_prohibited(guest: Guest, v6: bool) -> None:
    guest.decide = answer(Action.REJECT)
    guest.send(echo(v6=v6))
    packet = guest.recv().packet
    if v6:
        assert packet[ICMPv6DestUnreach].code == 1
    else:
        assert (packet[ICMP].type, packet[ICMP].code) == (3, 13)


@BOTH
def test_idle_flow_ends_after_60_seconds(pinger: Guest, v6: bool) -> None:
    pinger.send(echo(v6=v6))
    pinger.recv()
    pinger.advance(59.9)
    pinger.send(echo(seq=2, v6=v6))
    pinger.recv()
    pinger.advance(59.9)
    assert len(pinger.flows()) == 1
    pinger.advance(0.2)
    assert pinger.flows() == []
    pinger.advance(1)
    assert pinger.counter("flows_closed") == 1

# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams from the guest to a host socket: what arrives, in which packets."""

import itertools
import socket
import struct
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6

from passtpy.addr import UNSPECIFIED, from_inany, inany
from passtpy.flow import Action, Pif, Verdict
from tests.datapath.guest import WAIT_S, Guest, Vnet, answer, forward_to, later
from tests.datapath.packets import (
    DPORT,
    GUEST4,
    GUEST6,
    REMOTE4,
    REMOTE6,
    SPORT,
    udp,
)
from tests.lab.loopback import wait_delivered

GSO_UDP_L4 = 5
NEEDS_CSUM = 1
UDP_GRO, IP_RECVTTL = 104, 12  # not in the socket module
UDP_MAX4 = 65507


def target(guest: Guest, peer: socket.socket) -> None:
    """Send every flow of the guest to that peer."""
    guest.decide = forward_to(peer.getsockname()[1])


def received(peer: socket.socket, count: int) -> list[bytes]:
    """The next datagrams, and the proof that there are no more."""
    got = [peer.recv(70000) for _ in range(count)]
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(70000)
    peer.settimeout(WAIT_S)
    return got


def uso(payload: bytes, size: int, *, v6: bool = False) -> tuple[bytes, Vnet]:
    """A super-segment as a guest with UDP segmentation offload sends it."""
    packet = udp(payload, v6=v6)
    start = 14 + len(packet) - len(payload) - 8
    vnet = Vnet(NEEDS_CSUM, GSO_UDP_L4, start + 8, size, start, 6)
    return packet, vnet


@pytest.fixture(params=["v4", "v6"])
def peer_of(
    request: pytest.FixtureRequest, udp_peer: socket.socket, udp_peer6: socket.socket
) -> tuple[bool, socket.socket]:
    """A peer of each family, and whether it is IPv6."""
    return (False, udp_peer) if request.param == "v4" else (True, udp_peer6)


def test_first_datagram_opens_the_flow_and_is_delivered(
    guest: Guest, peer_of: tuple[bool, socket.socket]
) -> None:
    v6, peer = peer_of
    target(guest, peer)
    guest.send(udp(b"hello", v6=v6))
    assert received(peer, 1) == [b"hello"]
    (flow,) = guest.flows()
    assert (flow.packets0, flow.bytes0) == (1, 5)
    assert flow.oport1 == SPORT
    assert str(from_inany(flow.oaddr1)) == ("::1" if v6 else "127.0.0.1")


@pytest.mark.parametrize("v6", [False, True], ids=["v4-to-v6", "v6-to-v4"])
def test_a_flow_may_end_in_the_other_family(
    guest: Guest, udp_peer: socket.socket, udp_peer6: socket.socket, v6: bool
) -> None:
    """A question for a resolver, and its answer."""
    peer = udp_peer if v6 else udp_peer6
    loopback = inany(ip_address("127.0.0.1" if v6 else "::1"))
    port = peer.getsockname()[1]
    verdict = Verdict(Action.FORWARD, Pif.HOST, loopback, port, UNSPECIFIED, 0, 1)
    guest.decide = lambda _miss: verdict
    payloads = [bytes([i]) * 1000 for i in range(4)]
    for payload in payloads:
        guest.put(udp(payload, v6=v6))
    guest.turn()
    sender = peer.recvfrom(2000)[1]
    assert received(peer, 3) == payloads[1:]
    peer.sendto(b"answer", sender)
    packet = guest.recv().packet
    layer = IPv6 if v6 else IP
    assert packet[layer].src == (REMOTE6 if v6 else REMOTE4)
    assert (packet[UDP].sport, packet[UDP].dport) == (DPORT, SPORT)
    assert bytes(packet[UDP].payload)[:6] == b"answer"
    assert [(flow.packets0, flow.packets1) for flow in guest.flows()] == [(4, 1)]


def test_the_guests_source_port_is_kept(guest: Guest, udp_peer: socket.socket) -> None:
    target(guest, udp_peer)
    guest.send(udp(b"x", sport=41234))
    assert udp_peer.recvfrom(9) == (b"x", ("127.0.0.1", 41234))


def test_a_busy_source_port_is_replaced(guest: Guest, udp_peer: socket.socket) -> None:
    target(guest, udp_peer)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        busy = other.getsockname()[1]
        guest.send(udp(b"x", sport=busy))
        data, (_, port) = udp_peer.recvfrom(9)
    assert data == b"x"
    assert port != busy
    assert guest.flows()[0].oport1 == port


def test_a_flow_never_talks_to_itself(guest: Guest, udp_peer: socket.socket) -> None:
    port = udp_peer.getsockname()[1]
    udp_peer.close()
    guest.decide = forward_to(port)
    guest.send(udp(b"anybody?", sport=port))
    assert guest.flows()[0].oport1 != port
    assert ICMP in guest.recv().packet


@pytest.mark.parametrize("sizes", [[100] * 40, [100] * 7 + [3], [1] * 128])
def test_equal_datagrams_arrive_byte_exact(
    guest: Guest, peer_of: tuple[bool, socket.socket], sizes: list[int]
) -> None:
    v6, peer = peer_of
    target(guest, peer)
    sent = [bytes([i % 256]) * size for i, size in enumerate(sizes)]
    for payload in sent:
        guest.put(udp(payload, v6=v6))
    guest.turn()
    assert received(peer, len(sent)) == sent


def test_equal_datagrams_leave_in_one_message(
    guest: Guest, udp_peer: socket.socket
) -> None:
    """UDP_GRO on the receiver shows what UDP_SEGMENT sent."""
    target(guest, udp_peer)
    guest.send(udp(b"first"))
    assert udp_peer.recv(9) == b"first"
    udp_peer.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    for i in range(10):
        guest.put(udp(bytes([i]) * 100))
    guest.put(udp(b"tail"))
    guest.turn()
    data, control, _, _ = udp_peer.recvmsg(70000, 100)
    assert data == b"".join(bytes([i]) * 100 for i in range(10)) + b"tail"
    ((_, _, size),) = control
    assert struct.unpack("i", size) == (100,)


def test_mixed_sizes_keep_their_order(
    guest: Guest, peer_of: tuple[bool, socket.socket]
) -> None:
    v6, peer = peer_of
    target(guest, peer)
    sizes = [5, 5, 5, 9, 9, 1, 0, 0, 7, 7, 3, 4, 1400, 1400, 1400, 12, 12, 0, 12]
    sent = [bytes([i]) * size for i, size in enumerate(sizes)]
    for payload in sent:
        guest.put(udp(payload, v6=v6))
    guest.turn()
    assert received(peer, len(sent)) == sent
    assert guest.flows()[0].packets0 == len(sent)
    assert guest.flows()[0].bytes0 == sum(sizes)


@pytest.mark.taps(
    "vnet", "plain", "vhost", why="a frame on a stream has no more than 65535 bytes"
)
def test_largest_datagram_passes(guest: Guest, udp_peer: socket.socket) -> None:
    target(guest, udp_peer)
    payload = bytes(i % 251 for i in range(UDP_MAX4))
    guest.send(udp(payload))
    assert received(udp_peer, 1) == [payload]


@pytest.mark.taps("vnet", "vhost", why="only there the guest has offload")
@pytest.mark.parametrize("size", [1200, 1472, 1])
def test_super_segment_arrives_as_datagrams(
    guest: Guest, peer_of: tuple[bool, socket.socket], size: int
) -> None:
    v6, peer = peer_of
    target(guest, peer)
    payload = bytes(i % 256 for i in range(size * 20 + size // 2))
    packet, vnet = uso(payload, size, v6=v6)
    guest.send(packet, vnet=vnet)
    cut = [payload[i : i + size] for i in range(0, len(payload), size)]
    assert received(peer, len(cut)) == cut
    assert guest.flows()[0].packets0 == len(cut)


@pytest.mark.taps("vnet", "vhost", why="only there the guest has offload")
def test_a_super_segment_of_one_datagram_is_a_datagram(
    guest: Guest, udp_peer: socket.socket
) -> None:
    target(guest, udp_peer)
    packet, vnet = uso(b"short", 1200)
    guest.send(packet, vnet=vnet)
    assert received(udp_peer, 1) == [b"short"]


def test_large_datagrams_are_messages_of_their_own(
    guest: Guest, peer_of: tuple[bool, socket.socket]
) -> None:
    """Two of them together would be more than an IP packet can be."""
    v6, peer = peer_of
    target(guest, peer)
    sent = [bytes([i]) * 40000 for i in range(3)]
    for payload in sent:
        guest.send(udp(payload, v6=v6))
    assert received(peer, 3) == sent


def test_datagrams_while_the_verdict_is_pending_wait(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = later
    guest.send(udp(b"1"), udp(b"2"), udp(b""))
    guest.send(udp(b"3"))
    (miss,) = guest.misses
    verdict = forward_to(udp_peer.getsockname()[1])(miss)
    assert verdict is not None
    assert guest.open(miss.miss_id, verdict) > 0
    assert received(udp_peer, 4) == [b"1", b"2", b"", b"3"]


def test_ttl_of_the_guest_is_applied(
    guest: Guest, peer_of: tuple[bool, socket.socket]
) -> None:
    v6, peer = peer_of
    if v6:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    else:
        peer.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    target(guest, peer)
    field = "hlim" if v6 else "ttl"
    packets = []
    for ttl in (1, 7, 7, 200):
        packet = udp(b"x", v6=v6)
        setattr(packet, field, ttl)
        packets.append(packet)
    guest.send(*packets)
    seen = []
    for _ in packets:
        _, control, _, _ = peer.recvmsg(9, 100)
        seen.append(struct.unpack("i", control[0][2])[0])
    assert seen == [1, 7, 7, 200]


def test_a_refused_datagram_comes_back_as_port_unreachable(
    guest: Guest, peer_of: tuple[bool, socket.socket]
) -> None:
    v6, peer = peer_of
    target(guest, peer)
    peer.close()
    guest.send(udp(b"nobody there", v6=v6))
    packet = guest.recv().packet
    if v6:
        error = packet[ICMPv6DestUnreach]
        assert (packet[IPv6].src, packet[IPv6].dst) == (REMOTE6, GUEST6)
        assert error.code == 4
    else:
        error = packet[ICMP]
        assert (packet[IP].src, packet[IP].dst) == (REMOTE4, GUEST4)
        assert (error.type, error.code) == (3, 3)
    quoted = error.payload
    assert (quoted.src, quoted.dst) == ((GUEST6, REMOTE6) if v6 else (GUEST4, REMOTE4))
    l4 = quoted.payload
    assert (l4.sport, l4.dport, l4.len) == (SPORT, DPORT, 8 + 12)
    assert bytes(l4.payload) == b"nobody there"
    assert guest.counter("icmp_errors_to_tap") == 1


def test_quote_of_a_long_datagram_is_cut(guest: Guest, udp_peer: socket.socket) -> None:
    target(guest, udp_peer)
    udp_peer.close()
    guest.send(udp(b"q" * 1400))
    packet = guest.recv().packet
    assert packet[IP].len <= 576
    assert bytes(packet[ICMP])[28:].endswith(b"q" * 400)


def test_a_pending_error_does_not_cost_the_next_datagram(
    guest: Guest, udp_peer: socket.socket
) -> None:
    """Datagram, error waiting on the socket, datagram: the second one leaves too."""
    address = udp_peer.getsockname()
    target(guest, udp_peer)
    udp_peer.close()
    guest.send(udp(b"lost"))
    wait_delivered(2)  # and the error about it
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as again:
        again.bind(address)
        again.settimeout(WAIT_S)
        guest.send(udp(b"kept"))
        assert again.recv(9) == b"kept"
    errors = [frame.packet[ICMP].code for frame in guest.drain()]
    assert errors == [3]


@pytest.mark.parametrize("v6", [False, True])
def test_reject_is_port_unreachable(guest: Guest, v6: bool) -> None:
    guest.decide = answer(Action.REJECT)
    guest.send(udp(b"may I?", v6=v6))
    packet = guest.recv().packet
    if v6:
        assert packet[ICMPv6DestUnreach].code == 4
        assert packet[IPv6].src == REMOTE6
    else:
        assert (packet[ICMP].type, packet[ICMP].code) == (3, 3)
        assert packet[IP].src == REMOTE4
    assert bytes(packet).endswith(b"may I?")
    assert not guest.flows()


def test_multicast_is_rejected_in_silence(guest: Guest) -> None:
    guest.decide = answer(Action.REJECT)
    guest.send(udp(b"x", dst="239.1.2.3"))
    guest.expect_nothing()


def test_full_table_refuses_without_a_sound(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    guest = make_guest(options={"max_flows": 2})
    target(guest, udp_peer)
    for sport in (1001, 1002, 1003):
        guest.send(udp(b"x", sport=sport))
    assert len(guest.flows()) == 2
    assert guest.counter("drop_table_full") == 1
    guest.expect_nothing()


def numbered() -> Iterator[bytes]:
    """Payloads that tell their place."""
    return (struct.pack("!I", i) for i in itertools.count())


def test_many_flows_in_one_batch_do_not_mix(
    guest: Guest, udp_peer: socket.socket
) -> None:
    target(guest, udp_peer)
    sports = range(42000, 42010)
    for sport in sports:
        guest.send(udp(b"open", sport=sport))
    received(udp_peer, len(sports))
    payload = numbered()
    sent: dict[int, list[bytes]] = {sport: [] for sport in sports}
    for sport in [*sports, *reversed(sports), *sports]:
        sent[sport].append(next(payload))
        guest.put(udp(sent[sport][-1], sport=sport))
    guest.turn()
    got: dict[int, list[bytes]] = {sport: [] for sport in sports}
    for _ in range(3 * len(sports)):
        data, (_, port) = udp_peer.recvfrom(9)
        got[port].append(data)
    assert got == sent

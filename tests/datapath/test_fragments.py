# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragments: those of the guest are put together, those it needs are made."""

import random
import socket
import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6ND_NS,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    PadN,
)
from scapy.packet import Raw
from scapy.utils import checksum

from passtpy.flow import Action
from tests.datapath.fragments import cut, piece, reassemble
from tests.datapath.guest import Guest, Vnet, answer, forward_to, later
from tests.datapath.packets import GUEST4, GUEST6, REMOTE4, REMOTE6, echo, syn, udp
from tests.lab.namespace import Namespace

TIME = 15.0  # REASSEMBLY_TIME
SLOTS = 64  # REASSEMBLY_MAX
MAX4, MAX6 = 65507, 65527
BOTH = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
Family = tuple[bool, socket.socket]


@pytest.fixture(params=["v4", "v6"])
def family(
    request: pytest.FixtureRequest, udp_peer: socket.socket, udp_peer6: socket.socket
) -> Family:
    """A peer of each family, and whether it is IPv6."""
    return (False, udp_peer) if request.param == "v4" else (True, udp_peer6)


def pattern(size: int) -> bytes:
    """Bytes of which no two blocks are alike."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


def served(guest: Guest, family: Family) -> socket.socket:
    """Let the guest's datagrams go to the peer."""
    guest.decide = forward_to(family[1].getsockname()[1])
    return family[1]


def silent(peer: socket.socket) -> bool:
    """Whether nothing came to a peer."""
    peer.setblocking(False)
    try:
        peer.recv(70000)
    except BlockingIOError:
        return True
    return False


# From the guest


@pytest.mark.parametrize("size", [1232, 1480, 32000])
def test_largest_datagram_arrives(guest: Guest, family: Family, size: int) -> None:
    peer = served(guest, family)
    payload = pattern(MAX6 if family[0] else MAX4)
    guest.send(*cut(udp(payload, v6=family[0]), size))
    assert peer.recv(70000) == payload
    assert guest.counter("reassembled") == 1
    assert guest.counter("fragments") == -(-(len(payload) + 8) // size)


def test_order_does_not_matter(guest: Guest, family: Family) -> None:
    peer = served(guest, family)
    payload = pattern(9000)
    for seed in range(5):
        fragments = cut(udp(payload, v6=family[0]), 200, ident=seed)
        random.Random(seed).shuffle(fragments)
        guest.send(*fragments)
        assert peer.recv(70000) == payload


def test_many_datagrams_at_once_do_not_mix(guest: Guest, family: Family) -> None:
    peer = served(guest, family)
    sent = [bytes([i]) * 3000 for i in range(20)]
    rows = [
        cut(udp(payload, v6=family[0]), 1480, ident=i) for i, payload in enumerate(sent)
    ]
    guest.send(*(row[k] for k in range(3) for row in rows))
    assert [peer.recv(9000) for _ in sent] == sent
    assert len(guest.misses) == 1


def test_copies_are_ignored(guest: Guest, family: Family) -> None:
    peer = served(guest, family)
    payload = pattern(3000)
    fragments = cut(udp(payload, v6=family[0]), 1000)
    guest.send(fragments[0], fragments[0], fragments[3], fragments[3], *fragments[1:3])
    assert peer.recv(9000) == payload
    assert guest.counter("drop_fragment") == 0


@pytest.mark.parametrize(
    ("start", "end", "more"),
    [
        (992, 1992, True),  # overlaps one before and one behind
        (0, 1000, True),  # other bytes at the same place
        (3000, 3200, False),  # another end, farther
        (2000, 2900, False),  # another end, before what is there
        (3200, 3400, True),  # behind the end
    ],
)
def test_overlap_loses_the_datagram(
    guest: Guest, family: Family, start: int, end: int, more: bool
) -> None:
    """Whatever comes of it later as well (RFC 5722)."""
    peer = served(guest, family)
    packet = udp(pattern(3000), v6=family[0])
    other = udp(bytes(3500), v6=family[0])
    fragments = cut(packet, 1000)
    evil = type(other)(bytes(other))
    guest.send(fragments[0], fragments[3], fragments[2])
    guest.send(piece(evil, start, end, more))
    guest.send(*fragments)
    assert silent(peer)
    assert guest.counter("reassembled") == 0
    # The next one is another matter
    guest.send(*cut(packet, 1000, ident=8))
    peer.setblocking(True)
    assert peer.recv(9000) == pattern(3000)


def test_ping_of_death_is_dropped(guest: Guest, udp_peer: socket.socket) -> None:
    served(guest, (False, udp_peer))
    packet = udp(pattern(3000))
    last = piece(type(packet)(bytes(packet)), 0, 800, False)
    last.frag = 8189  # ends at 66312
    guest.send(last)
    assert guest.counter("drop_fragment") == 1
    guest.expect_nothing()


def test_header_counts_for_the_longest_packet(guest: Guest) -> None:
    """65535 bytes of payload are possible in fragments, but not in one packet."""
    packet = udp(pattern(MAX4))
    packet = type(packet)(bytes(packet))
    fragments = [piece(packet, at, at + 8192, True) for at in range(0, 57344, 8192)]
    fragments.append(piece(packet, 57344, 65528, True))
    last = piece(packet, 0, 7, False)
    last.frag = 8191
    guest.send(*fragments, last)
    assert guest.counter("reassembled") == 0
    assert guest.counter("drop_fragment") == 1


@BOTH
def test_tcp_in_fragments_is_served(
    guest: Guest, server: object, server6: object, v6: bool
) -> None:
    guest.decide = forward_to((server6 if v6 else server).port)  # type: ignore[attr-defined]
    first, second = cut(syn(v6=v6), 24)
    guest.send(first)
    assert not guest.misses
    guest.send(second)
    guest.expect("SA")


def test_wrong_checksum_of_the_whole_is_seen(guest: Guest, family: Family) -> None:
    peer = served(guest, family)
    fragments = cut(udp(pattern(2000), v6=family[0], chksum=0x1234), 1000)
    guest.send(*fragments)
    assert guest.counter("drop_checksum") == 1
    assert silent(peer)


def test_extension_headers_before_the_fragment_header(
    guest: Guest, udp_peer6: socket.socket
) -> None:
    peer = served(guest, (True, udp_peer6))
    whole = udp(pattern(2000), v6=True)
    fragments = []
    for fragment in cut(whole, 1000):
        options = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(12))])
        fragments.append(
            IPv6(src=GUEST6, dst=REMOTE6) / options / fragment[IPv6ExtHdrFragment]
        )
    guest.send(*fragments)
    assert peer.recv(9000) == pattern(2000)


def test_fragments_of_one_flow_wait_for_its_verdict(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = later
    guest.send(*cut(udp(pattern(MAX4)), 1480))
    (miss,) = guest.misses
    verdict = forward_to(udp_peer.getsockname()[1])(miss)
    assert verdict is not None
    guest.dp.open(miss.miss_id, verdict)
    guest.turn()
    assert udp_peer.recv(70000) == pattern(MAX4)


@BOTH
def test_missing_fragment_is_told_after_a_while(guest: Guest, v6: bool) -> None:
    fragments = cut(udp(pattern(3000), v6=v6), 1000)
    guest.send(fragments[0], fragments[2])
    guest.advance(TIME - 0.1)
    guest.expect_nothing()
    guest.advance(0.2)
    frame = guest.recv()
    packet = frame.packet
    if v6:
        assert packet[ICMPv6TimeExceeded].code == 1
        assert (packet[IPv6].src, packet[IPv6].dst) == (REMOTE6, GUEST6)
    else:
        assert (packet[ICMP].type, packet[ICMP].code) == (11, 1)
        assert (packet[IP].src, packet[IP].dst) == (REMOTE4, GUEST4)
    quote = frame.raw[14 + (40 if v6 else 20) + 8 :]
    assert quote == bytes(fragments[0])[: 1232 if v6 else 548]
    assert guest.counter("reassembly_timeout") == 1
    # It is forgotten: what comes now is the beginning of another one
    guest.send(fragments[1])
    assert guest.counter("reassembled") == 0


@BOTH
def test_nothing_is_told_without_the_first_fragment(guest: Guest, v6: bool) -> None:
    guest.send(*cut(udp(pattern(3000), v6=v6), 1000)[1:])
    guest.advance(TIME + 1)
    guest.expect_nothing()
    assert guest.counter("reassembly_timeout") == 1


def test_nothing_is_told_about_a_group(guest: Guest) -> None:
    guest.send(cut(udp(pattern(3000), dst="224.0.0.251"), 1000)[0])
    guest.advance(TIME + 1)
    guest.expect_nothing()


def test_oldest_makes_room(guest: Guest, family: Family) -> None:
    peer = served(guest, family)
    packets = [
        cut(udp(bytes([i]) * 1000, v6=family[0]), 504, ident=i)
        for i in range(SLOTS + 6)
    ]
    for first, *_ in packets:
        guest.send(first)
        guest.advance(0.01)
    for _, *rest in packets[6:]:
        guest.send(*rest)
    assert [peer.recv(9000)[0] for _ in range(SLOTS)] == list(range(6, SLOTS + 6))
    assert guest.counter("reassembly_evicted") == 6
    guest.send(*packets[0][1:])
    assert silent(peer)


def test_misaligned_fragment_is_a_problem_for_ip6(guest: Guest) -> None:
    whole = udp(pattern(3000), v6=True)
    guest.send(piece(type(whole)(bytes(whole)), 0, 1001, True))
    packet = guest.recv().packet
    assert (packet[ICMPv6ParamProblem].code, packet[ICMPv6ParamProblem].ptr) == (0, 4)


def test_fragment_beyond_64k_is_a_problem_for_ip6(guest: Guest) -> None:
    whole = udp(pattern(3000), v6=True)
    last = piece(type(whole)(bytes(whole)), 0, 800, False)
    last[IPv6ExtHdrFragment].offset = 8190
    guest.send(last)
    packet = guest.recv().packet
    assert (packet[ICMPv6ParamProblem].code, packet[ICMPv6ParamProblem].ptr) == (0, 42)


def test_neighbour_discovery_in_fragments_is_ignored(guest: Guest) -> None:
    """RFC 6980."""
    packet = IPv6(src=GUEST6, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=REMOTE6)
    guest.send(*cut(packet / Raw(b"\x01\x01" + bytes(6)), 16))
    assert guest.punts == []
    assert guest.counter("drop_fragment") == 1


@pytest.mark.taps("vnet", "vhost", why="a partial checksum needs a header that says so")
def test_partial_checksum_in_a_fragment_is_nonsense(guest: Guest) -> None:
    fragments = cut(udp(pattern(2000)), 1000)
    guest.send(fragments[0], vnet=Vnet(flags=1, csum_start=34, csum_offset=6))
    assert guest.counter("drop_vnet_hdr") == 1


def test_rejected_datagram_is_quoted_whole(guest: Guest) -> None:
    guest.decide = answer(Action.REJECT)
    guest.send(*cut(udp(pattern(3000)), 1480))
    packet = guest.recv().packet
    assert (packet[ICMP].type, packet[ICMP].code) == (3, 3)
    assert packet[ICMP].payload.len == 3028


# To the guest


@pytest.mark.parametrize("mtu", [1280, 1500])
@pytest.mark.parametrize("size", [1452, 1473, 9000, 65507])
def test_datagram_above_the_mtu_comes_in_fragments(
    make_guest: Callable[..., Guest], family: Family, mtu: int, size: int
) -> None:
    guest = make_guest(mtu=mtu)
    v6, peer = family
    served(guest, family)
    guest.send(udp(b"open", v6=v6))
    peer.connect(peer.recvfrom(9)[1])
    peer.send(pattern(size))
    (datagram,) = reassemble(guest.drain(), mtu)
    check_datagram(datagram, pattern(size), v6)
    assert guest.flows()[0].packets1 == 1


def check_datagram(datagram: bytes, payload: bytes, v6: bool) -> None:
    """Its UDP header is right, checksum included, and it has that payload."""
    assert datagram[8:] == payload
    source, dest = (REMOTE6, GUEST6) if v6 else (REMOTE4, GUEST4)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    pseudo = b"".join(socket.inet_pton(family, a) for a in (source, dest))
    pseudo += len(datagram).to_bytes(4, "big") + (17).to_bytes(4, "big")
    assert UDP(datagram).len == len(datagram)
    assert checksum(pseudo + datagram) == 0


def test_largest_datagrams_pass_at_any_mtu(guest: Guest, family: Family) -> None:
    v6, peer = family
    served(guest, family)
    guest.send(udp(b"open", v6=v6))
    peer.connect(peer.recvfrom(9)[1])
    payload = pattern(MAX6 if v6 else MAX4)
    peer.send(payload)
    peer.send(b"next")
    one, two = reassemble(guest.drain(), 65520)
    check_datagram(one, payload, v6)
    check_datagram(two, b"next", v6)


def test_fragmented_packets_have_identifications_of_their_own(
    make_guest: Callable[..., Guest], family: Family
) -> None:
    guest = make_guest(mtu=1500)
    v6, peer = family
    served(guest, family)
    guest.send(udp(b"open", v6=v6))
    peer.connect(peer.recvfrom(9)[1])
    for _ in range(10):
        peer.send(pattern(2000))
    frames = guest.drain()
    ids = {f.packet[IPv6ExtHdrFragment].id if v6 else f.packet[IP].id for f in frames}
    assert len(ids) == 10
    assert len(reassemble(frames, 1500)) == 10
    assert guest.counter("fragments_to_tap") == len(frames) == 20


@pytest.mark.root
@pytest.mark.parametrize("mtu", [1500, 65520])
@BOTH
def test_largest_echo_comes_back(
    make_guest: Callable[..., Guest], ping_namespace: Namespace, v6: bool, mtu: int
) -> None:
    guest = make_guest(mtu=mtu)
    guest.decide = forward_to(0)
    payload = pattern(MAX6 if v6 else MAX4)
    with ping_namespace.entered():
        guest.send(*cut(echo(77, 3, payload, v6=v6), 1448))
        (reply,) = reassemble(guest.drain(), mtu)
    header = struct.unpack("!BBHHH", reply[:8])
    assert (header[0], *header[3:]) == (129 if v6 else 0, 77, 3)
    assert reply[8:] == payload

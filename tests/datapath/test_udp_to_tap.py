# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams from a host socket to the guest: what frames it gets."""

import socket
import struct
from collections.abc import Callable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from tests.datapath.fragments import reassemble
from tests.datapath.guest import ALL_OFFLOADS, Frame, Guest, forward_to
from tests.datapath.packets import (
    DPORT,
    GUEST4,
    GUEST6,
    REMOTE4,
    REMOTE6,
    SPORT,
    udp,
)

GSO_UDP_L4 = 5
UDP_SEGMENT = 103  # not in the socket module
USO = 0x60
RUN_SEGMENTS = 64
RUN_BYTES4 = 65507
Family = tuple[bool, socket.socket]


@pytest.fixture(params=["v4", "v6"])
def family(
    request: pytest.FixtureRequest, udp_peer: socket.socket, udp_peer6: socket.socket
) -> Family:
    """A peer of each family, and whether it is IPv6."""
    return (False, udp_peer) if request.param == "v4" else (True, udp_peer6)


def opened(guest: Guest, family: Family) -> None:
    """Open a flow, and connect the peer's socket to our end of it."""
    v6, peer = family
    guest.decide = forward_to(peer.getsockname()[1])
    guest.send(udp(b"open", v6=v6))
    data, address = peer.recvfrom(100)
    assert data == b"open"
    peer.connect(address)


def cut(frames: list[Frame]) -> list[bytes]:
    """The datagrams of frames, super-segments cut as the guest's kernel does."""
    datagrams = []
    for frame in frames:
        size = frame.vnet.gso_size or max(1, len(frame.payload))
        payload = frame.payload
        datagrams += [
            payload[i : i + size] for i in range(0, max(1, len(payload)), size)
        ]
    return datagrams


def test_answer_comes_from_the_address_the_guest_asked(
    guest: Guest, family: Family
) -> None:
    opened(guest, family)
    v6, peer = family
    peer.send(b"answer")
    packet = guest.expect(payload=b"answer", sport=DPORT, dport=SPORT).packet
    layer = packet[IPv6] if v6 else packet[IP]
    assert (layer.src, layer.dst) == ((REMOTE6, GUEST6) if v6 else (REMOTE4, GUEST4))
    (flow,) = guest.flows()
    assert (flow.packets1, flow.bytes1) == (1, 6)


def test_checksum_is_right(guest: Guest, family: Family) -> None:
    opened(guest, family)
    family[1].send(b"odd")
    packet = guest.recv().packet
    said = packet[UDP].chksum
    del packet[UDP].chksum
    assert type(packet)(bytes(packet))[UDP].chksum == said


def test_empty_datagram_passes(guest: Guest, family: Family) -> None:
    opened(guest, family)
    family[1].send(b"")
    frame = guest.recv()
    assert frame.packet[UDP].len == 8
    assert frame.payload == b""


@pytest.mark.taps("vnet", "vhost", why="no other kind takes runs of datagrams")
def test_equal_datagrams_become_one_frame(guest: Guest, family: Family) -> None:
    opened(guest, family)
    # The first batches are small: let it learn that there is more to come
    sent = [struct.pack("!I", i) * 100 for i in range(60)]
    for payload in sent:
        family[1].send(payload)
    frames = guest.drain()
    assert cut(frames) == sent
    assert len(frames) < 10
    joined = frames[-1]
    assert joined.vnet.gso_type == GSO_UDP_L4
    assert joined.vnet.gso_size == 400
    assert joined.packet[UDP].len == 8 + len(joined.payload)


def test_mixed_sizes_keep_their_order(guest: Guest, family: Family) -> None:
    opened(guest, family)
    sizes = [5, 5, 5, 9, 9, 1, 0, 0, 7, 7, 3, 4, 1400, 1400, 1400, 12, 12, 0, 12]
    sent = [bytes([i]) * size for i, size in enumerate(sizes)]
    for payload in sent:
        family[1].send(payload)
    assert cut(guest.drain()) == sent
    assert guest.flows()[0].packets1 == len(sent)


@pytest.mark.taps("vnet", "vhost", why="no other kind takes runs of datagrams")
def test_a_run_stops_at_64_datagrams(guest: Guest, udp_peer: socket.socket) -> None:
    opened(guest, (False, udp_peer))
    sent = [bytes([i]) for i in range(250)]
    for payload in sent:
        udp_peer.send(payload)
    frames = guest.drain()
    assert cut(frames) == sent
    assert max(len(frame.payload) for frame in frames) == RUN_SEGMENTS


@pytest.mark.taps("vnet", "vhost", why="no other kind takes runs of datagrams")
def test_a_run_stops_at_the_largest_packet(
    guest: Guest, udp_peer: socket.socket
) -> None:
    opened(guest, (False, udp_peer))
    sent = [bytes([i]) * 1472 for i in range(120)]
    got: list[Frame] = []
    for i in range(0, 120, 60):
        for payload in sent[i : i + 60]:
            udp_peer.send(payload)
        got += guest.drain()
    assert cut(got) == sent
    assert max(len(frame.payload) for frame in got) == RUN_BYTES4 // 1472 * 1472


@pytest.mark.taps("vnet", "vhost", why="no other kind takes runs of datagrams")
def test_super_segment_of_the_socket_is_one_frame(guest: Guest, family: Family) -> None:
    opened(guest, family)
    payload = bytes(i % 253 for i in range(44 * 1400 + 17))
    size = struct.pack("H", 1400)
    family[1].sendmsg([payload], [(socket.SOL_UDP, UDP_SEGMENT, size)])
    frame = guest.recv()
    assert frame.payload == payload
    assert frame.vnet.gso_size == 1400
    assert guest.flows()[0].packets1 == 45


def test_tap_without_segmentation_gets_single_frames(
    make_guest: Callable[..., Guest], family: Family
) -> None:
    guest = make_guest(offloads=ALL_OFFLOADS & ~USO)
    opened(guest, family)
    payload = bytes(i % 253 for i in range(30 * 1400 + 17))
    size = struct.pack("H", 1400)
    family[1].sendmsg([payload], [(socket.SOL_UDP, UDP_SEGMENT, size)])
    frames = guest.drain()
    assert all(frame.vnet.gso_type == 0 for frame in frames)
    assert [len(frame.payload) for frame in frames] == [1400] * 30 + [17]
    assert b"".join(frame.payload for frame in frames) == payload


def test_super_segments_never_need_fragments(
    make_guest: Callable[..., Guest], family: Family
) -> None:
    """A run of datagrams above the MTU is cut up first: none may be lost whole."""
    guest = make_guest(mtu=1500)
    opened(guest, family)
    payload = bytes(i % 253 for i in range(5 * 2000))
    size = struct.pack("H", 2000)
    family[1].sendmsg([payload], [(socket.SOL_UDP, UDP_SEGMENT, size)])
    frames = guest.drain()
    assert all(frame.vnet.gso_type == 0 for frame in frames)
    assert [len(datagram) for datagram in reassemble(frames, 1500)] == [2008] * 5


def test_super_segment_longer_than_a_frame_is_cut(
    guest: Guest, udp_peer6: socket.socket
) -> None:
    """UDP over IPv6 on loopback can be 40 bytes longer than a frame."""
    opened(guest, (True, udp_peer6))
    payload = bytes(i % 253 for i in range(65520))
    size = struct.pack("H", 32760)
    udp_peer6.sendmsg([payload], [(socket.SOL_UDP, UDP_SEGMENT, size)])
    assert b"".join(frame.payload for frame in guest.drain()) == payload


def test_short_then_long_datagrams_survive_the_small_slots(
    guest: Guest, udp_peer: socket.socket
) -> None:
    """Long ones among the first of a batch of small slots spill over."""
    opened(guest, (False, udp_peer))
    for burst in range(6):  # enough full batches for the small slots
        for i in range(60):
            udp_peer.send(bytes([burst, i]))
        assert len(cut(guest.drain())) == 60
    long = [bytes([i]) * 9000 for i in range(5)]
    for payload in [b"a", *long, b"b"]:
        udp_peer.send(payload)
    assert cut(guest.drain()) == [b"a", *long, b"b"]
    assert guest.counter("udp_truncated") == 0


def test_only_an_address_that_was_asked_can_answer(
    guest: Guest, udp_peer: socket.socket
) -> None:
    opened(guest, (False, udp_peer))
    ours = udp_peer.getpeername()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.9", 0))
        stranger.sendto(b"spoof", ours)
    guest.expect_nothing()


def test_busy_flow_does_not_starve_another(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"1", sport=5001), udp(b"2", sport=5002))
    addresses = [udp_peer.recvfrom(9)[1] for _ in range(2)]
    for i in range(60):
        udp_peer.sendto(bytes([i]) * (i + 1), addresses[0])
    udp_peer.sendto(b"me too", addresses[1])
    frames = guest.drain()
    place = [frame.payload for frame in frames].index(b"me too")
    assert place < 10

# SPDX-License-Identifier: GPL-2.0-or-later
"""From a frame to a miss, a punt, a drop or a flow; and from a verdict to a flow."""

import errno
import socket
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6ND_RS, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Raw

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany
from passtpy.flow import Action, Pif, PuntKind, Verdict
from tests.datapath.conftest import Server
from tests.datapath.guest import Guest, answer, forward_to, later
from tests.datapath.packets import (
    DPORT,
    GUEST4,
    GUEST6,
    GUEST_MAC,
    OUR_MAC,
    REMOTE4,
    REMOTE6,
    SPORT,
    ack,
    rst,
    syn,
    udp,
)

BROADCAST = "ff:ff:ff:ff:ff:ff"


def mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def to_loopback(port: int) -> Verdict:
    eaddr = inany(ip_address("127.0.0.1"))
    return Verdict(Action.FORWARD, Pif.HOST, eaddr, port, UNSPECIFIED, 0, 1)


@pytest.mark.parametrize(
    ("v6", "source", "destination"),
    [(False, GUEST4, REMOTE4), (True, GUEST6, REMOTE6)],
)
def test_miss_tells_the_tuple(
    guest: Guest, v6: bool, source: str, destination: str
) -> None:
    guest.decide = later
    guest.send(syn(v6=v6))
    (miss,) = guest.misses
    assert miss[1:8] == (
        socket.IPPROTO_TCP,
        Pif.TAP,
        inany(ip_address(source)),
        SPORT,
        inany(ip_address(destination)),
        DPORT,
        -1,
    )
    assert guest.counter("miss") == 1


def test_second_syn_joins_the_stage(guest: Guest) -> None:
    guest.decide = later
    guest.send(syn(), syn())
    guest.send(syn())
    assert len(guest.misses) == 1
    assert guest.counter("miss_joined") == 2


def test_parked_datagrams_reach_the_peer_in_order(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = later
    guest.send(udp(b"one"), udp(b"two"))
    guest.send(udp(b"three"))
    (miss,) = guest.misses
    guest.dp.open(miss.miss_id, to_loopback(udp_peer.getsockname()[1]))
    assert [udp_peer.recv(99) for _ in range(3)] == [b"one", b"two", b"three"]


def test_stage_buffer_is_bounded(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = later
    guest.send(*[udp(b"x" * 1400)] * 60)
    assert guest.counter("drop_stage_full") > 0
    (miss,) = guest.misses
    guest.dp.open(miss.miss_id, to_loopback(udp_peer.getsockname()[1]))
    parked = 60 - guest.counter("drop_stage_full")
    assert parked == 1 + guest.counter("miss_joined")
    assert [len(udp_peer.recv(2000)) for _ in range(parked)] == [1400] * parked


def test_stage_is_bounded(guest: Guest) -> None:
    guest.decide = later
    for port in range(1, 1101):
        guest.put(syn(sport=port))
        if port % 100 == 0:
            guest.turn()
    assert len(guest.misses) == 1024
    assert guest.counter("drop_stage_full") == 1100 - 1024


def test_new_flows_are_rate_limited(guest: Guest) -> None:
    guest.decide = answer(Action.DROP)
    for port in range(1, 4201):
        guest.put(udp(sport=port))
        if port % 100 == 0:
            guest.turn()
    assert len(guest.misses) == 4096
    assert guest.counter("drop_rate") == 4200 - 4096
    guest.advance(0.001)
    guest.send(*[udp(sport=50000 + n) for n in range(30)])
    assert len(guest.misses) == 4096 + 20


def test_miss_expires(guest: Guest) -> None:
    guest.decide = later
    guest.send(syn())
    (miss,) = guest.misses
    guest.advance(_native.MISS_DEADLINE_NS / 1e9 + 0.2)
    assert guest.counter("miss_expired") == 1
    assert guest.open(miss.miss_id, to_loopback(9)) == -errno.ESTALE
    assert guest.counter("miss_late") == 1
    guest.send(syn())
    assert len(guest.misses) == 2
    assert guest.misses[1].miss_id != miss.miss_id


def test_verdict_twice_is_late(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.send(syn())
    assert guest.opened[0] > 0
    again = guest.open(guest.misses[0].miss_id, to_loopback(server.port))
    assert again == -errno.ESTALE
    assert guest.counter("miss_late") == 1


def test_drop_says_nothing(guest: Guest) -> None:
    guest.decide = answer(Action.DROP)
    guest.send(syn())
    guest.expect_nothing()
    assert guest.opened == [0]
    assert guest.counter("drop_verdict") == 1


def test_reject_resets(guest: Guest) -> None:
    guest.decide = answer(Action.REJECT)
    guest.send(syn(seq=5000))
    guest.expect("RA", ack=5001, sport=DPORT, dport=SPORT)
    assert guest.counter("reject_verdict") == 1


def test_splice_is_not_for_the_tap(guest: Guest) -> None:
    guest.decide = lambda _miss: to_loopback(9)._replace(action=Action.SPLICE)
    guest.send(syn())
    guest.expect("RA")
    assert guest.counter("drop_open_failed") == 1
    assert not guest.flows()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"pif": Pif.TAP}, errno.EINVAL),
        ({"pif": Pif.NONE}, errno.EINVAL),
        ({"eaddr": UNSPECIFIED}, errno.EDESTADDRREQ),
    ],
    ids=["back to the tap", "nowhere", "no address"],
)
def test_impossible_verdict_is_refused(
    guest: Guest, change: dict[str, int], error: int
) -> None:
    guest.decide = lambda _miss: to_loopback(9)._replace(**change)  # type: ignore[arg-type]
    guest.send(syn())
    guest.expect("RA")
    assert guest.opened == [-error]
    assert not guest.flows()


def test_full_table_refuses(make_guest: type[Guest], server: Server) -> None:
    guest = make_guest(options={"max_flows": 2})
    guest.decide = forward_to(server.port)
    guest.send(syn(sport=1), syn(sport=2), syn(sport=3))
    assert [flow > 0 for flow in guest.opened] == [True, True, False]
    assert guest.opened[-1] == -errno.ENFILE
    assert guest.counter("drop_table_full") == 1


def test_segment_of_no_flow_is_reset(guest: Guest) -> None:
    guest.send(ack(seq=7, ack=4242))
    guest.expect("R", seq=4242)
    guest.send(rst())
    guest.expect_nothing()
    assert not guest.misses


def test_frames_of_two_flows_are_told_apart(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    first = guest.connect(sport=1001)
    one = server.accept()
    second = guest.connect(sport=1002)
    two = server.accept()
    guest.send(
        first.segment("PA", b"aa"),
        second.segment("PA", b"xx"),
        first.segment("PA", b"bb", seq=first.seq + 2),
        second.segment("PA", b"yy", seq=second.seq + 2),
    )
    assert one.recv(99) == b"aabb"
    assert two.recv(99) == b"xxyy"


def test_guest_mac_is_learned(guest: Guest) -> None:
    assert guest.dp.guest_mac == mac(BROADCAST)
    guest.send(Ether(src=GUEST_MAC, dst=BROADCAST) / ARP(pdst="192.0.2.1"))
    assert guest.dp.guest_mac == mac(GUEST_MAC)
    guest.decide = answer(Action.REJECT)
    guest.send(Ether(src="02:00:00:00:00:07", dst=OUR_MAC) / syn())
    assert guest.expect("RA").packet.dst == "02:00:00:00:00:07"


def test_multicast_source_mac_is_not_learned(guest: Guest) -> None:
    guest.send(Ether(src="01:00:5e:00:00:01", dst=OUR_MAC) / syn())
    guest.send(Ether(src="00:00:00:00:00:00", dst=OUR_MAC) / syn())
    assert guest.dp.guest_mac == mac(BROADCAST)


# Punts


def test_frames_for_services_are_lifted_whole(guest: Guest) -> None:
    arp = bytes(Ether(src=GUEST_MAC, dst=BROADCAST) / ARP(pdst="192.0.2.1"))
    request = udp(b"\1" * 300, sport=68, dport=67, src="0.0.0.0", dst="255.255.255.255")
    dhcp = bytes(Ether(src=GUEST_MAC, dst=BROADCAST) / request)
    dhcp6 = bytes(
        Ether(src=GUEST_MAC, dst="33:33:00:01:00:02")
        / udp(b"x", v6=True, sport=546, dport=547, src="fe80::1", dst="ff02::1:2")
    )
    nd = bytes(
        Ether(src=GUEST_MAC, dst="33:33:00:00:00:02")
        / IPv6(src="fe80::1", dst="ff02::2", hlim=255)
        / ICMPv6ND_RS()
    )
    guest.send(arp, dhcp, dhcp6, nd)
    assert guest.punts == [arp, dhcp, dhcp6, nd]
    assert guest.kinds == [
        PuntKind.ARP,
        PuntKind.DHCP4,
        PuntKind.DHCP6,
        PuntKind.ND,
    ]
    assert guest.counter("punt") == 4
    assert not guest.misses


def test_punts_are_bounded_per_turn(guest: Guest) -> None:
    frame = bytes(Ether(src=GUEST_MAC, dst=BROADCAST) / ARP(pdst="192.0.2.1"))
    guest.send(*[frame] * 100)
    assert len(guest.punts) == 64
    assert guest.counter("drop_punt_limit") == 36
    guest.send(frame)
    assert len(guest.punts) == 65


def test_injected_frame_reaches_the_guest(guest: Guest) -> None:
    frame = Ether(src=OUR_MAC, dst=GUEST_MAC) / ARP(op=2, psrc="192.0.2.1")
    guest.dp.inject(bytes(frame))
    assert guest.recv().raw == bytes(frame)


# Malformed frames: counted by reason, and the next good one is served

BAD_IP = IP(src=GUEST4, dst=REMOTE4)
MALFORMED = {
    "empty": (b"", "drop_short"),
    "half an Ethernet header": (b"\xff" * 9, "drop_short"),
    "no IP header": (mac(OUR_MAC) + mac(GUEST_MAC) + b"\x08\x00", "drop_short"),
    "unknown EtherType": (Ether(type=0x88CC) / Raw(b"x" * 50), "drop_ethertype"),
    "IP version 5": (IP(src=GUEST4, dst=REMOTE4, version=5) / TCP(), "drop_ip_header"),
    "IP header of 16 bytes": (bytes(Ether(type=0x800)) + b"\x44" + bytes(40), None),
    "IP checksum": (IP(src=GUEST4, dst=REMOTE4, chksum=1) / TCP(), "drop_checksum"),
    "IP longer than frame": (IP(src=GUEST4, dst=REMOTE4, len=900) / UDP(), None),
    "empty fragment": (IP(src=GUEST4, dst=REMOTE4, flags="MF"), "drop_fragment"),
    "unknown protocol": (IP(src=GUEST4, dst=REMOTE4, proto=132), "drop_ip_proto"),
    "loopback source": (IP(src="127.0.0.1", dst=REMOTE4) / UDP(), "drop_address"),
    "no source": (IP(src="0.0.0.0", dst=REMOTE4) / TCP(), "drop_address"),
    "TCP port 0": (BAD_IP / TCP(dport=0), "drop_address"),
    "TCP header of 16 bytes": (BAD_IP / TCP(dataofs=4), "drop_l4_header"),
    "TCP header beyond end": (BAD_IP / TCP(dataofs=15), "drop_l4_header"),
    "half a TCP header": (IP(src=GUEST4, dst=REMOTE4, proto=6) / Raw(b"x" * 9), None),
    "TCP checksum": (BAD_IP / TCP(flags="S", chksum=1), "drop_checksum"),
    "UDP checksum": (BAD_IP / UDP(chksum=1) / Raw(b"x"), "drop_checksum"),
    "UDP length too long": (BAD_IP / UDP(len=99), "drop_l4_header"),
    "UDP length too short": (BAD_IP / UDP(len=7), "drop_l4_header"),
    "ICMP type": (BAD_IP / ICMP(type=13), "drop_icmp_type"),
}


@pytest.mark.parametrize(("frame", "counter"), MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_frame_is_dropped_and_counted(
    guest: Guest, frame: bytes, counter: str | None
) -> None:
    if frame == b"" and guest.backend == "tun" and not guest.vnet:
        pytest.skip("a socket cannot tell an empty message from its end")
    if guest.backend == "stream" and len(frame) < 14:
        pytest.skip("such a length ends the connection: test_stream.py")
    guest.decide = answer(Action.REJECT)
    guest.send(frame)
    counters = guest.dp.counters()
    dropped = {k for k, v in counters.items() if k.startswith("drop_") and v}
    assert len(dropped) == 1
    assert counter is None or dropped == {counter}
    assert not guest.misses
    guest.send(syn())
    guest.expect("RA")


@pytest.mark.taps("vnet", why="no other kind has the header within a message")
def test_frame_shorter_than_vnet_header_is_dropped(guest: Guest) -> None:
    guest.link.send(b"1234")
    guest.turn()
    assert guest.counter("drop_short") == 1


@pytest.mark.taps(
    "vnet", "plain", "stream", why="rings end with their conversation: test_vhost.py"
)
def test_closed_tap_is_told_once(guest: Guest) -> None:
    guest.link.close()
    guest.turn()
    guest.turn()
    assert len(guest.gone) == 1
    assert guest.gone[0] > 0

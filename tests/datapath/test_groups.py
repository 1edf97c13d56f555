# SPDX-License-Identifier: GPL-2.0-or-later
"""Multicast and broadcast: what Python gets to see, and how groups reach the guest."""

import socket
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import (
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrHopByHop,
    RouterAlert,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from passtpy import _native
from passtpy.addr import inany
from passtpy.flow import Action, Pif, PuntKind, Verdict
from tests.datapath.guest import Guest
from tests.datapath.packets import GUEST4, GUEST_MAC, udp

GROUP4, GROUP6 = "224.0.0.251", "ff02::fb"
REPORTS: dict[str, Packet] = {
    "igmp": IP(src=GUEST4, dst=GROUP4, ttl=1, proto=2) / Raw(b"\x16" + bytes(7)),
    "mld": IPv6(src="fe80::1", dst="ff02::16", hlim=1)
    / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    / ICMPv6MLReport2(),
}
REQUESTS: dict[str, Packet] = {
    "mdns": udp(b"question", dst=GROUP4, dport=5353),
    "mdns6": udp(b"question", v6=True, dst=GROUP6, dport=5353),
    "broadcast": udp(b"question", dst="255.255.255.255", dport=9999),
}


@pytest.mark.parametrize("name", [*REPORTS, *REQUESTS])
def test_talk_of_groups_is_lifted_if_wanted(guest: Guest, name: str) -> None:
    frame = Ether(src=GUEST_MAC, dst="01:00:5e:00:00:fb") / (REPORTS | REQUESTS)[name]
    guest.dp.lift_groups = True
    guest.send(frame)
    assert guest.punts == [bytes(frame)]
    wanted = PuntKind.MEMBERSHIP if name in REPORTS else PuntKind.GROUP
    assert guest.kinds == [wanted]
    assert not guest.misses


@pytest.mark.parametrize("name", REPORTS)
def test_reports_are_dropped_otherwise(guest: Guest, name: str) -> None:
    guest.send(REPORTS[name])
    assert guest.punts == []
    assert guest.counter("drop_group") == 1


@pytest.mark.parametrize("name", REQUESTS)
def test_requests_are_for_the_policy_otherwise(guest: Guest, name: str) -> None:
    guest.send(REQUESTS[name])
    assert guest.punts == []
    assert len(guest.misses) == 1


def test_unicast_is_never_lifted(guest: Guest) -> None:
    guest.dp.lift_groups = True
    guest.send(udp(b"x"))
    assert guest.punts == []
    assert len(guest.misses) == 1


@pytest.mark.parametrize(
    ("group", "mac"),
    [("239.255.255.250", "01:00:5e:7f:ff:fa"), ("ff02::c", "33:33:00:00:00:0c")],
)
def test_group_reaches_the_guest_as_one(guest: Guest, group: str, mac: str) -> None:
    """One flow for each sender; all of them stay on the group's own socket."""
    v6 = ":" in group
    loopback, peer = ("::1", "2001:db8::77") if v6 else ("127.0.0.1", "198.51.100.77")
    family = socket.AF_INET6 if v6 else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    listener.bind((loopback, 0))
    port = listener.getsockname()[1]

    def decide(miss: _native.Miss) -> Verdict:
        ends = (inany(ip_address(group)), port, inany(ip_address(peer)), miss.eport)
        return Verdict(Action.FORWARD, Pif.TAP, *ends, 1)

    guest.decide = decide
    guest.dp.listen(listener.detach(), socket.IPPROTO_UDP, 3)
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"news", (loopback, port))
        packet = guest.recv().packet
    layer = packet[IPv6] if v6 else packet[IP]
    assert packet[Ether].dst == mac
    assert (layer.src, layer.dst) == (peer, group)
    assert packet[UDP].dport == port
    assert bytes(packet[UDP].payload) == b"news"

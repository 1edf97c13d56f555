# SPDX-License-Identifier: GPL-2.0-or-later
"""What passt tells a virtual machine about its network, question by question."""

from collections.abc import Iterator

import pytest
from scapy.layers.dhcp import BOOTP, DHCP
from scapy.layers.dhcp6 import (
    DUID_LL,
    DHCP6_Advertise,
    DHCP6_Solicit,
    DHCP6OptClientId,
    DHCP6OptDNSDomains,
    DHCP6OptDNSServers,
    DHCP6OptElapsedTime,
    DHCP6OptIA_NA,
    DHCP6OptIAAddress,
)
from scapy.layers.inet import ICMP, IP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6ND_RA,
    ICMPv6ND_RS,
    ICMPv6NDOptDNSSL,
    ICMPv6NDOptMTU,
    ICMPv6NDOptPrefixInfo,
    ICMPv6NDOptRDNSS,
    ICMPv6NDOptSrcLLAddr,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from tests.lab import GATEWAY4, HOST4, HOST6, REMOTE4, REMOTE6, Lab
from tests.netns.machine import GUEST_MAC, OUR_MAC, Daemon, Plug, arp, dhcp, passt, told
from tests.netns.resolvers import resolver

DNS4, DNS6 = "192.0.2.53", "2001:db8:1::53"
LINK_LOCAL = "fe80::ff:fe00:2"
OUR_LINK_LOCAL = "fe80::9855:9aff:fe55:9a55"
SEARCH = "lab.example.com"
GROUP_MAC = "33:33:00:00:00:02"


@pytest.fixture(scope="module")
def daemon(lab: Lab) -> Iterator[Daemon]:
    told = [
        "-D",
        DNS4,
        "-D",
        DNS6,
        "-S",
        SEARCH,
        "-H",
        "vm",
        "--fqdn",
        "vm.lab.example",
    ]
    with passt(lab, "-m", "9000", *told, "--dns-forward", "192.0.2.7") as made:
        yield made


@pytest.fixture
def plug(daemon: Daemon) -> Iterator[Plug]:
    with daemon.plug() as made:
        made.recv(lambda p: ARP in p and p[ARP].op == 1)  # who are you?
        yield made


def frame(packet: Packet, to: str = OUR_MAC) -> Packet:
    return Ether(src=GUEST_MAC, dst=to) / packet


def is_dhcp(packet: Packet) -> bool:
    return DHCP in packet


def test_a_machine_is_asked_who_it_is(daemon: Daemon) -> None:
    with daemon.plug() as plug:
        asked = plug.recv(lambda p: ARP in p)
        assert (asked[ARP].pdst, asked[ARP].psrc) == (HOST4, GATEWAY4)
        asked = plug.recv(lambda p: ICMPv6ND_NS in p)
        assert asked[ICMPv6ND_NS].tgt == HOST6


def test_arp_for_anybody_is_answered(plug: Plug) -> None:
    for address in (GATEWAY4, REMOTE4, "203.0.113.9"):
        plug.send(arp(address))
        reply = plug.recv(lambda p: ARP in p and p[ARP].op == 2)
        assert (reply[ARP].psrc, reply[ARP].hwsrc) == (address, OUR_MAC)
        assert reply.dst == GUEST_MAC


def test_dhcp_gives_the_address_of_the_host_and_all_else(plug: Plug) -> None:
    plug.send(dhcp("discover"))
    offer = plug.recv(is_dhcp)
    assert offer[BOOTP].yiaddr == HOST4
    plug.send(dhcp("request", ("requested_addr", HOST4), ("server_id", GATEWAY4)))
    ack = told(plug.recv(is_dhcp))
    assert ack["message-type"] == 5
    assert (ack["subnet_mask"], ack["router"]) == ("255.255.255.0", GATEWAY4)
    assert ack["name_server"] == DNS4
    assert ack["hostname"] == b"vm"
    assert ack["interface-mtu"] == 9000


def test_neighbours_are_found(plug: Plug) -> None:
    question = IPv6(src=LINK_LOCAL, dst="ff02::1:ff00:1") / ICMPv6ND_NS(tgt=REMOTE6)
    plug.send(frame(question / ICMPv6NDOptSrcLLAddr(lladdr=GUEST_MAC), GROUP_MAC))
    answer = plug.recv(lambda p: ICMPv6ND_NA in p)
    assert answer[ICMPv6ND_NA].tgt == REMOTE6
    assert answer.src == OUR_MAC


def test_the_router_tells_prefix_mtu_resolver_and_domain(plug: Plug) -> None:
    plug.send(frame(IPv6(src=LINK_LOCAL, dst="ff02::2") / ICMPv6ND_RS(), GROUP_MAC))
    answer = plug.recv(lambda p: ICMPv6ND_RA in p)
    assert answer[ICMPv6NDOptPrefixInfo].prefix == "2001:db8:2::"
    assert answer[ICMPv6NDOptMTU].mtu == 9000
    assert answer[ICMPv6NDOptRDNSS].dns == [DNS6]
    assert answer[ICMPv6NDOptDNSSL].searchlist == [f"{SEARCH}."]
    assert answer[IPv6].src == OUR_LINK_LOCAL


def test_dhcpv6_gives_the_address_of_the_host(plug: Plug) -> None:
    layer = IPv6(src=LINK_LOCAL, dst="ff02::1:2") / UDP(sport=546, dport=547)
    client = DHCP6OptClientId(duid=DUID_LL(lladdr=GUEST_MAC))
    message = DHCP6_Solicit(trid=5) / client / DHCP6OptElapsedTime()
    plug.send(frame(layer / message / DHCP6OptIA_NA(iaid=1), GROUP_MAC))
    answer = plug.recv(lambda p: DHCP6_Advertise in p)
    assert answer[DHCP6OptIAAddress].addr == HOST6
    assert answer[DHCP6OptDNSServers].dnsservers == [DNS6]
    assert answer[DHCP6OptDNSDomains].dnsdomains == [f"{SEARCH}."]


def test_names_are_asked_where_dns_is_forwarded(lab: Lab) -> None:
    forward = ["--dns-forward", "192.0.2.7", "--dns-host", REMOTE4]
    with (
        passt(lab, *forward) as daemon,
        daemon.plug() as plug,
        resolver(lab.remote, REMOTE4, "remote"),
    ):
        question = (
            IP(src=HOST4, dst="192.0.2.7") / UDP(sport=4000, dport=53) / Raw(b"?")
        )
        plug.send(frame(question))
        answer = plug.recv(lambda p: UDP in p and p[UDP].sport == 53)
        assert (answer[IP].src, bytes(answer[Raw])) == ("192.0.2.7", b"remote")


def test_pings_are_answered_by_the_remote(plug: Plug) -> None:
    plug.send(frame(IP(src=HOST4, dst=REMOTE4) / ICMP(id=3, seq=1) / Raw(b"x" * 40)))
    reply = plug.recv(lambda p: ICMP in p)
    assert (reply[ICMP].type, reply[IP].src, reply[ICMP].id) == (0, REMOTE4, 3)
    plug.send(frame(IPv6(src=HOST6, dst=REMOTE6) / ICMPv6EchoRequest(id=4)))
    assert plug.recv(lambda p: ICMPv6EchoReply in p)[IPv6].src == REMOTE6


def test_short_frames_may_be_padded(plug: Plug) -> None:
    padded = bytes(arp()).ljust(60, b"\0")
    plug.framing.send(padded)
    plug.recv(lambda p: ARP in p and p[ARP].op == 2)
    ping = bytes(frame(IP(src=HOST4, dst=REMOTE4) / ICMP(id=9))).ljust(60, b"\0")
    plug.framing.send(ping)
    assert plug.recv(lambda p: ICMP in p)[ICMP].id == 9


def test_nobody_is_told_what_was_switched_off(lab: Lab) -> None:
    off = ["--no-dhcp-dns", "--no-dhcp-search"]
    said = ["-D", DNS4, "-D", DNS6, "-S", SEARCH]
    with passt(lab, *off, *said) as daemon, daemon.plug() as plug:
        plug.send(dhcp("discover"))
        offer = told(plug.recv(is_dhcp))
        assert "name_server" not in offer
        assert "router" in offer
        plug.send(frame(IPv6(src=LINK_LOCAL, dst="ff02::2") / ICMPv6ND_RS(), GROUP_MAC))
        answer = plug.recv(lambda p: ICMPv6ND_RA in p)
        assert ICMPv6NDOptRDNSS not in answer
        assert ICMPv6NDOptDNSSL not in answer

# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest's side of a conversation with the services, and what it finds there."""

from ipaddress import IPv4Address, IPv6Address

from passtpy.config.cli import parse_pasta
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.resolver import Resolver
from passtpy.config.view import View
from passtpy.flow import PuntKind
from passtpy.services.facts import Facts, facts_from_view
from passtpy.services.registry import Services, services_from_view
from passtpy.wire.arp import Arp, ArpOp, Neighbour
from passtpy.wire.dhcp import Dhcp
from passtpy.wire.dhcpv6 import Dhcpv6
from passtpy.wire.ethernet import (
    ETHERTYPE_ARP,
    ETHERTYPE_IPV4,
    ETHERTYPE_IPV6,
    Ethernet,
)
from passtpy.wire.icmpv6 import Icmpv6
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.udp import Udp

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("2001:db8::1"),
    mtu=1500,
)
RESOLVER = Resolver(
    (
        IPv4Address("198.51.100.53"),
        IPv6Address("2001:db8:1::53"),
        IPv4Address("127.0.0.53"),
    ),
    ("lab.example.com", "example.com"),
)
OUR_MAC = HOST.our_mac
GUEST_MAC = b"\x02\0\0\0\0\5"
BROADCAST_MAC = b"\xff" * 6
OUR_LL = IPv6Address("fe80::9855:9aff:fe55:9a55")
GUEST_LL = IPv6Address("fe80::5")
GUEST4, PEER4 = IPv4Address("192.0.2.5"), IPv4Address("192.0.2.200")
GUEST6, PEER6 = IPv6Address("2001:db8::5"), IPv6Address("2001:db8::200")
GATEWAY4, GATEWAY6 = IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")
NOBODY4, BROADCAST4 = IPv4Address(0), IPv4Address("255.255.255.255")
UNSPECIFIED6 = IPv6Address("::")
ALL_NODES, ALL_ROUTERS = IPv6Address("ff02::1"), IPv6Address("ff02::2")
ALL_SERVERS = IPv6Address("ff02::1:2")
S = 1_000_000_000


def make(
    line: str = "", host: HostInfo = HOST, resolver: Resolver = RESOLVER
) -> tuple[Services, GuestAddresses]:
    """The services of a command line; their dice always show the least."""
    guest = GuestAddresses.from_host(host)
    view = View.of(parse_pasta(line.split()), host, resolver)
    services = services_from_view(view, guest, lambda low, high: low)
    return services, guest


def facts(
    line: str = "", host: HostInfo = HOST, resolver: Resolver = RESOLVER
) -> Facts:
    return facts_from_view(View.of(parse_pasta(line.split()), host, resolver))


def kind_of(frame: bytes) -> PuntKind:
    """What the datapath would say that a frame is."""
    if len(frame) < 14 or frame[12:14] == b"\x08\x06":
        return PuntKind.ARP
    if frame[12:14] == b"\x08\x00":
        return PuntKind.DHCP4
    return PuntKind.ND if frame[20:21] == b"\x3a" else PuntKind.DHCP6


def serve(services: Services, frame: bytes, now: int) -> list[bytes]:
    """Return the answers to a frame that the datapath lifted."""
    return services.handle(kind_of(frame), frame, now)


# From the guest


def arp(op: ArpOp, sender: IPv4Address, target: IPv4Address) -> bytes:
    message = Arp(op, Neighbour(GUEST_MAC, sender), Neighbour(bytes(6), target))
    return Ethernet(BROADCAST_MAC, GUEST_MAC, ETHERTYPE_ARP, message.emit()).emit()


def icmpv6(
    message: Icmpv6,
    source: IPv6Address = GUEST_LL,
    destination: IPv6Address = ALL_ROUTERS,
    hop_limit: int = 255,
) -> bytes:
    payload = message.emit(source, destination)
    packet = Ipv6(source, destination, 58, payload, hop_limit).emit()
    return Ethernet(b"\x33\x33" + bytes(4), GUEST_MAC, ETHERTYPE_IPV6, packet).emit()


def udp4(
    payload: bytes,
    source: IPv4Address = NOBODY4,
    destination: IPv4Address = BROADCAST4,
    port: int = 67,
) -> bytes:
    datagram = Udp(68, port, payload).emit(source, destination)
    packet = Ipv4(source, destination, 17, datagram).emit()
    return Ethernet(BROADCAST_MAC, GUEST_MAC, ETHERTYPE_IPV4, packet).emit()


def udp6(
    payload: bytes,
    source: IPv6Address = GUEST_LL,
    destination: IPv6Address = ALL_SERVERS,
    port: int = 547,
) -> bytes:
    datagram = Udp(546, port, payload).emit(source, destination)
    packet = Ipv6(source, destination, 17, datagram).emit()
    return Ethernet(b"\x33\x33" + bytes(4), GUEST_MAC, ETHERTYPE_IPV6, packet).emit()


# To the guest


def read_arp(frame: bytes) -> tuple[Ethernet, Arp]:
    eth = Ethernet.parse(frame)
    return eth, Arp.parse(eth.payload)


def read_icmpv6(frame: bytes) -> tuple[Ethernet, Ipv6, Icmpv6]:
    eth = Ethernet.parse(frame)
    packet = Ipv6.parse(eth.payload)
    return eth, packet, Icmpv6.parse(packet.payload, packet.source, packet.destination)


def read_dhcp(frame: bytes) -> tuple[Ethernet, Ipv4, Dhcp]:
    eth = Ethernet.parse(frame)
    packet = Ipv4.parse(eth.payload)
    return eth, packet, Dhcp.parse(Udp.parse(packet.payload).payload)


def read_dhcpv6(frame: bytes) -> tuple[Ethernet, Ipv6, Dhcpv6]:
    eth = Ethernet.parse(frame)
    packet = Ipv6.parse(eth.payload)
    return eth, packet, Dhcpv6.parse(Udp.parse(packet.payload).payload)

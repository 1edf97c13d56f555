# SPDX-License-Identifier: GPL-2.0-or-later
"""What we send, read by somebody else: scapy, which never saw our code."""

from typing import Any

import pytest

from passtpy.wire.dhcp import Dhcp, Op
from passtpy.wire.dhcpv6 import Dhcpv6, Ia, MessageType, RawOption
from passtpy.wire.ndp import RouterSolicitation
from tests.unit.services.conversation import GUEST_MAC, icmpv6, make, serve, udp4, udp6

LINE = "--dhcp-dns --dhcp-search -H guest --fqdn guest.example.com -D 192.0.2.53 "
LINE += "-D 2001:db8:1::53 -S lab.example.com -S example.com"


@pytest.fixture(scope="module")
def scapy() -> Any:
    """Loading it warns about what this machine lacks."""
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import scapy.layers.dhcp
        import scapy.layers.dhcp6
        import scapy.layers.inet6
        import scapy.layers.l2
    return scapy.layers


def answer(scapy: Any, question: bytes) -> Any:
    """The one answer, its checksums and lengths shown to be what scapy would send."""
    services, _ = make(LINE)
    (frame,) = serve(services, question, 0)
    packet = scapy.l2.Ether(frame)
    again = scapy.l2.Ether(frame)
    for layer in again.layers():
        for name in ("chksum", "cksum", "plen"):
            if name in [field.name for field in layer.fields_desc]:
                again[layer].delfieldval(name)
    assert bytes(again) == frame
    return packet


def test_dhcp_offer(scapy: Any) -> None:
    wanted = bytes([1, 3, 6, 12, 119, 81])
    request = Dhcp(
        op=Op.REQUEST, xid=7, chaddr=GUEST_MAC, options={53: b"\1", 55: wanted}
    )
    packet = answer(scapy, udp4(request.emit()))
    assert packet[scapy.dhcp.BOOTP].yiaddr == "192.0.2.5"
    options = dict(
        option for option in packet[scapy.dhcp.DHCP].options if len(option) == 2
    )
    assert options["message-type"] == 2
    assert options["server_id"] == options["router"] == "192.0.2.1"
    assert options["subnet_mask"] == "255.255.255.0"
    assert options["name_server"] == "192.0.2.53"
    assert options["hostname"] == b"guest"
    assert options["lease_time"] == 0xFFFFFFFF
    assert (options["renewal_time"], options["rebinding_time"]) == (300, 525)


def test_dhcpv6_advertise(scapy: Any) -> None:
    client = RawOption(1, b"\0\3\0\1" + GUEST_MAC)
    request = Dhcpv6(MessageType.SOLICIT, 7, (client, Ia(3, 9), RawOption(39, b"\0")))
    packet = answer(scapy, udp6(request.emit()))
    dhcp6 = scapy.dhcp6
    assert packet[dhcp6.DHCP6_Advertise].trid == 7
    assert packet[dhcp6.DHCP6OptClientId].duid.lladdr == GUEST_MAC.hex(":")
    assert packet[dhcp6.DHCP6OptServerId].duid.type == 4
    assert packet[dhcp6.DHCP6OptIAAddress].addr == "2001:db8::5"
    assert packet[dhcp6.DHCP6OptDNSServers].dnsservers == ["2001:db8:1::53"]
    assert packet[dhcp6.DHCP6OptDNSDomains].dnsdomains == [
        "lab.example.com.",
        "example.com.",
    ]


def test_router_advertisement(scapy: Any) -> None:
    packet = answer(scapy, icmpv6(RouterSolicitation().emit()))
    inet6 = scapy.inet6
    advertised = packet[inet6.ICMPv6ND_RA]
    assert (advertised.M, advertised.O, advertised.routerlifetime) == (1, 1, 65535)
    prefix = packet[inet6.ICMPv6NDOptPrefixInfo]
    assert (prefix.prefix, prefix.prefixlen, prefix.A) == ("2001:db8::", 64, 1)
    assert packet[inet6.ICMPv6NDOptRDNSS].dns == ["2001:db8:1::53"]
    assert packet[inet6.ICMPv6NDOptDNSSL].searchlist == [
        "lab.example.com.",
        "example.com.",
    ]

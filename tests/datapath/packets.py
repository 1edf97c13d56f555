# SPDX-License-Identifier: GPL-2.0-or-later
"""The packet language of the datapath tests: what a guest can say, in one word.

Every function returns a scapy IP packet from the guest to the remote host; show only
what differs: `syn(dport=80)`. `v6=True` changes the family. Add an Ethernet header with
`Ether(...) / packet` only if the test is about it.
"""

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6
from scapy.packet import Packet, Raw

GUEST4, GUEST6 = "192.0.2.5", "2001:db8::5"
REMOTE4, REMOTE6 = "198.51.100.1", "2001:db8:1::1"
GUEST_MAC, OUR_MAC = "52:54:00:12:34:56", "9a:55:9a:55:9a:55"

SPORT, DPORT = 40000, 80
ISN = 1000
SYN_OPTIONS = [("MSS", 1460), ("SAckOK", b""), ("NOP", None), ("WScale", 7)]


def ip(v6: bool = False, **fields: Any) -> Packet:
    """An IP header from the guest to the remote host."""
    if v6:
        return IPv6(**{"src": GUEST6, "dst": REMOTE6, **fields})
    return IP(**{"src": GUEST4, "dst": REMOTE4, "flags": "DF", "id": 0, **fields})


def tcp(
    flags: str,
    payload: bytes = b"",
    *,
    v6: bool = False,
    src: str | None = None,
    dst: str | None = None,
    **fields: Any,
) -> Packet:
    """Any TCP segment; `fields` are those of scapy's TCP (seq, ack, options, …)."""
    ends = {k: v for k, v in (("src", src), ("dst", dst)) if v is not None}
    base = {"sport": SPORT, "dport": DPORT, "seq": ISN, "window": 65535}
    segment = ip(v6, **ends) / TCP(**{**base, "flags": flags, **fields})
    return segment / Raw(payload) if payload else segment


def syn(**fields: Any) -> Packet:
    """The SYN of a Linux guest: MSS 1460, SACK, window scale 7."""
    return tcp("S", **{"options": SYN_OPTIONS, **fields})


def ack(**fields: Any) -> Packet:
    """A bare acknowledgement."""
    return tcp("A", **fields)


def data(payload: bytes, **fields: Any) -> Packet:
    """A data segment."""
    return tcp("PA", payload, **fields)


def fin(**fields: Any) -> Packet:
    """The end of one direction."""
    return tcp("FA", **fields)


def rst(**fields: Any) -> Packet:
    """A reset."""
    return tcp("R", **fields)


def udp(
    payload: bytes = b"",
    *,
    v6: bool = False,
    src: str | None = None,
    dst: str | None = None,
    **fields: Any,
) -> Packet:
    """A datagram."""
    ends = {k: v for k, v in (("src", src), ("dst", dst)) if v is not None}
    datagram = ip(v6, **ends) / UDP(**{"sport": SPORT, "dport": DPORT, **fields})
    return datagram / Raw(payload) if payload else datagram


def echo(
    ident: int = 77,
    seq: int = 1,
    payload: bytes = b"",
    *,
    v6: bool = False,
    **ends: Any,
) -> Packet:
    """An echo request."""
    if v6:
        return ip(True, **ends) / ICMPv6EchoRequest(id=ident, seq=seq, data=payload)
    packet = ip(**ends) / ICMP(type="echo-request", id=ident, seq=seq)
    return packet / Raw(payload) if payload else packet

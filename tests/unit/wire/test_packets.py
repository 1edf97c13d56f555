# SPDX-License-Identifier: GPL-2.0-or-later
"""Every protocol survives emit and parse, and hostile bytes end in WireError."""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.arp import Arp, ArpOp, Neighbour
from passtpy.wire.checksum import checksum
from passtpy.wire.ethernet import Ethernet
from passtpy.wire.icmpv6 import Icmpv6
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.udp import Udp

V4A, V4B = IPv4Address("192.0.2.5"), IPv4Address("198.51.100.1")
V6A, V6B = IPv6Address("2001:db8::5"), IPv6Address("2001:db8::1")

macs = st.binary(min_size=6, max_size=6)
bytes_ = st.integers(0, 255)
ports = st.integers(0, 65535)
payloads = st.binary(max_size=200)
v4s, v6s = st.ip_addresses(v=4), st.ip_addresses(v=6)
neighbours = st.builds(Neighbour, macs, v4s)


@given(st.builds(Ethernet, macs, macs, ports, payloads))
def test_ethernet_survives(frame: Ethernet) -> None:
    assert Ethernet.parse(frame.emit()) == frame


@given(st.builds(Arp, st.sampled_from(ArpOp), neighbours, neighbours), payloads)
def test_arp_survives_with_any_padding(arp: Arp, padding: bytes) -> None:
    assert Arp.parse(arp.emit() + padding) == arp


@given(st.builds(Ipv4, v4s, v4s, bytes_, payloads, bytes_), payloads)
def test_ipv4_survives_with_any_padding(packet: Ipv4, padding: bytes) -> None:
    assert Ipv4.parse(packet.emit() + padding) == packet


plain = bytes_.filter(lambda proto: proto not in (0, 43, 44, 60))


@given(st.builds(Ipv6, v6s, v6s, plain, payloads, bytes_), payloads)
def test_ipv6_survives_with_any_padding(packet: Ipv6, padding: bytes) -> None:
    assert Ipv6.parse(packet.emit() + padding) == packet


@given(st.builds(Udp, ports, ports, payloads))
def test_udp_survives(datagram: Udp) -> None:
    assert Udp.parse(datagram.emit(V4A, V4B)) == datagram
    assert Udp.parse(datagram.emit(V6A, V6B)) == datagram


@given(st.builds(Icmpv6, bytes_, bytes_, payloads))
def test_icmpv6_survives(message: Icmpv6) -> None:
    assert Icmpv6.parse(message.emit(V6A, V6B), V6A, V6B) == message


PARSERS: list[Callable[[bytes], object]] = [
    Ethernet.parse,
    Arp.parse,
    Ipv4.parse,
    Ipv6.parse,
    Udp.parse,
    lambda data: Icmpv6.parse(data, V6A, V6B),
]


@pytest.mark.parametrize("parse", PARSERS)
@given(data=st.binary(max_size=120))
def test_hostile_bytes_raise_wire_error_only(
    parse: Callable[[bytes], object], data: bytes
) -> None:
    try:
        value = parse(data)
    except WireError:
        return
    assert str(value)


def test_udp_checksum_is_never_zero() -> None:
    # A datagram whose sum is zero must carry 0xffff: zero means "no checksum".
    for port in range(65536):
        emitted = Udp(port, 1, b"").emit(V4A, V4B)
        assert emitted[6:8] != b"\0\0"


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0xFFFF),
        (b"\0\0", 0xFFFF),
        (b"\xff\xff", 0),
        (bytes.fromhex("0001f203f4f5f6f7"), 0x220D),  # RFC 1071's own example
        (b"\x01", 0xFEFF),
    ],
)
def test_checksum(data: bytes, expected: int) -> None:
    assert checksum(data) == expected


GOOD4 = Ipv4(V4A, V4B, 17, b"payload").emit()


def _with(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (GOOD4[:19], "truncated"),
        (_with(GOOD4, 0, b"\x65"), "version"),
        (_with(GOOD4, 0, b"\x44"), "length"),
        (_with(GOOD4, 0, b"\x4f"), "length"),
        (_with(GOOD4, 2, b"\x00\x13"), "length"),
        (_with(GOOD4, 2, b"\xff\xff"), "length"),
        (_with(GOOD4, 6, b"\x20\x00"), "fragment"),
        (_with(GOOD4, 6, b"\x00\x01"), "fragment"),
        (_with(GOOD4, 8, b"\x01"), "checksum"),
    ],
)
def test_bad_ipv4_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(WireError, match=why):
        Ipv4.parse(data)


def test_ipv6_extension_headers_are_walked() -> None:
    hop_by_hop = bytes([58, 1]) + bytes(14)
    packet = Ipv6(V6A, V6B, 0, hop_by_hop + b"message").emit()
    parsed = Ipv6.parse(packet)
    assert (parsed.proto, parsed.payload) == (58, b"message")


@pytest.mark.parametrize(
    ("proto", "payload", "why"),
    [
        (44, bytes(8), "fragment"),
        (0, bytes(7), "truncated"),
        (60, bytes([58, 9]) + bytes(20), "truncated"),
        (0, bytes(8) * 40, "too many"),
    ],
)
def test_bad_extension_headers_are_refused(
    proto: int, payload: bytes, why: str
) -> None:
    with pytest.raises(WireError, match=why):
        Ipv6.parse(Ipv6(V6A, V6B, proto, payload).emit())


def test_too_long_a_payload_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="too long"):
        Ipv4(V4A, V4B, 17, bytes(65516))
    with pytest.raises(ValueError, match="too long"):
        Ipv6(V6A, V6B, 17, bytes(65536))
    with pytest.raises(ValueError, match="too long"):
        Udp(1, 2, bytes(65528))
    with pytest.raises(ValueError, match="too long"):
        Icmpv6(1, 2, bytes(65532))


def test_packets_read_well() -> None:
    one = Neighbour(b"\x9a\x55\x9a\x55\x9a\x55", V4A)
    two = Neighbour(bytes(6), V4B)
    asked = str(Arp(ArpOp.REQUEST, one, two))
    assert asked == "ARP who has 198.51.100.1, tell 192.0.2.5 (9a:55:9a:55:9a:55)"
    assert str(Ethernet(bytes(6), b"\1" * 6, 0x86DD, b"")) == (
        "01:01:01:01:01:01 > 00:00:00:00:00:00 IPv6"
    )

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest says of its groups: IGMP and MLD."""

from passtpy.errors import WireError
from passtpy.wire.checksum import checksum
from passtpy.wire.ethernet import Ethernet
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.membership import Membership
from passtpy.wire.udp import Udp


def _mended(data: bytes) -> bytes:
    """Return an IGMP message with the right checksum."""
    blank = data[:2] + b"\0\0" + data[4:]
    return data[:2] + checksum(blank).to_bytes(2, "big") + data[4:]


def play(data: bytes) -> None:
    """Read the bytes as each of the messages, and as the packets around them."""
    for read in (
        lambda: Membership.parse_igmp(data),
        lambda: Membership.parse_igmp(_mended(data)),
        lambda: Membership.parse_mld(data[0] if data else 0, data[1:]),
        lambda: Membership.parse_mld(143, data),
        lambda: Ethernet.parse(data),
        lambda: Ipv4.parse(_mended_ip(data)),
        lambda: Ipv6.parse(data),
        lambda: Udp.parse(data),
    ):
        try:
            read()
        except WireError:
            continue


def _mended_ip(data: bytes) -> bytes:
    """Return an IPv4 packet with the right header checksum."""
    length = (data[0] & 15) * 4 if data else 0
    if len(data) < length or length < 20:
        return data
    blank = data[:10] + b"\0\0" + data[12:length]
    return data[:10] + checksum(blank).to_bytes(2, "big") + data[12:]

# SPDX-License-Identifier: GPL-2.0-or-later
"""The Internet checksum (RFC 1071), for the few frames that Python makes."""

from ipaddress import IPv4Address, IPv6Address


def checksum(data: bytes) -> int:
    """Return the ones' complement sum over `data`, complemented."""
    if len(data) % 2:
        data += b"\0"
    # 0xffff divides 2^16 - 1: the big number modulo it is the folded sum.
    total = int.from_bytes(data, "big")
    folded = total % 0xFFFF
    if total and not folded:
        folded = 0xFFFF
    return folded ^ 0xFFFF


def pseudo_header(
    source: IPv4Address | IPv6Address,
    destination: IPv4Address | IPv6Address,
    proto: int,
    length: int,
) -> bytes:
    """Return what TCP, UDP and ICMPv6 sum in front of their own bytes."""
    addresses = source.packed + destination.packed
    if isinstance(source, IPv4Address):
        return addresses + bytes([0, proto]) + length.to_bytes(2, "big")
    return addresses + length.to_bytes(4, "big") + bytes([0, 0, 0, proto])

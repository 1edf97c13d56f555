# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes netlink messages apart, and names the numbers that are in all of them."""

import struct
from collections.abc import Iterator
from typing import Final

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3

NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400

RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_SETNEIGHTBL: Final = 67

# Groups of announcements, as bits of the address that a socket is bound to
RTMGRP_LINK: Final = 0x001
RTMGRP_NEIGH: Final = 0x004
RTMGRP_IPV4_IFADDR: Final = 0x010
RTMGRP_IPV4_ROUTE: Final = 0x040
RTMGRP_IPV6_IFADDR: Final = 0x100
RTMGRP_IPV6_ROUTE: Final = 0x400

HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
ERRNO: Final = struct.Struct("=i")  # what NLMSG_ERROR carries, negative


def split(buffer: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield (length, type, sequence, whole message) of one datagram."""
    offset = 0
    while offset + HEADER.size <= len(buffer):
        length, kind, _flags, sequence, _pid = HEADER.unpack_from(buffer, offset)
        if length < HEADER.size:
            break
        yield length, kind, sequence, buffer[offset : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, as long as the next one needs it to be."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length & 3)


def attributes(payload: bytes) -> dict[int, bytes]:
    """Return the attributes at the end of a message; the last of a kind wins."""
    found: dict[int, bytes] = {}
    offset = 0
    while offset + ATTRIBUTE.size <= len(payload):
        length, kind = ATTRIBUTE.unpack_from(payload, offset)
        if length < ATTRIBUTE.size:
            break
        found[kind] = payload[offset + ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found

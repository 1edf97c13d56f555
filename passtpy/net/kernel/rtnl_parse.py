# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the kernel's messages about links, addresses and routes.

They come by the thousand where a host has many routes, between two turns of the
datapath: so this looks at what it needs, and leaves the rest as bytes.
"""

import os
import socket
import struct
from ipaddress import IPv4Network, IPv6Network, ip_interface
from sys import byteorder
from typing import Final

from passtpy.addr import Network
from passtpy.net.kernel.nlmsg import HEADER, attributes
from passtpy.net.kernel.rtnl import (
    IFA_ADDRESS,
    IFA_BROADCAST,
    IFA_FLAGS,
    IFA_LOCAL,
    IFADDRMSG,
    IFINFOMSG,
    IFLA_ADDRESS,
    IFLA_IFNAME,
    IFLA_MTU,
    NLA_TYPE_MASK,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTA_CACHEINFO,
    RTA_DST,
    RTA_EXPIRES,
    RTA_GATEWAY,
    RTA_MULTIPATH,
    RTA_NH_ID,
    RTA_OIF,
    RTA_PREFSRC,
    RTA_TABLE,
    RTM_F_CLONED,
    RTMSG,
    RTN_LOCAL,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    Attributes,
    Link,
    LinkAddress,
    Route,
)

# Attributes of a route that only fit the interface, or the moment, it was read from.
_NOT_COPIED: Final = frozenset(
    (
        RTA_OIF,
        RTA_DST,
        RTA_GATEWAY,
        RTA_TABLE,
        RTA_PREFSRC,
        RTA_NH_ID,
        RTA_CACHEINFO,
        RTA_EXPIRES,
        RTA_MULTIPATH,
    )
)
_ANYWHERE: Final[dict[int, bytes]] = {
    socket.AF_INET: bytes(4),
    socket.AF_INET6: bytes(16),
}
_HOP: Final = struct.Struct("=HBBi")  # length, flags, weight, interface
_MAC_LEN: Final = 6


def read_link(message: bytes) -> Link:
    """Read RTM_NEWLINK."""
    _, _, index, flags, _ = IFINFOMSG.unpack_from(message, HEADER.size)
    found = attributes(message[HEADER.size + IFINFOMSG.size :])
    mac = found.get(IFLA_ADDRESS, b"")
    return Link(
        index=index,
        name=os.fsdecode(found.get(IFLA_IFNAME, b"").rstrip(b"\0")),
        mac=mac if len(mac) == _MAC_LEN else bytes(_MAC_LEN),
        mtu=_number(found.get(IFLA_MTU)) or 0,
        flags=flags,
    )


def read_address(message: bytes) -> LinkAddress | None:
    """Read RTM_NEWADDR; None when it is about no IP address."""
    family, length, flags, scope, index = IFADDRMSG.unpack_from(message, HEADER.size)
    if family not in (socket.AF_INET, socket.AF_INET6):
        return None
    found = attributes(message[HEADER.size + IFADDRMSG.size :])
    remote = found.get(IFA_ADDRESS)
    local = found.get(IFA_LOCAL, remote)
    if local is None:
        return None
    all_flags = _number(found.get(IFA_FLAGS))
    broadcast = found.get(IFA_BROADCAST)
    return LinkAddress(
        index=index,
        address=ip_interface((local, length)),
        scope=scope,
        flags=flags if all_flags is None else all_flags,
        peer=_text(family, remote if remote != local else None),
        broadcast=_text(family, broadcast),
    )


def read_route(message: bytes) -> Route | None:
    """Read RTM_NEWROUTE; None when it is no unicast route of the main table.

    A multipath route is read as one through its heaviest hop.
    """
    fixed = RTMSG.unpack_from(message, HEADER.size)
    family, length, _, tos, table, proto, scope, kind, flags = fixed
    ordinary = table == RT_TABLE_MAIN and kind == RTN_UNICAST
    if not ordinary or flags & RTM_F_CLONED:
        return None
    found = attributes(message[HEADER.size + RTMSG.size :])
    oif, gateway = _number(found.get(RTA_OIF)) or 0, found.get(RTA_GATEWAY)
    if RTA_MULTIPATH in found:
        flags, oif, gateway = _heaviest(found[RTA_MULTIPATH])
    if family not in _ANYWHERE:
        return None
    return Route(
        family=family,
        destination=_network(family, found.get(RTA_DST), length),
        oif=oif,
        gateway=_text(family, gateway),
        scope=scope,
        proto=proto,
        tos=tos,
        flags=flags & RTNH_F_ONLINK,
        attributes=_copied(found),
    )


def read_own(message: bytes) -> Network | None:
    """Read RTM_NEWROUTE: what the namespace has for addresses of its own, or None.

    That may be whole networks, none of whose addresses any interface has.
    """
    fixed = RTMSG.unpack_from(message, HEADER.size)
    family, length, _, _, table, _, _, kind, _ = fixed
    if family not in _ANYWHERE or (table, kind) != (RT_TABLE_LOCAL, RTN_LOCAL):
        return None
    found = attributes(message[HEADER.size + RTMSG.size :])
    return _network(family, found.get(RTA_DST), length)


def _network(family: int, address: bytes | None, length: int) -> Network:
    kind = IPv6Network if family == socket.AF_INET6 else IPv4Network
    return kind((address or _ANYWHERE[family], length), strict=False)


def _copied(found: dict[int, bytes]) -> Attributes:
    return tuple(
        (kind, value)
        for kind, value in found.items()
        if kind & NLA_TYPE_MASK not in _NOT_COPIED
    )


def _heaviest(hops: bytes) -> tuple[int, int, bytes | None]:
    """Return flags, interface and gateway of the first hop of the greatest weight."""
    result: tuple[int, int, bytes | None] = 0, 0, None
    best, offset = -1, 0
    while offset + _HOP.size <= len(hops):
        length, flags, weight, oif = _HOP.unpack_from(hops, offset)
        if length < _HOP.size:
            break
        if weight > best:
            inner = attributes(hops[offset + _HOP.size : offset + length])
            best, result = weight, (flags, oif, inner.get(RTA_GATEWAY))
        offset += (length + 3) & ~3
    return result


def _number(value: bytes | None) -> int | None:
    return None if value is None else int.from_bytes(value[:4], byteorder)


def _text(family: int, value: bytes | None) -> str | None:
    return None if value is None else socket.inet_ntop(family, value)

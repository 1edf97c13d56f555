# SPDX-License-Identifier: GPL-2.0-or-later
"""Describes links, addresses and routes, and composes requests to change them.

What the kernel tells is read in rtnl_parse.py. A request can be sent from here
(netlink.py), or made into bytes for another process to send.
"""

import socket
import struct
from ipaddress import IPv4Interface, IPv6Interface
from typing import Final, NamedTuple

from passtpy.addr import Mac, Network
from passtpy.net.kernel.nlmsg import (
    HEADER,
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
    RTM_SETNEIGHTBL,
    attribute,
)
from passtpy.record import record

Interface = IPv4Interface | IPv6Interface
Attributes = tuple[tuple[int, bytes], ...]

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFA_F_TEMPORARY: Final = 0x01  # of IPv6; the kernel uses the bit twice
IFA_F_NODAD: Final = 0x02
IFA_F_DADFAILED: Final = 0x08
IFA_F_DEPRECATED: Final = 0x20
IFA_F_TENTATIVE: Final = 0x40
IFA_F_PERMANENT: Final = 0x80
IFA_F_NOPREFIXROUTE: Final = 0x200
RT_TABLE_MAIN: Final = 254
RT_TABLE_LOCAL: Final = 255
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253
RTN_UNICAST: Final = 1
RTN_LOCAL: Final = 2
RTPROT_BOOT: Final = 3
RTM_F_CLONED: Final = 0x200
RTNH_F_ONLINK: Final = 4
ADDR_GEN_NONE: Final = 1

IFLA_ADDRESS: Final = 1
IFLA_IFNAME: Final = 3
IFLA_MTU: Final = 4
IFLA_TXQLEN: Final = 13
IFLA_AF_SPEC: Final = 26
IFLA_EXT_MASK: Final = 29
IFLA_INET6_ADDR_GEN_MODE: Final = 8
IFA_ADDRESS: Final = 1
IFA_LOCAL: Final = 2
IFA_BROADCAST: Final = 4
IFA_CACHEINFO: Final = 6
IFA_FLAGS: Final = 8
RTA_DST: Final = 1
RTA_OIF: Final = 4
RTA_GATEWAY: Final = 5
RTA_PREFSRC: Final = 7
RTA_MULTIPATH: Final = 9
RTA_CACHEINFO: Final = 12
RTA_TABLE: Final = 15
RTA_EXPIRES: Final = 23
RTA_NH_ID: Final = 30
NDTA_NAME: Final = 1
NDTA_PARMS: Final = 6
NDTPA_IFINDEX: Final = 1
NDTPA_MCAST_PROBES: Final = 11
NLA_F_NESTED: Final = 0x8000
NLA_TYPE_MASK: Final = 0x3FFF

IFINFOMSG: Final = struct.Struct("=BxHiII")  # family, type, index, flags, change
IFADDRMSG: Final = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
# family, destination and source length, TOS, table, protocol, scope, type, flags
RTMSG: Final = struct.Struct("=BBBBBBBBI")
_NUMBER: Final = struct.Struct("=I")
_LIFETIMES: Final = struct.Struct("=4I")  # preferred, valid, and two times unused here
_FOREVER: Final = 0xFFFFFFFF
_NDTMSG_LEN: Final = 4  # the family, which the name of a table tells too


@record
class Link:
    """A network interface."""

    index: int
    name: str
    mac: Mac
    mtu: int
    flags: int

    @property
    def is_loopback(self) -> bool:
        """Tell whether this is `lo`."""
        return bool(self.flags & IFF_LOOPBACK)


@record
class LinkAddress:
    """An address on an interface."""

    index: int
    address: Interface
    scope: int
    flags: int
    peer: str | None = None
    broadcast: str | None = None


@record
class Route:
    """A unicast route of the main table.

    `attributes` are the kernel's, by number, without those that only make sense on the
    interface the route was read from: they travel to the guest unchanged.
    """

    family: int
    destination: Network
    oif: int
    gateway: str | None = None
    scope: int = RT_SCOPE_UNIVERSE
    proto: int = RTPROT_BOOT
    tos: int = 0
    flags: int = 0
    attributes: Attributes = ()

    @property
    def is_default(self) -> bool:
        """Tell whether this route is for every destination."""
        return self.destination.prefixlen == 0


class Request(NamedTuple):
    """One question or order to the kernel."""

    kind: int
    flags: int
    message: bytes

    def encode(self, sequence: int) -> bytes:
        """Return the bytes to send."""
        length = HEADER.size + len(self.message)
        flags = self.flags | NLM_F_REQUEST
        return HEADER.pack(length, self.kind, flags, sequence, 0) + self.message


def number(kind: int, value: int) -> bytes:
    """Return an attribute that is a number of 32 bits."""
    return attribute(kind, _NUMBER.pack(value))


def set_link(index: int, *, up: bool, attributes: bytes = b"") -> Request:
    """Change an interface."""
    flags = IFF_UP if up else 0
    message = IFINFOMSG.pack(socket.AF_UNSPEC, 0, index, flags, flags) + attributes
    return Request(RTM_NEWLINK, NLM_F_ACK, message)


def prepare_tap(index: int, mac: Mac | None, mtu: int, queue: int) -> Request:
    """Set up a new tap, still down; 0 leaves the MTU as it is."""
    attributes = number(IFLA_TXQLEN, queue)
    if mac is not None:
        attributes += attribute(IFLA_ADDRESS, mac)
    if mtu:
        attributes += number(IFLA_MTU, mtu)
    return set_link(index, up=False, attributes=attributes)


def no_automatic_link_local(index: int) -> Request:
    """Keep the kernel from making a link-local address, which would wait for DAD.

    A kernel without IPv6 refuses: then there is nothing to keep it from.
    """
    mode = attribute(IFLA_INET6_ADDR_GEN_MODE, bytes((ADDR_GEN_NONE,)))
    family = attribute(socket.AF_INET6 | NLA_F_NESTED, mode)
    spec = attribute(IFLA_AF_SPEC | NLA_F_NESTED, family)
    return set_link(index, up=False, attributes=spec)


def probe_longer(index: int, neighbours: str, probes: int) -> Request:
    """Have a guest ask so often, once a second, before an address is unreachable.

    `neighbours` is the kernel's name of its table: "arp_cache" or "ndisc_cache".
    """
    which = number(NDTPA_IFINDEX, index) + number(NDTPA_MCAST_PROBES, probes)
    message = bytes(_NDTMSG_LEN) + attribute(NDTA_NAME, neighbours.encode() + b"\0")
    message += attribute(NDTA_PARMS | NLA_F_NESTED, which)
    return Request(RTM_SETNEIGHTBL, NLM_F_ACK, message)


def add_address(index: int, new: LinkAddress) -> Request:
    """Add an address, usable at once (no duplicate address detection).

    A deprecated one is only there for who uses it already.
    """
    message = _address(index, new)
    flags = IFA_F_PERMANENT | new.flags & IFA_F_NOPREFIXROUTE
    if new.address.version == 6:
        flags |= IFA_F_NODAD
    if new.broadcast is not None:
        message += attribute(IFA_BROADCAST, socket.inet_aton(new.broadcast))
    if new.flags & IFA_F_DEPRECATED:
        message += attribute(IFA_CACHEINFO, _LIFETIMES.pack(0, _FOREVER, 0, 0))
    message += number(IFA_FLAGS, flags)
    return Request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, message)


def delete_address(index: int, old: LinkAddress) -> Request:
    """Take an address away, and with it the kernel's route to its network."""
    return Request(RTM_DELADDR, NLM_F_ACK, _address(index, old))


def _address(index: int, address: LinkAddress) -> bytes:
    family = socket.AF_INET6 if address.address.version == 6 else socket.AF_INET
    local = address.address.ip.packed
    peer = local if address.peer is None else socket.inet_pton(family, address.peer)
    length = address.address.network.prefixlen
    head = IFADDRMSG.pack(family, length, 0, address.scope, index)
    return head + attribute(IFA_LOCAL, local) + attribute(IFA_ADDRESS, peer)


def add_route(index: int, route: Route) -> Request:
    """Add `route`, through interface `index` instead of the one it came from."""
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Request(RTM_NEWROUTE, flags, _route(index, route))


def delete_route(index: int, route: Route) -> Request:
    """Take away what add_route() added."""
    return Request(RTM_DELROUTE, NLM_F_ACK, _route(index, route))


def _route(index: int, route: Route) -> bytes:
    message = RTMSG.pack(
        route.family,
        route.destination.prefixlen,
        0,
        route.tos,
        RT_TABLE_MAIN,
        route.proto,
        route.scope,
        RTN_UNICAST,
        route.flags & RTNH_F_ONLINK,
    )
    message += number(RTA_OIF, index)
    for kind, value in route.attributes:
        message += attribute(kind, value)
    if not route.is_default:
        message += attribute(RTA_DST, route.destination.network_address.packed)
    if route.gateway is not None:
        gateway = socket.inet_pton(route.family, route.gateway)
        message += attribute(RTA_GATEWAY, gateway)
    return message

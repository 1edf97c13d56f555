# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads and writes links, addresses and routes over rtnetlink.

The messages are pyroute2's; the exchange is a plain blocking socket of our own,
because everything happens once, before the loop runs, and because pyroute2's front
door imports all of the library, which would be the largest part of our start-up time.
"""

import importlib
import importlib.machinery
import os
import socket
import struct
import sys
import types
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import (
    IPv4Interface,
    IPv4Network,
    IPv6Interface,
    IPv6Network,
    ip_interface,
    ip_network,
)
from typing import Any, Final

from passtpy.addr import Mac, parse_mac, show_mac
from passtpy.errors import SetupError

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Attributes = tuple[tuple[str, Any], ...]

RTM_NEWLINK: Final = 16
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_GETROUTE: Final = 26

NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
NLM_F_REQUEST: Final = 0x1
NLM_F_ACK: Final = 0x4
NLM_F_DUMP: Final = 0x300
NLM_F_CREATE: Final = 0x400
NLM_F_EXCL: Final = 0x200

IFF_UP: Final = 0x1
IFF_LOOPBACK: Final = 0x8
IFA_F_NODAD: Final = 0x02
IFA_F_DADFAILED: Final = 0x08
IFA_F_DEPRECATED: Final = 0x20
IFA_F_PERMANENT: Final = 0x80
IFA_F_NOPREFIXROUTE: Final = 0x200
RT_TABLE_MAIN: Final = 254
RT_SCOPE_UNIVERSE: Final = 0
RT_SCOPE_LINK: Final = 253
RTN_UNICAST: Final = 1
RTPROT_BOOT: Final = 3
RTM_F_CLONED: Final = 0x200
RTNH_F_ONLINK: Final = 4
ADDR_GEN_NONE: Final = 1

_HEADER: Final = struct.Struct("=IHHII")
_ERRNO: Final = struct.Struct("=i")
_RTMSG: Final = struct.Struct("=BBBBBBBBI")
_RECEIVE_LEN: Final = 1 << 18  # the kernel fills at most 32 KiB per message today


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class LinkAddress:
    """An address on an interface."""

    index: int
    address: Interface
    scope: int
    flags: int
    peer: str | None = None
    broadcast: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A unicast route of the main table.

    `attributes` are the kernel's, without those that only make sense on the interface
    the route was read from: they travel to the guest unchanged.
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


def _load(module: str) -> Any:
    """Import a part of pyroute2 without running its package's front door."""
    if "pyroute2" not in sys.modules:
        spec = importlib.machinery.PathFinder.find_spec("pyroute2")
        if spec is None or spec.submodule_search_locations is None:
            raise SetupError("Python package pyroute2 is not installed")
        package = types.ModuleType("pyroute2")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["pyroute2"] = package
    return importlib.import_module(f"pyroute2.netlink.rtnl.{module}")


def open_socket() -> socket.socket:
    """Open a netlink socket, which stays in the namespace where it was opened."""
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE
    )
    sock.bind((0, 0))
    return sock


class Netlink:
    """A conversation with the kernel about one network namespace."""

    def __init__(self, sock: socket.socket | None = None) -> None:
        self._sock = sock if sock is not None else open_socket()
        self._sequence = 0
        self._ifinfmsg = _load("ifinfmsg").ifinfmsg
        self._ifaddrmsg = _load("ifaddrmsg").ifaddrmsg
        self._rtmsg = _load("rtmsg").rtmsg

    def close(self) -> None:
        """End the conversation."""
        self._sock.close()

    def links(self) -> list[Link]:
        """Return all interfaces."""
        dump = self._dump(RTM_GETLINK, self._ifinfmsg())
        return [self._link(data) for data in dump]

    def link(self, name: str) -> Link:
        """Return one interface; OSError (ENODEV) when there is none of that name."""
        request = self._ifinfmsg()
        request["attrs"] = [("IFLA_IFNAME", name)]
        reply = list(self._exchange(RTM_GETLINK, NLM_F_ACK, request))
        return self._link(reply[0])

    def addresses(self) -> list[LinkAddress]:
        """Return all addresses of all interfaces, in the kernel's order."""
        dump = self._dump(RTM_GETADDR, self._ifaddrmsg())
        return [self._address(data) for data in dump]

    def routes(self) -> Iterator[Route]:
        """Yield the unicast routes of the main table, in the kernel's order.

        A multipath route comes as one route through its heaviest hop.
        """
        for family in (socket.AF_INET, socket.AF_INET6):
            request = self._rtmsg()
            request["family"] = family
            for data in self._dump(RTM_GETROUTE, request):
                if _is_ordinary(data):  # before the costly part, which is to decode
                    yield _route(_decoded(self._rtmsg, data))

    def set_link(self, link: Link, *, up: bool, **attributes: Any) -> None:
        """Change an interface: `attributes` are IFLA_* names in lower case."""
        message = self._ifinfmsg()
        message["index"] = link.index
        if up:
            message["flags"] = message["change"] = IFF_UP
        message["attrs"] = [(f"IFLA_{k.upper()}", v) for k, v in attributes.items()]
        self._ask(RTM_NEWLINK, 0, message)

    def configure_tap(self, tap: Link, mac: Mac | None, mtu: int, queue: int) -> None:
        """Prepare a new tap, still down; 0 leaves the MTU as it is."""
        attributes: dict[str, Any] = {"txqlen": queue}
        if mac is not None:
            attributes["address"] = show_mac(mac)
        if mtu:
            attributes["mtu"] = mtu
        self.set_link(tap, up=False, **attributes)

    def no_automatic_link_local(self, tap: Link) -> None:
        """Keep the kernel from making a link-local address, which would wait for DAD.

        A kernel without IPv6 refuses: then there is nothing to keep it from.
        """
        mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_NONE)]}
        spec = {"attrs": [("AF_INET6", mode)]}
        with suppress(OSError):
            self.set_link(tap, up=False, af_spec=spec)

    def add_address(self, link: Link, new: LinkAddress) -> None:
        """Add an address, usable at once (no duplicate address detection)."""
        message = self._ifaddrmsg()
        v6 = new.address.version == 6
        message["family"] = socket.AF_INET6 if v6 else socket.AF_INET
        message["prefixlen"] = new.address.network.prefixlen
        message["scope"] = new.scope
        message["index"] = link.index
        local = str(new.address.ip)
        flags = IFA_F_PERMANENT | new.flags & IFA_F_NOPREFIXROUTE
        attrs = [("IFA_LOCAL", local), ("IFA_ADDRESS", new.peer or local)]
        if new.broadcast is not None:
            attrs.append(("IFA_BROADCAST", new.broadcast))
        if v6:
            flags |= IFA_F_NODAD
        message["attrs"] = [*attrs, ("IFA_FLAGS", flags)]
        self._ask(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, message)

    def add_route(self, link: Link, route: Route) -> None:
        """Add `route`, through `link` instead of the interface it came from."""
        message = self._rtmsg()
        message["family"] = route.family
        message["dst_len"] = route.destination.prefixlen
        message["tos"] = route.tos
        message["table"] = RT_TABLE_MAIN
        message["proto"] = route.proto
        message["scope"] = route.scope
        message["type"] = RTN_UNICAST
        message["flags"] = route.flags & RTNH_F_ONLINK
        attrs = [("RTA_OIF", link.index), *route.attributes]
        if not route.is_default:
            attrs.append(("RTA_DST", str(route.destination.network_address)))
        if route.gateway is not None:
            attrs.append(("RTA_GATEWAY", route.gateway))
        message["attrs"] = attrs
        self._ask(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, message)

    def _ask(self, kind: int, flags: int, message: Any) -> None:
        """Send a request that is answered by an acknowledgement only."""
        for _ in self._exchange(kind, flags | NLM_F_ACK, message):
            pass

    def _dump(self, kind: int, message: Any) -> Iterator[bytes]:
        yield from self._exchange(kind, NLM_F_DUMP, message)

    def _exchange(self, kind: int, flags: int, message: Any) -> Iterator[bytes]:
        """Send a request; yield the answers until the kernel says that is all."""
        self._sequence += 1
        message["header"]["type"] = kind
        message["header"]["flags"] = flags | NLM_F_REQUEST
        message["header"]["sequence_number"] = self._sequence
        message.reset()
        message.encode()
        self._sock.send(message.data)
        while True:
            for length, answer, sequence, data in self._receive():
                if sequence != self._sequence:
                    continue
                if answer in (NLMSG_ERROR, NLMSG_DONE):
                    # A dump may end without a code when it was cut short.
                    short = length < _HEADER.size + _ERRNO.size
                    code = 0 if short else _ERRNO.unpack_from(data, _HEADER.size)[0]
                    if code:
                        raise OSError(-code, os.strerror(-code))
                    return
                yield data

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield (length, type, sequence, whole message) of one datagram."""
        buffer = self._sock.recv(_RECEIVE_LEN)
        offset = 0
        while offset + _HEADER.size <= len(buffer):
            length, kind, _flags, sequence, _pid = _HEADER.unpack_from(buffer, offset)
            if length < _HEADER.size:
                break
            yield length, kind, sequence, buffer[offset : offset + length]
            offset += (length + 3) & ~3

    def _link(self, data: bytes) -> Link:
        message = _decoded(self._ifinfmsg, data)
        mac = message.get_attr("IFLA_ADDRESS")
        return Link(
            index=message["index"],
            name=message.get_attr("IFLA_IFNAME"),
            mac=parse_mac(mac) if mac and len(mac) == 17 else bytes(6),
            mtu=message.get_attr("IFLA_MTU") or 0,
            flags=message["flags"],
        )

    def _address(self, data: bytes) -> LinkAddress:
        message = _decoded(self._ifaddrmsg, data)
        remote = message.get_attr("IFA_ADDRESS")
        local = message.get_attr("IFA_LOCAL") or remote
        flags = message.get_attr("IFA_FLAGS")
        return LinkAddress(
            index=message["index"],
            address=ip_interface(f"{local}/{message['prefixlen']}"),
            scope=message["scope"],
            flags=message["flags"] if flags is None else flags,
            peer=remote if remote != local else None,
            broadcast=message.get_attr("IFA_BROADCAST"),
        )


def _decoded(kind: Any, data: bytes) -> Any:
    message = kind(data)
    message.decode()
    return message


def _is_ordinary(data: bytes) -> bool:
    """Tell whether a route message is a unicast route of the main table."""
    fixed = _RTMSG.unpack_from(data, _HEADER.size)
    table, kind, flags = fixed[4], fixed[7], fixed[8]
    return table == RT_TABLE_MAIN and kind == RTN_UNICAST and not flags & RTM_F_CLONED


# Attributes of a route that only fit the interface, or the moment, it was read from.
_NOT_COPIED: Final = frozenset(
    (
        "RTA_OIF",
        "RTA_DST",
        "RTA_GATEWAY",
        "RTA_TABLE",
        "RTA_PREFSRC",
        "RTA_NH_ID",
        "RTA_CACHEINFO",
        "RTA_EXPIRES",
        "RTA_MULTIPATH",
    )
)


def _route(message: Any) -> Route:
    family = message["family"]
    anywhere = "::" if family == socket.AF_INET6 else "0.0.0.0"
    where = message.get_attr("RTA_DST") or anywhere
    hop = message
    hops = message.get_attr("RTA_MULTIPATH")
    if hops:
        hop = max(hops, key=lambda each: each["hops"])
    oif = hop["oif"] if hops else message.get_attr("RTA_OIF")
    kept = tuple(
        (name, value) for name, value in message["attrs"] if name not in _NOT_COPIED
    )
    return Route(
        family=family,
        destination=ip_network(f"{where}/{message['dst_len']}", strict=False),
        oif=oif or 0,
        gateway=hop.get_attr("RTA_GATEWAY"),
        scope=message["scope"],
        proto=message["proto"],
        tos=message["tos"],
        flags=hop["flags"],
        attributes=kept,
    )

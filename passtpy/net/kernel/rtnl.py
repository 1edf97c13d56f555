# SPDX-License-Identifier: GPL-2.0-or-later
"""Links, addresses and routes as values, and the rtnetlink requests that change them.

The messages are pyroute2's. A request can be sent from here (netlink.py), or made into
bytes for another process to send.
"""

import importlib
import importlib.machinery
import socket
import sys
import types
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Any, Final, NamedTuple

from passtpy.addr import Mac, show_mac
from passtpy.errors import SetupError
from passtpy.net.kernel.nlmsg import (
    NLM_F_ACK,
    NLM_F_CREATE,
    NLM_F_EXCL,
    NLM_F_REQUEST,
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    RTM_NEWROUTE,
)

Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network
Attributes = tuple[tuple[str, Any], ...]

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

MESSAGES: Final = ("ifinfmsg", "ifaddrmsg", "rtmsg")
_FOREVER: Final = 0xFFFFFFFF


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
    the route was read from: they travel to the guest unchanged. What is nested in
    them is frozen, so that routes can be compared.
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


def load(module: str) -> Any:
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


def new_message(module: str) -> Any:
    """Return an empty message: ifinfmsg, ifaddrmsg or rtmsg."""
    return getattr(load(module), module)()


class Request(NamedTuple):
    """One question or order to the kernel."""

    kind: int
    flags: int
    message: Any

    def encode(self, sequence: int) -> bytes:
        """Return the bytes to send."""
        message = self.message
        message["header"]["type"] = self.kind
        message["header"]["flags"] = self.flags | NLM_F_REQUEST
        message["header"]["sequence_number"] = sequence
        message.reset()
        message.encode()
        return bytes(message.data)


def set_link(index: int, *, up: bool, **attributes: Any) -> Request:
    """Change an interface: `attributes` are IFLA_* names in lower case."""
    message = new_message("ifinfmsg")
    message["index"] = index
    if up:
        message["flags"] = message["change"] = IFF_UP
    message["attrs"] = [(f"IFLA_{k.upper()}", v) for k, v in attributes.items()]
    return Request(RTM_NEWLINK, NLM_F_ACK, message)


def prepare_tap(index: int, mac: Mac | None, mtu: int, queue: int) -> Request:
    """Set up a new tap, still down; 0 leaves the MTU as it is."""
    attributes: dict[str, Any] = {"txqlen": queue}
    if mac is not None:
        attributes["address"] = show_mac(mac)
    if mtu:
        attributes["mtu"] = mtu
    return set_link(index, up=False, **attributes)


def no_automatic_link_local(index: int) -> Request:
    """Keep the kernel from making a link-local address, which would wait for DAD.

    A kernel without IPv6 refuses: then there is nothing to keep it from.
    """
    mode = {"attrs": [("IFLA_INET6_ADDR_GEN_MODE", ADDR_GEN_NONE)]}
    return set_link(index, up=False, af_spec={"attrs": [("AF_INET6", mode)]})


def add_address(index: int, new: LinkAddress) -> Request:
    """Add an address, usable at once (no duplicate address detection).

    A deprecated one is only there for who uses it already.
    """
    message = _address(index, new)
    flags = IFA_F_PERMANENT | new.flags & IFA_F_NOPREFIXROUTE
    if new.address.version == 6:
        flags |= IFA_F_NODAD
    if new.broadcast is not None:
        message["attrs"].append(("IFA_BROADCAST", new.broadcast))
    if new.flags & IFA_F_DEPRECATED:
        lifetimes = {"ifa_preferred": 0, "ifa_valid": _FOREVER}
        message["attrs"].append(("IFA_CACHEINFO", lifetimes))
    message["attrs"].append(("IFA_FLAGS", flags))
    return Request(RTM_NEWADDR, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, message)


def delete_address(index: int, old: LinkAddress) -> Request:
    """Take an address away, and with it the kernel's route to its network."""
    return Request(RTM_DELADDR, NLM_F_ACK, _address(index, old))


def _address(index: int, address: LinkAddress) -> Any:
    message = new_message("ifaddrmsg")
    v6 = address.address.version == 6
    message["family"] = socket.AF_INET6 if v6 else socket.AF_INET
    message["prefixlen"] = address.address.network.prefixlen
    message["scope"] = address.scope
    message["index"] = index
    local = str(address.address.ip)
    message["attrs"] = [("IFA_LOCAL", local), ("IFA_ADDRESS", address.peer or local)]
    return message


def add_route(index: int, route: Route) -> Request:
    """Add `route`, through interface `index` instead of the one it came from."""
    flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL
    return Request(RTM_NEWROUTE, flags, _route(index, route))


def delete_route(index: int, route: Route) -> Request:
    """Take away what add_route() added."""
    return Request(RTM_DELROUTE, NLM_F_ACK, _route(index, route))


def _route(index: int, route: Route) -> Any:
    message = new_message("rtmsg")
    message["family"] = route.family
    message["dst_len"] = route.destination.prefixlen
    message["tos"] = route.tos
    message["table"] = RT_TABLE_MAIN
    message["proto"] = route.proto
    message["scope"] = route.scope
    message["type"] = RTN_UNICAST
    message["flags"] = route.flags & RTNH_F_ONLINK
    attrs = [(name, _thawed(value)) for name, value in route.attributes]
    attrs.insert(0, ("RTA_OIF", index))
    if not route.is_default:
        attrs.append(("RTA_DST", str(route.destination.network_address)))
    if route.gateway is not None:
        attrs.append(("RTA_GATEWAY", route.gateway))
    message["attrs"] = attrs
    return message


class Nested(tuple[tuple[str, Any], ...]):
    """The fields of an attribute that has some: a mapping that can be compared."""

    __slots__ = ()


def frozen(value: Any) -> Any:
    """Return the value of an attribute in a form that can be compared and sent."""
    if isinstance(value, dict):
        fields = ((k, frozen(v)) for k, v in value.items() if k != "header")
        return Nested(fields)
    if isinstance(value, list):
        return tuple((name, frozen(inner)) for name, inner in value)
    return value


def _thawed(value: Any) -> Any:
    if isinstance(value, Nested):
        return {k: _thawed(v) for k, v in value}
    if isinstance(value, tuple):
        return [(name, _thawed(inner)) for name, inner in value]
    return value

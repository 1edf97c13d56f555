# SPDX-License-Identifier: GPL-2.0-or-later
"""Chooses the host interface that the guest's shall resemble, and what to copy of it.

Pure functions over what netlink told, so that every choice can be tested without a
kernel. The answer has two parts: `HostInfo`, which policy and services read, and a
`Plan` of what to put on the guest's interface.

An IP version that the host does not have, the guest has all the same (local mode): with
a link-local address and a gateway that stands for the host. What a program sends to
either of them reaches the host.
"""

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from socket import AF_INET, AF_INET6
from typing import Final

from passtpy.addr import Address, Network
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.values import classful_prefix
from passtpy.errors import ConfigError
from passtpy.net.kernel.rtnl import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_NOPREFIXROUTE,
    IFA_F_TEMPORARY,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTNH_F_ONLINK,
    Link,
    LinkAddress,
    Route,
)
from passtpy.record import record, replace

FALLBACK_IFNAME: Final = "tap0"
# Local mode, and the gateway of a host that has none: a point-to-point link, say.
LOCAL_GUEST4: Final = IPv4Interface("169.254.2.1/16")
LOCAL_GATEWAY4: Final = IPv4Address("169.254.2.2")
LOCAL_GATEWAY6: Final = IPv6Address("fe80::1")
DEFAULT_PREFIX6: Final = 64
_ANYWHERE: Final[dict[int, Network]] = {
    AF_INET: IPv4Network("0.0.0.0/0"),
    AF_INET6: IPv6Network("::/0"),
}


@record
class HostNetwork:
    """What the host's namespace looks like."""

    links: tuple[Link, ...]
    addresses: tuple[LinkAddress, ...]
    routes: tuple[Route, ...]
    knows_ipv6: bool = True  # its kernel does
    own: tuple[Network, ...] = ()  # what is local to it, if a policy is to know


@record
class Family:
    """The outcome for one address family; without guest and gateway it is absent.

    `default`: the host's own default route is on `link`. `choices`: the addresses of
    `link`, its usual one first.
    """

    link: Link | None = None
    addresses: tuple[LinkAddress, ...] = ()
    routes: tuple[Route, ...] = ()
    gateway: Address | None = None
    default: bool = False
    choices: tuple[Address, ...] = ()

    @property
    def guest(self) -> LinkAddress | None:
        """Return the address that stands for the guest."""
        return self.addresses[0] if self.addresses else None

    @property
    def present(self) -> bool:
        """Tell whether the guest gets this family at all."""
        return self.guest is not None or self.gateway is not None


ABSENT: Final = Family()


@record
class Plan:
    """What the guest's interface is to have when it is configured for the guest."""

    v4: Family
    v6: Family
    ifname: str
    host: HostInfo

    @property
    def addresses(self) -> tuple[LinkAddress, ...]:
        """Return the addresses of both families."""
        return self.v4.addresses + self.v6.addresses

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return the routes of both families."""
        return self.v4.routes + self.v6.routes


def make_plan(config: Config, network: HostNetwork) -> Plan:
    """Decide everything about the guest's interface; ConfigError for a bad -i."""
    v4, v6 = choose(config, network)
    if not v4.present and not v6.present and config.interface is not None:
        raise ConfigError("External interface not usable")
    return assemble(config, network, *with_local(config, network, v4, v6))


def choose(
    config: Config, network: HostNetwork, before: Plan | None = None
) -> tuple[Family, Family]:
    """Return what the host has to offer for IPv4 and IPv6; ConfigError as above.

    The address that the guest had `before` stays its address while the host has it.
    """
    old4, old6 = (before.v4, before.v6) if before is not None else (ABSENT, ABSENT)
    v4 = _family(AF_INET, config, network, old4) if config.ipv4 else ABSENT
    v6 = _family(AF_INET6, config, network, old6) if config.ipv6 else ABSENT
    return v4, v6


def with_local(
    config: Config, network: HostNetwork, v4: Family, v6: Family
) -> tuple[Family, Family]:
    """Return both families; one that the host does not have is in local mode."""
    if config.ipv4 and not v4.present:
        v4 = _local4(config.gateway4)
    if config.ipv6 and not v6.present and network.knows_ipv6:
        v6 = _local6(config.gateway6)
    return v4, v6


def assemble(config: Config, network: HostNetwork, v4: Family, v6: Family) -> Plan:
    """Return the plan that these two families make."""
    named = v4.link or v6.link
    ifname = config.ns_ifname or (named.name if named else FALLBACK_IFNAME)
    host = _host_info(config, v4, v6)
    if config.has_policy:
        own = _own(network.addresses)
        host = replace(host, own=own, own_networks=frozenset(network.own))
    return Plan(v4, v6, ifname, host)


def _own(addresses: Iterable[LinkAddress]) -> frozenset[Address]:
    """Return the host's addresses, and those that it has as a router of its networks.

    The first of a network of IPv6 is that of each of its routers (RFC 4291 2.6.1).
    """
    own = {each.address.ip for each in addresses}
    networks = (each.address.network for each in addresses)
    return frozenset(own | {n.network_address for n in networks if n.version == 6})


def _host_info(config: Config, v4: Family, v6: Family) -> HostInfo:
    guest4 = v4.guest.address if v4.guest else None
    guest6 = v6.guest.address if v6.guest else None
    given = [a.address.ip for a in (*v4.addresses, *v6.addresses)]
    return HostInfo(
        ipv4=v4.present,
        ipv6=v6.present,
        guest4=guest4.ip if isinstance(guest4, IPv4Interface) else None,
        prefix4=guest4.network.prefixlen if guest4 else 24,
        guest6=guest6.ip if isinstance(guest6, IPv6Interface) else None,
        prefix6=guest6.network.prefixlen if guest6 else DEFAULT_PREFIX6,
        gateway4=v4.gateway if isinstance(v4.gateway, IPv4Address) else None,
        gateway6=v6.gateway if isinstance(v6.gateway, IPv6Address) else None,
        our_mac=config.our_mac,
        guest_mac=config.ns_mac,
        mtu=config.mtu,
        guests=frozenset(given if config.config_net else ()),
        pinned=tuple(a for a in given if a in (config.address4, config.address6)),
        choices=v4.choices + v6.choices,
        template4=v4.link.name if v4.link else None,
        template6=v6.link.name if v6.link else None,
    )


def _family(
    family: int, config: Config, network: HostNetwork, before: Family
) -> Family:
    v4 = family == AF_INET
    asked = _asked_address(family, config)
    asked_gateway: Address | None = config.gateway4 if v4 else config.gateway6
    link = _template(family, config, network)
    if link is None:
        # The user may say everything that a template would have told.
        if asked is None or config.interface is not None:
            return ABSENT
        routes = _default_route(family, asked_gateway, (asked,))
        return Family(None, (asked,), routes, asked_gateway)

    copied = _usable(family, link, network.addresses, before)
    choices = tuple(a.address.ip for a in copied)
    if v4 and config.prefix4 is not None:
        copied = tuple(_with_prefix(a, config.prefix4) for a in copied)
    if not config.copy_addrs:
        copied = copied[:1]
    addresses = (asked,) if asked is not None else copied
    if not addresses:
        return ABSENT
    own = tuple(r for r in network.routes if r.family == family and r.oif == link.index)
    routes = _copyable(own if config.copy_routes else _only_default(own))
    gateway = asked_gateway or _gateway(own)
    if v4 and gateway is None:
        gateway = LOCAL_GATEWAY4
        routes = _with_way_to(gateway, routes)
    if asked_gateway is not None:
        routes = _default_route(family, asked_gateway, addresses)
    if asked_gateway is not None or not routes or not config.copy_routes:
        addresses = tuple(_with_prefix_route(a) for a in addresses)
    default = any(route.is_default for route in own)
    return Family(link, addresses, routes, gateway, default, choices)


def _template(family: int, config: Config, network: HostNetwork) -> Link | None:
    """Return the interface to resemble: -i, or where the host's own traffic goes."""
    outbound = config.outbound_if4 if family == AF_INET else config.outbound_if6
    name = config.interface or outbound
    if name is not None:
        for link in network.links:
            if link.name == name:
                return link
        if config.interface is None:
            return None  # it may come: flows are bound to it by name, each anew
        raise ConfigError(f"Invalid interface name {name}: No such device")
    links = {link.index: link for link in network.links if not link.is_loopback}
    routes = [r for r in network.routes if r.family == family and r.oif in links]
    for route in routes:
        if route.is_default:
            return links[route.oif]
    for route in routes:
        if not route.destination.is_link_local:
            return links[route.oif]
    return None


def _usable(
    family: int, link: Link, addresses: Sequence[LinkAddress], before: Family
) -> tuple[LinkAddress, ...]:
    """Return what of the template's addresses is worth copying, all permanent.

    The kernel lists its newest IPv6 address first. The guest's own one comes first here
    (it may be deprecated by now), and temporary ones (RFC 8981) last: they will go.
    """
    version = 4 if family == AF_INET else 6
    kept = before.guest.address.ip if before.link is not None and before.guest else None
    found: list[tuple[bool, bool, LinkAddress]] = []
    for each in addresses:
        ip = each.address.ip
        if each.index != link.index or ip.version != version:
            continue
        if each.scope >= RT_SCOPE_LINK or each.flags & IFA_F_DADFAILED:
            continue
        if ip == kept:
            plain = replace(each, flags=each.flags & ~IFA_F_DEPRECATED)
            found.append((False, False, plain))
        elif not each.flags & IFA_F_DEPRECATED:
            temporary = version == 6 and bool(each.flags & IFA_F_TEMPORARY)
            found.append((True, temporary, each))
    return tuple(a for *_, a in sorted(found, key=lambda rank: rank[:2]))


def _asked_address(family: int, config: Config) -> LinkAddress | None:
    """Return what -a and -n ask for."""
    if family == AF_INET6:
        if config.address6 is None:
            return None
        prefix6 = DEFAULT_PREFIX6 if config.prefix6 is None else config.prefix6
        v6 = IPv6Interface((config.address6, prefix6))
        return LinkAddress(0, v6, RT_SCOPE_UNIVERSE, 0)
    if config.address4 is None:
        return None
    prefix = config.prefix4
    if prefix is None:
        prefix = classful_prefix(config.address4)
    v4 = IPv4Interface((config.address4, prefix))
    return LinkAddress(0, v4, RT_SCOPE_UNIVERSE, 0)


def _with_prefix(addr: LinkAddress, prefix: int) -> LinkAddress:
    changed = IPv4Interface(f"{addr.address.ip}/{prefix}")
    return replace(addr, address=changed, broadcast=None)


def _with_prefix_route(addr: LinkAddress) -> LinkAddress:
    """Let the kernel make the route to the address's own network after all."""
    return replace(addr, flags=addr.flags & ~IFA_F_NOPREFIXROUTE)


def _gateway(routes: Sequence[Route]) -> Address | None:
    for route in routes:
        if route.is_default and route.gateway is not None:
            kind = IPv4Address if route.family == AF_INET else IPv6Address
            return kind(route.gateway)
    return None


def _copyable(routes: Sequence[Route]) -> tuple[Route, ...]:
    """Leave out what the guest's kernel makes by itself: its link-local network."""
    return tuple(
        r for r in routes if not (r.family == AF_INET6 and r.destination.is_link_local)
    )


def _only_default(routes: Iterable[Route]) -> tuple[Route, ...]:
    """Leave out what --no-copy-routes does; a gateway may be no neighbour then."""
    return tuple(
        replace(r, flags=r.flags | RTNH_F_ONLINK) if _needs_onlink(r) else r
        for r in routes
        if r.is_default
    )


def _needs_onlink(route: Route) -> bool:
    return route.family == AF_INET and route.gateway is not None


def _default_route(
    family: int, gateway: Address | None, addresses: Sequence[LinkAddress]
) -> tuple[Route, ...]:
    """Return a default route through `gateway`, which need not be a neighbour."""
    if gateway is None:
        return ()
    near = gateway.is_link_local and family == AF_INET6
    near = near or any(gateway in a.address.network for a in addresses)
    flags = 0 if near else RTNH_F_ONLINK
    return (Route(family, _ANYWHERE[family], 0, str(gateway), flags=flags),)


def _with_way_to(gateway: IPv4Address, routes: tuple[Route, ...]) -> tuple[Route, ...]:
    """Return `routes` with one to a gateway that the host does not have."""
    if any(gateway in route.destination for route in routes):
        return routes
    alone = IPv4Network((gateway, 32))
    return (*routes, Route(AF_INET, alone, 0, scope=RT_SCOPE_LINK))


def _local4(asked: IPv4Address | None) -> Family:
    """Return IPv4 as a guest has it whose host has none."""
    gateway = asked or LOCAL_GATEWAY4
    address = LinkAddress(0, LOCAL_GUEST4, RT_SCOPE_UNIVERSE, 0)
    routes = _default_route(AF_INET, gateway, (address,))
    return Family(None, (address,), routes, gateway)


def _local6(asked: IPv6Address | None) -> Family:
    """Do the same for IPv6, where the guest chooses its own address."""
    gateway = asked or LOCAL_GATEWAY6
    routes = _default_route(AF_INET6, gateway, ())
    return Family(None, (), routes, gateway)

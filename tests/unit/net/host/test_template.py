# SPDX-License-Identifier: GPL-2.0-or-later
"""Which interface the guest's resembles, and what is copied of it."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_interface, ip_network
from socket import AF_INET, AF_INET6
from typing import Any

import pytest

from passtpy.config.model import Config
from passtpy.errors import ConfigError
from passtpy.net.host.template import HostNetwork, Plan, choose, make_plan
from passtpy.net.kernel.rtnl import (
    IFA_F_DEPRECATED,
    IFA_F_NOPREFIXROUTE,
    IFA_F_TEMPORARY,
    IFF_LOOPBACK,
    IFF_UP,
    RT_SCOPE_LINK,
    RTNH_F_ONLINK,
    Link,
    LinkAddress,
    Route,
)

RTA_VIA = 18
VIA6 = b"\n\0" + IPv6Address("fe80::1").packed
LO = Link(1, "lo", bytes(6), 65536, IFF_UP | IFF_LOOPBACK)
ETH0 = Link(2, "eth0", bytes(6), 1500, IFF_UP)
ETH1 = Link(3, "eth1", bytes(6), 1500, IFF_UP)


def address(link: Link, text: str, flags: int = 0, scope: int = 0) -> LinkAddress:
    return LinkAddress(link.index, ip_interface(text), scope, flags)


def route(link: Link, to: str, via: str | None = None, scope: int = 0) -> Route:
    network = ip_network(to)
    family = AF_INET if network.version == 4 else AF_INET6
    return Route(family, network, link.index, via, scope)


ADDRESSES = (
    address(LO, "127.0.0.1/8", scope=254),
    address(ETH0, "192.0.2.2/24"),
    address(ETH0, "192.0.2.3/24"),
    address(ETH0, "2001:db8::1/64", IFA_F_DEPRECATED),
    address(ETH0, "2001:db8::2/64", IFA_F_NOPREFIXROUTE),
    address(ETH0, "fe80::2/64", scope=RT_SCOPE_LINK),
    address(ETH1, "198.51.100.2/24"),
)
ROUTES = (
    route(ETH0, "0.0.0.0/0", "192.0.2.1"),
    route(ETH0, "192.0.2.0/24", scope=RT_SCOPE_LINK),
    route(ETH1, "198.51.100.0/24", scope=RT_SCOPE_LINK),
    route(ETH0, "2001:db8::/64"),
    route(ETH0, "fe80::/64"),
    route(ETH0, "::/0", "fe80::1"),
)
HOST = HostNetwork((LO, ETH0, ETH1), ADDRESSES, ROUTES)
NOWHERE = HostNetwork((LO,), ADDRESSES[:1], ())


def plan(network: HostNetwork = HOST, **said: Any) -> Plan:
    return make_plan(replace(Config(), **said), network)


def shown(made: Plan) -> list[str]:
    return [str(a.address) for a in made.addresses]


def test_the_interface_of_the_default_route_is_the_template() -> None:
    made = plan()
    assert made.ifname == "eth0"
    assert (made.host.template4, made.host.template6) == ("eth0", "eth0")
    assert made.host.gateway4 == IPv4Address("192.0.2.1")
    assert made.host.gateway6 == IPv6Address("fe80::1")


def test_all_good_addresses_are_copied() -> None:
    made = plan()
    assert shown(made) == ["192.0.2.2/24", "192.0.2.3/24", "2001:db8::2/64"]
    assert made.host.guest4 == IPv4Address("192.0.2.2")
    assert made.host.guest6 == IPv6Address("2001:db8::2")


def test_all_routes_but_the_link_local_one_are_copied() -> None:
    to = [str(r.destination) for r in plan().routes]
    assert to == ["0.0.0.0/0", "192.0.2.0/24", "2001:db8::/64", "::/0"]


def test_without_a_default_route_any_other_names_the_template() -> None:
    network = replace(HOST, routes=ROUTES[2:5])
    made = plan(network)
    assert made.host.template4 == "eth1"
    assert made.host.template6 == "eth0"
    assert made.ifname == "eth1"


def test_a_named_interface_wins() -> None:
    made = plan(interface="eth1")
    assert made.ifname == "eth1"
    assert shown(made) == ["198.51.100.2/24"]
    assert made.host.template6 is None


def test_an_outbound_interface_is_a_template_too() -> None:
    made = plan(outbound_if4="eth1")
    assert (made.host.template4, made.host.template6) == ("eth1", "eth0")


def test_an_unknown_interface_is_an_error() -> None:
    with pytest.raises(ConfigError, match="Invalid interface name x: No such device"):
        plan(interface="x")


def test_an_interface_without_addresses_is_an_error() -> None:
    network = replace(HOST, addresses=ADDRESSES[:1])
    with pytest.raises(ConfigError, match="External interface not usable"):
        plan(network, interface="eth1")


def test_a_host_without_network_gives_local_mode() -> None:
    made = plan(NOWHERE)
    assert made.ifname == "tap0"
    assert shown(made) == ["169.254.2.1/16"]
    assert made.host.gateway4 == IPv4Address("169.254.2.2")
    assert made.host.gateway6 == IPv6Address("fe80::1")
    assert made.host.guest6 is None
    assert [r.gateway for r in made.routes] == ["169.254.2.2", "fe80::1"]


def test_everything_may_be_said_by_hand_without_a_template() -> None:
    said: dict[str, Any] = {
        "address4": IPv4Address("192.0.2.9"),
        "gateway4": IPv4Address("192.0.2.1"),
    }
    made = plan(NOWHERE, prefix4=25, **said)
    assert shown(made) == ["192.0.2.9/25"]
    assert made.host.gateway4 == IPv4Address("192.0.2.1")


def test_an_address_replaces_those_of_its_family() -> None:
    made = plan(address4=IPv4Address("10.0.2.100"), prefix4=24)
    assert shown(made) == ["10.0.2.100/24", "2001:db8::2/64"]


def test_a_gateway_replaces_the_routes_of_its_family() -> None:
    made = plan(gateway4=IPv4Address("192.0.2.254"))
    own = [r for r in made.routes if r.family == AF_INET]
    assert [(r.gateway, r.flags) for r in own] == [("192.0.2.254", 0)]


def test_a_gateway_beyond_the_network_is_declared_a_neighbour() -> None:
    made = plan(gateway4=IPv4Address("203.0.113.1"))
    assert made.routes[0].flags == RTNH_F_ONLINK


def test_a_netmask_alone_changes_the_copied_address() -> None:
    assert shown(plan(prefix4=16))[0] == "192.0.2.2/16"


def test_a_kernel_route_is_wanted_when_none_is_copied() -> None:
    made = plan(gateway6=IPv6Address("fe80::9"))
    assert made.addresses[-1].flags & IFA_F_NOPREFIXROUTE == 0
    assert plan().addresses[-1].flags & IFA_F_NOPREFIXROUTE


def test_a_switched_off_family_gets_nothing() -> None:
    made = plan(ipv6=False)
    assert shown(made) == ["192.0.2.2/24", "192.0.2.3/24"]
    assert all(r.family == AF_INET for r in made.routes)
    assert not made.host.ipv6


def test_the_name_in_the_namespace_may_be_chosen() -> None:
    assert plan(ns_ifname="net0").ifname == "net0"


def test_only_one_address_and_the_default_routes_are_copied_when_asked() -> None:
    made = make_plan(Config(ipv6=False, copy_addrs=False, copy_routes=False), HOST)
    assert [str(a.address) for a in made.addresses] == ["192.0.2.2/24"]
    assert not made.addresses[0].flags & IFA_F_NOPREFIXROUTE
    [only] = made.routes
    assert only.is_default
    assert only.flags & RTNH_F_ONLINK


def test_the_length_of_an_ipv6_prefix_is_honoured() -> None:
    config = Config(ipv4=False, address6=IPv6Address("2001:db8::9"), prefix6=48)
    assert str(make_plan(config, HOST).addresses[0].address) == "2001:db8::9/48"


def test_a_family_knows_whether_the_host_goes_out_there() -> None:
    both = choose(Config(), HOST)
    assert [family.default for family in both] == [True, True]
    v4, _ = choose(Config(interface="eth1", gateway4=IPv4Address("1.2.3.4")), HOST)
    assert not v4.default


# One IP version only


def only(version: int) -> HostNetwork:
    addresses = tuple(a for a in ADDRESSES if a.address.version == version)
    family = AF_INET if version == 4 else AF_INET6
    routes = tuple(r for r in ROUTES if r.family == family)
    return HostNetwork((LO, ETH0, ETH1), addresses, routes)


def test_ipv4_is_in_local_mode_where_the_host_has_ipv6_only() -> None:
    made = plan(only(6))
    assert shown(made) == ["169.254.2.1/16", "2001:db8::2/64"]
    assert made.host.gateway4 == IPv4Address("169.254.2.2")
    assert (made.host.template4, made.host.template6) == (None, "eth0")
    assert ("0.0.0.0/0", "169.254.2.2") in gateways(made)


def test_ipv6_is_in_local_mode_where_the_host_has_ipv4_only() -> None:
    made = plan(only(4))
    assert made.host.guest6 is None
    assert made.host.gateway6 == IPv6Address("fe80::1")
    assert (made.host.template4, made.host.template6) == ("eth0", None)
    assert ("::/0", "fe80::1") in gateways(made)


def test_there_is_no_local_mode_for_what_the_kernel_does_not_know() -> None:
    assert not plan(replace(only(4), knows_ipv6=False)).host.ipv6


def test_local_mode_is_not_for_a_family_that_was_switched_off() -> None:
    assert not plan(only(6), ipv4=False).host.ipv4
    assert not plan(only(4), ipv6=False).host.ipv6


def test_an_address_that_was_said_is_pinned() -> None:
    said = IPv4Address("192.0.2.77")
    made = plan(only(4), address4=said, prefix4=24)
    assert made.host.pinned == (said,)
    assert plan(only(4)).host.pinned == ()


def test_a_gateway_may_be_said_in_local_mode() -> None:
    made = plan(only(6), gateway4=IPv4Address("169.254.9.9"))
    assert made.host.gateway4 == IPv4Address("169.254.9.9")


def gateways(made: Plan) -> list[tuple[str, str | None]]:
    return [(str(r.destination), r.gateway) for r in made.routes]


# A host without a gateway


@pytest.mark.parametrize(
    "routes",
    [
        (route(ETH0, "0.0.0.0/0"),),  # a point-to-point link
        (replace(route(ETH0, "0.0.0.0/0"), attributes=((RTA_VIA, VIA6),)),),
        (route(ETH0, "192.0.2.0/24", scope=RT_SCOPE_LINK),),
    ],
    ids=["point-to-point", "IPv6 next hop", "no default route"],
)
def test_who_has_no_gateway_gets_one_that_stands_for_the_host(
    routes: tuple[Route, ...],
) -> None:
    made = plan(replace(HOST, routes=routes), ipv6=False)
    assert made.host.gateway4 == IPv4Address("169.254.2.2")
    gateway = IPv4Address("169.254.2.2")
    assert any(gateway in r.destination for r in made.routes)
    assert set(routes) <= set(made.routes)


# The host's addresses change


def with_first(*new: LinkAddress) -> HostNetwork:
    """The kernel lists the newest IPv6 address before the others."""
    return replace(HOST, addresses=(*new, *ADDRESSES))


@pytest.mark.parametrize("flags", [0, IFA_F_TEMPORARY])
def test_a_newer_address_does_not_take_the_place_of_the_guests(flags: int) -> None:
    network = with_first(address(ETH0, "2001:db8:9::1/64", flags))
    v4, v6 = choose(Config(), network, plan())
    assert v6.guest is not None
    assert v4.guest is not None
    assert str(v6.guest.address) == "2001:db8::2/64"
    assert [str(a.address) for a in v6.addresses][1:] == ["2001:db8:9::1/64"]
    assert str(v4.guest.address) == "192.0.2.2/24"


def test_the_guests_address_stays_though_deprecated() -> None:
    addresses = tuple(
        replace(a, flags=a.flags | IFA_F_DEPRECATED) if a.address.version == 6 else a
        for a in ADDRESSES
    )
    new = address(ETH0, "2001:db8:9::1/64")
    network = replace(HOST, addresses=(new, *addresses))
    _, v6 = choose(Config(), network, plan())
    assert [str(a.address) for a in v6.addresses] == [
        "2001:db8::2/64",
        "2001:db8:9::1/64",
    ]
    assert not v6.addresses[0].flags & IFA_F_DEPRECATED


def test_the_guests_address_goes_with_the_hosts() -> None:
    gone = tuple(a for a in ADDRESSES if "2001:db8::2" not in str(a.address))
    new = address(ETH0, "2001:db8:9::1/64")
    network = replace(HOST, addresses=(new, *gone))
    _, v6 = choose(Config(), network, plan())
    assert [str(a.address) for a in v6.addresses] == ["2001:db8:9::1/64"]


def test_a_temporary_address_is_not_the_first_choice() -> None:
    network = with_first(address(ETH0, "2001:db8::bad/64", IFA_F_TEMPORARY))
    assert plan(network).host.guest6 == IPv6Address("2001:db8::2")


def test_what_was_given_and_what_may_be_chosen_is_told() -> None:
    host = plan(config_net=True).host
    given = {"192.0.2.2", "192.0.2.3", "2001:db8::2"}
    assert set(map(str, host.guests)) == given
    assert [str(a) for a in host.choices] == ["192.0.2.2", "192.0.2.3", "2001:db8::2"]
    assert plan().host.guests == frozenset()  # who configures itself asks for one


# An interface that is not there yet


def test_an_outbound_interface_may_come_later() -> None:
    made = plan(outbound_if4="later")
    assert made.host.template4 is None
    assert shown(made)[0] == "169.254.2.1/16"
    link = Link(9, "later", bytes(6), 1500, IFF_UP)
    more = HostNetwork(
        (*HOST.links, link), (*ADDRESSES, address(link, "203.0.113.2/24")), ROUTES
    )
    v4, _ = choose(Config(outbound_if4="later"), more, made)
    assert [str(a.address) for a in v4.addresses] == ["203.0.113.2/24"]

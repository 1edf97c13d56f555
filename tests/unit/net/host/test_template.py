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
    IFF_LOOPBACK,
    IFF_UP,
    RT_SCOPE_LINK,
    RTNH_F_ONLINK,
    Link,
    LinkAddress,
    Route,
)

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
    assert made.host.gateway4 is None


def test_a_named_interface_wins() -> None:
    made = plan(interface="eth1")
    assert made.ifname == "eth1"
    assert shown(made) == ["198.51.100.2/24"]
    assert not made.host.ipv6


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
    assert made.host.ipv4
    assert not made.host.ipv6


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

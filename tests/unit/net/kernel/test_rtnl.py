# SPDX-License-Identifier: GPL-2.0-or-later
"""Our messages about links, addresses and routes mean what pyroute2's mean."""

from importlib import import_module
from ipaddress import ip_interface, ip_network
from socket import AF_INET, AF_INET6
from typing import Any

import pytest

from passtpy.net.kernel import rtnl
from passtpy.net.kernel.rtnl import (
    IFA_F_DEPRECATED,
    IFA_F_NODAD,
    IFA_F_NOPREFIXROUTE,
    IFA_F_PERMANENT,
    RT_TABLE_MAIN,
    RTN_UNICAST,
    RTNH_F_ONLINK,
    Link,
    LinkAddress,
    Route,
)
from passtpy.net.kernel.rtnl_parse import read_address, read_link, read_route
from passtpy.record import names_of

RTA_PRIORITY, RTA_METRICS = 6, 8


def message(kind: str, **fields: Any) -> Any:
    made = getattr(import_module(f"pyroute2.netlink.rtnl.{kind}"), kind)()
    attributes = fields.pop("attrs", [])
    for name, value in fields.items():
        made[name] = value
    made["attrs"] = attributes
    return made


def encoded(kind: str, **fields: Any) -> bytes:
    made = message(kind, **fields)
    made.encode()
    return bytes(made.data)


def decoded(kind: str, data: bytes) -> Any:
    made = getattr(import_module(f"pyroute2.netlink.rtnl.{kind}"), kind)(data)
    made.decode()
    return made


def test_a_link_is_read() -> None:
    attrs = [("IFLA_IFNAME", "eth0"), ("IFLA_MTU", 1400)]
    attrs += [("IFLA_ADDRESS", "02:00:00:00:00:07")]
    data = encoded("ifinfmsg", index=7, flags=0x1043, attrs=attrs)
    assert read_link(data) == Link(7, "eth0", b"\x02\0\0\0\0\7", 1400, 0x1043)


@pytest.mark.parametrize(
    ("text", "peer"),
    [("192.0.2.5/24", None), ("192.0.2.5/32", "192.0.2.9"), ("2001:db8::5/64", None)],
)
def test_an_address_is_read(text: str, peer: str | None) -> None:
    interface = ip_interface(text)
    family = AF_INET if interface.version == 4 else AF_INET6
    local = str(interface.ip)
    attrs = [("IFA_ADDRESS", peer or local), ("IFA_FLAGS", 0x280)]
    if family == AF_INET:
        attrs += [("IFA_LOCAL", local), ("IFA_BROADCAST", "192.0.2.255")]
    length = interface.network.prefixlen
    data = encoded(
        "ifaddrmsg", family=family, prefixlen=length, index=3, scope=0, attrs=attrs
    )
    broadcast = "192.0.2.255" if family == AF_INET else None
    assert read_address(data) == LinkAddress(3, interface, 0, 0x280, peer, broadcast)


def route_message(**more: Any) -> bytes:
    fields = {
        "family": AF_INET,
        "dst_len": 8,
        "table": RT_TABLE_MAIN,
        "proto": 4,
        "scope": 0,
        "type": RTN_UNICAST,
        "attrs": [
            ("RTA_DST", "10.0.0.0"),
            ("RTA_GATEWAY", "192.0.2.1"),
            ("RTA_OIF", 7),
            ("RTA_PRIORITY", 100),
            ("RTA_PREFSRC", "192.0.2.5"),
            ("RTA_METRICS", {"attrs": [("RTAX_MTU", 1400)]}),
        ],
    }
    return encoded("rtmsg", **(fields | more))


def test_a_route_is_read_and_keeps_what_is_not_of_its_interface() -> None:
    route = read_route(route_message())
    assert route is not None
    kinds = [kind & rtnl.NLA_TYPE_MASK for kind, _ in route.attributes]
    assert kinds == [RTA_PRIORITY, RTA_METRICS]
    plain = Route(AF_INET, ip_network("10.0.0.0/8"), 7, "192.0.2.1", proto=4)
    assert Route(**{**_fields(route), "attributes": ()}) == plain


def _fields(route: Route) -> dict[str, Any]:
    return {name: getattr(route, name) for name in names_of(Route)}


@pytest.mark.parametrize(
    "odd", [{"table": 100}, {"type": 3}, {"flags": rtnl.RTM_F_CLONED}]
)
def test_routes_that_are_none_of_our_business_are_left_out(odd: dict[str, int]) -> None:
    assert read_route(route_message(**odd)) is None


def test_a_multipath_route_is_read_as_its_heaviest_hop() -> None:
    hops = [
        {"hops": 1, "oif": 3, "flags": 0, "attrs": [("RTA_GATEWAY", "192.0.2.1")]},
        {"hops": 9, "oif": 4, "flags": 4, "attrs": [("RTA_GATEWAY", "192.0.2.2")]},
    ]
    attrs = [("RTA_DST", "10.0.0.0"), ("RTA_MULTIPATH", hops)]
    route = read_route(route_message(attrs=attrs))
    assert route is not None
    assert (route.oif, route.gateway, route.flags) == (4, "192.0.2.2", 4)


def test_a_default_route_has_no_destination() -> None:
    data = route_message(family=AF_INET6, dst_len=0, attrs=[("RTA_OIF", 7)])
    route = read_route(data)
    assert route is not None
    assert route.is_default
    assert route.destination == ip_network("::/0")


def test_a_route_arrives_as_it_was_read() -> None:
    route = read_route(route_message())
    assert route is not None
    data = rtnl.add_route(2, route).encode(9)
    sent = decoded("rtmsg", data)
    assert sent.get_attr("RTA_OIF") == 2
    assert sent.get_attr("RTA_METRICS").get_attr("RTAX_MTU") == 1400
    assert sent.get_attr("RTA_PRIORITY") == 100
    again = read_route(data)
    assert again == Route(**(_fields(route) | {"oif": 2}))


@pytest.mark.parametrize("text", ["192.0.2.5/24", "2001:db8::5/64"])
def test_an_address_arrives_as_it_was_read(text: str) -> None:
    given = LinkAddress(3, ip_interface(text), 0, IFA_F_NOPREFIXROUTE)
    sent = read_address(rtnl.add_address(2, given).encode(9))
    flags = IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE
    if given.address.version == 6:
        flags |= IFA_F_NODAD
    assert sent == LinkAddress(2, given.address, 0, flags)


def test_a_deprecated_address_is_preferred_no_longer() -> None:
    given = LinkAddress(3, ip_interface("192.0.2.5/32"), 0, IFA_F_DEPRECATED)
    sent = decoded("ifaddrmsg", rtnl.add_address(2, given).encode(9))
    assert sent.get_attr("IFA_CACHEINFO")["ifa_preferred"] == 0
    assert sent.get_attr("IFA_CACHEINFO")["ifa_valid"] == 0xFFFFFFFF


def test_a_tap_gets_queue_mac_and_mtu() -> None:
    sent = decoded(
        "ifinfmsg", rtnl.prepare_tap(2, b"\2\0\0\0\0\7", 1400, 500).encode(1)
    )
    assert (sent["index"], sent["change"]) == (2, 0)
    assert sent.get_attr("IFLA_TXQLEN") == 500
    assert sent.get_attr("IFLA_ADDRESS") == "02:00:00:00:00:07"
    assert sent.get_attr("IFLA_MTU") == 1400


def test_a_route_onlink_stays_so() -> None:
    route = Route(AF_INET, ip_network("0.0.0.0/0"), 7, "192.0.2.1", flags=RTNH_F_ONLINK)
    sent = decoded("rtmsg", rtnl.add_route(2, route).encode(1))
    assert sent["flags"] == RTNH_F_ONLINK
    assert sent.get_attr("RTA_DST") is None

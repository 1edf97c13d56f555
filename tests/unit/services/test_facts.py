# SPDX-License-Identifier: GPL-2.0-or-later
"""What the guest is told, as it follows from options, host and resolv.conf."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from passtpy.addr import Address
from passtpy.config.resolver import Resolver
from tests.unit.services.conversation import HOST, facts

DNS4, DNS6 = IPv4Address("198.51.100.53"), IPv6Address("2001:db8:1::53")
LOOP4, LOOP6 = IPv4Address("127.0.0.53"), IPv6Address("::1")
LINK6 = IPv6Address("fe80::1%eth0")
GATEWAY4, GATEWAY6 = HOST.gateway4, HOST.gateway6
TOLD = "--dhcp-dns --dhcp-search"


def resolvers(line: str, *nameservers: Address) -> tuple[Address | None, ...]:
    told = facts(f"--dhcp-dns {line}", resolver=Resolver(nameservers))
    return told.resolvers4 + told.resolvers6


@pytest.mark.parametrize(
    ("line", "nameservers", "told"),
    [
        ("", (DNS4, DNS6), (DNS4, DNS6)),
        ("", (LOOP4, LOOP6), (GATEWAY4, GATEWAY6)),
        ("", (LOOP4, IPv4Address("127.0.0.1")), (GATEWAY4,)),
        ("--no-map-gw", (LOOP4, LOOP6, DNS4), (DNS4,)),
        (
            "--no-map-gw --map-host-loopback 192.0.2.9",
            (LOOP4,),
            (IPv4Address("192.0.2.9"),),
        ),
        ("", (LINK6, DNS6), (DNS6,)),
        ("-D 192.0.2.53", (DNS4,), (IPv4Address("192.0.2.53"),)),
        ("-D none", (DNS4,), ()),
        ("-D 127.0.0.1", (DNS4,), (GATEWAY4,)),
    ],
)
def test_resolvers_are_those_that_the_guest_can_reach(
    line: str, nameservers: tuple[Address, ...], told: tuple[Address, ...]
) -> None:
    assert resolvers(line, *nameservers) == told


def test_link_local_resolver_is_told_if_it_is_the_gateway() -> None:
    gateway = IPv6Address("fe80::1")
    host = replace(HOST, gateway6=gateway)
    told = facts("--dhcp-dns", host, Resolver((LINK6,)))
    assert told.resolvers6 == (gateway,)


def test_three_resolvers_are_enough() -> None:
    many = tuple(IPv4Address(f"198.51.100.{i}") for i in range(1, 6))
    assert resolvers("", *many) == many[:3]


def test_nothing_is_told_unless_asked_for() -> None:
    told = facts("-D 192.0.2.53 -S example.com")
    assert (told.resolvers4, told.search) == ((), ())


@pytest.mark.parametrize(
    ("line", "search"),
    [("", ("a.example", "b.example")), ("-S x", ("x",)), ("-S none", ())],
)
def test_search_list_is_the_options_or_the_hosts(
    line: str, search: tuple[str, ...]
) -> None:
    resolver = Resolver((), ("a.example", "b.example"))
    assert facts(f"--dhcp-search {line}", resolver=resolver).search == search


def test_family_that_is_switched_off_has_no_addresses() -> None:
    told = facts("-6")
    assert (told.ipv4, told.server4, told.guest4, told.gateway4) == (False, *[None] * 3)
    told = facts("-4")
    assert (told.ipv6, told.guest6, told.managed) == (False, None, False)


def test_mapped_addresses_are_ours_and_the_guests_never() -> None:
    line = "--map-host-loopback 192.0.2.9 --map-guest-addr 192.0.2.10"
    told = facts(line)
    for text in ("192.0.2.1", "192.0.2.9", "192.0.2.10"):
        assert told.is_taken(IPv4Address(text))
    assert not told.is_taken(IPv4Address("192.0.2.200"))
    own = facts("--map-guest-addr 192.0.2.5")
    assert not own.is_taken(IPv4Address("192.0.2.5"))

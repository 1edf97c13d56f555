# SPDX-License-Identifier: GPL-2.0-or-later
"""What follows from configuration, host and resolver together."""

from ipaddress import IPv4Address, IPv6Address

import pytest

from passtpy.config.cli import parse_pasta
from passtpy.config.host import HostInfo
from passtpy.config.resolver import Resolver
from passtpy.config.view import View

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("fe80::1"),
)


def view(line: str = "", host: HostInfo = HOST) -> View:
    return View.of(parse_pasta(line.split()), host)


def test_a_view_never_changes() -> None:
    with pytest.raises(AttributeError, match="cannot assign"):
        view().ipv4 = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("line", "host", "families"),
    [
        ("", HOST, (True, True)),
        ("-4", HOST, (True, False)),
        ("", HostInfo(ipv4=False), (False, True)),
    ],
)
def test_a_family_is_both_wanted_and_there(
    line: str, host: HostInfo, families: tuple[bool, bool]
) -> None:
    seen = view(line, host)
    assert (seen.ipv4, seen.ipv6) == families


def test_the_gateways_address_stands_for_the_host_unless_told_otherwise() -> None:
    assert view().loopbacks == (HOST.gateway4, HOST.gateway6)
    assert view("--no-map-gw").loopbacks == (None, None)
    mapped = IPv4Address("192.0.2.7")
    assert view(f"--map-host-loopback {mapped}").loopback4 == mapped


def test_what_we_answer_for_is_never_the_guests_own() -> None:
    line = "--map-guest-addr 203.0.113.9 --dns-forward 192.0.2.5"
    ours = view(line).ours
    assert {HOST.gateway4, HOST.gateway6, IPv4Address("203.0.113.9")} <= ours
    assert not {HOST.guest4, HOST.guest6} & ours
    assert None not in ours


def test_a_resolver_on_the_loopback_is_forwarded() -> None:
    resolver = Resolver((IPv4Address("127.0.0.53"),))
    (each,) = View.of(parse_pasta([]), HOST, resolver).dns
    assert (each.seen, each.target) == (HOST.gateway4, resolver.nameservers[0])

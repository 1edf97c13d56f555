# SPDX-License-Identifier: GPL-2.0-or-later
"""Which address of the guest's is a resolver, and which resolver answers there."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest

from passtpy.addr import from_inany, inany
from passtpy.config.cli import parse_pasta
from passtpy.config.dns import dns_maps
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.resolver import Resolver, parse_resolv_conf
from passtpy.config.view import View
from passtpy.flow import Action, Pif
from passtpy.policy.decide import Decider
from passtpy.policy.rules import rules_from_view
from tests.unit.policy.test_rules import Miss

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("fe80::1"),
)
TCP, UDP = 6, 17


def resolver(*nameservers: str) -> Resolver:
    return parse_resolv_conf("".join(f"nameserver {each}\n" for each in nameservers))


@pytest.mark.parametrize(
    ("line", "known", "expected"),
    [
        ("", ["198.51.100.53"], []),
        ("--dns-forward 169.254.1.1", ["198.51.100.53"], ["169.254.1.1 198.51.100.53"]),
        (
            "--dns-forward 169.254.1.1",
            ["2001:db8::53", "198.51.100.53", "198.51.100.54"],
            ["169.254.1.1 198.51.100.53"],
        ),
        ("--dns-forward 169.254.1.1", [], ["169.254.1.1 127.0.0.1"]),
        ("--dns-forward 169.254.1.1", ["127.0.0.53"], ["169.254.1.1 127.0.0.53"]),
        ("--dns-forward 2001:db8::1", [], ["2001:db8::1 ::1"]),
        # A resolver of the other family is better than none.
        ("--dns-forward 169.254.1.1", ["2001:db8::53"], ["169.254.1.1 2001:db8::53"]),
        ("--dns-forward 169.254.1.1", ["fe80::53%eth0"], ["169.254.1.1 fe80::53"]),
        (
            "--dns-forward 2001:db8::1",
            ["127.0.0.53"],
            ["192.0.2.1 127.0.0.53", "2001:db8::1 127.0.0.53"],
        ),
        (
            "--dns-forward 169.254.1.1 --dns-host 2001:db8::54",
            ["2001:db8::53"],
            ["169.254.1.1 2001:db8::54"],
        ),
        (
            "--dns-forward 169.254.1.1 --dns-host 2001:db8::54",
            ["198.51.100.53"],
            ["169.254.1.1 198.51.100.53"],
        ),
        (
            "--dns-forward 169.254.1.1 --dns-host 203.0.113.1",
            ["198.51.100.53"],
            ["169.254.1.1 203.0.113.1"],
        ),
        # The gateway's address stands for the host.
        ("", ["127.0.0.53"], ["192.0.2.1 127.0.0.53"]),
        ("", ["198.51.100.53", "127.0.0.53"], ["192.0.2.1 127.0.0.53"]),
        ("", ["192.0.2.1"], ["192.0.2.1 192.0.2.1"]),
        ("", ["::1"], ["fe80::1 ::1"]),
        ("", ["fe80::1%eth0"], ["fe80::1 fe80::1"]),
        ("--dns-host 203.0.113.1", ["127.0.0.53"], ["192.0.2.1 203.0.113.1"]),
        (
            "--map-host-loopback 192.0.2.7",
            ["127.0.0.53"],
            ["192.0.2.7 127.0.0.53"],
        ),
        ("--no-map-gw", ["127.0.0.53"], []),
        ("--no-map-gw", ["192.0.2.1"], []),
        ("-D none --dns-forward 169.254.1.1", ["127.0.0.53"], []),
        ("--splice-only", ["127.0.0.53"], []),
    ],
)
def test_what_is_forwarded(line: str, known: list[str], expected: list[str]) -> None:
    maps = dns_maps(parse_pasta(line.split()), HOST, resolver(*known))
    assert [f"{each.seen} {each.target}" for each in maps] == expected


def decide(line: str, known: str, to: str, port: int, proto: int = UDP) -> str:
    config = parse_pasta(line.split())
    rules = rules_from_view(View.of(config, HOST, resolver(known)))
    decider = Decider(rules, GuestAddresses.from_host(HOST))
    source = "192.0.2.5" if "." in to else "2001:db8::5"
    raw = inany(ip_address(source))
    verdict = decider.by_rules(
        Miss(proto, Pif.TAP, raw, 4000, inany(ip_address(to)), port)
    )
    assert verdict.action == Action.FORWARD
    ours = from_inany(verdict.oaddr)
    return f"{from_inany(verdict.eaddr)} {verdict.eport} from {ours}"


@pytest.mark.parametrize("proto", [TCP, UDP])
@pytest.mark.parametrize("port", [53, 853])
def test_ports_of_dns_are_forwarded(proto: int, port: int) -> None:
    found = decide("", "192.0.2.1", "192.0.2.1", port, proto)
    assert found == f"192.0.2.1 {port} from ::"


def test_other_ports_are_not() -> None:
    assert decide("", "192.0.2.1", "192.0.2.1", 80) == "127.0.0.1 80 from ::"


def test_the_source_is_said_unless_the_resolver_is_here() -> None:
    line = "-o 203.0.113.9 --dns-forward 169.254.1.1"
    outside = decide(line, "198.51.100.53", "169.254.1.1", 53)
    assert outside == "198.51.100.53 53 from 203.0.113.9"
    here = decide(line, "127.0.0.53", "169.254.1.1", 53)
    assert here == "127.0.0.53 53 from ::"

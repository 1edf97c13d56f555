# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rule decides about which flow, and what the verdict says."""

from dataclasses import replace
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
)
from typing import NamedTuple

import pytest

from passtpy.addr import UNSPECIFIED, from_inany, inany
from passtpy.config.cli import parse_pasta
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.view import View
from passtpy.flow import Action, Pif
from passtpy.policy.decide import Decider, compile_network
from passtpy.policy.explain import explain, explain_miss
from passtpy.policy.rules import Network, rules_from_view

TCP, UDP, ICMP, ICMPV6 = 6, 17, 1, 58

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("2001:db8::1"),
)
OUR_LL = "fe80::9855:9aff:fe55:9a55"


class Miss(NamedTuple):
    proto: int
    pif: int
    eaddr: bytes
    eport: int
    oaddr: bytes
    oport: int
    listener: int = -1
    crossed: bool = False
    again: bool = False


def raw(text: str) -> bytes:
    return inany(ip_address(text))


def from_guest(
    to: str, port: int = 80, proto: int = TCP, source: str | None = None
) -> Miss:
    guest = source or ("192.0.2.5" if "." in to else "2001:db8::5")
    return Miss(proto, Pif.TAP, raw(guest), 40000, raw(to), port)


def from_host(
    peer: str, port: int, listener: int = 0, proto: int = TCP, at: str = ""
) -> Miss:
    local = at or ("198.51.100.1" if "." in peer else "2001:db8:1::1")
    return Miss(proto, Pif.HOST, raw(peer), 50000, raw(local), port, listener)


def make(line: str = "", host: HostInfo = HOST) -> Decider:
    config = parse_pasta(line.split())
    guest = GuestAddresses.from_host(host)
    return Decider(rules_from_view(View.of(config, host)), guest)


def outcome(decider: Decider, miss: Miss) -> str:
    """Run a miss and write its verdict as one line."""
    verdict = decider.by_rules(miss)
    if verdict.action != Action.FORWARD:
        return Action(verdict.action).name.lower()
    source = verdict.oaddr
    ours = "any" if source == UNSPECIFIED else str(from_inany(source))
    target = f"{from_inany(verdict.eaddr)} {verdict.eport}"
    return f"{Pif(verdict.pif).name.lower()} {target} from {ours} {verdict.oport}"


@pytest.mark.parametrize(
    ("line", "miss", "expected"),
    [
        ("", from_guest("198.51.100.1", 443), "host 198.51.100.1 443 from any 0"),
        ("", from_guest("2001:db8:1::1"), "host 2001:db8:1::1 80 from any 0"),
        ("", from_guest("198.51.100.1", 7, ICMP), "host 198.51.100.1 7 from any 0"),
        ("", from_guest("198.51.100.1", 0, ICMP), "host 198.51.100.1 0 from any 0"),
        (
            "-o 203.0.113.1",
            from_guest("198.51.100.1"),
            "host 198.51.100.1 80 from 203.0.113.1 0",
        ),
        (
            "-o 203.0.113.1",
            from_guest("2001:db8:1::1"),
            "host 2001:db8:1::1 80 from any 0",
        ),
        ("", from_guest("192.0.2.1"), "host 127.0.0.1 80 from any 0"),
        ("", from_guest("2001:db8::1"), "host ::1 80 from any 0"),
        ("-o 203.0.113.1", from_guest("192.0.2.1"), "host 127.0.0.1 80 from any 0"),
        ("--no-map-gw", from_guest("192.0.2.1"), "host 192.0.2.1 80 from any 0"),
        (
            "--map-host-loopback 192.0.2.7",
            from_guest("192.0.2.7", 53, UDP),
            "host 127.0.0.1 53 from any 0",
        ),
        (
            "--map-host-loopback 192.0.2.7",
            from_guest("192.0.2.1"),
            "host 192.0.2.1 80 from any 0",
        ),
        (
            "--no-map-gw --map-host-loopback 192.0.2.7",
            from_guest("192.0.2.7"),
            "host 127.0.0.1 80 from any 0",
        ),
        (
            "--map-guest-addr 203.0.113.9",
            from_guest("203.0.113.9"),
            "host 192.0.2.5 80 from any 0",
        ),
        (
            "--map-guest-addr 2001:db8::9",
            from_guest("2001:db8::9"),
            "host 2001:db8::5 80 from any 0",
        ),
        ("--no-tcp", from_guest("198.51.100.1"), "drop"),
        (
            "--no-tcp",
            from_guest("198.51.100.1", 80, UDP),
            "host 198.51.100.1 80 from any 0",
        ),
        ("--no-udp", from_guest("198.51.100.1", 80, UDP), "drop"),
        ("--no-icmp", from_guest("198.51.100.1", 1, ICMP), "drop"),
        ("--no-icmp", from_guest("2001:db8:1::1", 1, ICMPV6), "drop"),
        ("-4", from_guest("2001:db8:1::1"), "drop"),
        ("-6", from_guest("198.51.100.1"), "drop"),
        ("-6", from_guest("2001:db8:1::1"), "host 2001:db8:1::1 80 from any 0"),
        ("", from_guest("0.0.0.0"), "drop"),
        ("", from_guest("127.0.0.1"), "drop"),
        ("", from_guest("127.9.9.9"), "drop"),
        ("", from_guest("224.0.0.251", 5353, UDP), "drop"),
        ("", from_guest("239.255.255.250", 1900, UDP), "drop"),
        ("", from_guest("255.255.255.255", 67, UDP), "drop"),
        ("", from_guest("::1"), "drop"),
        ("", from_guest("ff02::fb", 5353, UDP), "drop"),
        ("", from_guest("198.51.100.1", 0), "drop"),
        ("", from_guest("198.51.100.1", 0, UDP), "drop"),
        ("", from_guest("198.51.100.1", source="127.0.0.1"), "drop"),
        ("", from_guest("198.51.100.1", source="224.0.0.1"), "drop"),
        ("", from_guest("198.51.100.1", source="0.0.0.0"), "drop"),
        ("", from_guest("2001:db8:1::1", source="ff02::1"), "drop"),
        ("", from_guest("192.0.2.1", source="127.0.0.1"), "drop"),
    ],
)
def test_flows_of_the_guest(line: str, miss: Miss, expected: str) -> None:
    assert outcome(make(line), miss) == expected


@pytest.mark.parametrize(
    ("line", "miss", "expected"),
    [
        (
            "-t 80",
            from_host("198.51.100.9", 80),
            "tap 192.0.2.5 80 from 198.51.100.9 50000",
        ),
        (
            "-t 8080:80",
            from_host("198.51.100.9", 8080),
            "tap 192.0.2.5 80 from 198.51.100.9 50000",
        ),
        (
            "-t 20-30:120-130",
            from_host("198.51.100.9", 25, 5),
            "tap 192.0.2.5 125 from 198.51.100.9 50000",
        ),
        (
            "-t 80",
            from_host("2001:db8:1::9", 80),
            "tap 2001:db8::5 80 from 2001:db8:1::9 50000",
        ),
        (
            "-t none -u 53",
            from_host("198.51.100.9", 53, 0, UDP),
            "tap 192.0.2.5 53 from 198.51.100.9 50000",
        ),
        (  # numbers go on from TCP to UDP
            "-t 20-29 -u 53:54",
            from_host("198.51.100.9", 53, 10, UDP),
            "tap 192.0.2.5 54 from 198.51.100.9 50000",
        ),
        (
            "-t %a/80:81 -t %b/80:82",
            from_host("198.51.100.9", 80, 1),
            "tap 192.0.2.5 82 from 198.51.100.9 50000",
        ),
        ("-t 80", from_host("198.51.100.9", 80, 1), "reject"),
        ("-t 80", from_host("198.51.100.9", 80, 0, UDP), "reject"),
        # sources that mean something else to the guest
        (
            "--no-splice -t 80",
            from_host("127.0.0.1", 80),
            "tap 192.0.2.5 80 from 192.0.2.1 50000",
        ),
        (
            "--no-splice -t 80 --map-host-loopback 192.0.2.7",
            from_host("127.0.0.1", 80),
            "tap 192.0.2.5 80 from 192.0.2.7 50000",
        ),
        (
            "--no-splice -t 80 --no-map-gw",
            from_host("127.0.0.1", 80),
            "tap 192.0.2.5 80 from 192.0.2.1 50000",
        ),
        (
            "--no-splice -t 80",
            from_host("127.0.0.2", 80),
            "tap 192.0.2.5 80 from 192.0.2.1 50000",
        ),
        (
            "--no-splice -t 80",
            from_host("192.0.2.5", 80),
            "tap 192.0.2.5 80 from 192.0.2.1 50000",
        ),
        (
            "--no-splice -t 80 --map-guest-addr 203.0.113.9",
            from_host("192.0.2.5", 80),
            "tap 192.0.2.5 80 from 203.0.113.9 50000",
        ),
        (
            "--no-splice -t 80",
            from_host("::1", 80),
            "tap 2001:db8::5 80 from 2001:db8::1 50000",
        ),
        (
            "--no-splice -t 80 --no-map-gw",
            from_host("::1", 80),
            f"tap 2001:db8::5 80 from {OUR_LL} 50000",
        ),
        (
            "--no-splice -t 80",
            from_host("2001:db8::5", 80),
            f"tap 2001:db8::5 80 from {OUR_LL} 50000",
        ),
    ],
)
def test_flows_of_the_host(line: str, miss: Miss, expected: str) -> None:
    assert outcome(make(line), miss) == expected


def test_inbound_goes_to_the_address_that_the_guest_uses() -> None:
    decider = make("-t 80")
    decider.by_rules(from_guest("198.51.100.1", source="192.0.2.77"))
    assert outcome(decider, from_host("198.51.100.9", 80)).startswith("tap 192.0.2.77 ")


def test_link_local_source_reaches_the_guests_link_local_address() -> None:
    decider = make("-t 80 --no-map-gw --no-splice")
    decider.by_rules(from_guest("2001:db8:1::1", source="fe80::77"))
    assert outcome(decider, from_host("::1", 80)).startswith("tap fe80::77 ")
    assert outcome(decider, from_host("2001:db8:1::9", 80)).startswith(
        "tap 2001:db8::5 "
    )


def test_without_any_guest_address_inbound_is_refused() -> None:
    nobody = HostInfo(gateway4=IPv4Address("192.0.2.1"))
    decider = make("-t 80", nobody)
    assert outcome(decider, from_host("198.51.100.9", 80)) == "reject"


def test_without_a_gateway_unusable_sources_are_refused() -> None:
    decider = make("-t 80 --no-splice", HostInfo(guest4=IPv4Address("192.0.2.5")))
    assert outcome(decider, from_host("127.0.0.1", 80)) == "reject"


def test_a_family_that_the_host_lacks_is_dropped() -> None:
    decider = make("", HostInfo(ipv6=False, guest4=IPv4Address("192.0.2.5")))
    assert outcome(decider, from_guest("2001:db8:1::1")) == "drop"


@pytest.mark.parametrize(
    "addr", ["0.0.0.0", "127.0.0.1", "224.0.0.1", "::", "::1", "ff02::1"]
)
def test_guest_is_never_believed_to_be_at(addr: str) -> None:
    guest = GuestAddresses.from_host(HOST)
    guest.observe(raw(addr))
    assert guest.addr4 == raw("192.0.2.5")
    assert guest.addr6 == raw("2001:db8::5")


def test_family_of_a_flow_never_changes() -> None:
    decider = make("-t 80 -T 90 --map-guest-addr 203.0.113.9")
    for miss in (
        from_guest("192.0.2.1"),
        from_guest("2001:db8::1"),
        from_guest("203.0.113.9"),
        from_host("127.0.0.1", 80),
        from_host("::1", 80),
        from_host("198.51.100.9", 80),
    ):
        verdict = decider.by_rules(miss)
        target, ours = from_inany(verdict.eaddr), from_inany(verdict.oaddr)
        assert target.version == from_inany(miss.eaddr).version
        assert verdict.oaddr == UNSPECIFIED or ours.version == target.version


def test_verdict_names_the_rule_and_hits_are_counted() -> None:
    decider = make()
    verdicts = [decider.by_rules(from_guest("198.51.100.1")) for _ in range(3)]
    (id_,) = {verdict.rule for verdict in verdicts}
    assert {verdict.generation for verdict in verdicts} == {decider.generation}
    assert decider.hits[id_] == 3
    assert sum(decider.hits.values()) == 3


def test_explaining_a_flow_counts_nothing() -> None:
    decider = make("--no-tcp")
    found = explain_miss(decider, from_guest("198.51.100.1"))
    assert found.listed is not None
    assert found.listed.rule.why == "TCP is disabled"
    assert sum(decider.hits.values()) == 0


def test_no_rules_at_all_drop() -> None:
    decider = Decider(())
    assert outcome(decider, from_guest("198.51.100.1")) == "drop"
    assert decider.hits == {0: 1}


def test_the_policy_prints_as_it_decides() -> None:
    host = HostInfo(
        guest4=IPv4Address("192.0.2.5"), gateway4=IPv4Address("192.0.2.1"), ipv6=False
    )
    line = "--no-udp -t 8080:80 -T none --map-guest-addr 203.0.113.9"
    decider = make(line, host)
    decider.by_rules(from_guest("198.51.100.1"))
    nowhere = "0.0.0.0/8,127.0.0.0/8,224.0.0.0/4,255.255.255.255/32,"
    nowhere += "::/128,::1/128,ff00::/8"
    assert list(explain(decider)) == [
        "rule    id     hits  match => outcome",
        "   1     1        0  tap any to ::/0 => drop  (IPv6 is disabled)",
        "   2     2        0  tap udp => drop  (UDP is disabled)",
        f"   3     3        0  tap any from {nowhere} => drop  (no valid source)",
        (
            "   4     4        0  tap any to 192.0.2.1/32 => host 127.0.0.1"
            "  (host loopback, mapped)"
        ),
        (
            "   5     5        0  tap any to 203.0.113.9/32 => host 192.0.2.5"
            "  (the guest's address on the host)"
        ),
        f"   6     6        0  tap any to {nowhere} => drop  (no valid destination)",
        "   7     7        0  tap tcp port 0 => drop  (port 0)",
        "   8     8        0  tap udp port 0 => drop  (port 0)",
        "   9     9        1  tap any => host as asked  (the outside)",
        (
            "  10    10        0  host tcp from 127.0.0.0/8,::1/128 listener 0"
            " => splice namespace address port -8000  (TCP [*]:8080  =>  80)"
        ),
        (
            "  11    11        0  host tcp listener 0 => guest port -8000"
            "  (TCP [*]:8080  =>  80)"
        ),
        "  12    12        0  host any => reject  (no rule for this listener)",
        (
            "  13    13        0  splice any => reject"
            "  (not from the namespace's loopback)"
        ),
        "sources of inbound flows, as the guest sees them:",
        "    127.0.0.1 as 192.0.2.1",
        "    its own address as 203.0.113.9",
        f"    its own address, {nowhere} as 192.0.2.1,{OUR_LL}",
        "    any other unchanged",
    ]


@pytest.mark.parametrize(
    ("network", "count"),
    [
        (IPv4Network("224.0.0.0/4"), 16),
        (IPv4Network("192.0.2.0/24"), 1),
        (IPv4Network("192.0.2.0/31"), 2),
        (IPv6Network("fe80::/10"), 64),
        (IPv6Network("2001:db8::1/128"), 1),
    ],
)
def test_networks_become_byte_prefixes(network: Network, count: int) -> None:
    prefixes = compile_network(network)
    assert len(prefixes) == count
    first, last = network[0], network[-1]
    assert inany(first).startswith(prefixes)
    assert inany(last).startswith(prefixes)
    assert not inany(first - 1).startswith(prefixes)
    assert not inany(last + 1).startswith(prefixes)


# Sources that the guest's programs choose

CHOICES = ("192.0.2.5", "192.0.2.6", "2001:db8::5", "2001:db8::6")
CHOOSING = replace(HOST, choices=tuple(map(ip_address, CHOICES)))


def choosing(line: str, hosts_own: str) -> Decider:
    """A policy for a host that would talk from `hosts_own` to anybody."""
    rules = rules_from_view(View.of(parse_pasta(line.split()), CHOOSING))
    guest = GuestAddresses.from_host(CHOOSING)
    return Decider(rules, guest, lambda _: raw(hosts_own))


@pytest.mark.parametrize("proto", [TCP, UDP, ICMP])
@pytest.mark.parametrize(
    ("line", "hosts_own", "source", "bound"),
    [
        ("", "192.0.2.5", "192.0.2.6", "192.0.2.6"),  # chosen
        ("", "192.0.2.6", "192.0.2.5", "any"),  # the usual one: maybe not chosen
        ("", "10.8.0.2", "192.0.2.6", "any"),  # through another interface: a VPN
        ("", "192.0.2.5", "192.0.2.7", "any"),  # not the host's
        ("-o 203.0.113.1", "192.0.2.5", "192.0.2.6", "203.0.113.1"),
    ],
)
def test_a_source_that_a_program_chose_is_kept(
    proto: int, line: str, hosts_own: str, source: str, bound: str
) -> None:
    decider = choosing(line, hosts_own)
    miss = from_guest("198.51.100.1", 80, proto, source)
    assert outcome(decider, miss) == f"host 198.51.100.1 80 from {bound} 0"


def test_an_ipv6_source_that_a_program_chose_is_kept() -> None:
    decider = choosing("", "2001:db8::5")
    miss = from_guest("2001:db8:1::1", source="2001:db8::6")
    assert outcome(decider, miss) == "host 2001:db8:1::1 80 from 2001:db8::6 0"


def test_a_client_on_the_host_may_come_from_any_address_that_the_guest_has() -> None:
    """Or the guest would hear from itself."""
    host = replace(HOST, guests=frozenset(map(ip_address, CHOICES)))
    decider = make("-t 80", host)
    for source, seen in (("192.0.2.6", "192.0.2.1"), ("2001:db8::6", OUR_LL)):
        [target] = [
            t for t in ("192.0.2.5", "2001:db8::5") if (":" in t) == (":" in source)
        ]
        shown = outcome(decider, from_host(source, 80))
        assert shown == f"tap {target} 80 from {seen} 50000"


@pytest.mark.parametrize(
    ("template4", "template6", "mapped", "reached"),
    [
        (None, "eth0", "203.0.113.9", "2001:db8::5"),
        ("eth0", None, "2001:db8::9", "192.0.2.5"),
        ("eth0", "eth0", "203.0.113.9", "192.0.2.5"),
    ],
)
def test_the_host_is_reached_by_the_family_that_it_has(
    template4: str | None, template6: str | None, mapped: str, reached: str
) -> None:
    host = replace(HOST, template4=template4, template6=template6)
    decider = make(f"--map-guest-addr {mapped}", host)
    shown = outcome(decider, from_guest(mapped))
    assert shown == f"host {reached} 80 from any 0"

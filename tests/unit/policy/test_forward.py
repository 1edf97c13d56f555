# SPDX-License-Identifier: GPL-2.0-or-later
"""Where we listen for which option, and which loopback flows bypass the tap."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import product
from typing import NamedTuple

import pytest

from passtpy.addr import UNSPECIFIED, from_inany, inany
from passtpy.config.cli import parse_passt, parse_pasta
from passtpy.config.forwards import (
    SPARE_NUMBERS,
    Forward,
    ForwardBook,
    NumbersExhausted,
    forwards_from_config,
    needs_namespace_sockets,
)
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.portrule import PortRule
from passtpy.config.view import View
from passtpy.flow import Action, Pif
from passtpy.policy.decide import Decider
from passtpy.policy.explain import explain
from passtpy.policy.rules import rules_from_view

TCP, UDP = 6, 17
NONE = "-t none -u none -T none -U none "
HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    gateway4=IPv4Address("192.0.2.1"),
    guest6=IPv6Address("2001:db8::5"),
    gateway6=IPv6Address("2001:db8::1"),
)


class Miss(NamedTuple):
    proto: int
    pif: int
    eaddr: bytes
    eport: int
    oaddr: bytes
    oport: int
    listener: int
    crossed: bool = False
    again: bool = False


def forwards(line: str) -> list[Forward]:
    return list(forwards_from_config(parse_pasta(line.split())))


def make(line: str, host: HostInfo = HOST) -> Decider:
    rules = rules_from_view(View.of(parse_pasta(line.split()), host))
    return Decider(rules, GuestAddresses.from_host(host))


def miss(
    pif: Pif, peer: str, port: int, listener: int, proto: int = TCP, at: str = ""
) -> Miss:
    to = at or ("127.0.0.1" if "." in peer else "::1")
    addresses = inany(ip_address(peer)), inany(ip_address(to))
    return Miss(proto, pif, addresses[0], 50000, addresses[1], port, listener)


def outcome(decider: Decider, asked: Miss) -> str:
    verdict = decider.by_rules(asked)
    if verdict.action in (Action.DROP, Action.REJECT):
        return Action(verdict.action).name.lower()
    how = f"{Action(verdict.action).name} {Pif(verdict.pif).name}".lower()
    source = verdict.oaddr
    ours = "any" if source == UNSPECIFIED else str(from_inany(source))
    return f"{how} {from_inany(verdict.eaddr)} {verdict.eport} from {ours}"


def test_listener_numbers_go_through_all_options() -> None:
    found = forwards("-t 20-21 -t 192.0.2.9%eth0/22 -u 53 -T 80-81:90-91 -U none")
    assert [(f.id, f.pif, f.rule.proto, f.numbers) for f in found] == [
        (1, Pif.HOST, TCP, range(2)),
        (2, Pif.HOST, TCP, range(2, 3)),
        (3, Pif.HOST, UDP, range(3, 4)),
        (4, Pif.SPLICE, TCP, range(4, 8)),
    ]


def test_a_forward_keeps_id_and_numbers_whatever_comes_and_goes() -> None:
    def rules(line: str) -> tuple[PortRule, ...]:
        return parse_pasta(f"{line} -u none -T none -U none".split()).host_ports

    book = ForwardBook()
    first = book.plan(rules("-t 20-21 -t 30 -t 40"), ())
    book.keep(first)
    second = book.plan(rules("-t 50 -t 40 -t 20-21"), ())
    assert [(f.rule.first, f.id, f.numbers.start) for f in second] == [
        (50, 4, 4),
        (40, 3, 3),
        (20, 1, 0),
    ]
    assert book.plan(rules("-t 30"), ())[0].id == 2  # not kept yet
    book.keep(second)
    again = book.plan(rules("-t 30"), ())
    assert (again[0].id, again[0].numbers) == (5, range(5, 6))


@pytest.mark.parametrize("ports", [1, 20_001])
def test_numbers_come_round_again(ports: int) -> None:
    words = ["-t", "50000", "-u", "none", "-T", "none", "-U", "none"]
    kept = parse_pasta(words).host_ports
    book = ForwardBook(first_number=100)
    book.keep(book.plan(kept, ()))
    used = []
    for first in range(1, 10_000):
        rule = PortRule(TCP, None, None, first, first + ports - 1)
        planned = book.plan((*kept, rule), ())
        assert planned[0].numbers == range(100, 101)
        assert planned[1].numbers.start > 100
        used.append(planned[1].numbers)
        book.keep(planned)
    assert max(numbers.stop for numbers in used) <= 101 + 3 * ports + SPARE_NUMBERS
    recent = 1 + SPARE_NUMBERS // ports  # all different
    assert len({numbers.start for numbers in used[-recent:]}) == recent
    assert used[-1].start != used[-2].start


def test_numbers_end() -> None:
    wide = tuple(PortRule(TCP, None, f"if{n}", 1, 65535) for n in range(40))
    with pytest.raises(NumbersExhausted):
        ForwardBook().plan(wide, ())


def test_a_port_of_the_namespace_may_have_two_sockets() -> None:
    (found,) = forwards("-t none -u none -T 80-81 -U none")
    numbers = [found.number(port, nth) for port in (80, 81) for nth in (0, 1)]
    assert numbers == [0, 1, 2, 3]


def test_a_family_that_the_host_may_get_later_has_its_sockets() -> None:
    assert {item.rule.addr for item in forwards("-t 1 -u 1 -T 1 -U 1")} == {None}


@pytest.mark.parametrize(("line", "addr"), [("-4 -t 1", "0.0.0.0"), ("-6 -t 1", "::")])
def test_one_family_alone_has_its_own_wildcard(line: str, addr: str) -> None:
    assert {item.rule.addr for item in forwards(line)} == {ip_address(addr)}


@pytest.mark.parametrize(
    ("line", "needed"),
    [
        ("", True),
        (NONE, False),
        ("-t 80 -u none -T none -U none", True),
        ("-t 80 -u none -T none -U none --no-splice", False),
        ("-t none -u none -T 80 -U none --no-splice", True),
        ("-t auto -u none -T none -U none --no-splice", True),
    ],
)
def test_namespace_sockets_are_made_only_where_needed(line: str, needed: bool) -> None:
    assert needs_namespace_sockets(parse_pasta(line.split())) is needed


@pytest.mark.parametrize(
    ("line", "asked", "expected"),
    [
        (
            "-t 8080:80",
            miss(Pif.HOST, "127.0.0.1", 8080, 0),
            "splice splice 192.0.2.5 80 from any",
        ),
        (
            "-t 8080:80",
            miss(Pif.HOST, "127.0.0.9", 8080, 0),
            "splice splice 192.0.2.5 80 from any",
        ),
        (
            "-t 80",
            miss(Pif.HOST, "::1", 80, 0),
            "splice splice 2001:db8::5 80 from any",
        ),
        (
            "-t 80 --host-lo-to-ns-lo",
            miss(Pif.HOST, "127.0.0.1", 80, 0),
            "splice splice 127.0.0.1 80 from any",
        ),
        (
            "-t 80 --host-lo-to-ns-lo",
            miss(Pif.HOST, "127.0.0.1", 80, 0, at="127.0.0.5"),
            "splice splice 127.0.0.5 80 from any",
        ),
        (
            "-t 0.0.0.0/8080:198.51.100.77/80",
            miss(Pif.HOST, "127.0.0.1", 8080, 0),
            "forward tap 198.51.100.77 80 from 192.0.2.1",
        ),
        (
            "-t 0.0.0.0/8080:198.51.100.77",
            miss(Pif.HOST, "203.0.113.4", 8080, 0, at="198.51.100.1"),
            "forward tap 198.51.100.77 8080 from 203.0.113.4",
        ),
        (
            "-t 80 --host-lo-to-ns-lo",
            miss(Pif.HOST, "::1", 80, 0),
            "splice splice ::1 80 from any",
        ),
        (
            "-t 80 --preserve-source",
            miss(Pif.HOST, "127.0.0.9", 80, 0),
            "splice splice 192.0.2.5 80 from 127.0.0.9",
        ),
        (  # the guest has the same address: over the tap it could not be told
            "-t 80 --preserve-source",
            miss(Pif.HOST, "192.0.2.5", 80, 0, at="192.0.2.5"),
            "splice splice 192.0.2.5 80 from 192.0.2.5",
        ),
        (
            "-t 80",
            miss(Pif.HOST, "192.0.2.5", 80, 0, at="192.0.2.5"),
            "forward tap 192.0.2.5 80 from 192.0.2.1",
        ),
        (
            "-t 80 --no-splice",
            miss(Pif.HOST, "127.0.0.1", 80, 0),
            "forward tap 192.0.2.5 80 from 192.0.2.1",
        ),
        (
            "-t 80",
            miss(Pif.HOST, "198.51.100.9", 80, 0, at="198.51.100.1"),
            "forward tap 192.0.2.5 80 from 198.51.100.9",
        ),
        (
            "-t 80 --splice-only",
            miss(Pif.HOST, "127.0.0.1", 80, 0),
            "splice splice 127.0.0.1 80 from any",
        ),
        (
            "-t 80 --splice-only",
            miss(Pif.HOST, "198.51.100.9", 80, 0, at="198.51.100.1"),
            "reject",
        ),
        (
            "-t none -u 53:54",
            miss(Pif.HOST, "127.0.0.1", 53, 0, UDP),
            "splice splice 192.0.2.5 54 from any",
        ),
        (
            "-t none -u none -T 80:81",
            miss(Pif.SPLICE, "127.0.0.1", 80, 0),
            "splice host 127.0.0.1 81 from 127.0.0.1",
        ),
        (
            "-t none -u none -T 80:81",
            miss(Pif.SPLICE, "::1", 80, 1),
            "splice host ::1 81 from ::1",
        ),
        (
            "-t none -u none -T none -U 53",
            miss(Pif.SPLICE, "127.0.0.1", 53, 0, UDP),
            "splice host 127.0.0.1 53 from 127.0.0.1",
        ),
        (
            "-t none -u none -T 80",
            miss(Pif.SPLICE, "127.0.0.7", 80, 0, at="127.0.0.9"),
            "splice host 127.0.0.9 80 from 127.0.0.7",
        ),
        (  # by way of lo, but not between loopback addresses
            "-t none -u none -T 80",
            miss(Pif.SPLICE, "192.0.2.5", 80, 0, at="192.0.2.5"),
            "reject",
        ),
        (NONE, miss(Pif.SPLICE, "127.0.0.1", 80, 0), "reject"),
    ],
)
def test_loopback_flows(line: str, asked: Miss, expected: str) -> None:
    assert outcome(make(line), asked) == expected


def test_a_namespace_without_known_address_is_reached_at_its_loopback() -> None:
    decider = make("-t 80", HostInfo(gateway4=IPv4Address("192.0.2.1")))
    assert (
        outcome(decider, miss(Pif.HOST, "127.0.0.1", 80, 0))
        == "splice splice 127.0.0.1 80 from any"
    )


def test_spliced_flows_follow_the_address_that_the_guest_uses() -> None:
    decider = make("-t 80")
    decider.guest.observe(inany(ip_address("192.0.2.77")))
    assert outcome(decider, miss(Pif.HOST, "127.0.0.1", 80, 0)).startswith(
        "splice splice 192.0.2.77 "
    )


def test_splice_rules_print_as_they_decide() -> None:
    line = "--splice-only --preserve-source -t 8080:80 -u none -T 9 -U none"
    host = HostInfo(guest4=IPv4Address("192.0.2.5"))
    assert list(explain(make(line, host)))[1:] == [
        (
            "   1     1        0  host tcp from 127.0.0.0/8,::1/128,192.0.2.5/32"
            " listener 0 => splice namespace loopback port -8000 with its source"
            "  (TCP [*]:8080  =>  80)"
        ),
        (
            "   2     2        0  splice tcp from 127.0.0.0/8,::1/128"
            " to 127.0.0.0/8,::1/128 listener 1-2 => splice host loopback"
            "  (TCP [*]%lo:9  =>  9)"
        ),
        "   3     3        0  host any => reject  (no rule for this listener)",
        (
            "   4     4        0  splice any => reject"
            "  (not from the namespace's loopback)"
        ),
    ]


@pytest.mark.parametrize(
    ("peer", "seen"),
    [
        ("127.0.0.1", "192.0.2.1"),
        ("127.0.0.2", "192.0.2.1"),
        ("::1", "2001:db8::1"),
        ("198.51.100.9", "198.51.100.9"),
    ],
)
def test_nothing_bypasses_the_socket_of_a_machine(peer: str, seen: str) -> None:
    """Loopback sources are the address that stands for the host, others stay."""
    config = parse_passt(["-t", "80"])
    rules = rules_from_view(View.of(config, HOST))
    decider = Decider(rules, GuestAddresses.from_host(HOST))
    verdict = decider.by_rules(miss(Pif.HOST, peer, 80, 0))
    assert (verdict.action, verdict.pif) == (Action.FORWARD, Pif.TAP)
    assert str(from_inany(verdict.oaddr)) == seen
    assert not needs_namespace_sockets(config)


@pytest.mark.parametrize(
    ("line", "source", "expected"),
    [
        ("-t 80", "::1", "splice splice 2001:db8:7::aa 80 from any"),
        ("-t 80", "2001:db8::5", "forward tap 2001:db8:7::aa 80 from 2001:db8::5"),
        (
            "-t 80 --preserve-source",
            "2001:db8::5",
            "forward tap 2001:db8:7::aa 80 from 2001:db8::5",
        ),
        ("-t 80", "127.0.0.1", "splice splice 127.0.0.1 80 from any"),
    ],
)
def test_a_namespace_that_configured_itself_is_reached_where_it_is(
    line: str, source: str, expected: str
) -> None:
    """It has none of the addresses that were planned for it, and no IPv4 at all."""
    decider = make(line)
    decider.guest.present = (inany(ip_address("2001:db8:7::aa")),)
    assert outcome(decider, miss(Pif.HOST, source, 80, 0)) == expected


@pytest.mark.parametrize(
    ("line", "ours"),
    [
        ("--no-map-gw", "2001:db8::1"),
        ("--no-map-gw -g fd57::1", "2001:db8::1"),
        ("--no-map-gw --map-guest-addr fd57::2", "fd57::2"),
        ("--map-guest-addr fd57::2", "fd57::2"),
        ("", "fe80::1"),  # there is no other
    ],
)
def test_who_is_behind_the_guest_sees_an_address_that_is_routed(
    line: str, ours: str
) -> None:
    """A packet from a link-local one would not get there."""
    host = replace(HOST, gateway6=IPv6Address("fe80::1"))
    if ours == "2001:db8::1":
        host = HOST
    decider = make(f"-t [::]/80:fd57:89::5/81 {NONE[8:]} {line}", host)
    asked = miss(Pif.HOST, "::1", 80, 0)
    assert outcome(decider, asked) == f"forward tap fd57:89::5 81 from {ours}"


CROSSING = [
    # client, first verdict, and where it goes when nobody listens there
    (
        "-t 80:90",
        Pif.HOST,
        "203.0.113.9",
        "forward tap 192.0.2.5 90 from 203.0.113.9",
        "forward tap 2001:db8::5 90 from fe80::9855:9aff:fe55:9a55",
    ),
    (
        "-t 80:90",
        Pif.HOST,
        "2001:db8:9::9",
        "forward tap 2001:db8::5 90 from 2001:db8:9::9",
        "forward tap 192.0.2.5 90 from 192.0.2.1",
    ),
    (
        "-t 80:90",
        Pif.HOST,
        "::1",
        "splice splice 2001:db8::5 90 from any",
        "splice splice 192.0.2.5 90 from any",
    ),
    (
        "-t 80:90 --host-lo-to-ns-lo --preserve-source",
        Pif.HOST,
        "127.0.0.9",
        "splice splice 127.0.0.1 90 from 127.0.0.9",
        "splice splice ::1 90 from any",
    ),
    (
        "-t none -T 80:90",
        Pif.SPLICE,
        "::1",
        "splice host ::1 90 from ::1",
        "splice host 127.0.0.1 90 from any",
    ),
    ("-4 -t 80", Pif.HOST, "127.0.0.1", "splice splice 192.0.2.5 80 from any", ""),
    (
        "-t 0.0.0.0/80:198.51.100.7/80",
        Pif.HOST,
        "203.0.113.9",
        "forward tap 198.51.100.7 80 from 203.0.113.9",
        "",
    ),
]


@pytest.mark.parametrize(("line", "pif", "peer", "first", "then"), CROSSING)
def test_a_refused_connection_goes_on_in_the_other_family(
    line: str, pif: Pif, peer: str, first: str, then: str
) -> None:
    rest = " -u none -U none" + (" -T none" if "-T" not in line else "")
    decider = make(line + rest)
    asked = miss(pif, peer, 80, 0)
    assert outcome(decider, asked) == first
    assert outcome(decider, asked._replace(again=True)) == (then or "reject")
    assert sum(decider.hits.values()) == 1


@pytest.mark.parametrize(
    ("line", "pif", "peer", "first", "then"), [case for case in CROSSING if case[4]]
)
def test_datagrams_go_on_in_the_other_family(
    line: str, pif: Pif, peer: str, first: str, then: str
) -> None:
    """When it refused them; or at once, where another client was served: then back."""
    line = line.replace("-t ", "-u ").replace("-T ", "-U ")
    rest = " -t none -T none" + (" -U none" if "-U" not in line else "")
    decider = make(line + rest)
    asked = miss(pif, peer, 80, 0)._replace(proto=UDP)
    for crossed, again in product((False, True), repeat=2):
        told = asked._replace(crossed=crossed, again=again)
        assert outcome(decider, told) == (first if crossed == again else then)
        verdict = decider.judge(told)
        assert verdict.crosses


@pytest.mark.parametrize("line", ["-4 -u 80", "-u 0.0.0.0/80:198.51.100.7/80"])
def test_no_datagram_is_kept_that_has_no_other_place(line: str) -> None:
    decider = make(line + " -t none -T none -U none")
    asked = miss(Pif.HOST, "203.0.113.9", 80, 0)._replace(proto=UDP)
    assert not decider.judge(asked).crosses


def test_datagrams_stay_where_the_guest_has_no_address_of_the_other_family() -> None:
    decider = make("-u 80 -t none -T none -U none")
    decider.guest.addr6 = decider.guest.link_local6 = UNSPECIFIED
    decider.guest.present = None
    asked = miss(Pif.HOST, "203.0.113.9", 80, 0)._replace(proto=UDP)
    assert outcome(decider, asked._replace(again=True)) == outcome(decider, asked)


def test_a_guest_of_one_family_is_not_asked_in_the_other() -> None:
    decider = make("-t 80 -u 80 -T none -U none")
    decider.guest.observe(inany(ip_address("192.0.2.5")))  # and nothing of IPv6
    asked = miss(Pif.HOST, "2001:db8:9::9", 80, 0)
    assert outcome(decider, asked) == "forward tap 192.0.2.5 80 from 192.0.2.1"
    refused = asked._replace(again=True)
    assert outcome(decider, refused) == (
        "forward tap 2001:db8::5 80 from 2001:db8:9::9"
    )
    datagram = asked._replace(proto=UDP, listener=1)
    assert outcome(decider, datagram) == (  # for it would be lost if that is wrong
        "forward tap 2001:db8::5 80 from 2001:db8:9::9"
    )
    decider.guest.present = (inany(ip_address("192.0.2.5")),)
    assert outcome(decider, datagram) == "forward tap 192.0.2.5 80 from 192.0.2.1"


@pytest.mark.parametrize(
    ("line", "peer", "group", "expected"),
    [
        (
            "-u 5353",
            "198.51.100.9",
            "224.0.0.251",
            "forward tap 224.0.0.251 5353 from 198.51.100.9",
        ),
        (
            "-u 5353:6000",
            "2001:db8:9::9",
            "ff02::fb",
            "forward tap ff02::fb 6000 from 2001:db8:9::9",
        ),
        (
            "-u 0.0.0.0/5353",
            "198.51.100.9",
            "255.255.255.255",
            "forward tap 255.255.255.255 5353 from 198.51.100.9",
        ),
        (
            "-u 5353",
            "127.0.0.1",
            "224.0.0.251",
            "forward tap 224.0.0.251 5353 from 192.0.2.1",
        ),
        (
            "-u 0.0.0.0/5353:192.0.2.77/53",
            "198.51.100.9",
            "224.0.0.251",
            "forward tap 192.0.2.77 53 from 198.51.100.9",
        ),
        ("-u 5353 --multicast-relay", "198.51.100.9", "224.0.0.251", "drop"),
        (
            "-u 5353 --multicast-relay=239.1.2.3/5353",
            "198.51.100.9",
            "224.0.0.251",
            "forward tap 224.0.0.251 5353 from 198.51.100.9",
        ),
    ],
)
def test_what_is_meant_for_a_group_stays_for_it(
    line: str, peer: str, group: str, expected: str
) -> None:
    words = f"{line} -t none -T none -U none"
    (forward,) = forwards(words)
    asked = miss(Pif.HOST, peer, 5353, forward.number(5353), UDP, group)
    assert outcome(make(words), asked) == expected


@pytest.mark.parametrize(
    ("line", "asked", "told"),
    [
        ("-t 80,proxy=v1", miss(Pif.HOST, "203.0.113.1", 80, 0), 1),
        ("-t 80,proxy=v2", miss(Pif.HOST, "127.0.0.1", 80, 0), 2),
        ("-t 80,proxy=v2 --preserve-source", miss(Pif.HOST, "203.0.113.1", 80, 0), 2),
        ("-t none -T 80,proxy=v1", miss(Pif.SPLICE, "127.0.0.1", 80, 0), 1),
        ("-t 80", miss(Pif.HOST, "127.0.0.1", 80, 0), 0),
    ],
)
def test_who_is_told_of_its_client(line: str, asked: Miss, told: int) -> None:
    options = line if "-T" in line else f"{line} -T none"
    decider = make(f"{options} -u none -U none")
    assert decider.by_rules(asked).proxy == told
    shown = [text for text in explain(decider) if " by PROXY v" in text]
    assert bool(shown) == bool(told)

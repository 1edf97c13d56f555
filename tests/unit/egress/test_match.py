# SPDX-License-Identifier: GPL-2.0-or-later
"""Which rule matches first: by name, by network, and what no rule opens by chance."""

import random
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest

from passtpy.addr import inany
from passtpy.egress.document import parse_policy
from passtpy.egress.match import Matcher
from passtpy.egress.model import Effect, EgressRule, Ports, Sets, Span, Targets
from passtpy.egress.target import read_word
from passtpy.egress.zones import Surroundings
from passtpy.flow import IPPROTO_ICMP, IPPROTO_TCP, IPPROTO_UDP

AROUND = Surroundings(
    hosts=frozenset((IPv4Address("198.51.100.5"), IPv4Address("192.168.1.5"))),
    networks=frozenset(map(ip_network, ("198.51.100.64/28", "2001:db8:7::/48"))),
    resolvers=frozenset((IPv4Address("192.168.1.1"), IPv4Address("127.0.0.53"))),
)
PUBLIC = "203.0.113.9"


def _rules(*words: str) -> list[EgressRule]:
    """Return the rules that words like `+github.com:443` and `-@private` stand for."""
    effects = {"+": Effect.ALLOW, "-": Effect.REJECT, "?": Effect.ASK}
    return [read_word(word[1:], effects[word[0]], {}) for word in words]


def _found(
    words: Sequence[str],
    to: str,
    port: int = 443,
    proto: int = IPPROTO_TCP,
    names: Sequence[str] = (),
) -> int | None:
    """Return the number of the rule that a flow hits."""
    matcher = Matcher(_rules(*words), AROUND)
    line, _ = matcher.find(inany(ip_address(to)), port, proto, names)
    return None if line is None else line.number


def test_the_first_rule_that_matches_wins() -> None:
    words = ["-203.0.113.9:22", "+203.0.113.0/24", "-203.0.113.9"]
    assert _found(words, PUBLIC) == 1
    assert _found(words, PUBLIC, 22) == 0
    assert _found(words, "203.0.112.9") is None


def test_the_narrowest_network_does_not_win() -> None:
    assert _found(["+203.0.113.0/24", "-203.0.113.9/32"], PUBLIC) == 0


def test_ranges_begin_and_end_where_they_say() -> None:
    words = ["+203.0.113.5-203.0.113.7"]
    hits = [_found(words, f"203.0.113.{n}") for n in range(4, 9)]
    assert hits == [None, 0, 0, 0, None]


@pytest.mark.parametrize("end", ["0.0.0.1", "255.255.255.254", "2000::", "ff00::"])
def test_the_ends_of_the_address_space_are_found(end: str) -> None:
    assert _found(["-0.0.0.0/0", "-::/0"], end) is not None


def test_protocols_and_ports_are_conditions() -> None:
    words = ["+203.0.113.0/24:53,80-90/udp"]
    assert _found(words, PUBLIC, 85, IPPROTO_UDP) == 0
    assert _found(words, PUBLIC, 85, IPPROTO_TCP) is None
    assert _found(words, PUBLIC, 91, IPPROTO_UDP) is None
    assert (
        _found(["+203.0.113.0/24:0-90".replace("0-90", "1-90")], PUBLIC, 7, 1) is None
    )
    assert _found(["+203.0.113.0/24"], PUBLIC, 7, IPPROTO_ICMP) == 0


def test_a_name_matches_itself_and_a_star_what_is_below() -> None:
    exact, below = ["+example.com"], ["+*.example.com"]
    assert _found(exact, PUBLIC, names=["example.com"]) == 0
    assert _found(exact, PUBLIC, names=["www.example.com"]) is None
    assert _found(below, PUBLIC, names=["example.com"]) is None
    assert _found(below, PUBLIC, names=["www.example.com"]) == 0
    assert _found(below, PUBLIC, names=["a.b.example.com"]) == 0
    assert _found(below, PUBLIC, names=["wwwexample.com"]) is None
    assert _found(exact, PUBLIC, names=["com"]) is None
    assert _found(exact, PUBLIC) is None


def test_the_order_of_rules_joins_names_and_networks() -> None:
    assert _found(["-203.0.113.0/24", "+a.example"], PUBLIC, names=["a.example"]) == 0
    assert _found(["+a.example", "-203.0.113.0/24"], PUBLIC, names=["a.example"]) == 0
    words = ["-ads.example", "+*.example", "+cdn.test"]
    assert _found(words, PUBLIC, names=["b.example", "cdn.test"]) == 1
    assert _found(words, PUBLIC, names=["ads.example", "cdn.test"]) == 0


GUARDED = [
    ("127.0.0.1", "@host"),
    ("127.8.9.1", "@host"),
    ("0.0.0.0", "@host"),
    ("::1", "@host"),
    ("198.51.100.5", "@host"),
    ("192.168.1.5", "@host"),
    ("198.51.100.79", "@host"),
    ("2001:db8:7:1::1", "@host"),
    ("64:ff9b::c633:6440", "@host"),
    ("192.168.7.7", "@private"),
    ("10.255.0.1", "@private"),
    ("100.64.0.1", "@private"),
    ("fd00::7", "@private"),
    ("169.254.1.1", "@link-local"),
    ("fe80::1", "@link-local"),
    ("224.0.0.251", "@link-local"),
    ("239.255.255.250", "@link-local"),
    ("255.255.255.255", "@link-local"),
    ("ff02::fb", "@link-local"),
    ("2001:0:cb00:7101::f5ff:fffe", "@private"),
    ("::ffff:0:10.0.0.1", "@private"),
    ("::ffff:0:127.0.0.1", "@host"),
    ("::10.0.0.1", "@host"),
    ("169.254.169.254", "@metadata"),
    ("100.100.100.200", "@metadata"),
    ("168.63.129.16", "@metadata"),
    ("fd00:ec2::254", "@metadata"),
    ("64:ff9b::7f00:1", "@host"),
    ("64:ff9b::a9fe:a9fe", "@metadata"),
    ("64:ff9b::c0a8:707", "@private"),
    ("2002:a00:1::1", "@private"),
    ("2002:c633:6405::", "@host"),
]


@pytest.mark.parametrize(("to", "zone"), GUARDED)
def test_no_rule_opens_a_zone_that_it_does_not_name(to: str, zone: str) -> None:
    wide = ["+0.0.0.0/0", "+::/0", "+@internet", "+any.example"]
    wide += [
        f"+{each}"
        for each in ("@host", "@private", "@link-local", "@metadata")
        if each != zone
    ]
    assert _found(wide, to, names=["any.example"]) is None
    matcher = Matcher([EgressRule()], AROUND)
    assert matcher.find(inany(ip_address(to)), 1, IPPROTO_TCP)[0] is None


@pytest.mark.parametrize(("to", "zone"), GUARDED)
def test_a_zone_is_opened_by_its_set_or_by_its_address(to: str, zone: str) -> None:
    assert _found([f"+{zone}"], to) == 0
    assert _found([f"+[{to}]"], to) == 0
    assert Matcher([], AROUND).piece(inany(ip_address(to))).zone == zone


@pytest.mark.parametrize("to", [to for to, _ in GUARDED])
def test_what_is_refused_is_refused_in_every_zone(to: str) -> None:
    assert _found(["-0.0.0.0/0", "-::/0"], to) is not None
    everything = EgressRule(effect=Effect.DROP)
    line, _ = Matcher([everything], AROUND).find(inany(ip_address(to)), 1, IPPROTO_TCP)
    assert line is not None


def test_a_network_within_a_zone_names_it_and_a_wider_one_does_not() -> None:
    assert _found(["+10.1.0.0/16"], "10.1.2.3") == 0
    assert _found(["+10.0.0.0/7"], "10.1.2.3") is None
    assert _found(["+10.0.0.0/7"], "11.1.2.3") == 0
    assert _found(["+169.254.0.0/16"], "169.254.169.254") is None


def test_the_internet_is_what_is_in_no_zone() -> None:
    assert _found(["-@internet", "+@private"], "10.0.0.1") == 1
    assert _found(["+@internet"], PUBLIC) == 0


def test_the_resolver_is_allowed_for_dns_only() -> None:
    assert _found(["+@resolver"], "192.168.1.1", 53, IPPROTO_UDP) == 0
    assert _found(["+@resolver"], "127.0.0.53", 853) == 0
    assert _found(["+@resolver"], "192.168.1.1", 80) is None
    assert _found(["+@resolver:53"], "192.168.1.1", 853) is None
    assert _found(["+@resolver:80"], "192.168.1.1", 80) is None


def _asked(words: Sequence[str], name: str) -> int | None:
    line = Matcher(_rules(*words), AROUND).may_ask(name)
    return None if line is None else line.number


def test_a_name_may_be_asked_if_some_flow_to_it_may_be() -> None:
    assert _asked(["+a.example:443"], "a.example") == 0
    assert _asked(["+a.example"], "b.example") is None
    assert _asked(["-a.example:22", "+a.example"], "a.example") == 1
    assert _asked(["-a.example", "+*.example"], "a.example") == 0
    assert _asked(["+203.0.113.0/24"], "a.example") is None
    assert _asked(["+@internet"], "a.example") == 0
    assert _asked(["+@resolver"], "a.example") == 0
    assert _asked(["?a.example"], "a.example") == 0


def _answered(words: Sequence[str], address: str) -> bool:
    return Matcher(_rules(*words), AROUND).may_answer(inany(ip_address(address)))


def test_a_public_name_has_no_private_address_unless_a_rule_allows_both() -> None:
    assert _answered(["+a.example"], PUBLIC)
    assert not _answered(["+a.example"], "10.0.0.1")
    assert not _answered(["+a.example"], "64:ff9b::a00:1")
    assert not _answered(["+a.example", "-@private"], "10.0.0.1")
    assert _answered(["+a.example", "+10.0.0.0/24:80"], "10.0.0.1")


def test_quic_is_refused_to_what_a_name_allows() -> None:
    rules = _rules("+a.example")
    line, _ = Matcher(rules, AROUND).find(
        inany(ip_address(PUBLIC)), 443, IPPROTO_UDP, ["a.example"]
    )
    assert line is not None
    assert line.no_quic


def test_random_policies_find_what_a_plain_search_finds() -> None:
    rng = random.Random(11)
    for _ in range(60):
        rules, networks = [], []
        for _ in range(rng.randrange(1, 30)):
            length = rng.randrange(8, 33)
            base = rng.randrange(1 << 32) if rng.random() < 0.5 else 0xCB007100
            first = base >> (32 - length) << (32 - length)
            last = first + (1 << (32 - length)) - 1
            span = Span(inany(IPv4Address(first)), inany(IPv4Address(last)))
            ports = (Ports(1, rng.choice((100, 500))),) if rng.random() < 0.3 else ()
            networks.append((span, ports))
            rules.append(
                EgressRule(
                    to=("x",),
                    targets=Targets(spans=(span,)),
                    ports=ports,
                    effect=rng.choice((Effect.REJECT, Effect.DROP)),
                )
            )
        matcher = Matcher(rules, AROUND)
        for _ in range(200):
            address = inany(
                IPv4Address(
                    rng.choice(
                        (rng.randrange(1 << 32), 0xCB007100 + rng.randrange(256))
                    )
                )
            )
            port = rng.choice((80, 443, 600))
            expected = next(
                (
                    n
                    for n, (span, ports) in enumerate(networks)
                    if span.first <= address <= span.last
                    and (not ports or port <= ports[0].last)
                ),
                None,
            )
            line, _ = matcher.find(address, port, IPPROTO_TCP)
            assert (None if line is None else line.number) == expected


def test_addresses_that_are_ipv4_in_disguise_are_judged_as_ipv4() -> None:
    mapped = IPv6Address("::ffff:10.0.0.1")
    assert Matcher([], AROUND).piece(mapped.packed).zone is Sets.PRIVATE


@pytest.mark.parametrize(
    "to", ["64:ff9b::cb00:7109", "2002:cb00:7109::1", "::ffff:0:203.0.113.9"]
)
def test_a_network_that_is_refused_is_not_reached_through_a_translator(
    to: str,
) -> None:
    assert _found(["-203.0.113.0/24", "+::/0"], to) == 0
    assert _found(["-203.0.112.0/24", "+::/0"], to) != 0


def test_a_large_file_is_one_policy() -> None:
    lines = [f"h{n}.example" for n in range(10_000)]
    lines += [f"{n % 200 + 11}.{n // 200}.0.0/16" for n in range(10_000)]
    text = 'version = 1\n[sets]\nm.include = "x"\n[[rule]]\nto="@m"\naction="allow"\n'
    policy = parse_policy(text, "p", lambda _: "\n".join(lines))
    matcher = Matcher(policy.rules, AROUND)
    for name, number in (("h9999.example", 0), ("h10000.example", None)):
        line, _ = matcher.find(inany(ip_address("250.0.0.1")), 443, 6, [name])
        assert (None if line is None else line.number) == number
    assert matcher.find(inany(ip_address("11.49.1.2")), 443, 6)[0] is not None

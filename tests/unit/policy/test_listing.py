# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules keep their identity, policies have generations, and flows are judged anew."""

from ipaddress import IPv4Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import from_inany, inany, is_v4
from passtpy.config.cli import parse_pasta
from passtpy.config.host import HostInfo
from passtpy.config.view import View
from passtpy.flow import Action, FlowMiss, FlowRecord, Pif
from passtpy.policy.decide import Decider
from passtpy.policy.explain import Ends, explain, explain_miss, show_explanation
from passtpy.policy.listing import NO_RULE, RuleIds
from passtpy.policy.recheck import recheck
from passtpy.policy.rules import (
    Drop,
    Match,
    Network,
    Outcome,
    Reject,
    Rule,
    ToHost,
    rules_from_view,
)

TCP, UDP = 6, 17
HOST = HostInfo(guest4=IPv4Address("192.0.2.5"), gateway4=IPv4Address("192.0.2.1"))
OUTSIDE = Rule(Match(Pif.TAP), ToHost(), "the outside")


def raw(text: str) -> bytes:
    return inany(ip_address(text))


def no(port: int, why: str = "no", outcome: Outcome | None = None) -> Rule:
    return Rule(Match(Pif.TAP, frozenset((TCP,)), port=port), outcome or Drop(), why)


def to(port: int, addr: str = "198.51.100.1", proto: int = TCP) -> FlowMiss:
    return FlowMiss(proto, Pif.TAP, raw("192.0.2.5"), 40000, raw(addr), port)


# Ids


def test_a_rule_keeps_its_id_when_others_come_and_go() -> None:
    ids = RuleIds()
    first = {each.rule: each for each in ids.list([no(1), no(2), OUTSIDE])}
    second = {each.rule: each for each in ids.list([no(3), no(2), no(4), OUTSIDE])}
    for rule in (no(2), OUTSIDE):
        assert second[rule].id == first[rule].id
    assert (first[OUTSIDE].number, second[OUTSIDE].number) == (3, 4)
    old = {each.id for each in first.values()}
    assert not {second[no(3)].id, second[no(4)].id} & old


def test_an_id_is_nobody_elses_ever() -> None:
    ids = RuleIds()
    (gone,) = ids.list([no(1)])
    ids.list([])
    assert ids.list([no(1)])[0].id != gone.id
    assert gone.id != NO_RULE


def test_equal_rules_have_ids_of_their_own() -> None:
    ids = RuleIds()
    first = [each.id for each in ids.list([no(1), no(1), no(2)])]
    assert len({*first}) == 3
    assert [each.id for each in ids.list([no(1), no(2), no(1)])] == [
        first[0],
        first[2],
        first[1],
    ]


@pytest.mark.parametrize(
    "other", [no(1, "for another reason"), no(1, outcome=Reject()), no(2)]
)
def test_what_a_rule_matches_does_and_is_for_make_it(other: Rule) -> None:
    ids = RuleIds()
    assert ids.list([no(1)])[0].id != ids.list([other])[0].id


lists = st.lists(st.builds(no, st.integers(1, 5)), max_size=8)


@given(st.lists(lists, max_size=6))
def test_ids_stand_for_one_rule_each_whatever_happens(
    policies: list[list[Rule]],
) -> None:
    ids, seen = RuleIds(), dict[int, Rule]()
    for rules in policies:
        listed = ids.list(rules)
        assert [each.rule for each in listed] == rules
        assert [each.number for each in listed] == [*range(1, len(rules) + 1)]
        assert len({each.id for each in listed}) == len(rules)
        for each in listed:
            assert seen.setdefault(each.id, each.rule) == each.rule


# Generations and hits


def test_hits_survive_where_a_rule_does() -> None:
    decider = Decider([no(80), OUTSIDE])
    for port in (80, 80, 443):
        decider.by_rules(to(port))
    blocked, outside = (each.id for each in decider.rules)
    assert decider.hits == {NO_RULE: 0, blocked: 2, outside: 1}
    decider.replace([no(443), OUTSIDE])
    assert decider.hits[outside] == 1
    assert blocked not in decider.hits
    assert sum(decider.hits.values()) == 1


def test_every_miss_after_a_replacement_sees_the_new_list() -> None:
    decider = Decider([OUTSIDE])
    before = decider.by_rules(to(80))
    assert (before.action, before.generation) == (Action.FORWARD, 1)
    decider.replace([no(80), OUTSIDE])
    after = decider.by_rules(to(80))
    assert (after.action, after.generation) == (Action.DROP, 2)
    # the same rule, but its verdicts are of the new policy
    kept = decider.by_rules(to(443))
    assert (kept.rule, kept.generation) == (before.rule, 2)


def test_no_rule_has_a_generation_too() -> None:
    decider = Decider([OUTSIDE])
    decider.replace([])
    verdict = decider.by_rules(to(80))
    assert (verdict.rule, verdict.generation) == (NO_RULE, 2)


def test_the_same_list_is_the_same_policy() -> None:
    decider = Decider([no(80), OUTSIDE])
    ids = [each.id for each in decider.rules]
    decider.replace([no(80), OUTSIDE])
    assert decider.generation == 1
    decider.replace([OUTSIDE, no(80)])
    assert decider.generation == 2
    assert [each.id for each in decider.rules] == ids[::-1]


def test_another_network_changes_few_rules_of_a_real_policy() -> None:
    config = parse_pasta(["-t", "80"])
    decider = Decider(rules_from_view(View.of(config, HOST)))
    before = {each.rule: each.id for each in decider.rules}
    elsewhere = HostInfo(
        guest4=IPv4Address("203.0.113.5"), gateway4=IPv4Address("203.0.113.1")
    )
    decider.replace(rules_from_view(View.of(config, elsewhere)))
    new = [each for each in decider.rules if each.rule not in before]
    assert 0 < len(new) < 5
    for each in decider.rules:
        if each.rule in before:
            assert each.id == before[each.rule]


# Recheck


def flow(flow_id: int, asked: FlowMiss, generation: int) -> FlowRecord:
    fields = dict.fromkeys(FlowRecord._fields, 0)
    record = FlowRecord(**fields)  # type: ignore[arg-type]
    return record._replace(
        flow_id=flow_id,
        generation=generation,
        proto=asked.proto,
        pif0=asked.pif,
        eaddr0=asked.eaddr,
        eport0=asked.eport,
        oaddr0=asked.oaddr,
        oport0=asked.oport,
        listener=asked.listener,
    )


def test_flows_of_an_older_policy_are_judged_by_todays() -> None:
    decider = Decider([OUTSIDE])
    flows = [flow(7, to(80), 1), flow(8, to(443), 1)]
    assert list(recheck(decider, flows)) == []
    decider.replace([no(80), OUTSIDE])
    flows.append(flow(9, to(80), decider.generation))
    verdicts = dict(recheck(decider, flows))
    assert {number: v.action for number, v in verdicts.items()} == {
        7: Action.DROP,
        8: Action.FORWARD,
    }
    assert verdicts[8].rule == decider.rules[1].id
    assert sum(decider.hits.values()) == 0


def test_an_inbound_flow_is_judged_by_the_listener_it_came_by() -> None:
    tcp = frozenset((TCP,))
    forward = Rule(Match(Pif.HOST, tcp, listeners=range(3, 5)), ToHost(), "3 and 4")
    asked = to(80)._replace(pif=Pif.HOST)
    flows = [flow(n, asked._replace(listener=n), 1) for n in (2, 3, 4, 5)]
    decider = Decider([])
    decider.replace([forward])
    actions = [verdict.action for _, verdict in recheck(decider, flows)]
    drop, yes = Action.DROP, Action.FORWARD
    assert actions == [drop, yes, yes, drop]


# Explaining


def make(line: str) -> Decider:
    return Decider(rules_from_view(View.of(parse_pasta(line.split()), HOST)))


def test_an_explanation_names_rule_ends_and_what_nearly_hit() -> None:
    found = explain_miss(decider := make("-o 203.0.113.9 --no-udp"), to(443, proto=TCP))
    assert found.listed is not None
    assert found.listed == decider.find(to(443))
    assert found.listed.rule.why == "the outside"
    assert found.action is Action.FORWARD
    peer, bound = raw("198.51.100.1"), raw("203.0.113.9")
    assert found.seen == {
        Pif.TAP: Ends(raw("192.0.2.5"), 40000, peer, 443),
        Pif.HOST: Ends(bound, 0, peer, 443),
    }
    assert [(each.rule.why, by) for each, by in found.nearly] == [("port 0", "port")]
    assert sum(decider.hits.values()) == 0


def test_mapped_addresses_are_told_on_both_sides() -> None:
    decider = make("")
    lines = list(show_explanation(decider, explain_miss(decider, to(80, "192.0.2.1"))))
    assert lines[1:3] == [
        "the guest sees [192.0.2.5]:40000 -> [192.0.2.1]:80",
        "the host sees [*]:* -> [127.0.0.1]:80",
    ]
    assert lines[0].endswith("=> host 127.0.0.1  (host loopback, mapped)")


def test_a_nearly_matching_forward_is_told_with_what_it_lacks() -> None:
    decider = make("-t 8080 -u none")
    asked = FlowMiss(
        TCP, Pif.HOST, raw("198.51.100.9"), 5, raw("198.51.100.1"), 8080, 7
    )
    found = explain_miss(decider, asked)
    assert found.action is Action.REJECT
    assert [by for _, by in found.nearly] == ["listener"]
    lines = list(show_explanation(decider, found))
    assert lines[1:3] == [
        "the host sees [198.51.100.9]:5 -> [198.51.100.1]:8080",
        "nobody else sees it: reject",
    ]
    assert lines[3].startswith("but for its listener: ")


def test_no_rule_is_explained() -> None:
    found = explain_miss(Decider(()), to(80))
    assert (found.listed, found.action, found.nearly) == (None, Action.DROP, ())
    assert next(show_explanation(Decider(()), found)) == "no rule: drop"


NETWORKS = [
    ip_network(text) for text in ("192.0.2.0/24", "192.0.0.0/10", "2001:db8::/32")
]
ADDRESSES = [
    raw(text) for text in ("192.0.2.5", "192.63.1.1", "10.0.0.1", "2001:db8::1")
]
networks = st.lists(st.sampled_from(NETWORKS), max_size=2).map(tuple)
matches = st.builds(
    Match,
    st.sampled_from((Pif.TAP, Pif.HOST)),
    st.sets(st.sampled_from((TCP, UDP)), max_size=1).map(frozenset),
    networks,
    networks,
    st.sampled_from((None, 53, 80)),
    st.sampled_from((None, range(2), range(1, 4))),
)
misses = st.builds(
    FlowMiss,
    st.sampled_from((TCP, UDP)),
    st.sampled_from((Pif.TAP, Pif.HOST)),
    st.sampled_from(ADDRESSES),
    st.just(1),
    st.sampled_from(ADDRESSES),
    st.sampled_from((53, 80)),
    st.integers(-1, 3),
).filter(lambda miss: is_v4(miss.eaddr) == is_v4(miss.oaddr))


def within(raw: bytes, networks: tuple[Network, ...]) -> bool:
    return not networks or any(from_inany(raw) in network for network in networks)


def failing(match: Match, miss: FlowMiss) -> list[str]:
    """What a rule lacks, by the plain meaning of its fields."""
    checks = {
        "pif": match.pif == miss.pif,
        "protocol": not match.protos or miss.proto in match.protos,
        "source": within(miss.eaddr, match.sources),
        "destination": within(miss.oaddr, match.destinations),
        "port": match.port in (None, miss.oport),
        "listener": match.listeners is None or miss.listener in match.listeners,
    }
    return [name for name, holds in checks.items() if not holds]


def conditions(match: Match) -> list[str]:
    """The names of those that a rule has."""
    fields = {
        "protocol": match.protos,
        "source": match.sources,
        "destination": match.destinations,
        "port": match.port,
        "listener": match.listeners,
    }
    return [name for name, value in fields.items() if value]


@given(
    st.lists(st.builds(Rule, matches, st.just(Drop()), st.just("")), max_size=8), misses
)
def test_what_explains_is_what_decides(rules: list[Rule], miss: FlowMiss) -> None:
    decider = Decider(rules)
    found = explain_miss(decider, miss)
    number = len(rules) if found.listed is None else found.listed.number - 1
    assert found.listed is None or not failing(found.listed.rule.match, miss)
    assert all(failing(rule.match, miss) for rule in rules[:number])
    assert decider.by_rules(miss).rule == (found.listed.id if found.listed else NO_RULE)
    nearly = {each.number: by for each, by in found.nearly}
    for place, rule in enumerate(rules[:number], start=1):
        lacks = failing(rule.match, miss)
        if place in nearly:
            assert lacks == [nearly[place]]
        elif len(lacks) == 1 and lacks != ["pif"]:
            # it has no other condition that could hold
            assert conditions(rule.match) == lacks


def test_the_list_shows_places_ids_and_hits() -> None:
    decider = Decider([no(80), OUTSIDE])
    decider.replace([no(443), OUTSIDE])
    decider.by_rules(to(80))
    assert list(explain(decider))[:3] == [
        "rule    id     hits  match => outcome",
        "   1     3        0  tap tcp port 443 => drop  (no)",
        "   2     2        1  tap any => host as asked  (the outside)",
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a policy decides, counts and tells; and how one takes another's place."""

from collections.abc import Sequence
from ipaddress import IPv4Address, ip_address

import pytest

from passtpy.addr import inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.limit import NO_LIMIT, Limit
from passtpy.egress.answers import Asked
from passtpy.egress.audit import MOST, WINDOW_NS, Audit
from passtpy.egress.document import parse_policy, with_words
from passtpy.egress.egress import Egress, Refused, Ruling
from passtpy.egress.model import Effect, Policy
from passtpy.egress.show import show_policy, show_ruling
from passtpy.egress.zones import Surroundings
from passtpy.flow import (
    IPPROTO_ICMP,
    IPPROTO_TCP,
    IPPROTO_UDP,
    Action,
    FlowMiss,
    FlowRecord,
    Pif,
    Verdict,
)
from passtpy.policy.decide import Decider, Waiting
from passtpy.policy.listing import RuleIds
from passtpy.policy.recheck import recheck
from passtpy.policy.rules import Match, Rule, ToHost

S = 1_000_000_000
PUBLIC = inany(IPv4Address("203.0.113.9"))
OTHER = inany(IPv4Address("203.0.113.10"))
GUEST = inany(IPv4Address("192.0.2.5"))
OUTSIDE = Rule(Match(Pif.TAP), ToHost(), "the outside")


def _words(*words: str, mode: str | None = None) -> Policy:
    said = [("allow" if w[0] == "+" else "deny", w[1:]) for w in words]
    return with_words(None, said, mode)


def _file(text: str) -> Policy:
    return parse_policy(f"version = 1\n{text}", "p", lambda _: "")


class World:
    """A policy with a clock, and what it told."""

    def __init__(self, policy: Policy) -> None:
        self.now = 0
        self.told: list[Refused] = []
        around = Surroundings(hosts=frozenset((IPv4Address("198.51.100.5"),)))
        self.egress = Egress(policy, around, RuleIds().give, lambda: self.now)
        self.egress.watchers.append(self.told.append)

    def decide(
        self, target: bytes = PUBLIC, port: int = 443, proto: int = IPPROTO_TCP
    ) -> Ruling:
        miss = FlowMiss(proto, Pif.TAP, GUEST, 40000, target, port)
        return self.egress.decide(miss, target, port)

    def answer(self, name: str, *addresses: bytes, ttl: int = 30) -> Sequence[bytes]:
        return self.egress.may_answer(name, addresses, ttl, self.now)


def test_a_pinned_name_decides_and_the_pin_expires() -> None:
    world = World(_words("+a.example:443"))
    assert world.decide().effect is Effect.REJECT
    assert world.answer("a.example", PUBLIC) == (PUBLIC,)
    ruling = world.decide()
    assert (ruling.effect, ruling.names) == (Effect.ALLOW, ("a.example",))
    assert world.decide(port=80).effect is Effect.REJECT
    assert world.decide(OTHER).effect is Effect.REJECT
    world.now = 90 * S
    assert world.decide().effect is Effect.REJECT


def test_an_open_flow_is_judged_by_the_pins_of_its_beginning() -> None:
    world = World(_words("+a.example"))
    world.answer("a.example", PUBLIC)
    world.now = 1000 * S
    assert world.egress.judge(PUBLIC, 443, 6).effect is Effect.REJECT
    assert world.egress.judge(PUBLIC, 443, 6, at_ns=10 * S).effect is Effect.ALLOW


def test_hits_are_counted_and_outlive_a_change_around_their_rule() -> None:
    world = World(_words("+203.0.113.9"))
    world.decide()
    world.decide(OTHER)
    (first,) = world.egress.ids
    assert world.egress.hits == {first: 1, 0: 1}
    world.egress.replace(_words("-203.0.113.77", "+203.0.113.9"))
    new, same = world.egress.ids
    assert same == first
    assert world.egress.hits == {new: 0, first: 1, 0: 1}


def test_a_rule_whose_limit_changes_stays_the_same() -> None:
    rule = '[[rule]]\nto = "203.0.113.9"\naction = "allow"\n'
    world = World(_file(f"{rule}limit.flows = 1\n"))
    world.decide()
    (first,) = world.egress.ids
    assert world.egress.limits() == {0: NO_LIMIT, first: Limit(flows=1)}
    world.egress.replace(_file(f'limit.rate_in = "8M"\n{rule}limit.flows = 2\n'))
    assert world.egress.ids == (first,)
    assert world.egress.hits[first] == 1
    assert world.egress.limits() == {
        0: Limit(rate_in=1_000_000),
        first: Limit(flows=2),
    }
    (told,) = show_policy(world.egress)["rules"]
    assert told["match"] == "to 203.0.113.9 limit flows 2"


def test_a_refusal_is_told_with_its_reason() -> None:
    world = World(_file('[[rule]]\nname = "no"\nto = "203.0.113.9"\naction = "drop"\n'))
    assert world.decide().effect is Effect.DROP
    assert world.decide(OTHER).effect is Effect.REJECT
    assert world.decide(inany(IPv4Address("127.0.0.1"))).effect is Effect.REJECT
    reasons = [each.reason for each in world.told]
    assert reasons == ["no", "no rule matches", "no rule names @host"]
    assert world.told[0].rule == world.egress.ids[0]
    assert world.egress.counters()["policy_refused"] == 3


def test_a_default_of_allow_leaves_the_host_closed() -> None:
    world = World(_file('default = "allow"\n'))
    assert world.decide().effect is Effect.ALLOW
    for text in ("127.0.0.1", "198.51.100.5", "10.0.0.1", "169.254.169.254", "::1"):
        assert world.decide(inany(ip_address(text))).effect is Effect.REJECT


def test_observing_lets_pass_what_it_tells() -> None:
    world = World(_words("+a.example", mode="observe"))
    assert world.decide().effect is Effect.ALLOW
    assert world.egress.may_ask("b.example", 0).allowed
    assert [each.observed for each in world.told] == [True, True]
    private = inany(IPv4Address("10.0.0.1"))
    assert world.answer("b.example", private) == (private,)


def test_names_are_refused_in_the_words_of_the_policy() -> None:
    world = World(_file('dns_refusal = "refused"\n[[rule]]\nto="a.b"\naction="allow"'))
    allowed, refused = (world.egress.may_ask(n, 0) for n in ("a.b", "c.d"))
    assert (allowed.allowed, allowed.rule) == (True, world.egress.ids[0])
    assert (refused.allowed, refused.refusal, refused.rule) == (False, "refused", 0)
    (told,) = world.told
    assert (told.is_question, told.names) == (True, ("c.d",))
    assert world.egress.captures_dns
    assert not World(_words("+203.0.113.0/24")).egress.captures_dns


def test_names_that_a_new_policy_refuses_lose_their_pins() -> None:
    world = World(_words("+a.example", "+b.example"))
    world.answer("a.example", PUBLIC)
    world.answer("b.example", OTHER)
    world.egress.replace(_words("+b.example", "+203.0.113.9:80"))
    assert [pin.name for pin in world.egress.pins.listed(0)] == ["b.example"]


@pytest.mark.parametrize(
    ("words", "tells"),
    [
        (("+@internet",), False),
        (("+@internet:443/tcp", "+192.0.2.1/udp"), False),
        (("-192.0.2.1:53", "+@internet"), True),
        (("+192.0.2.1:53/udp",), True),
        (("+a.example",), True),
        (("+@resolver",), True),
    ],
)
def test_it_is_known_whether_ports_of_udp_differ(
    words: Sequence[str], tells: bool
) -> None:
    policy = _words(*words)
    assert policy.tells_ports is tells
    assert _words(*words, mode="observe").tells_ports is False


def test_quic_is_refused_by_its_own_reason() -> None:
    world = World(_words("+a.example"))
    world.answer("a.example", PUBLIC)
    assert world.decide(proto=IPPROTO_UDP).effect is Effect.REJECT
    assert "QUIC" in world.told[0].reason
    assert world.decide(proto=IPPROTO_UDP, port=53).effect is Effect.ALLOW
    assert world.decide(proto=IPPROTO_ICMP, port=443).effect is Effect.ALLOW


def test_the_host_may_move() -> None:
    world = World(_words("+@internet"))
    assert world.decide().effect is Effect.ALLOW
    now = Surroundings(hosts=frozenset((IPv4Address("203.0.113.9"),)))
    assert world.egress.move(now)
    assert not world.egress.move(now)
    assert world.decide().effect is Effect.REJECT


# With the list of rules that says where flows go


def _decider(policy: Policy, *rules: Rule) -> Decider:
    decider = Decider(rules or (OUTSIDE,), GuestAddresses())
    egress = Egress(policy, Surroundings(), decider.ids_besides().give, lambda: 0)
    decider.guard(egress)
    return decider


def _miss(target: bytes = PUBLIC, port: int = 443, pif: Pif = Pif.TAP) -> FlowMiss:
    return FlowMiss(IPPROTO_TCP, pif, GUEST, 40000, target, port)


def _decided(decider: Decider, miss: FlowMiss) -> Verdict:
    verdict = decider.decide(miss)
    assert isinstance(verdict, Verdict)
    return verdict


def test_a_flow_carries_the_rule_of_the_policy_and_its_generation() -> None:
    decider = _decider(_words("+203.0.113.9"))
    allowed, refused = (_decided(decider, _miss(to)) for to in (PUBLIC, OTHER))
    assert decider.egress is not None
    (rule,) = decider.egress.ids
    assert rule not in {each.id for each in decider.rules}
    assert (allowed.action, allowed.rule) == (Action.FORWARD, rule)
    assert (refused.action, refused.rule) == (Action.REJECT, 0)
    assert {allowed.generation, refused.generation} == {decider.generation}


def test_what_reaches_the_host_is_judged_where_it_arrives() -> None:
    """The guest dials an address that stands for the loopback of the host."""
    mapped = Rule(Match(Pif.TAP), ToHost(IPv4Address("127.0.0.1")), "mapped")
    decider = _decider(_words("+203.0.113.9"), mapped)
    assert _decided(decider, _miss()).action == Action.REJECT
    decider = _decider(_words("+127.0.0.1"), mapped)
    assert _decided(decider, _miss()).action == Action.FORWARD


def test_another_policy_is_another_generation() -> None:
    decider = _decider(_words("+203.0.113.9"))
    before = decider.generation
    decider.renew()
    assert _decided(decider, _miss()).generation == decider.generation != before


def _open(decider: Decider, target: bytes, created_ns: int = 0) -> FlowRecord:
    zeros = dict.fromkeys(FlowRecord._fields, 0)
    ends = {"eaddr0": GUEST, "oaddr0": target, "eaddr1": target, "oaddr1": GUEST}
    values = zeros | ends | {"oport0": 443, "proto": 6, "pif0": Pif.TAP}
    values |= {"flow_id": 7, "created_ns": created_ns}
    return FlowRecord(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("mode", "action"), [("enforce", 3), ("observe", 1)])
def test_open_flows_are_rechecked(mode: str, action: int) -> None:
    decider = _decider(_words("+203.0.113.10", mode=mode))
    ((_, verdict),) = recheck(decider, [_open(decider, PUBLIC)])
    assert verdict.action == action


@pytest.mark.parametrize(("began_s", "action"), [(10, 1), (1000, 3)])
def test_a_flow_outlives_the_pin_that_let_it_in(began_s: int, action: int) -> None:
    decider, now = Decider((OUTSIDE,), GuestAddresses()), [0]
    given = Surroundings(), decider.ids_besides().give, lambda: now[0]
    egress = Egress(_words("+a.example"), *given)
    decider.guard(egress)
    egress.may_answer("a.example", [PUBLIC], 30, 0)
    now[0] = 2000 * S
    ((_, verdict),) = recheck(decider, [_open(decider, PUBLIC, began_s * S)])
    assert verdict.action == action


def _question(egress: Egress, to: bytes = PUBLIC, port: int = 443) -> Asked:
    return egress.question(egress.judge(to, port, IPPROTO_TCP), IPPROTO_TCP, to, port)


def test_a_rule_that_asks_has_the_flow_wait() -> None:
    decider = _decider(_file('[[rule]]\nto = "203.0.113.9"\naction = "ask"\n'))
    waiting = decider.decide(_miss())
    assert isinstance(waiting, Waiting)
    assert waiting.verdict.action == Action.FORWARD
    assert decider.judge(_miss()).action == Action.FORWARD
    egress = decider.egress
    assert egress is not None
    asked = _question(egress)
    egress.answers.remember(asked, Effect.ALLOW)
    assert _decided(decider, _miss()).action == Action.FORWARD
    egress.answers.remember(asked, Effect.REJECT)
    assert _decided(decider, _miss()).action == Action.REJECT
    egress.answers.forget(asked)
    assert isinstance(decider.decide(_miss()), Waiting)


@pytest.mark.parametrize(
    "text", ['[[rule]]\nto = "a.b"\naction = "ask"\n', 'default = "ask"\n']
)
def test_an_answer_about_one_name_of_an_address_is_none_about_another(
    text: str,
) -> None:
    """Which name is meant is known once the client has said it."""
    decider = _decider(_file(text))
    egress = decider.egress
    assert egress is not None
    egress.may_answer("a.b", [PUBLIC], 30, 0)
    egress.answers.remember(_question(egress), Effect.ALLOW)
    waiting = decider.decide(_miss())
    assert isinstance(waiting, Waiting)
    assert egress.has_to_name(waiting.ruling, IPPROTO_TCP, 443)
    assert egress.judge_named(PUBLIC, 443, "a.b").effect is Effect.ALLOW
    assert egress.judge_named(PUBLIC, 443, "other.b").effect is not Effect.ALLOW


def test_what_only_observes_asks_nobody() -> None:
    text = 'mode = "observe"\n[[rule]]\nto = "203.0.113.9"\naction = "ask"\n'
    assert _decided(_decider(_file(text)), _miss()).action == Action.FORWARD


def test_questions_about_one_name_are_one() -> None:
    egress = _decider(_file('[[rule]]\nto = "a.b"\naction = "ask"\n')).egress
    assert egress is not None
    egress.may_answer("a.b", [PUBLIC, OTHER], 30, 0)
    first, second = (
        egress.answers.ask(_question(egress, to)) for to in (PUBLIC, OTHER)
    )
    assert first is not None
    assert first == second
    assert first.asked.where == "a.b"
    assert egress.answers.take(first.number) == first
    assert egress.answers.take(first.number) is None


def test_open_questions_are_bounded() -> None:
    egress = _decider(_file('default = "ask"\n')).egress
    assert egress is not None
    asked = [egress.answers.ask(_question(egress, port=n)) for n in range(1, 100)]
    assert asked.count(None) == 99 - 64


# What is told


def _refused(port: int, names: tuple[str, ...] = ()) -> Refused:
    ends = GUEST, 40000, PUBLIC, port
    return Refused(6, *ends, names, Effect.REJECT, 3, "no rule matches", False)


def test_a_loop_in_the_guest_is_two_lines() -> None:
    told: list[dict[str, object]] = []
    audit = Audit(told.append)
    for n in range(100_000):
        audit.take(_refused(443), n)
    assert len(told) == 1
    audit.flush()
    assert [each.get("again") for each in told] == [None, 99_999]


def test_a_guest_that_varies_its_tries_is_counted() -> None:
    told: list[dict[str, object]] = []
    audit = Audit(told.append)
    for port in range(1, 60_001):
        audit.take(_refused(port), port)
    audit.flush()
    assert len(told) == MOST + 1
    assert told[-1] == {"others": 60_000 - MOST}


def test_windows_begin_anew() -> None:
    told: list[dict[str, object]] = []
    audit = Audit(told.append)
    assert audit.take(_refused(443), 0)
    assert not audit.take(_refused(443), WINDOW_NS - 1)
    assert audit.take(_refused(443), WINDOW_NS)
    assert [each.get("again") for each in told] == [None, 1, None]


def test_a_record_says_who_and_where() -> None:
    told: list[dict[str, object]] = []
    Audit(told.append).take(_refused(443, ("a.example", "b.example")), 0)
    assert told == [
        {
            "proto": "tcp",
            "name": "a.example",
            "address": "203.0.113.9",
            "port": 443,
            "source": "192.0.2.5",
            "source_port": 40000,
            "action": "reject",
            "rule": 3,
            "reason": "no rule matches",
        }
    ]


def test_a_policy_is_shown_with_its_hits() -> None:
    world = World(_words("+a.example:443/tcp", "-@private"))
    world.decide()
    told = show_policy(world.egress)
    assert [rule["match"] for rule in told["rules"]] == [
        "to a.example ports 443 tcp",
        "to @private",
    ]
    assert (told["default"], told["default_hits"], told["dns"]) == (
        "reject",
        1,
        "filtered",
    )
    said = show_ruling(world.egress, world.egress.judge(PUBLIC, 443, 6))
    assert (said["action"], said["why"]) == ("reject", "no rule matches")


@pytest.mark.parametrize(
    ("scheme", "proto", "effect"),
    [
        ("socks5", IPPROTO_TCP, Effect.ALLOW),
        ("socks5", IPPROTO_UDP, Effect.ALLOW),
        ("socks5", IPPROTO_ICMP, Effect.REJECT),
        ("http", IPPROTO_TCP, Effect.ALLOW),
        ("http", IPPROTO_UDP, Effect.REJECT),
        ("http", IPPROTO_ICMP, Effect.REJECT),
    ],
)
def test_nothing_leaves_beside_a_proxy(scheme: str, proto: int, effect: Effect) -> None:
    text = f'[[rule]]\nto = "203.0.113.0/24"\nvia = "{scheme}://192.0.2.1:1"\n'
    text = f'version = 1\n{text}action = "allow"\n'
    world = World(parse_policy(text, "policy", lambda name: ""))
    ruling = world.decide(inany(IPv4Address("203.0.113.9")), 5353, proto)
    assert ruling.effect is effect
    assert world.egress.waits(ruling, proto, 5353) == (effect is Effect.ALLOW)
    leaves = "TCP and UDP" if scheme == "socks5" else "TCP"
    reasons = [f"policy:2: only {leaves} leaves through its proxy"]
    assert [told.reason for told in world.told] == reasons * (effect is Effect.REJECT)

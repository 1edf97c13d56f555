# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest policy for what was seen: it allows just that."""

from ipaddress import IPv4Address, ip_address

from passtpy.addr import UNSPECIFIED, inany
from passtpy.egress.document import parse_policy, with_words
from passtpy.egress.egress import Egress, Refused
from passtpy.egress.learn import MOST, Learner
from passtpy.egress.model import Effect, Policy
from passtpy.egress.zones import Surroundings
from passtpy.flow import FlowMiss, Pif
from passtpy.policy.listing import RuleIds

GUEST = inany(IPv4Address("192.0.2.5"))
DID = [
    ("203.0.113.9", 443, 6, "a.example"),
    ("203.0.113.10", 443, 6, "b.example"),
    ("203.0.113.9", 80, 6, "a.example"),
    ("203.0.113.11", 53, 17, None),
    ("203.0.113.11", 0, 1, None),
    ("10.0.0.7", 443, 6, "inner.example"),
    ("127.0.0.1", 5432, 6, None),
    ("2001:db8::7", 443, 6, None),
]


def _egress(policy: Policy) -> Egress:
    return Egress(policy, Surroundings(), RuleIds().give, lambda: 0)


def _do(egress: Egress) -> list[Effect]:
    done = []
    for to, port, proto, name in DID:
        target = inany(ip_address(to))
        if name is not None:
            egress.may_ask(name, 0)
            egress.may_answer(name, [target], 30, 0)
        miss = FlowMiss(proto, Pif.TAP, GUEST, 40000, target, port)
        done.append(egress.decide(miss, target, port).effect)
    return done


def test_what_was_learnt_allows_what_was_done_and_no_more() -> None:
    seen, learner = _egress(with_words(None, (), "observe")), Learner()
    seen.watchers.append(learner.take)
    assert set(_do(seen)) == {Effect.ALLOW}
    text = learner.text()
    again = _egress(parse_policy(text, "learnt", lambda _: ""))
    assert set(_do(again)) == {Effect.ALLOW}
    for to, port, proto in (("203.0.113.10", 80, 6), ("203.0.113.12", 443, 6)):
        assert again.judge(inany(ip_address(to)), port, proto).effect is Effect.REJECT
    assert not again.may_ask("c.example", 0).allowed


def test_places_that_are_used_alike_share_a_rule() -> None:
    learner = Learner()
    for name in ("b.example", "a.example"):
        ends = GUEST, 40000, inany(IPv4Address("203.0.113.9")), 443
        learner.take(Refused(6, *ends, (name,), Effect.REJECT, 0, "", True))
    assert learner.text() == (
        "version = 1\n\n[[rule]]\n"
        'to = ["a.example", "b.example"]\n'
        'ports = [443]\nproto = "tcp"\naction = "allow"\n'
    )


def test_names_that_led_nowhere_are_told() -> None:
    learner = Learner()
    ends = UNSPECIFIED, 0, UNSPECIFIED, 53
    learner.take(Refused(17, *ends, ("x.example",), Effect.REJECT, 0, "", True))
    assert learner.text().endswith("nothing went there:\n#   x.example\n")


def test_quic_needs_no_rule() -> None:
    learner = Learner()
    ends = GUEST, 40000, inany(IPv4Address("203.0.113.9")), 443
    it = Refused(17, *ends, ("a.example",), Effect.REJECT, 0, "", True, quic=True)
    learner.take(it)
    assert learner.text() == "version = 1\n"


def test_it_is_bounded() -> None:
    learner = Learner()
    for n in range(MOST + 3):
        ends = GUEST, 40000, inany(IPv4Address(0x0B000000 + n)), 443
        learner.take(Refused(6, *ends, (), Effect.REJECT, 0, "", True))
    assert "# Not all: 3 flows more" in learner.text()

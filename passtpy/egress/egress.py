# SPDX-License-Identifier: GPL-2.0-or-later
"""Decides whether a guest may have a flow to the host, or ask for a name.

One object for the life of a guest: policies come and go in it, each in one step, while
pins, hits and counters stay. Whoever wants to know of refusals is told each of them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from passtpy.addr import UNSPECIFIED
from passtpy.config.limit import NO_LIMIT, Limit
from passtpy.config.view import View
from passtpy.egress.answers import Answers, Asked
from passtpy.egress.garbage import uncollected
from passtpy.egress.match import QUIC_PORT, Line, Matcher, Zone
from passtpy.egress.model import (
    REFUSING,
    Effect,
    EgressRule,
    Mode,
    Policy,
    Scheme,
    Via,
)
from passtpy.egress.naming import NameRuling
from passtpy.egress.pins import Pins
from passtpy.egress.zones import Surroundings, surroundings_from_view
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP, MissLike
from passtpy.record import replace

NO_RULE: Final = 0
DEFAULT: Final = -1  # the number of "no rule matched"
DNS_PORT: Final = 53
NAMING_PORTS: Final = (80, 443)  # where a client's first bytes name the server

# Gives each rule the id that it had when it was last listed, or a new one
GiveIds = Callable[[Sequence[EgressRule]], Sequence[int]]


class Ruling(NamedTuple):
    """What the policy says about a flow, and why."""

    effect: Effect
    rule: int  # id; NO_RULE: the default
    number: int  # place in the policy, from 0; DEFAULT: none matched
    names: tuple[str, ...]  # that the address has
    zone: Zone
    quic: bool = False  # refused so that the client takes TCP
    by_name: bool = False  # not by the address; or a name is what would be asked about
    via: Via | None = None  # the proxy through which it leaves

    @property
    def refuses(self) -> bool:
        """Tell whether the flow is not to be."""
        return self.effect in REFUSING


class Refused(NamedTuple):
    """A flow, or a question for a name, that the guest was refused."""

    proto: int
    source: bytes  # inany; UNSPECIFIED of a question
    source_port: int
    target: bytes  # what it would have reached; UNSPECIFIED of a question
    port: int
    names: tuple[str, ...]
    effect: Effect
    rule: int
    reason: str
    observed: bool  # it was let in all the same
    zone: Zone = None
    quic: bool = False

    @property
    def is_question(self) -> bool:
        """Tell whether it is a name that could not be asked for."""
        return self.target == UNSPECIFIED


def _carries(via: Via, proto: int) -> bool:
    """Tell whether a proxy can pass on flows of a protocol."""
    datagrams = proto == IPPROTO_UDP and via.scheme is Scheme.SOCKS5
    return proto == IPPROTO_TCP or datagrams


def _without_limit(rule: EgressRule) -> EgressRule:
    """Return what makes a rule the same: what was counted survives another limit."""
    return rule if rule.limit == NO_LIMIT else replace(rule, limit=NO_LIMIT)


class Egress:
    """What a guest may reach, from now on and until told otherwise."""

    def __init__(
        self,
        policy: Policy,
        around: Surroundings,
        give_ids: GiveIds,
        clock: Callable[[], int],
    ) -> None:
        self._give_ids = give_ids
        self._clock = clock
        self._around = around
        self.pins = Pins()
        self.answers = Answers()
        self.generation = 0
        self.watchers: list[Callable[[Refused], None]] = []
        self.counts_besides: dict[str, int] = {}  # of who carries it out
        self._hits: dict[int, int] = {}
        self._counts = {
            "policy_allowed": 0,
            "policy_refused": 0,
            "policy_observed": 0,
            "policy_names_refused": 0,
        }
        self.replace(policy)

    def replace(self, policy: Policy) -> None:
        """Decide after this policy from now on; equal rules keep their hits."""
        self.policy = policy
        with uncollected():
            self.ids = tuple(self._give_ids(tuple(map(_without_limit, policy.rules))))
        self._hits = {each: self._hits.get(each, 0) for each in (NO_RULE, *self.ids)}
        self._compile()
        self.pins.keep(lambda name: self._asks(name)[0] is not Effect.REJECT)
        self.answers.keep(frozenset(self.ids))

    def look(self, view: View) -> bool:
        """Decide with the host that this view is of; True: that makes a difference."""
        return self.move(surroundings_from_view(view))

    def move(self, around: Surroundings) -> bool:
        """Decide with this host around it; True: that makes a difference."""
        if around == self._around:
            return False
        self._around = around
        self._compile()
        return True

    def _compile(self) -> None:
        with uncollected():
            self._matcher = Matcher(self.policy.rules, self._around)
        self.generation += 1

    @property
    def hits(self) -> dict[int, int]:
        """Return how often each rule decided, by its id; NO_RULE: the default."""
        return dict(self._hits)

    def limits(self) -> dict[int, Limit]:
        """Return the limits that rules have, by their ids; of all flows: NO_RULE."""
        rules = zip(self.ids, self.policy.rules, strict=True)
        found = {each: rule.limit for each, rule in rules if rule.limit != NO_LIMIT}
        return {NO_RULE: self.policy.limit, **found}

    @property
    def captures_dns(self) -> bool:
        """Tell whether questions to any resolver are to be answered by ours."""
        return self.policy.has_names

    def counters(self) -> dict[str, int]:
        """Return what was counted."""
        return self._counts | {
            "policy_pins": len(self.pins),
            "policy_pins_evicted": self.pins.evicted,
            **self.counts_besides,
        }

    def rule_of(self, number: int) -> EgressRule | None:
        """Return the rule at a place; None: no rule matched."""
        return None if number == DEFAULT else self.policy.rules[number]

    def reason(self, ruling: Ruling) -> str:
        """Return, for people, what decided: a rule by its name or words, or none."""
        if ruling.quic:
            return f"{self._say(ruling.number)}: QUIC is refused so that TCP is used"
        if ruling.via is not None and ruling.effect is Effect.REJECT:
            leaves = "TCP" if ruling.via.scheme is Scheme.HTTP else "TCP and UDP"
            return f"{self._say(ruling.number)}: only {leaves} leaves through its proxy"
        if ruling.number == DEFAULT and ruling.zone is not None:
            return f"no rule names {ruling.zone}"
        return self._say(ruling.number)

    def beyond(self, ruling: Ruling, *, spent: bool) -> str:
        """Return, for people, which limit of its rule a flow is beyond."""
        what = "its bytes are used up" if spent else "too many flows"
        return f"{self.reason(ruling)}: limit: {what}"

    def _say(self, number: int) -> str:
        rule = self.rule_of(number)
        if rule is None:
            return "no rule matches"
        return rule.name or self.policy.places[number]

    def judge(
        self,
        target: bytes | None,
        port: int,
        proto: int,
        at_ns: int | None = None,
        names: tuple[str, ...] | None = None,
    ) -> Ruling:
        """Return what becomes of a flow, without counting it.

        `at_ns`: that of a flow that began then; `names`: as if it had these. Without a
        target it goes somewhere on the internet.
        """
        if names is None:
            now = self._clock() if at_ns is None else at_ns
            names = () if target is None else self.pins.names_of(target, now)
        line, zone = self._matcher.find(target, port, proto, names)
        if line is None:
            effect = self.policy.default
            if zone is not None and effect is not Effect.DROP:
                effect = Effect.REJECT
            by_name = effect is Effect.ASK and bool(names)
            return Ruling(effect, NO_RULE, DEFAULT, names, zone, by_name=by_name)
        return self._ruling(line, port, proto, names, zone)

    def _ruling(
        self, line: Line, port: int, proto: int, names: tuple[str, ...], zone: Zone
    ) -> Ruling:
        rule, number, effect = self.ids[line.number], line.number, line.effect
        if line.no_quic and port == QUIC_PORT and proto == IPPROTO_UDP:
            return Ruling(Effect.REJECT, rule, number, names, zone, quic=True)
        via = self.policy.rules[number].via
        if via is not None and not _carries(via, proto):
            return Ruling(Effect.REJECT, rule, number, names, zone, via=via)
        by_name = line.by_name or (effect is Effect.ASK and bool(names))
        return Ruling(effect, rule, number, names, zone, by_name=by_name, via=via)

    def has_to_name(self, ruling: Ruling, proto: int, port: int) -> bool:
        """Tell whether a flow passes only if its client names the server itself."""
        if ruling.refuses or self.policy.mode is not Mode.ENFORCE:
            return False
        return ruling.by_name and proto == IPPROTO_TCP and port in NAMING_PORTS

    def waits(self, ruling: Ruling, proto: int, port: int) -> bool:
        """Tell whether there is something to be done before a flow passes."""
        if ruling.refuses:
            return False
        asks = ruling.effect is Effect.ASK
        return asks or ruling.via is not None or self.has_to_name(ruling, proto, port)

    def decide(self, miss: MissLike, target: bytes, port: int) -> Ruling:
        """Return what becomes of a new flow; who watches is told of refusals."""
        ruling = self.judge(target, port, miss.proto)
        if not self.has_to_name(ruling, miss.proto, port):
            ruling = self._answered(ruling, miss.proto, target, port)
        if ruling.effect is Effect.ASK and self.policy.mode is Mode.ENFORCE:
            return ruling  # it comes again, with the answer or with a name
        self._hits[ruling.rule] += not miss.again
        if ruling.effect is Effect.ALLOW:
            self._counts["policy_allowed"] += 1
            return ruling
        enforced = self.enforced(ruling)
        self.refused(miss, target, port, ruling, enforced is not ruling)
        return enforced

    def judge_named(self, target: bytes, port: int, name: str) -> Ruling:
        """Return what becomes of a connection whose client has named its server.

        Any address that it could go on to is judged by this, not only the one that the
        guest dialled: who answers for a name could say any address.
        """
        ruling = self.judge(target, port, IPPROTO_TCP, names=(name,))
        return self._answered(ruling, IPPROTO_TCP, target, port)

    def _answered(self, ruling: Ruling, proto: int, target: bytes, port: int) -> Ruling:
        """Put an answer that holds in the place of its question."""
        if ruling.effect is not Effect.ASK:
            return ruling
        known = self.answers.known(self.question(ruling, proto, target, port))
        return ruling if known is None else ruling._replace(effect=known)

    def name_for(self, ruling: Ruling, names: Sequence[str]) -> str | None:
        """Return the first of these names that the rule of a ruling is about.

        Whoever is told another one instead of an address goes where no rule leads: an
        address has names of other rules, too.
        """
        is_about = self._matcher.is_about
        return next((each for each in names if is_about(ruling.number, each)), None)

    def passed(self, ruling: Ruling) -> None:
        """Count a flow about which somebody had to be asked after it began."""
        self._hits[ruling.rule] += 1
        self._counts["policy_allowed"] += 1

    def enforced(self, ruling: Ruling) -> Ruling:
        """Return what is done about a ruling: where we only observe, it passes."""
        if self.policy.mode is Mode.ENFORCE or ruling.effect is Effect.ALLOW:
            return ruling
        return ruling._replace(effect=Effect.ALLOW)

    def refused(
        self,
        miss: MissLike,
        target: bytes,
        port: int,
        ruling: Ruling,
        observed: bool = False,
        why: str | None = None,
    ) -> None:
        """Count and tell that a flow is refused; `why`: if not as the rule says."""
        self._counts["policy_observed" if observed else "policy_refused"] += 1
        if self.watchers:
            told = Refused(
                miss.proto,
                miss.eaddr,
                miss.eport,
                target,
                port,
                ruling.names,
                ruling.effect,
                ruling.rule,
                self.reason(ruling) if why is None else why,
                observed,
                ruling.zone,
                ruling.quic,
            )
            self._tell(told)

    def question(self, ruling: Ruling, proto: int, target: bytes, port: int) -> Asked:
        """Return what somebody has to be asked about a flow that waits."""
        return Asked(ruling.rule, proto, port, target, ruling.names)

    # For the resolver: see naming.py

    @property
    def standing(self) -> int | None:
        """Return a number that stays while every pin does.

        Who only observes wants to hear of each question.
        """
        enforces = self.policy.mode is Mode.ENFORCE
        return self.pins.forgotten if enforces else None

    def may_ask(self, name: str, now_ns: int) -> NameRuling:
        """Tell whether a name may be looked up."""
        del now_ns
        effect, line = self._asks(name)
        rule = NO_RULE if line is None else self.ids[line.number]
        if effect is not Effect.REJECT:
            return NameRuling(True, rule)
        observed = self.policy.mode is Mode.OBSERVE
        self._counts["policy_names_refused"] += 1
        if self.watchers:
            number = DEFAULT if line is None else line.number
            ends = UNSPECIFIED, 0, UNSPECIFIED, DNS_PORT
            why = self._say(number)
            self._tell(
                Refused(IPPROTO_UDP, *ends, (name,), effect, rule, why, observed)
            )
        return NameRuling(observed, rule, self.policy.dns_refusal.value)

    def _asks(self, name: str) -> tuple[Effect, Line | None]:
        line = self._matcher.may_ask(name)
        effect = self.policy.default if line is None else line.effect
        asks = effect in (Effect.ALLOW, Effect.ASK)
        return (Effect.ALLOW if asks else Effect.REJECT), line

    def may_answer(
        self, name: str, addresses: Sequence[bytes], ttl_s: int, now_ns: int
    ) -> tuple[bytes, ...]:
        """Return which addresses the guest may be told, and pin them to the name."""
        if self.policy.mode is Mode.ENFORCE:
            addresses = [a for a in addresses if self._matcher.may_answer(a)]
        return self.pins.pin(name, addresses, ttl_s, now_ns)

    def listed(self) -> Iterator[tuple[int, EgressRule, str, int]]:
        """Yield each rule with its id, its place, and its hits."""
        policy = self.policy
        for each, rule, place in zip(
            self.ids, policy.rules, policy.places, strict=True
        ):
            yield each, rule, place, self._hits[each]

    def _tell(self, refused: Refused) -> None:
        for watcher in self.watchers:
            watcher(refused)

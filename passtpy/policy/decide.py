# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers a miss with a verdict: the one hot path of the control plane.

Rules are compiled once. A miss picks a short list of candidates by pif, protocol,
family and listener; networks become byte prefixes, which one startswith() tries all
at once; the verdict is a template in which a few fields are filled in. Order is kept:
the first candidate that matches is the first rule of the list that matches. Whoever
wants to know what would be decided, and why, asks the same compiled list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from socket import IPPROTO_TCP
from typing import TYPE_CHECKING, Any, Final, NamedTuple, assert_never

from passtpy.addr import UNSPECIFIED, V4_PREFIX, Address, inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.flow import Action, MissLike, Pif, Verdict
from passtpy.policy.listing import NO_RULE, Listed, RuleIds
from passtpy.policy.rules import (
    Drop,
    Match,
    Network,
    Reject,
    Rule,
    SourceMap,
    SpliceToGuest,
    SpliceToHost,
    ToAsker,
    ToGroup,
    ToGuest,
    ToHost,
)
from passtpy.record import replace

if TYPE_CHECKING:
    from passtpy.egress.egress import Egress, Ruling

# Whole-byte prefixes of an inany; one network is at most 128 of them.
Prefixes = tuple[bytes, ...]
Make = Callable[[MissLike], Verdict]
# Tells from which address the host itself would talk to another one.
SourceTowards = Callable[[bytes], bytes]

LOOPBACK4 = inany(IPv4Address("127.0.0.1"))
LOOPBACK6 = inany(IPv6Address("::1"))
_LOOPBACKS = (V4_PREFIX + b"\x7f", LOOPBACK6)
_REFUSED = Verdict(Action.DROP, Pif.NONE, UNSPECIFIED, 0, UNSPECIFIED, 0, NO_RULE)
_GENERATIONS: Final = 1 << 32  # then they start again; so many reloads take centuries

# What a rule without one of its conditions lacks, to see whether that one is missed
CONDITIONS: Final[dict[str, dict[str, Any]]] = {
    "protocol": {"protos": frozenset()},
    "source": {"sources": ()},
    "destination": {"destinations": ()},
    "port": {"port": None},
    "listener": {"listeners": None},
}


class _Compiled(NamedTuple):
    """A rule as decide() reads it; None is "no condition"."""

    sources: Prefixes | None
    destinations: Prefixes | None
    port: int | None
    make: Make
    listed: Listed


class Waiting(NamedTuple):
    """A flow that may pass later, and its verdict then.

    Somebody is to be asked about it (`ask`), its client has to name the server, or a
    proxy has to connect.
    """

    verdict: Verdict
    ruling: Ruling


class Origin(NamedTuple):
    """By what a verdict is: the id of a rule, and the generation of its policy."""

    rule: int
    generation: int


def compile_network(network: Network) -> Prefixes:
    """Return the byte prefixes that the addresses of `network` have as inany."""
    whole, rest = divmod(network.prefixlen, 8)
    lead = V4_PREFIX if network.version == 4 else b""
    packed = network.network_address.packed
    if not rest:
        return (lead + packed[:whole],)
    spread = 1 << (8 - rest)
    first = packed[whole]
    return tuple(lead + packed[:whole] + bytes([first + i]) for i in range(spread))


class _SourceTranslator:
    """A SourceMap, compiled: from the peer's address to the one the guest sees."""

    def __init__(self, sources: SourceMap, guest: GuestAddresses) -> None:
        self._exact = {inany(a): inany(b) for a, b in sources.exact}
        self._unusable = tuple(
            prefix for n in sources.unusable for prefix in compile_network(n)
        )
        self._guest = guest
        self._ours = _ours(sources)
        self._guest_as = (_optional(sources.guest6), _optional(sources.guest4))

    def translate(self, peer: bytes) -> bytes:
        """Return what the guest sees as the source; UNSPECIFIED if there is none."""
        mapped = self._exact.get(peer)
        if mapped is not None:
            return mapped
        is_v4 = peer.startswith(V4_PREFIX)
        if self._guest.owns(peer):
            mapped = self._guest_as[is_v4]
            return mapped if mapped != UNSPECIFIED else self._ours[is_v4]
        if peer.startswith(self._unusable):
            return self._ours[is_v4]
        return peer


def _optional(addr: Address | None) -> bytes:
    return UNSPECIFIED if addr is None else inany(addr)


def _refusal(by: Origin) -> Verdict:
    return _REFUSED._replace(rule=by.rule, generation=by.generation)


def _make_fixed(action: Action, by: Origin) -> Make:
    verdict = _refusal(by)._replace(action=action)
    return lambda _: verdict


class _OwnChoice:
    """Finds out whether a guest that uses an address of the host chose it itself.

    It may also be its kernel's idea, which knows one interface of the host only: where
    the host would use another interface (a VPN), the address must be of that one.
    """

    def __init__(
        self, choices: Sequence[Address], source_towards: SourceTowards
    ) -> None:
        raw = [inany(addr) for addr in choices]
        usual4 = [each for each in raw if each.startswith(V4_PREFIX)][:1]
        usual6 = [each for each in raw if not each.startswith(V4_PREFIX)][:1]
        self._all = frozenset(raw)
        self.unusual = self._all.difference(usual4, usual6)
        self._source_towards = source_towards

    def bind(self, miss: MissLike) -> bytes:
        """Return what to bind to for a guest with an unusual source."""
        hosts = self._source_towards(miss.oaddr)
        return miss.eaddr if hosts in self._all else UNSPECIFIED


def _make_to_host(outcome: ToHost, by: Origin, source_towards: SourceTowards) -> Make:
    rule, generation = by
    bind4, bind6 = _optional(outcome.bind4), _optional(outcome.bind6)
    forward, host = Action.FORWARD, Pif.HOST
    if outcome.destination is not None:
        fixed = inany(outcome.destination)
        bind = bind4 if fixed.startswith(V4_PREFIX) else bind6

        def to_fixed(miss: MissLike) -> Verdict:
            return Verdict(forward, host, fixed, miss.oport, bind, 0, rule, generation)

        return to_fixed

    choice = _OwnChoice(outcome.choices, source_towards)
    unusual = choice.unusual
    same = bind4 == bind6  # mostly, and unusual is empty: then nothing is asked

    def to_asked(miss: MissLike) -> Verdict:
        asked = miss.oaddr
        bind = bind4 if same or asked.startswith(V4_PREFIX) else bind6
        if unusual and miss.eaddr in unusual and bind == UNSPECIFIED:
            bind = choice.bind(miss)
        return Verdict(forward, host, asked, miss.oport, bind, 0, rule, generation)

    return to_asked


def _ours(sources: SourceMap) -> tuple[bytes, bytes]:
    """Return what stands for who has no address of a family: IPv6's, and IPv4's."""
    return _optional(sources.ours6), _optional(sources.ours4)


def _make_to_guest(outcome: ToGuest, by: Origin, guest: GuestAddresses) -> Make:
    rule, generation = by
    translate = _SourceTranslator(outcome.source, guest).translate
    delta, proxy = outcome.delta, outcome.proxy
    forward, tap = Action.FORWARD, Pif.TAP
    refused = _refusal(by)._replace(action=Action.REJECT)
    crosses, ours = outcome.crosses, _ours(outcome.source)

    fixed = None if outcome.target is None else inany(outcome.target)

    def ends(eaddr: bytes, is_v4: bool, crossed: bool) -> tuple[bytes, bytes] | None:
        """Return the target and the source that the guest sees, if it has both."""
        source = ours[not is_v4] if crossed else translate(eaddr)
        # Our own address may be link-local, which says nothing about the guest's
        target = fixed or guest.towards(UNSPECIFIED if crossed and is_v4 else source)
        return None if UNSPECIFIED in (source, target) else (target, source)

    def to_guest(miss: MissLike) -> Verdict:
        is_v4 = miss.eaddr.startswith(V4_PREFIX)
        # The other family at once if the guest has only that; else when it is refused.
        # Datagrams follow no guess: their refusals are few
        surely = miss.proto != IPPROTO_TCP
        crossed = crosses and guest.prefers(not is_v4, surely=surely) != _turns(miss)
        if miss.again and not crosses:
            return refused
        found = ends(miss.eaddr, is_v4, crossed)
        if found is None and surely and miss.again:
            found = ends(miss.eaddr, is_v4, not crossed)
        if found is None:
            return refused
        target, source = found
        between = target, miss.oport + delta, source, miss.eport
        by = rule, generation, proxy, crosses
        return Verdict(forward, tap, *between, *by)

    return to_guest


def _turns(miss: MissLike) -> bool:
    """Tell whether a flow is to go to the other family than it would by itself."""
    return miss.again != miss.crossed


def _make_to_asker(outcome: ToAsker, by: Origin, guest: GuestAddresses) -> Make:
    rule, generation = by
    translate = _SourceTranslator(outcome.source, guest).translate
    refused = _refusal(by)

    def to_asker(miss: MissLike) -> Verdict:
        asker = guest.askers.get(miss.listener)
        source = translate(miss.eaddr)
        if asker is None or source == UNSPECIFIED:
            return refused
        ends = *asker, source, miss.eport
        return Verdict(Action.FORWARD, Pif.TAP, *ends, rule, generation)

    return to_asker


def _make_to_group(outcome: ToGroup, by: Origin, guest: GuestAddresses) -> Make:
    rule, generation = by
    translate = _SourceTranslator(outcome.source, guest).translate
    refused, delta = _refusal(by), outcome.delta

    def to_group(miss: MissLike) -> Verdict:
        source = translate(miss.eaddr)
        if source == UNSPECIFIED:
            return refused
        ends = (miss.oaddr, miss.oport + delta, source, miss.eport)
        return Verdict(Action.FORWARD, Pif.TAP, *ends, rule, generation)

    return to_group


def _loopback_of(asked: bytes, is_v4: bool) -> bytes:
    """Return the loopback address that was asked for, or the usual one."""
    if asked.startswith(_LOOPBACKS):
        return asked
    return LOOPBACK4 if is_v4 else LOOPBACK6


def _make_splice_to_guest(
    outcome: SpliceToGuest, by: Origin, guest: GuestAddresses
) -> Make:
    rule, generation = by
    delta, loopback, keep = outcome.delta, outcome.loopback, outcome.keep_source
    crosses = outcome.crosses
    refused = _refusal(by)._replace(action=Action.REJECT)
    over_tap: Make | None = None
    if outcome.source is not None:
        inner = ToGuest(
            delta, outcome.source, crosses=outcome.crosses, proxy=outcome.proxy
        )
        over_tap = _make_to_guest(inner, by, guest)

    def splice_to_guest(miss: MissLike) -> Verdict:
        source = miss.eaddr
        is_v4 = source.startswith(V4_PREFIX)
        is_local = source.startswith(_LOOPBACKS) or guest.owns(source)
        if over_tap is not None and not is_local:
            return over_tap(miss)
        target, asked = UNSPECIFIED, miss.oaddr
        if miss.again and not crosses:
            return refused
        crossed = crosses and _turns(miss)
        if crossed:
            is_v4, asked = not is_v4, UNSPECIFIED
        if not loopback:
            target = guest.inside(is_v4)
        if target == UNSPECIFIED:
            target = _loopback_of(asked, is_v4)
        ours = source if keep and not crossed else UNSPECIFIED
        ends = target, miss.oport + delta, ours, 0
        by = rule, generation, outcome.proxy, crosses
        return Verdict(Action.SPLICE, Pif.SPLICE, *ends, *by)

    return splice_to_guest


def _make_splice_to_host(outcome: SpliceToHost, by: Origin) -> Make:
    rule, generation = by
    delta, crosses = outcome.delta, outcome.crosses
    refused = _refusal(by)._replace(action=Action.REJECT)

    def splice_to_host(miss: MissLike) -> Verdict:
        target, source = miss.oaddr, miss.eaddr
        if miss.again and not crosses:
            return refused
        if crosses and _turns(miss):
            target = _loopback_of(UNSPECIFIED, not target.startswith(V4_PREFIX))
            source = UNSPECIFIED
        ends = (target, miss.oport + delta, source, 0)
        by = rule, generation, outcome.proxy, crosses
        return Verdict(Action.SPLICE, Pif.HOST, *ends, *by)

    return splice_to_host


def _make(
    rule: Rule, by: Origin, guest: GuestAddresses, source_towards: SourceTowards
) -> Make:
    outcome = rule.outcome
    match outcome:
        case Drop():
            return _make_fixed(Action.DROP, by)
        case Reject():
            return _make_fixed(Action.REJECT, by)
        case ToHost():
            return _make_to_host(outcome, by, source_towards)
        case ToGuest():
            return _make_to_guest(outcome, by, guest)
        case ToAsker():
            return _make_to_asker(outcome, by, guest)
        case ToGroup():
            return _make_to_group(outcome, by, guest)
        case SpliceToGuest():
            return _make_splice_to_guest(outcome, by, guest)
        case SpliceToHost():
            return _make_splice_to_host(outcome, by)
    assert_never(outcome)


def _prefixes(networks: tuple[Network, ...], is_v4: bool) -> Prefixes | bool | None:
    """Return the prefixes of one family; None: all match; False: none can."""
    if not networks:
        return None
    version = 4 if is_v4 else 6
    mine = [n for n in networks if n.version == version]
    if any(n.prefixlen == 0 for n in mine):
        return None
    return tuple(prefix for n in mine for prefix in compile_network(n)) or False


Key = tuple[int, int, bool, int]  # pif, protocol, is IPv4, listener (-1: none)


class Decider:
    """The policy of now, compiled; hits are counted by the ids of rules.

    `generation` counts the policies: it tells a verdict of this one from an older.
    """

    def __init__(
        self,
        rules: Sequence[Rule],
        guest: GuestAddresses | None = None,
        source_towards: SourceTowards = lambda _: UNSPECIFIED,
    ) -> None:
        self.guest = guest if guest is not None else GuestAddresses()
        self._source_towards = source_towards
        self.generation = 0
        self.egress: Egress | None = None
        self.rules: tuple[Listed, ...] = ()
        self._ids = RuleIds()
        self._hits = {NO_RULE: 0}
        self.replace(rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Decide after other rules from now on; those in both lists keep their hits.

        The same list again is no other policy, and changes nothing.
        """
        if self.generation and tuple(rules) == tuple(each.rule for each in self.rules):
            return
        self.rules = self._ids.list(rules)
        ids = (NO_RULE, *(each.id for each in self.rules))
        self._hits = {each: self._hits.get(each, 0) for each in ids}
        self.renew()

    def guard(self, egress: Egress) -> None:
        """Ask this as well about whatever goes from the guest to the host."""
        self.egress = egress
        self.renew()

    def ids_besides(self) -> RuleIds:
        """Return what gives ids that none of ours will have."""
        return RuleIds(self._ids.numbers)

    def renew(self) -> None:
        """Begin another generation: what decides has changed."""
        self.generation = self.generation % (_GENERATIONS - 1) + 1
        self._no_rule = _refusal(Origin(NO_RULE, self.generation))
        self._makers: dict[int, Make] = {}
        # Filled on demand: a rule for a thousand listeners costs nothing until
        # one of them is used, and there are never more keys than listeners.
        self._candidates: dict[Key, tuple[_Compiled, ...]] = {}

    @property
    def hits(self) -> dict[int, int]:
        """Return how often each rule decided, by its id; NO_RULE: none matched."""
        return dict(self._hits)

    def decide(self, miss: MissLike) -> Verdict | Waiting:
        """Return the verdict of the list, or the policy's about what it sends out."""
        verdict = self.by_rules(miss)
        if self.egress is None or not goes_out(verdict):
            return verdict
        ruling = self.egress.decide(miss, verdict.eaddr, verdict.eport)
        under = self._under(verdict, ruling)
        waits = self.egress.waits(ruling, miss.proto, verdict.eport)
        return Waiting(under, ruling) if waits else under

    def by_rules(self, miss: MissLike) -> Verdict:
        """Return the verdict of the first matching rule, and remember the guest."""
        if miss.pif == Pif.TAP:
            self.guest.observe(miss.eaddr)
        found = self._find(miss)
        if found is None:
            self._hits[NO_RULE] += 1
            return self._no_rule
        self._hits[found.listed.id] += not miss.again
        return found.make(miss)

    def judge(
        self,
        miss: MissLike,
        at_ns: int | None = None,
        names: tuple[str, ...] | None = None,
    ) -> Verdict:
        """Return what decide() would, without counting or remembering anything.

        `at_ns`: when a flow began that is open; `names`: those that its target has.
        What would wait passes.
        """
        verdict = self.where(miss)
        ruling = self.ruling(miss.proto, verdict, at_ns, names)
        if self.egress is None or ruling is None:
            return verdict
        return self._under(verdict, self.egress.enforced(ruling))

    def where(self, miss: MissLike) -> Verdict:
        """Return where a flow goes, if it may, without counting it."""
        found = self._find(miss)
        return self._no_rule if found is None else found.make(miss)

    def ruling(
        self,
        proto: int,
        verdict: Verdict,
        at_ns: int | None = None,
        names: tuple[str, ...] | None = None,
    ) -> Ruling | None:
        """Return what the policy says of a flow with this verdict, if it has a say."""
        if self.egress is None or not goes_out(verdict):
            return None
        return self.egress.judge(verdict.eaddr, verdict.eport, proto, at_ns, names)

    def refuse(self, ruling: Ruling) -> Verdict:
        """Return the verdict of a ruling that refuses."""
        action = Action.DROP if ruling.effect == "drop" else Action.REJECT
        by = Origin(ruling.rule, self.generation)
        return _refusal(by)._replace(action=action)

    def _under(self, verdict: Verdict, ruling: Ruling) -> Verdict:
        """Return what a ruling makes of the verdict that there would be without."""
        if ruling.refuses:
            return self.refuse(ruling)
        return verdict._replace(rule=ruling.rule or verdict.rule)

    def find(self, miss: MissLike) -> Listed | None:
        """Return the rule that `miss` would hit, without counting it."""
        found = self._find(miss)
        return None if found is None else found.listed

    def missed_by_one(self, miss: MissLike) -> Iterator[tuple[Listed, str]]:
        """Yield the rules before the one that `miss` hits which all but match it.

        Each with the name of the condition that fails while others hold. That is tried,
        not looked up: a rule less one condition is compiled and matched as any other.
        """
        found = self.find(miss)
        key = _key(miss)
        for listed in self.rules[: None if found is None else found.number - 1]:
            match = listed.rule.match
            for name, without in CONDITIONS.items():
                rest = replace(match, **without)
                if rest in (match, Match(match.pif)):
                    continue
                rule = replace(listed.rule, match=rest)
                compiled = self._compile(listed._replace(rule=rule), key)
                if compiled is not None and _first((compiled,), miss):
                    yield listed, name
                    break

    def _find(self, miss: MissLike) -> _Compiled | None:
        key = _key(miss)
        candidates = self._candidates.get(key)
        if candidates is None:
            candidates = self._candidates[key] = self._select(key)
        return _first(candidates, miss)

    def _select(self, key: Key) -> tuple[_Compiled, ...]:
        """Return the rules that can match a miss with this key, in order."""
        selected = []
        for listed in self.rules:
            compiled = self._compile(listed, key)
            if compiled is None:
                continue
            selected.append(compiled)
            if compiled[:3] == (None, None, None):
                break  # matches always: nothing behind it is reached
        return tuple(selected)

    def _compile(self, listed: Listed, key: Key) -> _Compiled | None:
        pif, proto, is_v4, listener = key
        match: Match = listed.rule.match
        if match.pif != pif or (match.protos and proto not in match.protos):
            return None
        if match.listeners is not None and listener not in match.listeners:
            return None
        sources = _prefixes(match.sources, is_v4)
        destinations = _prefixes(match.destinations, is_v4)
        if isinstance(sources, bool) or isinstance(destinations, bool):
            return None
        return _Compiled(sources, destinations, match.port, self._maker(listed), listed)

    def _maker(self, listed: Listed) -> Make:
        """Return what makes the verdicts of a rule, made once."""
        made = self._makers.get(listed.id)
        if made is None:
            by = Origin(listed.id, self.generation)
            made = self._makers[listed.id] = _make(
                listed.rule, by, self.guest, self._source_towards
            )
        return made


def goes_out(verdict: Verdict) -> bool:
    """Tell whether a flow would reach something by a socket of the host."""
    return verdict.pif == Pif.HOST and verdict.action in (Action.FORWARD, Action.SPLICE)


def _key(miss: MissLike) -> Key:
    return miss.pif, miss.proto, miss.oaddr.startswith(V4_PREFIX), miss.listener


def _first(candidates: tuple[_Compiled, ...], miss: MissLike) -> _Compiled | None:
    """Return the first that matches a miss whose key all of them match."""
    eaddr, oaddr, oport = miss.eaddr, miss.oaddr, miss.oport
    for candidate in candidates:
        sources, destinations, port, _, _ = candidate
        if port is not None and port != oport:
            continue
        if destinations is not None and not oaddr.startswith(destinations):
            continue
        if sources is not None and not eaddr.startswith(sources):
            continue
        return candidate
    return None

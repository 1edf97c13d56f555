# SPDX-License-Identifier: GPL-2.0-or-later
"""Answers a miss with a verdict: the one hot path of the control plane.

Rules are compiled once. A miss picks a short list of candidates by pif, protocol,
family and listener; networks become byte prefixes, which one startswith() tries all
at once; the verdict is a template in which a few fields are filled in. Order is kept:
the first candidate that matches is the first rule of the list that matches.
"""

from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple, assert_never

from passtpy.addr import UNSPECIFIED, V4_PREFIX, Address, inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.flow import Action, MissLike, Pif, Verdict
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

# Whole-byte prefixes of an inany; one network is at most 128 of them.
Prefixes = tuple[bytes, ...]
Make = Callable[[MissLike], Verdict]

NO_RULE = 0
LOOPBACK4 = inany(IPv4Address("127.0.0.1"))
LOOPBACK6 = inany(IPv6Address("::1"))
_REFUSED = Verdict(Action.DROP, Pif.NONE, UNSPECIFIED, 0, UNSPECIFIED, 0, NO_RULE)


class _Compiled(NamedTuple):
    """A rule as decide() reads it; None is "no condition"."""

    sources: Prefixes | None
    destinations: Prefixes | None
    port: int | None
    make: Make
    rule: Rule


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
        self._ours = (_optional(sources.ours6), _optional(sources.ours4))
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


def _make_fixed(action: Action, number: int) -> Make:
    verdict = _REFUSED._replace(action=action, rule=number)
    return lambda _: verdict


def _make_to_host(outcome: ToHost, number: int) -> Make:
    bind4, bind6 = _optional(outcome.bind4), _optional(outcome.bind6)
    forward, host = Action.FORWARD, Pif.HOST
    if outcome.destination is not None:
        fixed = inany(outcome.destination)
        bind = bind4 if fixed.startswith(V4_PREFIX) else bind6

        def to_fixed(miss: MissLike) -> Verdict:
            return Verdict(forward, host, fixed, miss.oport, bind, 0, number)

        return to_fixed

    def to_asked(miss: MissLike) -> Verdict:
        asked = miss.oaddr
        bind = bind4 if asked.startswith(V4_PREFIX) else bind6
        return Verdict(forward, host, asked, miss.oport, bind, 0, number)

    return to_asked


def _make_to_guest(outcome: ToGuest, number: int, guest: GuestAddresses) -> Make:
    translate = _SourceTranslator(outcome.source, guest).translate
    delta = outcome.delta
    forward, tap = Action.FORWARD, Pif.TAP
    refused = _REFUSED._replace(action=Action.REJECT, rule=number)

    def to_guest(miss: MissLike) -> Verdict:
        source = translate(miss.eaddr)
        if source == UNSPECIFIED:
            return refused
        target = guest.towards(source)
        if target == UNSPECIFIED:
            return refused
        port = miss.oport + delta
        return Verdict(forward, tap, target, port, source, miss.eport, number)

    return to_guest


def _make_to_asker(outcome: ToAsker, number: int, guest: GuestAddresses) -> Make:
    translate = _SourceTranslator(outcome.source, guest).translate
    refused = _REFUSED._replace(rule=number)

    def to_asker(miss: MissLike) -> Verdict:
        asker = guest.askers.get(miss.listener)
        source = translate(miss.eaddr)
        if asker is None or source == UNSPECIFIED:
            return refused
        return Verdict(Action.FORWARD, Pif.TAP, *asker, source, miss.eport, number)

    return to_asker


def _make_to_group(outcome: ToGroup, number: int, guest: GuestAddresses) -> Make:
    translate = _SourceTranslator(outcome.source, guest).translate
    refused = _REFUSED._replace(rule=number)

    def to_group(miss: MissLike) -> Verdict:
        source = translate(miss.eaddr)
        if source == UNSPECIFIED:
            return refused
        ends = (miss.oaddr, miss.oport, source, miss.eport)
        return Verdict(Action.FORWARD, Pif.TAP, *ends, number)

    return to_group


def _make_splice_to_guest(
    outcome: SpliceToGuest, number: int, guest: GuestAddresses
) -> Make:
    delta, loopback, keep = outcome.delta, outcome.loopback, outcome.keep_source

    def splice_to_guest(miss: MissLike) -> Verdict:
        source = miss.eaddr
        is_v4 = source.startswith(V4_PREFIX)
        target = UNSPECIFIED
        if not loopback:
            target = guest.addr4 if is_v4 else guest.addr6
        if target == UNSPECIFIED:
            target = LOOPBACK4 if is_v4 else LOOPBACK6
        ours = source if keep else UNSPECIFIED
        port = miss.oport + delta
        return Verdict(Action.SPLICE, Pif.SPLICE, target, port, ours, 0, number)

    return splice_to_guest


def _make_splice_to_host(outcome: SpliceToHost, number: int) -> Make:
    delta, keep = outcome.delta, outcome.keep_source

    def splice_to_host(miss: MissLike) -> Verdict:
        source = miss.eaddr
        target = LOOPBACK4 if source.startswith(V4_PREFIX) else LOOPBACK6
        ours = source if keep else UNSPECIFIED
        port = miss.oport + delta
        return Verdict(Action.SPLICE, Pif.HOST, target, port, ours, 0, number)

    return splice_to_host


def _make(rule: Rule, guest: GuestAddresses) -> Make:
    outcome = rule.outcome
    match outcome:
        case Drop():
            return _make_fixed(Action.DROP, rule.number)
        case Reject():
            return _make_fixed(Action.REJECT, rule.number)
        case ToHost():
            return _make_to_host(outcome, rule.number)
        case ToGuest():
            return _make_to_guest(outcome, rule.number, guest)
        case ToAsker():
            return _make_to_asker(outcome, rule.number, guest)
        case ToGroup():
            return _make_to_group(outcome, rule.number, guest)
        case SpliceToGuest():
            return _make_splice_to_guest(outcome, rule.number, guest)
        case SpliceToHost():
            return _make_splice_to_host(outcome, rule.number)
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
    """Rules, compiled; hits are counted per rule number."""

    def __init__(
        self, rules: Sequence[Rule], guest: GuestAddresses | None = None
    ) -> None:
        self.guest = guest if guest is not None else GuestAddresses()
        self.replace(rules)

    def replace(self, rules: Sequence[Rule]) -> None:
        """Put other rules in place; their hits start at zero."""
        self.rules = tuple(rules)
        self._hits = {NO_RULE: 0} | {rule.number: 0 for rule in self.rules}
        self._makers = {r.number: _make(r, self.guest) for r in self.rules}
        # Filled on demand: a rule for a thousand listeners costs nothing until
        # one of them is used, and there are never more keys than listeners.
        self._candidates: dict[Key, tuple[_Compiled, ...]] = {}

    @property
    def hits(self) -> dict[int, int]:
        """Return how often each rule decided; number 0: none matched."""
        return dict(self._hits)

    def decide(self, miss: MissLike) -> Verdict:
        """Return the verdict of the first matching rule, and remember the guest."""
        if miss.pif == Pif.TAP:
            self.guest.observe(miss.eaddr)
        found = self._find(miss)
        if found is None:
            self._hits[NO_RULE] += 1
            return _REFUSED
        self._hits[found.rule.number] += 1
        return found.make(miss)

    def find(self, miss: MissLike) -> Rule | None:
        """Return the rule that `miss` would hit, without counting it."""
        found = self._find(miss)
        return None if found is None else found.rule

    def _find(self, miss: MissLike) -> _Compiled | None:
        oaddr = miss.oaddr
        key = (miss.pif, miss.proto, oaddr.startswith(V4_PREFIX), miss.listener)
        candidates = self._candidates.get(key)
        if candidates is None:
            candidates = self._candidates[key] = self._select(key)
        for candidate in candidates:
            sources, destinations, port, _, _ = candidate
            if port is not None and port != miss.oport:
                continue
            if destinations is not None and not oaddr.startswith(destinations):
                continue
            if sources is not None and not miss.eaddr.startswith(sources):
                continue
            return candidate
        return None

    def _select(self, key: Key) -> tuple[_Compiled, ...]:
        """Return the rules that can match a miss with this key, in order."""
        selected = []
        for rule in self.rules:
            compiled = self._compile(rule, key)
            if compiled is None:
                continue
            selected.append(compiled)
            if compiled[:3] == (None, None, None):
                break  # matches always: nothing behind it is reached
        return tuple(selected)

    def _compile(self, rule: Rule, key: Key) -> _Compiled | None:
        pif, proto, is_v4, listener = key
        match: Match = rule.match
        if match.pif != pif or (match.protos and proto not in match.protos):
            return None
        if match.listeners is not None and listener not in match.listeners:
            return None
        sources = _prefixes(match.sources, is_v4)
        destinations = _prefixes(match.destinations, is_v4)
        if isinstance(sources, bool) or isinstance(destinations, bool):
            return None
        make = self._makers[rule.number]
        return _Compiled(sources, destinations, match.port, make, rule)

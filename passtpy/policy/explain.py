# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy as text: every rule on a line, and what it would make of a flow."""

from collections.abc import Iterator
from typing import NamedTuple, assert_never

from passtpy.addr import UNSPECIFIED, from_inany, show_endpoint
from passtpy.flow import (
    IPPROTO_TCP,
    PROTO_NAMES,
    Action,
    FlowMiss,
    MissLike,
    Pif,
    Verdict,
)
from passtpy.policy.decide import Decider
from passtpy.policy.listing import Listed
from passtpy.policy.rules import (
    Drop,
    Match,
    Outcome,
    Reject,
    SpliceToGuest,
    SpliceToHost,
    ToAsker,
    ToGroup,
    ToGuest,
    ToHost,
)
from passtpy.record import record


def show_match(match: Match) -> str:
    """Return the conditions of a rule."""
    names = [PROTO_NAMES.get(p, str(p)) for p in sorted(match.protos)]
    parts = [match.pif.name.lower(), ",".join(names) or "any"]
    if match.sources:
        parts.append("from " + ",".join(map(str, match.sources)))
    if match.destinations:
        parts.append("to " + ",".join(map(str, match.destinations)))
    if match.port is not None:
        parts.append(f"port {match.port}")
    if match.listeners is not None:
        first, last = match.listeners[0], match.listeners[-1]
        span = f"{first}" if first == last else f"{first}-{last}"
        parts.append(f"listener {span}")
    return " ".join(parts)


def show_outcome(outcome: Outcome) -> str:
    """Return what a rule does."""
    match outcome:
        case Drop():
            return "drop"
        case Reject():
            return "reject"
        case ToHost():
            where = outcome.destination or "as asked"
            binds = [str(b) for b in (outcome.bind4, outcome.bind6) if b is not None]
            source = f" from {','.join(binds)}" if binds else ""
            if len(outcome.choices) > 1:
                source += f" (or the guest's, if one of {len(outcome.choices)} known)"
            return f"host {where}{source}"
        case ToGuest():
            where = "guest" if outcome.target is None else f"guest at {outcome.target}"
            return f"{where}{_show_delta(outcome.delta)}{_show_proxy(outcome.proxy)}"
        case ToAsker():
            return "guest who asked"
        case ToGroup():
            return f"guest's group{_show_delta(outcome.delta)}"
        case SpliceToGuest():
            where = "loopback" if outcome.loopback else "address"
            source = " with its source" if outcome.keep_source else ""
            told = source + _show_proxy(outcome.proxy)
            return f"splice namespace {where}{_show_delta(outcome.delta)}{told}"
        case SpliceToHost():
            told = _show_delta(outcome.delta) + _show_proxy(outcome.proxy)
            where = "loopback" if outcome.path is None else f"unix:{outcome.path}"
            return f"splice host {where}{told}"
    assert_never(outcome)


def _show_delta(delta: int) -> str:
    return f" port {delta:+d}" if delta else ""


def _show_proxy(version: int) -> str:
    return f" telling its client by PROXY v{version}" if version else ""


def show_rule(listed: Listed, hits: int) -> str:
    """Return one rule on one line."""
    rule = listed.rule
    what = f"{show_match(rule.match)} => {show_outcome(rule.outcome)}"
    return f"{listed.number:>4} {listed.id:>5} {hits:>8}  {what}  ({rule.why})"


def explain(decider: Decider) -> Iterator[str]:
    """Yield the whole policy with its hits, then how inbound sources appear."""
    hits = decider.hits
    yield "rule    id     hits  match => outcome"
    for listed in decider.rules:
        yield show_rule(listed, hits[listed.id])
    yield from _show_sources(decider)


def _show_sources(decider: Decider) -> Iterator[str]:
    maps = dict.fromkeys(
        listed.rule.outcome.source
        for listed in decider.rules
        if isinstance(listed.rule.outcome, ToGuest)
    )
    for sources in maps:
        yield "sources of inbound flows, as the guest sees them:"
        for addr, shown in sources.exact:
            yield f"    {addr} as {shown}"
        for shown_guest in (sources.guest4, sources.guest6):
            if shown_guest is not None:
                yield f"    its own address as {shown_guest}"
        ours = ",".join(str(a) for a in (sources.ours4, sources.ours6) if a is not None)
        networks = ",".join(map(str, sources.unusable))
        yield f"    its own address, {networks} as {ours or 'nothing: rejected'}"
        yield "    any other unchanged"


class Ends(NamedTuple):
    """How a flow looks to one of those whom it joins; an inany and a port each."""

    source: bytes
    source_port: int
    destination: bytes
    destination_port: int

    def __str__(self) -> str:
        ours = "[*]" if self.source == UNSPECIFIED else f"[{from_inany(self.source)}]"
        source = f"{ours}:{self.source_port or '*'}"  # "*": of the kernel's choice
        return f"{source} -> {show_endpoint(self.destination, self.destination_port)}"


@record
class Explanation:
    """What the policy says about a flow that there may not be.

    `seen` tells how it looks on each pif that it touches; where it is refused, that is
    the one it comes from. `otherwise` tells the same of where it goes on if nobody
    listens there: we are asked once more then. `nearly` are earlier rules, each with
    what it failed by.
    """

    listed: Listed | None
    action: Action
    seen: dict[Pif, Ends]
    otherwise: dict[Pif, Ends]
    nearly: tuple[tuple[Listed, str], ...]


def explain_miss(
    decider: Decider, miss: MissLike, names: tuple[str, ...] | None = None
) -> Explanation:
    """Ask the list that decides, without counting: what would become of this flow?"""
    verdict = decider.judge(miss, names=names)
    asked = Ends(miss.eaddr, miss.eport, miss.oaddr, miss.oport)
    first = _led_to(verdict)
    then: dict[Pif, Ends] = {}
    if first and miss.proto == IPPROTO_TCP:
        then = _led_to(decider.judge(_asked_again(miss), names=names))
    return Explanation(
        listed=decider.find(miss),
        action=Action(verdict.action),
        seen={Pif(miss.pif): asked, **first},
        otherwise={} if then == first else then,
        nearly=tuple(decider.missed_by_one(miss)),
    )


def _led_to(verdict: Verdict) -> dict[Pif, Ends]:
    if verdict.action not in (Action.FORWARD, Action.SPLICE):
        return {}
    ends = verdict.oaddr, verdict.oport, verdict.eaddr, verdict.eport
    return {Pif(verdict.pif): Ends(*ends)}


def _asked_again(miss: MissLike) -> FlowMiss:
    sides = miss.eaddr, miss.eport, miss.oaddr, miss.oport
    return FlowMiss(miss.proto, miss.pif, *sides, miss.listener, again=True)


VIEWERS = {Pif.TAP: "guest", Pif.HOST: "host", Pif.SPLICE: "namespace"}


def show_explanation(decider: Decider, found: Explanation) -> Iterator[str]:
    """Yield the lines that tell it: the rule, who sees what, and what nearly hit."""
    hits = decider.hits
    if found.listed is None:
        yield "no rule: drop"
    else:
        yield show_rule(found.listed, hits[found.listed.id]).strip()
    for pif, ends in found.seen.items():
        yield f"the {VIEWERS[pif]} sees {ends}"
    if len(found.seen) == 1:
        yield f"nobody else sees it: {found.action.name.lower()}"
    for pif, ends in found.otherwise.items():
        yield f"if that is refused, the {VIEWERS[pif]} sees {ends}"
    for listed, condition in found.nearly:
        yield f"but for its {condition}: {show_rule(listed, hits[listed.id]).strip()}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy as text: every rule on a line, and which of them a flow would hit."""

from collections.abc import Iterator
from typing import assert_never

from passtpy.flow import PROTO_NAMES, MissLike
from passtpy.policy.decide import Decider
from passtpy.policy.rules import (
    Drop,
    Match,
    Outcome,
    Reject,
    Rule,
    SpliceToGuest,
    SpliceToHost,
    ToAsker,
    ToGroup,
    ToGuest,
    ToHost,
)


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
            return f"host {where}{source}"
        case ToGuest():
            return f"guest{_show_delta(outcome.delta)}"
        case ToAsker():
            return "guest who asked"
        case ToGroup():
            return "guest's group"
        case SpliceToGuest():
            where = "loopback" if outcome.loopback else "address"
            return f"splice namespace {where}{_show_splice(outcome)}"
        case SpliceToHost():
            return f"splice host loopback{_show_splice(outcome)}"
    assert_never(outcome)


def _show_delta(delta: int) -> str:
    return f" port {delta:+d}" if delta else ""


def _show_splice(outcome: SpliceToGuest | SpliceToHost) -> str:
    source = " with its source" if outcome.keep_source else ""
    return _show_delta(outcome.delta) + source


def show_rule(rule: Rule, hits: int) -> str:
    """Return one rule on one line."""
    what = f"{show_match(rule.match)} => {show_outcome(rule.outcome)}"
    return f"{rule.number:>4} {hits:>8}  {what}  ({rule.why})"


def explain(decider: Decider) -> Iterator[str]:
    """Yield the whole policy with its hits, then how inbound sources appear."""
    hits = decider.hits
    yield "rule     hits  match => outcome"
    for rule in decider.rules:
        yield show_rule(rule, hits[rule.number])
    yield from _show_sources(decider)


def _show_sources(decider: Decider) -> Iterator[str]:
    maps = dict.fromkeys(
        rule.outcome.source
        for rule in decider.rules
        if isinstance(rule.outcome, ToGuest)
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


def explain_miss(decider: Decider, miss: MissLike) -> str:
    """Return the rule that a flow would hit, without counting it."""
    rule = decider.find(miss)
    if rule is None:
        return "no rule: drop"
    return show_rule(rule, decider.hits[rule.number])

# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules in the order in which they are tried, each under an id that stays its own.

A rule's number is its place, which changes when others come or go. Flows and hit
counters know it by its id: that stays for as long as an equal rule is listed, and no
other rule ever gets it. One allocator hands ids out to whatever is a rule.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from passtpy.policy.rules import Rule

NO_RULE: Final = 0  # the id of "no rule matched"


class Listed(NamedTuple):
    """A rule and its place, counted from 1."""

    id: int
    number: int
    rule: Rule


class RuleIds:
    """Hands out ids, and remembers whose they are while their rules are listed."""

    def __init__(self) -> None:
        self._next = NO_RULE + 1
        # Of equal rules, of which one at most is ever reached, the nth keeps its own.
        self._known: dict[tuple[Rule, int], int] = {}

    def list(self, rules: Sequence[Rule]) -> tuple[Listed, ...]:
        """Return these rules with their ids; rules not among them lose theirs."""
        known: dict[tuple[Rule, int], int] = {}
        met: dict[Rule, int] = {}
        listed = []
        for number, rule in enumerate(rules, start=1):
            key = rule, met.get(rule, 0)
            met[rule] = key[1] + 1
            known[key] = self._known.get(key) or self._take()
            listed.append(Listed(known[key], number, rule))
        self._known = known
        return tuple(listed)

    def _take(self) -> int:
        taken = self._next
        self._next += 1
        return taken

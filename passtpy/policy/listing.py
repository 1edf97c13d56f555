# SPDX-License-Identifier: GPL-2.0-or-later
"""Rules in the order in which they are tried, each under an id that stays its own.

A rule's number is its place, which changes when others come or go. Flows and hit
counters know it by its id: that stays for as long as an equal rule is listed, and no
other rule ever gets it. One allocator hands ids out to whatever is a rule.
"""

from collections.abc import Hashable, Iterator, Sequence
from itertools import count
from typing import Final, NamedTuple

from passtpy.policy.rules import Rule

NO_RULE: Final = 0  # the id of "no rule matched"


class Listed(NamedTuple):
    """A rule and its place, counted from 1."""

    id: int
    number: int
    rule: Rule


class RuleIds:
    """Hands out ids, and remembers whose they are while their rules are listed.

    Lists whose ids must not be mixed up take them from the same `numbers`.
    """

    def __init__(self, numbers: Iterator[int] | None = None) -> None:
        self.numbers = count(NO_RULE + 1) if numbers is None else numbers
        # Of equal rules, of which one at most is ever reached, the nth keeps its own.
        self._known: dict[Hashable, list[int]] = {}

    def give(self, rules: Sequence[Hashable]) -> tuple[int, ...]:
        """Return an id for each of these; rules not among them lose theirs."""
        known: dict[Hashable, list[int]] = {}
        given = []
        for rule in rules:
            mine = known.setdefault(rule, [])
            before = self._known.get(rule, ()) if self._known else ()
            met = len(mine)
            mine.append(before[met] if met < len(before) else next(self.numbers))
            given.append(mine[met])
        self._known = known
        return tuple(given)

    def list(self, rules: Sequence[Rule]) -> tuple[Listed, ...]:
        """Return these rules with their ids, and their places."""
        both = zip(self.give(rules), rules, strict=True)
        return tuple(Listed(each, n, rule) for n, (each, rule) in enumerate(both, 1))

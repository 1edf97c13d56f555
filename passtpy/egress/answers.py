# SPDX-License-Identifier: GPL-2.0-or-later
"""What people answered when a rule said "ask", and for how long that holds.

A question is about a rule, and about where the flow goes: a name if the address has
one, else the address; so that a name with many addresses is asked about once. Flows
that wait are kept by whoever waits for them; here are the questions.
"""

from typing import Final, NamedTuple

from passtpy.addr import from_inany
from passtpy.egress.model import Effect

MOST_ANSWERS: Final = 4096
MOST_OPEN: Final = 64  # questions at a time; nobody reads more


class Asked(NamedTuple):
    """What is asked: may a flow by this rule go there?"""

    rule: int
    proto: int
    port: int
    target: bytes  # inany
    names: tuple[str, ...]

    @property
    def key(self) -> tuple[int, int, int, str]:
        """Return what makes two questions one."""
        return self.rule, self.proto, self.port, self.where

    @property
    def where(self) -> str:
        """Return where the flow goes, for people."""
        return self.names[0] if self.names else str(from_inany(self.target))


class Open(NamedTuple):
    """A question that waits for its answer."""

    number: int
    asked: Asked


class Answers:
    """The questions that are open, and the answers that hold."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int, int, str], Effect] = {}
        self._open: dict[tuple[int, int, int, str], Open] = {}
        self._next = 1

    def known(self, asked: Asked) -> Effect | None:
        """Return the answer that holds for this question, if there is one."""
        return self._known.get(asked.key)

    def ask(self, asked: Asked) -> Open | None:
        """Open a question, or return the one that is; None: too many are."""
        found = self._open.get(asked.key)
        if found is None and len(self._open) < MOST_OPEN:
            found = self._open[asked.key] = Open(self._next, asked)
            self._next += 1
        return found

    def open(self) -> list[Open]:
        """Return the questions that wait, the oldest first."""
        return list(self._open.values())

    def take(self, number: int) -> Open | None:
        """Close a question and return it; None: there is none with this number."""
        found = next((o for o in self._open.values() if o.number == number), None)
        if found is not None:
            del self._open[found.asked.key]
        return found

    def remember(self, asked: Asked, effect: Effect) -> None:
        """Have an answer hold for as long as the rule does."""
        if len(self._known) >= MOST_ANSWERS:
            del self._known[next(iter(self._known))]
        self._known[asked.key] = effect

    def forget(self, asked: Asked) -> None:
        """Ask again about this."""
        self._known.pop(asked.key, None)

    def keep(self, rules: frozenset[int]) -> None:
        """Forget what was answered about rules that there are no more."""
        self._known = {k: v for k, v in self._known.items() if k[0] in rules}

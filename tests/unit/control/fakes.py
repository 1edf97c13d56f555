# SPDX-License-Identifier: GPL-2.0-or-later
"""Owners of the daemon's parts, as the dialects see them, without a daemon."""

from collections.abc import Sequence
from typing import Any

from passtpy.config.portrule import Able, PortRule, PortTable, Side
from passtpy.control.forwards import Applied, Listed

ALL = Able(63)


def rule(port: int, **more: Any) -> PortRule:
    """Return a rule for one TCP port of any address, changed by `more`."""
    fields: dict[str, Any] = {"proto": 6, "addr": None, "ifname": None}
    return PortRule(first=port, last=port, **(fields | more))


class Forwards:
    """Tables that change as they are told; `waits`: only when the test says so."""

    def __init__(self, *rules: PortRule) -> None:
        self.now: tuple[PortTable, ...] = (
            PortTable(Side.HOST, ALL, rules),
            PortTable(Side.SPLICE, ALL),
        )
        self.asked: list[tuple[PortTable, ...]] = []
        self.applied: Applied | None = None
        self.waits = False
        self.reasons: Sequence[str] = ()
        self._ids: dict[tuple[Side, PortRule], int] = {}

    def tables(self) -> tuple[PortTable, ...]:
        return self.now

    def listed(self) -> Sequence[Listed]:
        standing = [(table.side, rule) for table in self.now for rule in table.rules]
        for each in standing:
            self._ids.setdefault(each, len(self._ids) + 1)
        return [Listed(self._ids[s, r], s, r, r.ports) for s, r in standing]

    def replace(
        self,
        old: tuple[PortTable, ...],
        tables: tuple[PortTable, ...],
        applied: Applied,
    ) -> None:
        assert old == self.now
        self.asked.append(tables)
        self.applied = applied
        if not self.reasons:
            self.now = tables
        if not self.waits:
            applied(self.reasons)

# SPDX-License-Identifier: GPL-2.0-or-later
"""What every dialect asks of whoever owns the forwarding tables.

A change is a set of whole tables: either all of it becomes true, or nothing does. Rules
that stand in the old and in the new tables keep their sockets and their ids.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from passtpy.config.portrule import PortRule, PortTable, RuleError, Side
from passtpy.record import record

Applied = Callable[[Sequence[str]], None]  # what went wrong; nothing: it is done


@record
class Listed:
    """A rule that stands, and the id it keeps as long as it does.

    `open_ports`: on how many of its ports a socket listens now.
    """

    id: int
    side: Side
    rule: PortRule
    open_ports: int


class Forwards(Protocol):
    """Who owns the tables."""

    def tables(self) -> tuple[PortTable, ...]: ...

    def listed(self) -> Sequence[Listed]: ...

    def replace(
        self,
        old: tuple[PortTable, ...],
        new: tuple[PortTable, ...],
        applied: Applied,
    ) -> None:
        """Make true what is different between two sets of tables, or nothing of it.

        `old` are the tables that whoever asks has seen. `applied` is told which it was.
        """


def with_rules(
    tables: Sequence[PortTable], more: Sequence[tuple[Side, PortRule]]
) -> tuple[tuple[PortTable, ...], tuple[tuple[int, str], ...]]:
    """Return the tables with more rules, and (position, reason) of those refused."""
    changed = {table.side: table for table in tables}
    refused = []
    for position, (side, rule) in enumerate(more):
        table = changed.get(side)
        if table is None:
            refused.append((position, f"there is no table {side.value}"))
            continue
        try:
            changed[side] = table.add(rule)
        except RuleError as error:
            refused.append((position, str(error).splitlines()[0].rstrip()))
    return tuple(changed.values()), tuple(refused)


def without_rules(
    tables: Sequence[PortTable], gone: Sequence[tuple[Side, PortRule]]
) -> tuple[PortTable, ...]:
    """Return the tables without these rules, which stand in them."""
    changed = {table.side: table for table in tables}
    for side, rule in gone:
        changed[side] = changed[side].delete(rule)
    return tuple(changed.values())


def id_of(forwards: Forwards, side: Side, rule: PortRule) -> int | None:
    """Return the id of a rule that stands."""
    for each in forwards.listed():
        if each.side is side and each.rule == rule:
            return each.id
    return None

# SPDX-License-Identifier: GPL-2.0-or-later
"""Serves pesto's protocol: tells the forwarding tables, and takes new ones.

A client may come, look and go. If it sends an update, that is the whole new state: all
of it becomes true, or nothing does. Then we hang up. A client that knows us reads until
then, and finds the reasons there if nothing was changed; pesto itself does not look.
"""

from collections.abc import Callable, Sequence

from passtpy.config.portrule import PortTable, RuleError
from passtpy.config.rawrule import SIDES, TABLES, from_raw, to_raw
from passtpy.control.forwards import Forwards
from passtpy.control.once import OneRequest
from passtpy.errors import WireError
from passtpy.wire.pesto import RawRule, RawTable, UpdateReader, emit_greeting


def greeting(tables: Sequence[PortTable]) -> bytes:
    """Return all that a client is told."""
    return emit_greeting(
        RawTable(
            TABLES[table.side],
            table.side.value,
            int(table.able),
            tuple(to_raw(rule) for rule in table.rules),
        )
        for table in tables
    )


def read_tables(
    known: Sequence[PortTable], told: Sequence[tuple[int, tuple[RawRule, ...]]]
) -> tuple[PortTable, ...]:
    """Return the tables that an update asks for; RuleError for a rule none takes."""
    wanted = {table.side: table.cleared() for table in known}
    for number, raws in told:
        side = SIDES[number]
        for raw in raws:
            wanted[side] = wanted[side].add(from_raw(raw))
    return tuple(wanted.values())


class PestoConversation(OneRequest):
    """One client."""

    def __init__(self, forwards: Forwards, note: Callable[[str], None]) -> None:
        """`note` takes a line for the log."""
        super().__init__()
        self._forwards = forwards
        self._note = note
        # Rules that the protocol has no words for stay as they are
        self._tables = tuple(table.plain() for table in forwards.tables())
        numbers = frozenset(TABLES[table.side] for table in self._tables)
        self._reader = UpdateReader(numbers)
        self._told = False

    def begin(self) -> bytes:
        """Return what is said before anything is asked: the tables."""
        return greeting(self._tables)

    def receive(self, data: bytes) -> bytes:
        """Take what the client sent (b"": it sends no more); return what to send."""
        if self.over or self._told:
            return b""
        try:
            self._reader.feed(data)
            if self._reader.tables is not None:
                return self._apply(read_tables(self._tables, self._reader.tables))
        except (WireError, RuleError) as error:
            return self._refuse(str(error))
        self.over = not data
        return b""

    def _apply(self, tables: tuple[PortTable, ...]) -> bytes:
        self._told = self._waits = True
        self._forwards.replace(self._tables, tables, self._applied)
        return self.more()

    def _applied(self, reasons: Sequence[str]) -> None:
        self._waits = False
        self.over = True
        if reasons:
            self._said = self._refuse("\n".join(reasons))
        self.woken()

    def _refuse(self, text: str) -> bytes:
        self.over = True
        for line in text.splitlines():
            self._note(line)
        return f"{text}\n".encode(errors="surrogateescape")

# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds what stands for a name in our own zones."""

import re
from collections.abc import Iterable, Sequence

from passtpy.config.zones import ZoneEntry


class Zones:
    """All such names. An exact one wins, then the longest suffix, then expressions."""

    def __init__(self, entries: Iterable[ZoneEntry] = ()) -> None:
        self._exact: dict[str, ZoneEntry] = {}
        self._suffixes: dict[str, ZoneEntry] = {}
        self._patterns: list[tuple[re.Pattern[str], ZoneEntry]] = []
        for entry in entries:
            if entry.pattern.startswith("/"):
                compiled = re.compile(entry.pattern[1:-1], re.IGNORECASE)
                self._patterns.append((compiled, entry))
            elif entry.pattern.startswith("*."):
                self._suffixes.setdefault(entry.pattern[2:], entry)
            else:
                self._exact.setdefault(entry.pattern, entry)

    def find(self, name: str) -> ZoneEntry | None:
        """Return what stands for a name in lower case without its last dot."""
        entry = self._exact.get(name)
        if entry is not None:
            return entry
        labels: Sequence[str] = name.split(".")
        for first in range(1, len(labels)) if self._suffixes else ():
            entry = self._suffixes.get(".".join(labels[first:]))
            if entry is not None:
                return entry
        for compiled, each in self._patterns:
            if compiled.fullmatch(name):
                return each
        return None

# SPDX-License-Identifier: GPL-2.0-or-later
"""What a daemon holds: flows, descriptors and memory, and what became of them."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

# What may differ between two looks at a process that holds the same: rings of events
# fill up, and the heap is more or less in pieces.
NOISE_KIB = 4096
PER_MILLION_KIB = 256
_SHOWN = 5  # mappings that are named when memory has grown

_MAPPING = re.compile(r"^([0-9a-f]+)-[0-9a-f]+ \S+ \S+ \S+ \S+ *(.*)$")
_PRIVATE = re.compile(r"^Private_\w+: +(\d+) kB$")


@dataclass(frozen=True)
class Held:
    """What a daemon holds once it has had so many flows.

    `descriptors` by kind; `memory`: KiB that are its own, by mapping; `open_flows`:
    those that are there though nobody is, as the daemon shows them.
    """

    had: int
    descriptors: Counter[str] = field(default_factory=Counter)
    memory: Counter[str] = field(default_factory=Counter)
    open_flows: tuple[str, ...] = ()

    @classmethod
    def by(
        cls, pids: Iterable[int], had: int = 0, open_flows: Sequence[str] = ()
    ) -> "Held":
        """Look at the processes of a daemon."""
        found = cls(had, open_flows=tuple(open_flows))
        for pid in pids:
            # Who has ended since it was listed holds nothing
            with suppress(FileNotFoundError, ProcessLookupError):
                found.descriptors.update(_descriptors(pid))
                for where, kib in _mappings(pid):
                    found.memory[where] += kib
        return found

    @property
    def kib(self) -> int:
        """Return all of its memory."""
        return self.memory.total()


def _descriptors(pid: int) -> Iterator[str]:
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            yield re.sub(r":?\[\d+\]", "", os.readlink(entry))


def _mappings(pid: int) -> Iterator[tuple[str, int]]:
    where = ""
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if mapping := _MAPPING.match(line):
            where = f"{pid} {mapping[2] or mapping[1]}"
        elif private := _PRIVATE.match(line):
            yield where, int(private[1])


def growth_kib(looks: Sequence[Held]) -> float:
    """Memory that a million flows leave behind: the slope of the line through all."""
    if len(looks) < 2 or looks[0].had == looks[-1].had:
        return 0.0
    xs = [look.had / 1e6 for look in looks]
    ys = [float(look.kib) for look in looks]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((a - x) ** 2 for a in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread


def complaints(looks: Sequence[Held]) -> list[str]:
    """Name what has not returned to where it was after the first round."""
    first, last = looks[0], looks[-1]
    bad = [f"open flow: {text}" for text in last.open_flows]
    more = last.descriptors - first.descriptors
    bad += [f"{count} descriptors more: {kind}" for kind, count in more.items()]
    allowed = NOISE_KIB + PER_MILLION_KIB * (last.had - first.had) / 1e6
    if last.kib - first.kib > allowed:
        grown = (last.memory - first.memory).most_common(_SHOWN)
        where = ", ".join(f"{kib} in {name}" for name, kib in grown)
        bad.append(f"{last.kib - first.kib} KiB more: {where}")
    return bad

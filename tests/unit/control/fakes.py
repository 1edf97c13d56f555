# SPDX-License-Identifier: GPL-2.0-or-later
"""Owners of the daemon's parts, as the dialects see them, without a daemon."""

import errno
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Any

from passtpy.config.portrule import Able, PortRule, PortTable, Side
from passtpy.control import capture
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


def packet_block(data: bytes) -> bytes:
    """Return a block of pcapng as the datapath makes it, without a comment."""
    options = pack("=HHIHH", 2, 4, 1, 0, 0)
    body = pack("=IIIII", 0, 0, 0, len(data), len(data)) + data
    body += bytes(-len(data) % 4) + options
    length = pack("=I", len(body) + 12)
    return pack("=I", 6) + length + body + length


@dataclass
class Timer:
    """Something to be called at a time."""

    at: int
    callback: Callable[[], None]
    set: bool = True

    def cancel(self) -> None:
        self.set = False


class Packets:
    """The datapath's rings, and a clock that the test moves."""

    def __init__(self) -> None:
        self.most = 3
        self.running: dict[int, list[bytes]] = {}
        self.seen: dict[int, list[int]] = {}
        self.dropped: dict[int, list[int]] = {}
        self.finished: list[int] = []
        self.wishes: list[tuple[bytes, int, int]] = []
        self.timers: list[Timer] = []
        self.time = 1_700_000_000 * 10**9

    # What the test does

    def arrive(self, number: int, *blocks: bytes) -> None:
        if number not in self.finished:
            self.running[number] += blocks
            self.seen[number][0] += len(blocks)

    def drop(self, number: int, tap: int = 0, sockets: int = 0) -> None:
        for side, count in enumerate((tap, sockets)):
            self.seen[number][side] += count
            self.dropped[number][side] += count

    def look(self) -> None:
        self.pass_time(capture.LOOK_S)

    def pass_time(self, seconds: float) -> None:
        end = self.time + int(seconds * 1e9)
        while due := [t for t in self.timers if t.set and t.at <= end]:
            timer = min(due, key=lambda each: each.at)
            timer.set = False
            self.time = max(self.time, timer.at)
            timer.callback()
        self.time = end

    # What is asked of it

    def start(self, program: bytes, sides: int, snaplen: int) -> int:
        free = [n for n in range(self.most) if n not in self.running]
        if not free:
            raise OSError(errno.EUSERS, "too many")
        self.wishes.append((program, sides, snaplen))
        self.running[free[0]] = []
        self.seen[free[0]], self.dropped[free[0]] = [0, 0], [0, 0]
        return free[0]

    def take(
        self, number: int, room: int, packets: int, last: bool
    ) -> tuple[bytes, int, bool]:
        waiting, out, count = self.running[number], b"", 0
        while waiting and count < packets:
            if len(out) + len(waiting[0]) > room:
                return out, count, True
            out += waiting.pop(0)
            count += 1
        return out, count, False

    def counts(self, number: int) -> capture.Counts:
        seen, dropped = self.seen[number], self.dropped[number]
        waiting = sum(map(len, self.running[number]))
        return capture.Counts((seen[0], seen[1]), (dropped[0], dropped[1]), waiting)

    def finish(self, number: int) -> None:
        self.finished.append(number)

    def stop(self, number: int) -> None:
        del self.running[number]

    def now(self) -> int:
        return self.time

    def later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        timer = Timer(self.time + int(seconds * 1e9), callback)
        self.timers.append(timer)
        return timer.cancel

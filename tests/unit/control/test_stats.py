# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of --stats."""

from collections.abc import Callable
from typing import cast

from passtpy.control.stats import COLUMNS, HEADER_EVERY, StatsTable
from passtpy.net.kernel import loop as kernel
from tests.unit.lines import Lines


class Loop:
    """A loop whose timer has always run out."""

    def __init__(self) -> None:
        self.callback: Callable[[], None] = lambda: None

    def call_later(self, _delay: float, callback: Callable[[], None]) -> None:
        self.callback = callback


def test_lines_go_to_a_sink_whole() -> None:
    lines, loop = Lines(), Loop()
    StatsTable(1, lambda: {"miss": 1}, lines).start(cast(kernel.Loop, loop))
    loop.callback()
    loop.callback()  # nothing new
    assert [line.count("\n") for line in lines.lines] == [0, 0]


def test_a_line_tells_what_is_new() -> None:
    counters = {"turns": 1, "tap_rx_frames": 5, "drop_short": 1, "drop_rate": 2}
    table = StatsTable(1, lambda: dict(counters), Lines())
    header, line = table.text().splitlines()
    assert header.split() == [column.strip() for column in COLUMNS]
    assert line.split() == ["1", "5", "0", "0", "0", "0", "0", "0", "0", "0", "3"]
    counters["tap_rx_frames"] += 2
    assert table.text().split()[1] == "2"


def test_nothing_is_told_when_nothing_happens() -> None:
    counters = {"turns": 1}
    table = StatsTable(1, lambda: dict(counters), Lines())
    assert table.text() == ""
    counters["turns"] += 1  # our own timer
    assert table.text() == ""


def test_the_header_comes_again() -> None:
    count = 0

    def counters() -> dict[str, int]:
        nonlocal count
        count += 1
        return {"miss": count}

    table = StatsTable(1, counters, Lines())
    texts = [table.text() for _ in range(HEADER_EVERY + 1)]
    assert [text.count("\n") for text in texts] == [2, *[1] * (HEADER_EVERY - 1), 2]

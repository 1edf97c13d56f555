# SPDX-License-Identifier: GPL-2.0-or-later
"""--stats: what happened since the last line, as a table on standard error."""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from passtpy.net.kernel.loop import Loop
from passtpy.sinks import Sink

DROPS: Final = "drop_"  # how the names of several counters begin
# What a column is called, and the counter behind it.
COLUMNS: Final = {
    "turns": "turns",
    "from_tap": "tap_rx_frames",
    "bytes": "tap_rx_bytes",
    "to_tap": "tap_tx_frames",
    "bytes ": "tap_tx_bytes",
    "opened": "flows_opened",
    "closed": "flows_closed",
    "misses": "miss",
    "services": "punt",
    "retrans": "tcp_retrans",
    "drops": DROPS,
}
WIDTH: Final = 11
HEADER_EVERY: Final = 20


class StatsTable:
    """Writes a line every `delay` seconds in which anything happened."""

    def __init__(
        self, delay: int, source: Callable[[], Mapping[str, int]], sink: Sink
    ) -> None:
        self._delay = delay
        self._source = source
        self._sink = sink
        self._last: Mapping[str, int] = {}
        self._lines = 0
        self._loop: Loop | None = None

    def start(self, loop: Loop) -> None:
        """Begin; the first line tells of everything since the start."""
        self._loop = loop
        loop.call_later(self._delay, self._on_timer)

    def close(self) -> None:
        """Stop."""
        self._loop = None

    def _on_timer(self) -> None:
        if self._loop is None:
            return
        for line in self.text().splitlines():
            self._sink.write("info", line)
        self._loop.call_later(self._delay, self._on_timer)

    def text(self) -> str:
        """Return the next line, perhaps with the header; "" when there is no news."""
        now = self._source()
        news = {name: value - self._last.get(name, 0) for name, value in now.items()}
        self._last = now
        # Our own timer makes a turn as well.
        if not any(value for name, value in news.items() if name != "turns"):
            return ""
        cells = [_cell(counter, news) for counter in COLUMNS.values()]
        header = "" if self._lines % HEADER_EVERY else _line(map(str.strip, COLUMNS))
        self._lines += 1
        return header + _line(cells)


def _line(cells: Iterable[object]) -> str:
    return "".join(f"{cell:>{WIDTH}}" for cell in cells) + "\n"


def _cell(counter: str, news: Mapping[str, int]) -> int:
    if counter == DROPS:
        return sum(value for name, value in news.items() if name.startswith(DROPS))
    return news.get(counter, 0)

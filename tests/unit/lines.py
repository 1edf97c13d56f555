# SPDX-License-Identifier: GPL-2.0-or-later
"""A sink of the log that remembers."""

from passtpy.sinks import HoldOnly


class Lines:
    """What was said, without the levels."""

    lost = 0

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.closed = False

    def start(self, hold_only: HoldOnly | None = None) -> None:
        pass

    def write(self, _level: str, line: str, /) -> None:
        self.lines.append(line)

    def close(self) -> None:
        self.closed = True

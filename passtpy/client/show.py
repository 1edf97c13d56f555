# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes, times and tables as people read them."""

import os
import sys
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_GAP = "  "
_LEAST_COLUMN = 6  # a column that is narrower than this says nothing
_TIMES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


def out(lines: Iterable[str]) -> None:
    """Print lines."""
    for line in lines:
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def size(count: float) -> str:
    """Return `999B`, `1.5kB`, `12MB`: three digits at the most."""
    for unit in _SIZES:
        if count < 999.5 or unit == _SIZES[-1]:
            break
        count /= 1000
    if unit == "B" or count >= 99.5:
        return f"{count:.0f}{unit}"
    return f"{count:.1f}{unit}"


def duration(ns: int) -> str:
    """Return `0.3s`, `42s`, `5m10s`, `3h05m`, `2d04h`: two units at the most."""
    seconds = max(ns, 0) / 1e9
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = int(seconds)
    for (large, name), (small, unit) in pairwise(_TIMES):
        if whole >= large:
            return f"{whole // large}{name}{whole % large // small:02}{unit}"
    return f"{whole}s"


def count(name: str, value: int) -> str:
    """Return a counter's value in the unit that its name ends with."""
    if name.endswith("_bytes"):
        return size(value)
    if name.endswith(("_ns_max", "_work_max")):
        return f"{value / 1e6:.1f}ms"
    return str(value)


def endpoint(end: dict[str, Any]) -> str:
    """Return `192.0.2.5:80`, `[2001:db8::5]:80`, or `*`."""
    addr, port = end["addr"], end["port"]
    if addr is None:
        return "*" if not port else f"*:{port}"
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def width() -> int | None:
    """Return how wide the terminal is; None: it is none, nothing is cut."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        return None


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], width: int | None
) -> list[str]:
    """Return aligned lines of at most `width`; the widest columns give way."""
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    if width is not None:
        _fit(widths, width - len(_GAP) * (len(widths) - 1))
    lines = []
    for row in cells:
        line = _GAP.join(
            _cut(text, most).ljust(most) for text, most in zip(row, widths, strict=True)
        ).rstrip()
        lines.append(line if width is None else line[:width])
    return lines


def _fit(widths: list[int], room: int) -> None:
    """Make the widest columns narrower, until all fit or none has much left."""
    while sum(widths) > room:
        widest = max(widths)
        if widest <= _LEAST_COLUMN:
            return
        widths[len(widths) - 1 - widths[::-1].index(widest)] -= 1


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"

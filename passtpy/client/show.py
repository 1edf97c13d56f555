# SPDX-License-Identifier: GPL-2.0-or-later
"""Sizes, times and tables as people read them."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

_SIZES = ("B", "kB", "MB", "GB", "TB", "PB")
_TIMES = ((86400, "d"), (3600, "h"), (60, "m"), (1, "s"))


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


def endpoint(end: dict[str, Any]) -> str:
    """Return `192.0.2.5:80`, `[2001:db8::5]:80`, or `*`."""
    addr, port = end["addr"], end["port"]
    if addr is None:
        return "*" if not port else f"*:{port}"
    return f"[{addr}]:{port}" if ":" in addr else f"{addr}:{port}"


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], width: int | None
) -> list[str]:
    """Return aligned lines; what does not fit into `width` is cut at the right."""
    cells = [head, *rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    lines = []
    for row in cells:
        padded = (text.ljust(size) for text, size in zip(row, widths, strict=True))
        line = "  ".join(padded).rstrip()
        lines.append(line if width is None else line[:width])
    return lines

# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads what inotify tells of files and folders."""

from sys import byteorder
from typing import Final

IN_MOVED_FROM: Final = 0x00000040
IN_DELETE: Final = 0x00000200
IN_DELETE_SELF: Final = 0x00000400
IN_IGNORED: Final = 0x00008000
_HEADER_LEN: Final = 16


def inotify_events(data: bytes) -> list[tuple[int, bytes]]:
    """Return (mask, name) of every event in what was read."""
    events = []
    offset = 0
    while offset + _HEADER_LEN <= len(data):
        mask = int.from_bytes(data[offset + 4 : offset + 8], byteorder)
        length = int.from_bytes(data[offset + 12 : offset + 16], byteorder)
        start = offset + _HEADER_LEN
        events.append((mask, data[start : start + length].rstrip(b"\0")))
        offset = start + length
    return events

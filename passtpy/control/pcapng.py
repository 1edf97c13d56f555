# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes the blocks of a pcapng file that are no packets (draft-ietf-opsawg-pcapng).

The packets themselves come from the datapath as finished blocks.
"""

from collections.abc import Iterable, Sequence
from struct import pack
from typing import Final

ETHERNET: Final = 1
RAW_IP: Final = 101

_SECTION: Final = 0x0A0D0D0A
_INTERFACE: Final = 1
_STATISTICS: Final = 5
_MAGIC: Final = 0x1A2B3C4D
_COMMENT: Final = 1
_NAME: Final = 2
_DESCRIPTION: Final = 3
_USERAPPL: Final = 4
_TSRESOL: Final = 9
_NANOSECONDS: Final = b"\x09"
_STARTTIME: Final = 2
_ENDTIME: Final = 3
_IFRECV: Final = 4
_IFDROP: Final = 5
_TEXT_MAX: Final = 0xFFF0

Option = tuple[int, bytes]


def section(program: str, comments: Iterable[str]) -> bytes:
    """Return the header of a file, which is in this machine's byte order."""
    options = [_text(_COMMENT, comment) for comment in comments]
    body = pack("=IHHq", _MAGIC, 1, 0, -1)
    return _block(_SECTION, body, [*options, _text(_USERAPPL, program)])


def interface(linktype: int, snaplen: int, name: str, description: str) -> bytes:
    """Return what tells of an interface; they are numbered as they come."""
    options = [
        _text(_NAME, name),
        _text(_DESCRIPTION, description),
        (_TSRESOL, _NANOSECONDS),
    ]
    return _block(_INTERFACE, pack("=HHI", linktype, 0, snaplen), options)


def statistics(
    number: int, started_ns: int, now_ns: int, received: int, dropped: int
) -> bytes:
    """Return what an interface has seen so far, and what of it is missing."""
    options = [
        (_STARTTIME, _time(started_ns)),
        (_ENDTIME, _time(now_ns)),
        (_IFRECV, pack("=Q", received)),
        (_IFDROP, pack("=Q", dropped)),
    ]
    return _block(_STATISTICS, pack("=I", number) + _time(now_ns), options)


def _time(ns: int) -> bytes:
    return pack("=II", ns >> 32, ns & 0xFFFFFFFF)


def _text(code: int, text: str) -> Option:
    return code, text.encode(errors="replace")[:_TEXT_MAX]


def _block(kind: int, body: bytes, options: Sequence[Option]) -> bytes:
    for code, value in options:
        body += pack("=HH", code, len(value)) + value + b"\0" * (-len(value) % 4)
    body += pack("=HH", 0, 0)
    length = pack("=I", len(body) + 12)
    return pack("=I", kind) + length + body + length

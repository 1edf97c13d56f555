# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps answers ready as whole frames, for guests that ask the same again and again.

A question that was answered comes back with few bytes that differ: the client's port,
the message's id, the case of its letters, checksums. Everything else of the frame is
the key, so what has it was read once and found good; the answer gets those bytes back.
No object is built for it, which is what such an answer costs otherwise.

An answer stands here until a TTL in it counts down, a second at most.
"""

from typing import Final, NamedTuple

from passtpy.wire.ethernet import HEADER_LEN as ETH_LEN
from passtpy.wire.ipv4 import HEADER_LEN as IPV4_LEN
from passtpy.wire.ipv6 import HEADER_LEN as IPV6_LEN

MAX_READY: Final = 1024
MAX_FRAME: Final = 512  # of a question: a name of 255 bytes, and EDNS

# Where DNS starts behind Ethernet, IP without options, and UDP
_DNS4: Final = ETH_LEN + IPV4_LEN + 8
_DNS6: Final = ETH_LEN + IPV6_LEN + 8
_NAME: Final = 12  # behind that is the name that is asked for
_IPV4: Final = b"\x08"  # first byte of the type of an Ethernet frame
_NO_OPTIONS: Final = 0x45  # first byte of a header of IPv4
_UDP: Final = 17


class _Ready(NamedTuple):
    """An answer without what differs."""

    head: bytes  # up to the port of the client
    size: bytes  # length of the datagram
    flags: bytes  # of the message, and its counts
    rest: bytes  # from behind the name
    total: int  # what all of this is in the checksum
    until: int
    standing: int


class ReadyFrames:
    """Frames that answer questions of a guest. Times are monotonic, in ns.

    `standing` is a number that is another one when answers have to be thought about
    again, though they are the same.
    """

    def __init__(self) -> None:
        self._ready: dict[bytes, _Ready] = {}

    def __len__(self) -> int:
        return len(self._ready)

    def clear(self) -> None:
        """Forget everything: the answers are others now, or their frames."""
        self._ready.clear()

    def answer(self, frame: bytes, now: int, standing: int) -> bytes | None:
        """Return the answer to a question, if it stands here."""
        dns = _DNS4 if frame[12:13] == _IPV4 else _DNS6
        end = frame.find(0, dns + _NAME)
        ready = self._ready.get(_key(frame, dns, end))
        if ready is None or ready.until <= now or ready.standing != standing:
            return None
        head, size, flags, rest, total, _, _ = ready
        port, ident = frame[dns - 8 : dns - 6], frame[dns : dns + 2]
        name = frame[dns + _NAME : end]
        check = 0xFFFF - (total + _sum(port, ident, name)) % 0xFFFF  # 0: none
        return b"".join(
            (head, port, size, check.to_bytes(2, "big"), ident, flags, name, rest)
        )

    def keep(self, frame: bytes, answer: bytes, until: int, standing: int) -> None:
        """Have the answer to a question stand here, from the frames of both."""
        dns = _DNS4 if frame[12:13] == _IPV4 else _DNS6
        end = frame.find(0, dns + _NAME)
        name = frame[dns + _NAME : end]
        plain = frame[14] == _NO_OPTIONS if dns == _DNS4 else frame[20] == _UDP
        if not plain or end < 0 or answer[dns + _NAME : end] != name:
            return
        if len(frame) > MAX_FRAME:
            return
        if len(self._ready) >= MAX_READY:
            self._ready.clear()  # most are too old, or nobody asks twice
        check, ident = _number(answer[dns - 2 : dns]), answer[dns : dns + 2]
        self._ready[_key(frame, dns, end)] = _Ready(
            answer[: dns - 6],
            answer[dns - 4 : dns - 2],
            answer[dns + 2 : dns + _NAME],
            answer[end:],
            0xFFFF - check - _sum(answer[dns - 6 : dns - 4], ident, name),
            until,
            standing,
        )


def _key(frame: bytes, dns: int, end: int) -> bytes:
    """Return what two frames share that have the same answer.

    Not in it: the id and checksum of IPv4, the label of IPv6, which may be others for
    each packet. What says how long something is, is in it. A name's labels are no
    longer than 63 bytes, so that no length is taken for a capital letter.
    """
    if dns == _DNS4:
        ip = frame[6:18] + frame[20:24] + frame[26:34] + frame[36:40]
    else:
        ip = frame[6:15] + frame[18:54] + frame[56:60]
    at = dns + _NAME
    return ip + frame[dns + 2 : at] + frame[at:end].lower() + frame[end:]


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _sum(port: bytes, ident: bytes, name: bytes) -> int:
    """Return what these are in a sum of 16 bits each, modulo 2^16 - 1 (RFC 1071)."""
    padded = _number(name) << 8 if len(name) & 1 else _number(name)
    return _number(port) + _number(ident) + padded

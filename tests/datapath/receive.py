# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest without offload does with segments that continue each other.

Linux calls it generic receive offload: tests see the super-segment that the datapath
had before it was cut up for such a guest, after each segment was checked by itself. The
other way round, `segments()` shows a super-segment as what it stands for.
"""

import struct

TCPV4, TCPV6 = 1, 4  # gso_type of a virtio-net header
ENDS = 0x09  # PSH and FIN: only the last segment may have them
_OPTIONS_MAX = 36  # room that the datapath leaves for SACK blocks


class Segment:
    """A TCP segment in a frame, as far as it matters here."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.v4 = raw[12:14] == b"\x08\x00"
        self.l4 = 34 if self.v4 else 54
        self.data = self.l4 + (raw[self.l4 + 12] >> 4) * 4

    @classmethod
    def of(cls, raw: bytes) -> "Segment | None":
        """Take a frame apart if it is a segment with data."""
        proto = {b"\x08\x00": raw[23:24], b"\x86\xdd": raw[20:21]}.get(raw[12:14])
        if proto != b"\x06" or raw[14:15] not in (b"\x45", b"\x60"):
            return None
        segment = cls(raw)
        return segment if len(raw) > segment.data else None

    @property
    def flags(self) -> int:
        """Flags of the TCP header."""
        return self.raw[self.l4 + 13]

    @property
    def seq(self) -> int:
        """Sequence number."""
        return int.from_bytes(self.raw[self.l4 + 4 : self.l4 + 8], "big")

    @property
    def size(self) -> int:
        """Bytes of data."""
        return len(self.raw) - self.data

    def same(self) -> bytes:
        """What segments of one super-segment have in common."""
        head, at = bytearray(self.raw[: self.data]), self.l4
        if self.v4:
            head[16:20] = bytes(4)  # length, identification
            head[24:26] = bytes(2)  # checksum
        else:
            head[18:20] = bytes(2)  # length
        head[at + 4 : at + 8] = bytes(4)  # sequence number
        head[at + 13] &= ~ENDS
        head[at + 16 : at + 18] = bytes(2)  # checksum
        return bytes(head)


class Receiver:
    """Segments that were put together so far."""

    def __init__(self, first: Segment) -> None:
        self.first = first
        self.last = first
        self.payload = bytearray(first.raw[first.data :])

    def takes(self, segment: Segment) -> bool:
        """Does this one continue them? Then it is added."""
        room = 65535 - (20 if segment.v4 else 0) - 20 - _OPTIONS_MAX
        if (
            self.last.flags & ENDS
            or segment.seq != (self.first.seq + len(self.payload)) % 2**32
            or self.last.size != self.first.size
            or segment.size > self.first.size
            or len(self.payload) + segment.size > room
            or segment.same() != self.first.same()
        ):
            return False
        self.last = segment
        self.payload += segment.raw[segment.data :]
        return True

    def frame(self) -> tuple[bytes, int, int]:
        """The frame of all of them; gso_type and gso_size of its header."""
        first = self.first
        if self.last is first:
            return first.raw, 0, 0
        head = bytearray(first.raw[: first.data])
        size = len(head) + len(self.payload) - 14
        at = 16 if first.v4 else 18
        head[at : at + 2] = struct.pack("!H", size if first.v4 else size - 40)
        head[first.l4 + 13] |= self.last.flags
        return bytes(head + self.payload), TCPV4 if first.v4 else TCPV6, first.size


def segments(raw: bytes, size: int) -> list[bytes]:
    """What a super-segment stands for, checksums left as they are."""
    whole = Segment(raw)
    made = []
    for start in range(0, whole.size, size):
        payload = raw[whole.data + start : whole.data + start + size]
        head = bytearray(raw[: whole.data])
        at = 16 if whole.v4 else 18
        length = len(head) + len(payload) - (14 if whole.v4 else 54)
        head[at : at + 2] = struct.pack("!H", length)
        seq = (whole.seq + start) % 2**32
        head[whole.l4 + 4 : whole.l4 + 8] = struct.pack("!I", seq)
        if start + size < whole.size:
            head[whole.l4 + 13] &= ~ENDS
        made.append(bytes(head + payload))
    return made

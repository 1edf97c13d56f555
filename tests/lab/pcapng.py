# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads pcapng files block by block, and fails at whatever is not as it should be."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import unpack, unpack_from

SECTION = 0x0A0D0D0A
INTERFACE = 1
STATISTICS = 5
PACKET = 6


@dataclass(frozen=True)
class Block:
    """One block: its body without options, and those."""

    kind: int
    body: bytes
    options: list[tuple[int, bytes]] = field(default_factory=list)

    def texts(self, code: int) -> list[str]:
        """Return the values of an option."""
        return [value.decode() for each, value in self.options if each == code]

    def number(self, code: int) -> int:
        """Return the value of an option that is a number."""
        (value,) = (value for each, value in self.options if each == code)
        return int.from_bytes(value, "little")


@dataclass(frozen=True)
class Packet:
    """One packet of a capture."""

    interface: int
    time_ns: int
    data: bytes
    length: int
    comment: str
    outbound: bool


def blocks(raw: bytes) -> Iterator[Block]:
    """Yield the blocks of a file; both lengths of each are compared."""
    at = 0
    while at < len(raw):
        kind, length = unpack_from("=II", raw, at)
        assert length % 4 == 0, f"block at {at} has {length} bytes"
        assert at + length <= len(raw), "the last block is cut off"
        (again,) = unpack_from("=I", raw, at + length - 4)
        assert again == length
        yield _block(kind, raw[at + 8 : at + length - 4])
        at += length


def _block(kind: int, body: bytes) -> Block:
    fixed = {SECTION: 16, INTERFACE: 8, STATISTICS: 12, PACKET: 20}[kind]
    if kind == PACKET:
        (captured,) = unpack_from("=I", body, 12)
        fixed += captured + -captured % 4
    return Block(kind, body[:fixed], list(_options(body[fixed:])))


def _options(raw: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while True:
        code, length = unpack_from("=HH", raw, at)
        at += 4
        if not code:
            assert at == len(raw)
            return
        yield code, raw[at : at + length]
        at += length + -length % 4


def packets(raw: bytes) -> list[Packet]:
    """Return the packets of a file, or of blocks alone."""
    found = []
    for block in blocks(raw):
        if block.kind != PACKET:
            continue
        interface, high, low, captured, length = unpack("=IIIII", block.body[:20])
        found.append(
            Packet(
                interface,
                high << 32 | low,
                block.body[20 : 20 + captured],
                length,
                "".join(block.texts(1)),
                block.number(2) == 2,
            )
        )
    return found

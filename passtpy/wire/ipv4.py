# SPDX-License-Identifier: GPL-2.0-or-later
"""IPv4 packets without options and fragments, as far as services need them."""

from ipaddress import IPv4Address
from typing import Final, Self

from passtpy.errors import WireError
from passtpy.record import record
from passtpy.wire.checksum import checksum

HEADER_LEN: Final = 20
MAX_PAYLOAD: Final = 0xFFFF - HEADER_LEN
DEFAULT_TTL: Final = 255
_DONT_FRAGMENT: Final = 0x4000
_FRAGMENT_BITS: Final = 0x3FFF  # "more fragments" and the offset


@record
class Ipv4:
    """One unfragmented packet."""

    source: IPv4Address
    destination: IPv4Address
    proto: int
    payload: bytes
    ttl: int = DEFAULT_TTL

    def __post_init__(self) -> None:
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError("ipv4: payload too long")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a packet; Ethernet padding behind its total length is cut off."""
        if len(data) < HEADER_LEN:
            raise WireError("ipv4: truncated")
        if data[0] >> 4 != 4:
            raise WireError("ipv4: wrong version")
        header = (data[0] & 0x0F) * 4
        total = int.from_bytes(data[2:4], "big")
        if header < HEADER_LEN or not header <= total <= len(data):
            raise WireError("ipv4: bad length")
        if int.from_bytes(data[6:8], "big") & _FRAGMENT_BITS:
            raise WireError("ipv4: fragment")
        if checksum(data[:header]):
            raise WireError("ipv4: bad checksum")
        source, destination = IPv4Address(data[12:16]), IPv4Address(data[16:20])
        return cls(source, destination, data[9], data[header:total], data[8])

    def emit(self) -> bytes:
        """Return header and payload."""
        head = bytearray(HEADER_LEN)
        head[0] = 0x45
        head[2:4] = (HEADER_LEN + len(self.payload)).to_bytes(2, "big")
        head[6:8] = _DONT_FRAGMENT.to_bytes(2, "big")
        head[8], head[9] = self.ttl, self.proto
        head[12:20] = self.source.packed + self.destination.packed
        head[10:12] = checksum(bytes(head)).to_bytes(2, "big")
        return bytes(head) + self.payload

    def __str__(self) -> str:
        return f"{self.source} > {self.destination} proto {self.proto}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP datagrams (RFC 768), as far as services need them."""

from typing import Final, Self

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.record import record
from passtpy.wire.checksum import checksum, pseudo_header

HEADER_LEN: Final = 8
MAX_PAYLOAD: Final = 0xFFFF - HEADER_LEN
_PROTO: Final = 17


@record
class Udp:
    """One datagram; its checksum needs the addresses of the packet around it."""

    source: int
    destination: int
    payload: bytes

    def __post_init__(self) -> None:
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError("udp: payload too long")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a datagram; its checksum may be left to offload, so it is not read."""
        if len(data) < HEADER_LEN:
            raise WireError("udp: truncated")
        length = int.from_bytes(data[4:6], "big")
        if not HEADER_LEN <= length <= len(data):
            raise WireError("udp: bad length")
        source = int.from_bytes(data[0:2], "big")
        return cls(source, int.from_bytes(data[2:4], "big"), data[HEADER_LEN:length])

    def emit(self, source: Address, destination: Address) -> bytes:
        """Return header and payload with the checksum for these addresses."""
        length = HEADER_LEN + len(self.payload)
        lead = self.source.to_bytes(2, "big") + self.destination.to_bytes(2, "big")
        lead += length.to_bytes(2, "big")
        pseudo = pseudo_header(source, destination, _PROTO, length)
        # Zero would mean "no checksum"; its twin in ones' complement says the same.
        total = checksum(pseudo + lead + b"\0\0" + self.payload) or 0xFFFF
        return lead + total.to_bytes(2, "big") + self.payload

    def __str__(self) -> str:
        return f"UDP {self.source} > {self.destination} ({len(self.payload)} bytes)"

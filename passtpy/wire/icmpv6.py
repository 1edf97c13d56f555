# SPDX-License-Identifier: GPL-2.0-or-later
"""The ICMPv6 envelope (RFC 4443): type, code, checksum, body."""

from ipaddress import IPv6Address
from typing import Final, Self

from passtpy.errors import WireError
from passtpy.record import record
from passtpy.wire.checksum import checksum, pseudo_header

HEADER_LEN: Final = 4
MAX_BODY: Final = 0xFFFF - HEADER_LEN
PROTO: Final = 58


@record
class Icmpv6:
    """One message; `body` is what follows the checksum."""

    type: int
    code: int
    body: bytes

    def __post_init__(self) -> None:
        if len(self.body) > MAX_BODY:
            raise ValueError("icmpv6: body too long")

    @classmethod
    def parse(cls, data: bytes, source: IPv6Address, destination: IPv6Address) -> Self:
        """Read a message and verify its checksum: neighbour discovery demands it."""
        if len(data) < HEADER_LEN:
            raise WireError("icmpv6: truncated")
        pseudo = pseudo_header(source, destination, PROTO, len(data))
        if checksum(pseudo + data):
            raise WireError("icmpv6: bad checksum")
        return cls(data[0], data[1], data[HEADER_LEN:])

    def emit(self, source: IPv6Address, destination: IPv6Address) -> bytes:
        """Return the message with the checksum for these addresses."""
        length = HEADER_LEN + len(self.body)
        lead = bytes([self.type, self.code])
        pseudo = pseudo_header(source, destination, PROTO, length)
        total = checksum(pseudo + lead + b"\0\0" + self.body)
        return lead + total.to_bytes(2, "big") + self.body

    def __str__(self) -> str:
        return f"ICMPv6 type {self.type} code {self.code}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""IPv6 packets; extension headers that may precede a service's message are walked."""

from ipaddress import IPv6Address
from typing import Final, Self

from passtpy.errors import WireError
from passtpy.record import record

HEADER_LEN: Final = 40
MAX_PAYLOAD: Final = 0xFFFF
DEFAULT_HOP_LIMIT: Final = 255
# Hop-by-hop, routing and destination options all begin: next header, length.
_WALKED: Final = frozenset((0, 43, 60))
_FRAGMENT: Final = 44
_MAX_EXTENSIONS: Final = 8


@record
class Ipv6:
    """One packet; `proto` and `payload` are what follows the extension headers."""

    source: IPv6Address
    destination: IPv6Address
    proto: int
    payload: bytes
    hop_limit: int = DEFAULT_HOP_LIMIT

    def __post_init__(self) -> None:
        if len(self.payload) > MAX_PAYLOAD:
            raise ValueError("ipv6: payload too long")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a packet; what follows its payload length is cut off."""
        if len(data) < HEADER_LEN:
            raise WireError("ipv6: truncated")
        if data[0] >> 4 != 6:
            raise WireError("ipv6: wrong version")
        length = int.from_bytes(data[4:6], "big")
        if HEADER_LEN + length > len(data):
            raise WireError("ipv6: bad length")
        source, destination = IPv6Address(data[8:24]), IPv6Address(data[24:40])
        proto, payload = _skip_extensions(data[6], data[HEADER_LEN:][:length])
        return cls(source, destination, proto, payload, data[7])

    def emit(self) -> bytes:
        """Return header and payload."""
        lead = b"\x60\0\0\0" + len(self.payload).to_bytes(2, "big")
        lead += bytes([self.proto, self.hop_limit])
        return lead + self.source.packed + self.destination.packed + self.payload

    def __str__(self) -> str:
        return f"{self.source} > {self.destination} proto {self.proto}"


def _skip_extensions(proto: int, data: bytes) -> tuple[int, bytes]:
    for _ in range(_MAX_EXTENSIONS):
        if proto == _FRAGMENT:
            raise WireError("ipv6: fragment")
        if proto not in _WALKED:
            return proto, data
        if len(data) < 8 or len(data) < 8 + data[1] * 8:
            raise WireError("ipv6: truncated extension header")
        proto, data = data[0], data[8 + data[1] * 8 :]
    raise WireError("ipv6: too many extension headers")

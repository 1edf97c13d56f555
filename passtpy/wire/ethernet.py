# SPDX-License-Identifier: GPL-2.0-or-later
"""Ethernet II frames (no VLAN tags: the tap never carries them)."""

from typing import Final, Self

from passtpy.addr import Mac, show_mac
from passtpy.errors import WireError
from passtpy.record import record

HEADER_LEN: Final = 14
ETHERTYPE_IPV4: Final = 0x0800
ETHERTYPE_ARP: Final = 0x0806
ETHERTYPE_IPV6: Final = 0x86DD

_NAMES: Final = {ETHERTYPE_IPV4: "IPv4", ETHERTYPE_ARP: "ARP", ETHERTYPE_IPV6: "IPv6"}


@record
class Ethernet:
    """One frame; `payload` may end with padding."""

    destination: Mac
    source: Mac
    ethertype: int
    payload: bytes

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Split a frame."""
        if len(data) < HEADER_LEN:
            raise WireError("ethernet: truncated")
        ethertype = int.from_bytes(data[12:14], "big")
        return cls(data[:6], data[6:12], ethertype, data[14:])

    def emit(self) -> bytes:
        """Return the frame, not padded: the tap has no minimum length."""
        return (
            self.destination
            + self.source
            + self.ethertype.to_bytes(2, "big")
            + self.payload
        )

    def __str__(self) -> str:
        kind = _NAMES.get(self.ethertype, f"{self.ethertype:#06x}")
        return f"{show_mac(self.source)} > {show_mac(self.destination)} {kind}"

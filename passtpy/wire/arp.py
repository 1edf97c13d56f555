# SPDX-License-Identifier: GPL-2.0-or-later
"""ARP for IPv4 over Ethernet (RFC 826); other kinds are a WireError."""

from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final, Self

from passtpy.addr import Mac, show_mac
from passtpy.errors import WireError
from passtpy.record import record

ARP_LEN: Final = 28
_KIND: Final = bytes.fromhex("0001080006 04")  # Ethernet, IPv4, their lengths


class ArpOp(IntEnum):
    """The operations we understand."""

    REQUEST = 1
    REPLY = 2


@record
class Neighbour:
    """A MAC address and the IPv4 address behind it."""

    mac: Mac
    addr: IPv4Address

    def __str__(self) -> str:
        return f"{self.addr} ({show_mac(self.mac)})"


@record
class Arp:
    """A request or a reply."""

    op: ArpOp
    sender: Neighbour
    target: Neighbour

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the payload of a frame; padding behind it is ignored."""
        if len(data) < ARP_LEN:
            raise WireError("arp: truncated")
        if data[:6] != _KIND:
            raise WireError("arp: not IPv4 over Ethernet")
        op = int.from_bytes(data[6:8], "big")
        if op not in (ArpOp.REQUEST, ArpOp.REPLY):
            raise WireError("arp: unknown operation")
        sender = Neighbour(data[8:14], IPv4Address(data[14:18]))
        target = Neighbour(data[18:24], IPv4Address(data[24:28]))
        return cls(ArpOp(op), sender, target)

    def emit(self) -> bytes:
        """Return the payload of a frame."""
        sender = self.sender.mac + self.sender.addr.packed
        target = self.target.mac + self.target.addr.packed
        return _KIND + self.op.to_bytes(2, "big") + sender + target

    @property
    def is_announcement(self) -> bool:
        """Tell whether the sender speaks of its own address (RFC 5227)."""
        return self.sender.addr == self.target.addr

    def __str__(self) -> str:
        if self.op is ArpOp.REQUEST:
            return f"ARP who has {self.target.addr}, tell {self.sender}"
        return f"ARP {self.sender} to {self.target}"

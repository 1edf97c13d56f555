# SPDX-License-Identifier: GPL-2.0-or-later
"""The addresses that the guest was last seen to use.

They start as the configured ones and follow the guest, which may have chosen others.
Written by whoever sees guest packets (the decider, the services), read when an inbound
flow needs a destination.
"""

from passtpy.addr import UNSPECIFIED, V4_PREFIX, Address, inany
from passtpy.config.host import HostInfo

_LOOPBACK6 = bytes(15) + b"\x01"


class GuestAddresses:
    """One address per family and the link-local one; UNSPECIFIED until known."""

    __slots__ = ("addr4", "addr6", "askers", "link_local6")

    def __init__(
        self,
        addr4: bytes = UNSPECIFIED,
        addr6: bytes = UNSPECIFIED,
        link_local6: bytes = UNSPECIFIED,
    ) -> None:
        self.addr4 = addr4
        self.addr6 = addr6
        self.link_local6 = link_local6
        # Who waits for answers at a relay's socket, by its listener number
        self.askers: dict[int, tuple[bytes, int]] = {}

    @classmethod
    def from_host(cls, host: HostInfo) -> "GuestAddresses":
        """Start with the addresses that the guest is meant to take."""
        guest = cls()
        for addr in (host.guest4, host.guest6):
            if addr is not None:
                guest.observe(inany(addr))
        return guest

    def observe(self, raw: bytes) -> None:
        """Remember the source of a guest packet, if a peer could answer to it."""
        if raw.startswith(V4_PREFIX):
            if raw[12] not in (0, 127) and raw[12] < 224:
                self.addr4 = raw
        elif raw[0] == 0xFE and raw[1] & 0xC0 == 0x80:
            self.link_local6 = raw
        elif raw[0] != 0xFF and raw not in (UNSPECIFIED, _LOOPBACK6):
            self.addr6 = raw

    def observe_address(self, addr: Address) -> None:
        """Do the same for an address object."""
        self.observe(inany(addr))

    def towards(self, source: bytes) -> bytes:
        """Return the address at which the guest is reached from `source`."""
        if source.startswith(V4_PREFIX):
            return self.addr4
        local = source[0] == 0xFE and source[1] & 0xC0 == 0x80
        if local and self.link_local6 != UNSPECIFIED:
            return self.link_local6
        return self.addr6 if self.addr6 != UNSPECIFIED else self.link_local6

    def owns(self, raw: bytes) -> bool:
        """Tell whether `raw` is one of the guest's addresses."""
        return raw in (self.addr4, self.addr6, self.link_local6) and raw != UNSPECIFIED

# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembers which addresses the guest has.

They start as the planned ones and follow the guest, which may have chosen others,
except for those that the user said: they are pinned. An
address is known from packets (the decider and the services see them), or, where the
guest is a namespace that we may ask, from its kernel. Read when an inbound flow needs a
destination, and when a source would be the guest's own address.
"""

from typing import Final

from passtpy.addr import UNSPECIFIED, V4_PREFIX, Address, inany
from passtpy.config.host import HostInfo

MAX_SEEN: Final = 32  # addresses; who uses more of them forgets the oldest
_LOOPBACK6 = bytes(15) + b"\x01"


class GuestAddresses:
    """The address last seen of each kind, UNSPECIFIED until known; and all others.

    `present` is what the guest's kernel says, None where nobody can ask it.
    """

    __slots__ = (
        "_pinned",
        "_planned",
        "_seen",
        "addr4",
        "addr6",
        "askers",
        "link_local6",
        "present",
    )

    def __init__(
        self,
        addr4: bytes = UNSPECIFIED,
        addr6: bytes = UNSPECIFIED,
        link_local6: bytes = UNSPECIFIED,
    ) -> None:
        self.addr4 = addr4
        self.addr6 = addr6
        self.link_local6 = link_local6
        self.present: tuple[bytes, ...] | None = None
        self._planned: frozenset[bytes] = frozenset()
        self._pinned: tuple[bytes, ...] = ()
        self._seen: dict[bytes, None] = {}  # the latest at the end
        # Who waits for answers at a relay's socket, by its listener number
        self.askers: dict[int, tuple[bytes, int]] = {}

    @classmethod
    def from_host(cls, host: HostInfo) -> "GuestAddresses":
        """Start with the addresses that the guest is meant to take."""
        guest = cls()
        guest.plan(host)
        guest.addr4 = UNSPECIFIED if host.guest4 is None else inany(host.guest4)
        guest.addr6 = UNSPECIFIED if host.guest6 is None else inany(host.guest6)
        return guest

    def plan(self, host: HostInfo) -> None:
        """Take note of all the addresses that the guest is meant to have."""
        main = (host.guest4, host.guest6)
        planned = {*host.guests, *(addr for addr in main if addr is not None)}
        self._planned = frozenset(map(inany, planned))
        self._pinned = tuple(map(inany, host.pinned))

    def observe(self, raw: bytes) -> None:
        """Remember the source of a guest packet, if a peer could answer to it."""
        if raw.startswith(V4_PREFIX):
            if raw[12] in (0, 127) or raw[12] >= 224:
                return
            known, self.addr4 = self.addr4, raw
        elif raw[0] == 0xFE and raw[1] & 0xC0 == 0x80:
            known, self.link_local6 = self.link_local6, raw
        elif raw[0] != 0xFF and raw not in (UNSPECIFIED, _LOOPBACK6):
            known, self.addr6 = self.addr6, raw
        else:
            return
        if known != raw or raw not in self._seen:
            self._remember(raw)

    def _remember(self, raw: bytes) -> None:
        self._seen.pop(raw, None)
        self._seen[raw] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]

    def observe_address(self, addr: Address) -> None:
        """Do the same for an address object."""
        self.observe(inany(addr))

    def towards(self, source: bytes) -> bytes:
        """Return the address at which the guest is reached from `source`."""
        if source.startswith(V4_PREFIX):
            return self.inside(True)
        local = source[0] == 0xFE and source[1] & 0xC0 == 0x80
        if local and self.link_local6 != UNSPECIFIED:
            return self.link_local6
        addr6 = self.inside(False)
        return addr6 if addr6 != UNSPECIFIED else self.link_local6

    def inside(self, is_v4: bool) -> bytes:
        """Return the guest's address of a family; UNSPECIFIED if it has none.

        The pinned one; else that last seen, if its kernel says that it has it still;
        else any that it has.
        """
        for raw in self._pinned:
            if raw.startswith(V4_PREFIX) == is_v4:
                return raw
        last = self.addr4 if is_v4 else self.addr6
        if self.present is None or last in self.present:
            return last
        for raw in self.present:
            if raw.startswith(V4_PREFIX) == is_v4:
                return raw
        return UNSPECIFIED

    def prefers(self, is_v4: bool, *, surely: bool = False) -> bool:
        """Tell whether the guest has addresses of this family only, as it seems.

        Its kernel knows. Of another guest that has shown itself in one family only, the
        planned address of the other one is a guess that nobody may answer to; but it
        may also just have begun: `surely` leaves such a guess out.
        """
        if self.inside(not is_v4) == UNSPECIFIED:
            return self.inside(is_v4) != UNSPECIFIED
        if (
            surely
            or self.present is not None
            or any(raw.startswith(V4_PREFIX) != is_v4 for raw in self._pinned)
        ):
            return False
        families = {raw.startswith(V4_PREFIX) for raw in self._seen}
        return families == {is_v4}

    def known(self) -> list[bytes]:
        """Return every address that the guest has been seen to use, or was given."""
        ends = (self.addr4, self.addr6, self.link_local6)
        return [raw for raw in ends if raw != UNSPECIFIED]

    def owns(self, raw: bytes) -> bool:
        """Tell whether `raw` is an address of the guest's, as far as we know."""
        if self.present is not None:
            return raw in self.present or raw == self.link_local6 != UNSPECIFIED
        return raw in self._planned or raw in self._seen

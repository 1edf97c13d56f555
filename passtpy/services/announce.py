# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are to be announced to the guest, because it knows them elsewhere.

A guest remembers where an address is only if it was told. So nothing is announced of
the hundreds of neighbours that a host may have, unless the guest has asked for them.
"""

from typing import Final, Generic

from passtpy.addr import Mac
from passtpy.services.facts import AnyAddress, Facts

MAX_TOLD: Final = 1024  # as many as the guest's own kernel remembers


class Announcer(Generic[AnyAddress]):
    """Remembers what the guest was told, and what it has to be told again."""

    def __init__(self, kind: type[AnyAddress]) -> None:
        self._kind: type[AnyAddress] = kind
        self._told: dict[AnyAddress, None] = {}
        self._pending: dict[AnyAddress, Mac] = {}

    def has_news(self) -> bool:
        """Tell whether there is something to announce."""
        return bool(self._pending)

    def told(self, addr: AnyAddress) -> None:
        """The guest was told where `addr` is; the one of longest ago is forgotten."""
        self._told.pop(addr, None)
        self._told[addr] = None
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]

    def update(self, before: Facts, now: Facts) -> None:
        """Note what is elsewhere now."""
        for addr, mac in now.moved_since(before):
            if not isinstance(addr, self._kind):
                continue
            if addr in self._told or addr in now.ours:
                self._pending[addr] = mac

    def take(self) -> dict[AnyAddress, Mac]:
        """Return what is to be announced, once."""
        pending, self._pending = self._pending, {}
        return pending

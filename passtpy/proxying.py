# SPDX-License-Identifier: GPL-2.0-or-later
"""Has connections wait until a proxy has connected them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from passtpy.addr import from_inany
from passtpy.inspecting import conversation_with
from passtpy.net.host.proxied import Proxied
from passtpy.net.kernel.connecting import WriterLoop
from passtpy.net.kernel.leaving import Leaving

if TYPE_CHECKING:
    from passtpy.egress.model import Via
    from passtpy.engine import Engine, Parked
    from passtpy.log import Log
    from passtpy.policy.decide import Waiting

MOST: Final = 256

Ends = tuple[bytes, int, bytes, int]
Refuse = Callable[["Parked", "Waiting"], None]


class Proxying:
    """All connections about which a proxy has been asked, by their ends.

    The datapath keeps a guest's attempt for two seconds. A proxy may take longer: it
    goes on, and the next attempt of the same client takes the place of the one before.
    """

    def __init__(
        self, loop: WriterLoop, engine: Engine, refuse: Refuse, log: Log
    ) -> None:
        self._loop = loop
        self._engine = engine
        self._refuse = refuse
        self._log = log
        self._under_way: dict[Ends, Proxied] = {}
        self._attempt: dict[Ends, Parked] = {}  # the last one

    def take(self, miss: Parked, waiting: Waiting, via: Via) -> bool:
        """Connect through this proxy; False: there are too many."""
        ends: Ends = miss.eaddr, miss.eport, miss.oaddr, miss.oport
        if ends in self._under_way:
            self._attempt[ends] = miss
            return True
        if len(self._under_way) >= MOST:
            return False
        verdict, config = waiting.verdict, self._engine.view.config
        names = waiting.ruling.names
        host = names[0] if names else from_inany(verdict.eaddr)
        leaving = Leaving((verdict.oaddr,), (config.outbound_if4, config.outbound_if6))
        talk = conversation_with(via, host, verdict.eport)

        def done(there: socket.socket | str) -> None:
            del self._under_way[ends]
            last = self._attempt.pop(ends)
            if isinstance(there, str):
                self._log.warning("proxy.failed", proxy=str(via), reason=there)
                self._refuse(last, waiting)
            else:
                self._engine.carry_out(last, verdict, there.detach())
            self._engine.go_on()

        self._attempt[ends] = miss
        place = via.address, via.port
        self._under_way[ends] = Proxied(self._loop, place, talk, leaving, done)
        return True

    def close(self) -> None:
        """Give up all of them."""
        for each in self._under_way.values():
            each.close()
        self._under_way.clear()

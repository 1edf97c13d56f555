# SPDX-License-Identifier: GPL-2.0-or-later
"""Has flows wait until a proxy has connected them, or has a relay for them."""

from __future__ import annotations

import socket
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final, NamedTuple

from passtpy.addr import Address, from_inany
from passtpy.errors import WireError
from passtpy.flow import IPPROTO_UDP, Relayed, Verdict
from passtpy.inspecting import conversation_with, credentials_of
from passtpy.net.host.proxied import Proxied
from passtpy.net.host.relays import notice_its_end, relay_socket
from passtpy.net.kernel.connecting import WriterLoop
from passtpy.net.kernel.leaving import Leaving
from passtpy.wire.proxy import Conversation, Socks5, wrap_datagram

if TYPE_CHECKING:
    from passtpy.egress.egress import Egress
    from passtpy.egress.model import Via
    from passtpy.engine import Engine, Parked
    from passtpy.log import Log
    from passtpy.policy.decide import Waiting

MOST: Final = 256

Ends = tuple[int, bytes, int, bytes, int]
Refuse = Callable[["Parked", "Waiting"], None]


class _Way(NamedTuple):
    """Through whom a flow leaves, and whereto."""

    via: Via
    host: str | Address
    verdict: Verdict
    leaving: Leaving
    asks: Socks5 | None  # for a relay of datagrams; None: for a connection


class Proxying:
    """All flows about which a proxy has been asked, by their ends.

    The datapath keeps a guest's attempt for two seconds. A proxy may take longer: it
    goes on, and the next attempt of the same client takes the place of the one before.
    """

    def __init__(
        self,
        loop: WriterLoop,
        engine: Engine,
        egress: Egress,
        refuse: Refuse,
        log: Log,
    ) -> None:
        self._loop = loop
        self._egress = egress
        self._engine = engine
        self._refuse = refuse
        self._log = log
        self._under_way: dict[Ends, Proxied] = {}
        self._attempt: dict[Ends, Parked] = {}  # the last one

    def take(self, miss: Parked, waiting: Waiting, via: Via) -> bool:
        """Connect through this proxy; False: there are too many."""
        ends: Ends = miss.proto, miss.eaddr, miss.eport, miss.oaddr, miss.oport
        if ends in self._under_way:
            self._attempt[ends] = miss
            return True
        if len(self._under_way) >= MOST:
            return False
        way = self._way(miss, waiting, via)

        def done(there: socket.socket | str) -> None:
            del self._under_way[ends]
            last = self._attempt.pop(ends)
            why = there if isinstance(there, str) else self._open(last, way, there)
            if why:
                self._log.warning("proxy.failed", proxy=str(via), reason=why)
                self._refuse(last, waiting)
            self._engine.go_on()

        talk: Conversation = way.asks or conversation_with(
            via, way.host, way.verdict.eport
        )
        self._attempt[ends] = miss
        place = via.address, via.port
        self._under_way[ends] = Proxied(self._loop, place, talk, way.leaving, done)
        return True

    def _way(self, miss: Parked, waiting: Waiting, via: Via) -> _Way:
        verdict, config = waiting.verdict, self._engine.view.config
        name = self._egress.name_for(waiting.ruling, waiting.ruling.names)
        host = name if name is not None else from_inany(verdict.eaddr)
        leaving = Leaving((verdict.oaddr,), (config.outbound_if4, config.outbound_if6))
        asks = _asks_for_relay(via) if miss.proto == IPPROTO_UDP else None
        return _Way(via, host, verdict, leaving, asks)

    def _open(self, miss: Parked, way: _Way, there: socket.socket) -> str:
        """Make a flow with what a proxy has agreed to, or return why it cannot be."""
        engine, verdict = self._engine, way.verdict
        if not engine.is_current(verdict):
            there.close()  # made for a flow of another policy
            engine.decide(miss)
            return ""
        if way.asks is None:
            engine.carry_out(miss, verdict, there.detach())
            return ""
        try:
            relay = relay_socket(way.via.address, way.asks.bound, way.leaving)
        except (OSError, WireError) as error:
            there.close()
            return str(error)
        notice_its_end(there)
        head = wrap_datagram(way.host, verdict.eport, b"")
        engine.relay(miss, verdict, Relayed(relay.detach(), there.detach(), head))
        return ""

    def close(self) -> None:
        """Give up all of them."""
        for each in self._under_way.values():
            each.close()
        self._under_way.clear()


def _asks_for_relay(via: Via) -> Socks5:
    """Return what is said to have datagrams passed on, from wherever we send them."""
    anywhere = IPv6Address(0) if via.address.version == 6 else IPv4Address(0)
    return Socks5(anywhere, 0, credentials_of(via), datagrams=True)

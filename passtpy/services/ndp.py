# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour discovery: every neighbour but the guest is here, and its only router.

What is advertised as a router is composed in services/ra.py.
"""

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Final

from passtpy.addr import Mac, inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.errors import WireError
from passtpy.services.announce import Announcer
from passtpy.services.facts import Facts
from passtpy.services.ra import Advertiser
from passtpy.wire.ethernet import ETHERTYPE_IPV6, Ethernet
from passtpy.wire.icmpv6 import PROTO, Icmpv6
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.ndp import (
    LinkAddress,
    NdpType,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    RouterSolicitation,
    link_address,
)

ALL_NODES: Final = IPv6Address("ff02::1")
ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
SOLICITED_NODE: Final = int(IPv6Address("ff02::1:ff00:0"))
UNSPECIFIED6: Final = IPv6Address("::")
ND_HOP_LIMIT: Final = 255  # anything less was forwarded, hence forged


class NdpService:
    """Answers solicitations; announces itself as a router when told to.

    `spread(low, high)` picks the seconds until the next unsolicited advertisement:
    an argument, because a service that rolls dice cannot be tested.
    """

    name = "ndp"

    def __init__(
        self,
        facts: Facts,
        guest: GuestAddresses,
        spread: Callable[[int, int], int],
    ) -> None:
        self._facts = facts
        self._guest = guest
        self._router = Advertiser(facts, spread)
        self._asked = False
        self._announcer = Announcer(IPv6Address)
        self.counters: dict[str, int] = {}

    def update(self, facts: Facts) -> None:
        """Tell this from now on, and announce what has changed."""
        self._announcer.update(self._facts, facts)
        self._asked = self._asked and facts.guest6 == self._facts.guest6
        self._facts = facts
        self._router.update(facts)

    def ask_again(self) -> None:
        """Find out who the guest is: there may be another one."""
        self._asked = False

    def handle(self, frame: bytes, now: int) -> list[bytes]:
        """Answer one message from the guest."""
        eth = Ethernet.parse(frame)
        packet = Ipv6.parse(eth.payload)
        if packet.proto != PROTO or packet.hop_limit != ND_HOP_LIMIT:
            raise WireError("ndp: not from this link")
        message = Icmpv6.parse(packet.payload, packet.source, packet.destination)
        self._learn(packet.source)
        match message.type:
            case NdpType.NEIGHBOUR_SOLICITATION:
                solicitation = NeighbourSolicitation.parse(message)
                return self._advertise_neighbour(eth, packet, solicitation)
            case NdpType.ROUTER_SOLICITATION:
                RouterSolicitation.parse(message)
                return self._answer_router_solicitation(eth, packet, now)
            case NdpType.NEIGHBOUR_ADVERTISEMENT:
                self._learn(NeighbourAdvertisement.parse(message).target)
        return []

    def tick(self, now: int) -> list[bytes]:
        """Ask once who the guest is; announce what moved; advertise the router."""
        frames = [
            self._announce(addr, mac)
            for addr, mac in self._announcer.take().items()
            if self._facts.ipv6
        ]
        if not self._asked:
            self._asked = True
            if self._facts.guest6 is not None:
                frames.append(self._solicit(self._facts.guest6))
        advertisement = self._router.tick(now)
        if advertisement is not None:
            frames.append(self._to_all(self._facts.our_link_local, advertisement))
        return frames

    def due(self) -> int | None:
        """Return when tick() has something to do."""
        if not self._asked or self._announcer.has_news():
            return 0
        return self._router.due()

    def _learn(self, source: IPv6Address) -> None:
        if source.ipv4_mapped is None:
            self._guest.observe(inany(source))

    def _advertise_neighbour(
        self, eth: Ethernet, packet: Ipv6, asked: NeighbourSolicitation
    ) -> list[bytes]:
        target = asked.target
        if not self._facts.ipv6 or target == packet.source:
            return []
        if target == self._facts.guest6 and self._guest.owns(inany(target)):
            return []
        mac = self._facts.mac_of(target)
        if packet.source == UNSPECIFIED6:
            # Duplicate address detection: the guest may have any address that nobody
            # uses, although we would answer for it afterwards.
            taken = self._facts.is_taken(target)
            return [self._announce(target, mac)] if taken else []
        self._announcer.told(target)
        to = link_address(asked.options) or eth.source
        answer = _advertisement(target, mac, solicited=True)
        return [self._frame(to, target, packet.source, answer)]

    def _answer_router_solicitation(
        self, eth: Ethernet, packet: Ipv6, now: int
    ) -> list[bytes]:
        source = self._facts.our_link_local
        if packet.source != UNSPECIFIED6:
            message = self._router.advertisement()
            if message is None:
                return []
            return [self._frame(eth.source, source, packet.source, message)]
        message = self._router.answer_all(now)
        return [] if message is None else [self._to_all(source, message)]

    def _announce(self, addr: IPv6Address, mac: Mac) -> bytes:
        """Tell everybody where `addr` is (RFC 4861 7.2.6)."""
        return self._to_all(addr, _advertisement(addr, mac, solicited=False))

    def _solicit(self, target: IPv6Address) -> bytes:
        group = IPv6Address(SOLICITED_NODE | int(target) & 0xFFFFFF)
        mac = b"\x33\x33" + group.packed[12:]
        own = LinkAddress(self._facts.our_mac)
        message = NeighbourSolicitation(target, (own,)).emit()
        return self._frame(mac, self._facts.our_link_local, group, message)

    def _to_all(self, source: IPv6Address, message: Icmpv6) -> bytes:
        return self._frame(ALL_NODES_MAC, source, ALL_NODES, message)

    def _frame(
        self,
        mac: Mac,
        source: IPv6Address,
        destination: IPv6Address,
        message: Icmpv6,
    ) -> bytes:
        payload = message.emit(source, destination)
        packet = Ipv6(source, destination, PROTO, payload)
        frame = Ethernet(mac, self._facts.our_mac, ETHERTYPE_IPV6, packet.emit())
        return frame.emit()


def _advertisement(target: IPv6Address, mac: Mac, *, solicited: bool) -> Icmpv6:
    own = LinkAddress(mac, is_target=True)
    return NeighbourAdvertisement(target, True, solicited, True, (own,)).emit()

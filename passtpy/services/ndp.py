# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour discovery: we are every neighbour but the guest, and its only router."""

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv6Address
from typing import Final

from passtpy.addr import Mac, inany
from passtpy.errors import WireError
from passtpy.policy.guest import GuestAddresses
from passtpy.wire.ethernet import ETHERTYPE_IPV6, Ethernet
from passtpy.wire.icmpv6 import PROTO, Icmpv6
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.ndp import (
    LinkAddress,
    LinkMtu,
    NdpType,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    Option,
    PrefixInfo,
    RouterAdvertisement,
    RouterSolicitation,
    link_address,
)

ALL_NODES: Final = IPv6Address("ff02::1")
ALL_NODES_MAC: Final = bytes.fromhex("333300000001")
SOLICITED_NODE: Final = int(IPv6Address("ff02::1:ff00:0"))
UNSPECIFIED6: Final = IPv6Address("::")
ND_HOP_LIMIT: Final = 255  # anything less was forwarded, hence forged
ROUTER_LIFETIME_S: Final = 65535
PREFIX_LENGTH: Final = 64  # stateless configuration works with no other
RA_MIN_GAP_NS: Final = 3_000_000_000  # RFC 4861 MIN_DELAY_BETWEEN_RAS
RA_SPAN_S: Final = (200, 600)


@dataclass(frozen=True, slots=True, kw_only=True)
class NdpFacts:
    """What the service announces."""

    our_mac: Mac
    our_link_local: IPv6Address
    guest_addr: IPv6Address | None
    prefix: IPv6Address | None
    mtu: int
    advertise_router: bool


class NdpService:
    """Answers solicitations; announces itself as a router when told to.

    `spread(low, high)` picks the seconds until the next unsolicited advertisement:
    an argument, because a service that rolls dice cannot be tested.
    """

    name = "ndp"

    def __init__(
        self,
        facts: NdpFacts,
        guest: GuestAddresses,
        spread: Callable[[int, int], int],
    ) -> None:
        self._facts = facts
        self._guest = guest
        self._spread = spread
        self._next_ra: int | None = None
        self._last_ra: int | None = None
        self._asked = False

    def handle(self, frame: bytes, now: int) -> list[bytes]:
        """Answer one message from the guest."""
        eth = Ethernet.parse(frame)
        packet = Ipv6.parse(eth.payload)
        if packet.proto != PROTO or packet.hop_limit != ND_HOP_LIMIT:
            raise WireError("ndp: not from this link")
        message = Icmpv6.parse(packet.payload, packet.source, packet.destination)
        if packet.source.ipv4_mapped is None:
            self._guest.observe(inany(packet.source))
        if message.type == NdpType.NEIGHBOUR_SOLICITATION:
            solicitation = NeighbourSolicitation.parse(message)
            return self._advertise_neighbour(eth, packet, solicitation)
        if message.type == NdpType.ROUTER_SOLICITATION:
            RouterSolicitation.parse(message)
            return self._answer_router_solicitation(eth, packet, now)
        if message.type == NdpType.NEIGHBOUR_ADVERTISEMENT:
            NeighbourAdvertisement.parse(message)
        return []

    def tick(self, now: int) -> list[bytes]:
        """Ask once who the guest is; advertise the router from time to time."""
        frames = []
        if not self._asked:
            self._asked = True
            if self._facts.guest_addr is not None:
                frames.append(self._solicit(self._facts.guest_addr))
        if not self._facts.advertise_router:
            return frames
        if self._next_ra is None:
            self._schedule(now)
        elif now >= self._next_ra:
            frames.append(self._advertise_router(ALL_NODES_MAC, ALL_NODES))
            self._last_ra = now
            self._schedule(now)
        return frames

    def due(self) -> int | None:
        """Return when tick() has something to do."""
        return self._next_ra if self._asked else 0

    def _schedule(self, now: int) -> None:
        self._next_ra = now + self._spread(*RA_SPAN_S) * 1_000_000_000

    def _advertise_neighbour(
        self, eth: Ethernet, packet: Ipv6, asked: NeighbourSolicitation
    ) -> list[bytes]:
        # From "::" it is duplicate address detection: an answer would take the
        # address away from the guest.
        target = asked.target
        if packet.source == UNSPECIFIED6:
            return []
        if target == self._facts.guest_addr or target == packet.source:
            return []
        mac = link_address(asked.options) or eth.source
        own = LinkAddress(self._facts.our_mac, is_target=True)
        answer = NeighbourAdvertisement(target, True, True, True, (own,))
        return [self._frame(mac, target, packet.source, answer.emit())]

    def _answer_router_solicitation(
        self, eth: Ethernet, packet: Ipv6, now: int
    ) -> list[bytes]:
        if not self._facts.advertise_router:
            return []
        if packet.source != UNSPECIFIED6:
            return [self._advertise_router(eth.source, packet.source)]
        if self._last_ra is not None and now - self._last_ra < RA_MIN_GAP_NS:
            return []
        self._last_ra = now
        return [self._advertise_router(ALL_NODES_MAC, ALL_NODES)]

    def _advertise_router(self, mac: Mac, destination: IPv6Address) -> bytes:
        options: list[Option] = []
        if self._facts.prefix is not None:
            options.append(PrefixInfo(self._facts.prefix, PREFIX_LENGTH))
        if self._facts.mtu:
            options.append(LinkMtu(self._facts.mtu))
        options.append(LinkAddress(self._facts.our_mac))
        message = RouterAdvertisement(ROUTER_LIFETIME_S, options=tuple(options))
        source = self._facts.our_link_local
        return self._frame(mac, source, destination, message.emit())

    def _solicit(self, target: IPv6Address) -> bytes:
        group = IPv6Address(SOLICITED_NODE | int(target) & 0xFFFFFF)
        mac = b"\x33\x33" + group.packed[12:]
        own = LinkAddress(self._facts.our_mac)
        message = NeighbourSolicitation(target, (own,)).emit()
        return self._frame(mac, self._facts.our_link_local, group, message)

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

# SPDX-License-Identifier: GPL-2.0-or-later
"""ARP: we are every address but the guest's own, so that all its frames reach us."""

from ipaddress import IPv4Address

from passtpy.addr import BROADCAST_MAC, NO_MAC, Mac, inany
from passtpy.policy.guest import GuestAddresses
from passtpy.wire.arp import Arp, ArpOp, Neighbour
from passtpy.wire.ethernet import ETHERTYPE_ARP, Ethernet


class ArpService:
    """Answers requests for any target except the guest's own and announcements."""

    name = "arp"

    def __init__(
        self,
        our_mac: Mac,
        our_addr: IPv4Address | None,
        guest_addr: IPv4Address | None,
        guest: GuestAddresses,
    ) -> None:
        self._our_mac = our_mac
        self._our_addr = our_addr
        self._guest_addr = guest_addr
        self._guest = guest
        self._asked = False

    def handle(self, frame: bytes, _now: int) -> list[bytes]:
        """Answer one request; learn the guest's address from whatever it says."""
        arp = Arp.parse(Ethernet.parse(frame).payload)
        # A probe (RFC 5227) has no sender address yet, and probes are not answered
        # for the guest's own address: that would be a conflict with itself.
        self._guest.observe(inany(arp.sender.addr))
        if arp.op is not ArpOp.REQUEST:
            return []
        if arp.target.addr == self._guest_addr or arp.is_announcement:
            return []
        reply = Arp(ArpOp.REPLY, Neighbour(self._our_mac, arp.target.addr), arp.sender)
        return [self._frame(arp.sender.mac, reply)]

    def tick(self, _now: int) -> list[bytes]:
        """Ask once for the guest's MAC address."""
        if self._asked or self._our_addr is None or self._guest_addr is None:
            return []
        self._asked = True
        us = Neighbour(self._our_mac, self._our_addr)
        question = Arp(ArpOp.REQUEST, us, Neighbour(NO_MAC, self._guest_addr))
        return [self._frame(BROADCAST_MAC, question)]

    def due(self) -> int | None:
        """Return 0 until the question has been asked."""
        known = self._our_addr is not None and self._guest_addr is not None
        return 0 if known and not self._asked else None

    def _frame(self, destination: Mac, arp: Arp) -> bytes:
        frame = Ethernet(destination, self._our_mac, ETHERTYPE_ARP, arp.emit())
        return frame.emit()

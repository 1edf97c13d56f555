# SPDX-License-Identifier: GPL-2.0-or-later
"""ARP: every address but the guest's own is here, so that all its frames reach us."""

from ipaddress import IPv4Address

from passtpy.addr import BROADCAST_MAC, NO_MAC, Mac, inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.services.announce import Announcer
from passtpy.services.facts import Facts
from passtpy.wire.arp import Arp, ArpOp, Neighbour
from passtpy.wire.ethernet import ETHERTYPE_ARP, Ethernet

NOBODY = IPv4Address(0)


class ArpService:
    """Answers requests for any target except the guest's own and announcements."""

    name = "arp"

    def __init__(self, facts: Facts, guest: GuestAddresses) -> None:
        self._facts = facts
        self._guest = guest
        self._asked = False
        self._announcer = Announcer(IPv4Address)
        self.counters: dict[str, int] = {}

    def update(self, facts: Facts) -> None:
        """Tell this from now on, and announce what is now found elsewhere."""
        self._announcer.update(self._facts, facts)
        self._asked = self._asked and facts.guest4 == self._facts.guest4
        self._facts = facts

    def ask_again(self) -> None:
        """Find out who the guest is: there may be another one."""
        self._asked = False

    def handle(self, frame: bytes, _now: int) -> list[bytes]:
        """Answer one request; learn the guest's address from whatever it says."""
        arp = Arp.parse(Ethernet.parse(frame).payload)
        self._guest.observe(inany(arp.sender.addr))
        if arp.op is not ArpOp.REQUEST or not self._facts.ipv4:
            return []
        target = arp.target.addr
        if arp.is_announcement:
            return []
        if target == self._facts.guest4 and self._guest.owns(inany(target)):
            return []
        # A probe (RFC 5227) asks whether an address is free: the guest may have any
        # that nobody uses, although we would answer for it afterwards.
        if arp.sender.addr == NOBODY and not self._facts.is_taken(target):
            return []
        mac = self._facts.mac_of(target)
        self._announcer.told(target)
        reply = Arp(ArpOp.REPLY, Neighbour(mac, target), arp.sender)
        return [self._frame(arp.sender.mac, reply)]

    def tick(self, _now: int) -> list[bytes]:
        """Ask once for the guest's MAC address; announce what has moved."""
        frames = [
            self._announce(Neighbour(mac, addr))
            for addr, mac in self._announcer.take().items()
            if self._facts.ipv4
        ]
        server, guest = self._facts.server4, self._facts.guest4
        if not self._asked and server is not None and guest is not None:
            self._asked = True
            us = Neighbour(self._facts.our_mac, server)
            question = Arp(ArpOp.REQUEST, us, Neighbour(NO_MAC, guest))
            frames.append(self._frame(BROADCAST_MAC, question))
        return frames

    def due(self) -> int | None:
        """Return 0 while there is something to ask or to announce."""
        server, guest = self._facts.server4, self._facts.guest4
        asks = not self._asked and server is not None and guest is not None
        return 0 if asks or self._announcer.has_news() else None

    def _announce(self, neighbour: Neighbour) -> bytes:
        target = Neighbour(NO_MAC, neighbour.addr)
        return self._frame(BROADCAST_MAC, Arp(ArpOp.REQUEST, neighbour, target))

    def _frame(self, destination: Mac, arp: Arp) -> bytes:
        frame = Ethernet(destination, self._facts.our_mac, ETHERTYPE_ARP, arp.emit())
        return frame.emit()

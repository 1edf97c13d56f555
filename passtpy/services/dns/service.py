# SPDX-License-Identifier: GPL-2.0-or-later
"""Takes questions out of the guest's frames, and puts answers in frames to it.

Whatever server the guest asks, we answer, in that server's name.
"""

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import Address, Mac
from passtpy.errors import WireError
from passtpy.services.dns.message import EDNS_SIZE, HEADER_LEN
from passtpy.services.dns.ready import ReadyFrames
from passtpy.services.dns.resolver import Resolver
from passtpy.services.facts import Facts
from passtpy.wire import ipv4, ipv6, udp
from passtpy.wire.ethernet import ETHERTYPE_IPV4, ETHERTYPE_IPV6, Ethernet
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.udp import Udp

PORT: Final = 53
_UDP: Final = 17
_TTL: Final = 64
_MIN_MTU: Final = 1280


class DnsService:
    """Answers DNS over UDP.

    `send` takes a frame for the guest at any time: most answers come later than their
    questions.
    """

    name = "dns"

    def __init__(
        self, facts: Facts, resolver: Resolver, send: Callable[[bytes], None]
    ) -> None:
        self._facts = facts
        self._resolver = resolver
        self._send = send
        self._at_once: list[bytes] | None = None
        self._ready = ReadyFrames()
        resolver.when_changed(self._ready.clear)
        self.counters = resolver.counters

    def update(self, facts: Facts) -> None:
        """Answer from this MAC address, in packets of this MTU, from now on."""
        self._facts = facts
        self._ready.clear()

    def handle(self, frame: bytes, now: int) -> list[bytes]:
        """Return the answer, if it is known."""
        standing = self._resolver.standing
        if standing is not None:
            ready = self._ready.answer(frame, now, standing)
            if ready is not None:
                self.counters["dns_queries"] += 1
                self.counters["dns_cached"] += 1
                return [ready]
        answers, until = self._ask(frame)
        standing = self._resolver.standing
        if until > now and standing is not None:
            self._ready.keep(frame, answers[0], until, standing)
        return answers

    def _ask(self, frame: bytes) -> tuple[list[bytes], int]:
        """Return the answer if it is known, and until when it stays the same."""
        eth = Ethernet.parse(frame)
        if eth.ethertype == ETHERTYPE_IPV4:
            packet: Ipv4 | Ipv6 = Ipv4.parse(eth.payload)
        else:
            packet = Ipv6.parse(eth.payload)
        datagram = Udp.parse(packet.payload)
        if datagram.source == 0 or len(datagram.payload) < HEADER_LEN:
            raise WireError("dns: no question")
        guest, asked, port = packet.source, packet.destination, datagram.source
        answers: list[bytes] = []
        self._at_once = answers

        def reply(message: bytes) -> None:
            made = self._frame(eth.source, asked, guest, port, message)
            if self._at_once is answers:
                answers.append(made)
            else:
                self._send(made)

        try:
            size = self._size(guest)
            until = self._resolver.question(datagram.payload, reply, size)
        finally:
            self._at_once = None
        return answers, until

    def tick(self, _now: int) -> list[bytes]:
        """Say nothing unasked."""
        return []

    def due(self) -> int | None:
        """Never."""
        return None

    def _size(self, guest: Address) -> int:
        """Return how many bytes of a message fit into one packet to the guest."""
        mtu = max(self._facts.mtu, _MIN_MTU) if self._facts.mtu else EDNS_SIZE + 48
        header = ipv4.HEADER_LEN if guest.version == 4 else ipv6.HEADER_LEN
        return min(EDNS_SIZE, mtu - header - udp.HEADER_LEN)

    def _frame(
        self, mac: Mac, source: Address, guest: Address, port: int, message: bytes
    ) -> bytes:
        data = Udp(PORT, port, message).emit(source, guest)
        if isinstance(source, IPv4Address) and isinstance(guest, IPv4Address):
            packet, kind = Ipv4(source, guest, _UDP, data, _TTL).emit(), ETHERTYPE_IPV4
        elif isinstance(source, IPv6Address) and isinstance(guest, IPv6Address):
            packet, kind = Ipv6(source, guest, _UDP, data, _TTL).emit(), ETHERTYPE_IPV6
        else:
            raise AssertionError("two families in one packet")
        return Ethernet(mac, self._facts.our_mac, kind, packet).emit()

# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP (RFC 2131) and BOOTP for a link with one guest and one address.

Nothing is remembered about clients: whoever asks is given the guest's address, and
whoever asks for another one is told so. The lease never ends, but is renewed from time
to time, which is how a client learns of new resolvers or of another address.
"""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final, assert_never

from passtpy.addr import BROADCAST_MAC, Mac, inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.errors import WireError
from passtpy.services.facts import INFINITE, REBIND_S, RENEW_S, Facts
from passtpy.wire import dnsname
from passtpy.wire.dhcp import (
    CLIENT_PORT,
    HEADERS,
    MIN_LEN,
    MIN_MAX_SIZE,
    SERVER_PORT,
    Code,
    Dhcp,
    MessageType,
    Op,
)
from passtpy.wire.ethernet import ETHERTYPE_IPV4, Ethernet
from passtpy.wire.ipv4 import Ipv4
from passtpy.wire.udp import Udp

NOBODY: Final = IPv4Address(0)
BROADCAST: Final = IPv4Address("255.255.255.255")
WRONG_ADDRESS: Final = b"address not available here"
MAX_MTU: Final = 65535
DEFAULT_MTU: Final = 1500
_UDP: Final = 17
_GROUP_MAC: Final = 1
# Flags of option 81 (RFC 4702 2.1): we update no DNS, and say so.
_FQDN_SERVER, _FQDN_OVERRIDE, _FQDN_WIRE, _FQDN_NO_UPDATE = 1, 2, 4, 8

Options = dict[int, bytes]


class DhcpService:
    """Gives the guest its address, and what goes with it."""

    name = "dhcp"

    def __init__(self, facts: Facts, guest: GuestAddresses) -> None:
        self._facts = facts
        self._guest = guest
        self.counters = {"dhcp_refused": 0, "dhcp_declined": 0, "dhcp_released": 0}

    def update(self, facts: Facts) -> None:
        """Tell this from now on."""
        self._facts = facts

    def handle(self, frame: bytes, _now: int) -> list[bytes]:
        """Answer one message, if we have an address to give."""
        eth = Ethernet.parse(frame)
        packet = Ipv4.parse(eth.payload)
        datagram = Udp.parse(packet.payload)
        request = Dhcp.parse(datagram.payload)
        if request.op is not Op.REQUEST or request.chaddr[0] & _GROUP_MAC:
            raise WireError("dhcp: not from a client")
        server, address = self._facts.server4, self._facts.guest4
        if server is None or address is None:
            return []
        answer = self._answer(request, server, address)
        if answer is None:
            return []
        payload = answer.emit(self._room(request, len(datagram.payload)))
        mac, destination, port = _destination(eth, request, answer)
        reply = Udp(SERVER_PORT, port, payload).emit(server, destination)
        return [self._frame(mac, Ipv4(server, destination, _UDP, reply))]

    def tick(self, _now: int) -> list[bytes]:
        """Say nothing unasked."""
        return []

    def due(self) -> int | None:
        """Never."""
        return None

    def _answer(
        self, request: Dhcp, server: IPv4Address, address: IPv4Address
    ) -> Dhcp | None:
        kind = request.kind
        if kind is not MessageType.DISCOVER and kind is not None:
            meant = request.address(Code.SERVER)
            if meant is not None and meant != server:
                return None  # the client has chosen another server
        match kind:
            case None:
                return self._offer(request, None, address)
            case MessageType.DISCOVER if Code.RAPID_COMMIT in request.options:
                return self._offer(request, MessageType.ACK, address)
            case MessageType.DISCOVER:
                return self._offer(request, MessageType.OFFER, address)
            case MessageType.REQUEST:
                return self._grant(request, address)
            case MessageType.INFORM:
                return self._inform(request)
            case MessageType.DECLINE:
                self.counters["dhcp_declined"] += 1
            case MessageType.RELEASE:
                self.counters["dhcp_released"] += 1
            case MessageType.OFFER | MessageType.ACK | MessageType.NAK:
                raise WireError("dhcp: a server's message")
            case _:
                assert_never(kind)
        return None

    def _grant(self, request: Dhcp, address: IPv4Address) -> Dhcp:
        """Answer a REQUEST in whatever state the client is (RFC 2131 4.3.2)."""
        wanted = request.address(Code.REQUESTED_ADDRESS)
        if wanted is None:
            wanted = request.ciaddr
        if wanted == NOBODY:
            raise WireError("dhcp: request without address")
        if wanted == address:
            self._guest.observe(inany(address))
            return self._offer(request, MessageType.ACK, address)
        self.counters["dhcp_refused"] += 1
        options = self._identity(request, MessageType.NAK)
        return _reply(request, options | {Code.MESSAGE: WRONG_ADDRESS})

    def _offer(
        self, request: Dhcp, kind: MessageType | None, address: IPv4Address
    ) -> Dhcp:
        """Return what gives `address`; without `kind` to a BOOTP client."""
        options = self._identity(request, kind)
        if kind is not None:
            options[Code.LEASE] = INFINITE.to_bytes(4, "big")
            options[Code.RENEWAL] = RENEW_S.to_bytes(4, "big")
            options[Code.REBINDING] = REBIND_S.to_bytes(4, "big")
        rapid = kind is MessageType.ACK and request.kind is MessageType.DISCOVER
        if rapid:
            options[Code.RAPID_COMMIT] = b""
        options |= self._parameters(request)
        return _reply(request, _arranged(options, request.wanted), address)

    def _inform(self, request: Dhcp) -> Dhcp | None:
        """Tell a client that has its address from elsewhere the rest."""
        if request.ciaddr == NOBODY:
            raise WireError("dhcp: inform without address")
        options = self._identity(request, MessageType.ACK)
        options |= self._parameters(request)
        return _reply(request, _arranged(options, request.wanted))

    def _identity(self, request: Dhcp, kind: MessageType | None) -> Options:
        """Return who answers whom; a BOOTP client would not understand."""
        if kind is None or self._facts.server4 is None:
            return {}
        options: Options = {Code.TYPE: bytes([kind])}
        options[Code.SERVER] = self._facts.server4.packed
        if Code.CLIENT_ID in request.options:  # RFC 6842
            options[Code.CLIENT_ID] = request.options[Code.CLIENT_ID]
        return options

    def _parameters(self, request: Dhcp) -> Options:
        """Return what is true of the link, whoever asks."""
        facts = self._facts
        options: Options = {}
        network = IPv4Network((facts.guest4 or NOBODY, facts.prefix4), strict=False)
        options[Code.MASK] = network.netmask.packed
        if facts.gateway4 is not None:
            if facts.gateway4 not in network:
                options[Code.ROUTES] = _routes(facts.gateway4)
            options[Code.ROUTER] = facts.gateway4.packed
        if facts.resolvers4:
            options[Code.DNS] = b"".join(addr.packed for addr in facts.resolvers4)
        if facts.hostname:
            options[Code.HOSTNAME] = facts.hostname.encode("ascii")
        if facts.mtu:
            options[Code.MTU] = min(facts.mtu, MAX_MTU).to_bytes(2, "big")
        if facts.search:
            options[Code.SEARCH] = dnsname.encode_compressed(facts.search)
        asked = Code.FQDN in request.options or Code.FQDN in request.wanted
        if facts.fqdn and asked:  # RFC 4702 4: only then
            options[Code.FQDN] = _fqdn(facts.fqdn, request.options.get(Code.FQDN))
        return options

    def _room(self, request: Dhcp, length: int) -> int:
        """Return how long the answer may be, without headers."""
        if request.kind is None:
            return max(MIN_LEN, min(length, MIN_MAX_SIZE - HEADERS))
        limit = min(request.max_size, self._facts.mtu or DEFAULT_MTU)
        return max(limit, MIN_MAX_SIZE) - HEADERS

    def _frame(self, mac: Mac, packet: Ipv4) -> bytes:
        ours = self._facts.our_mac
        return Ethernet(mac, ours, ETHERTYPE_IPV4, packet.emit()).emit()


def _reply(request: Dhcp, options: Options, address: IPv4Address = NOBODY) -> Dhcp:
    refused = options.get(Code.TYPE) == bytes([MessageType.NAK])
    return Dhcp(
        op=Op.REPLY,
        xid=request.xid,
        chaddr=request.chaddr,
        broadcast=request.broadcast,
        ciaddr=NOBODY if refused else request.ciaddr,
        yiaddr=address,
        giaddr=request.giaddr,
        options=options,
    )


def _destination(
    eth: Ethernet, request: Dhcp, answer: Dhcp
) -> tuple[Mac, IPv4Address, int]:
    """Return where the answer goes (RFC 2131 4.1)."""
    if request.giaddr != NOBODY:
        return eth.source, request.giaddr, SERVER_PORT
    if answer.kind is MessageType.NAK:
        return BROADCAST_MAC, BROADCAST, CLIENT_PORT
    if request.ciaddr != NOBODY:
        return request.chaddr, request.ciaddr, CLIENT_PORT
    if request.broadcast:
        return BROADCAST_MAC, BROADCAST, CLIENT_PORT
    return request.chaddr, answer.yiaddr, CLIENT_PORT


def _arranged(options: Options, wanted: bytes) -> Options:
    """Return the options in the order in which they shall find room.

    First what the client cannot do without (the mask before any router: RFC 2132 3.3),
    then what it asks for in its own order, then the rest.
    """
    first = (Code.TYPE, Code.SERVER, Code.LEASE, Code.RAPID_COMMIT, Code.MASK)

    def codes() -> Iterator[int]:
        yield from first
        yield from wanted
        yield from options

    return {code: options[code] for code in codes() if code in options}


def _routes(gateway: IPv4Address) -> bytes:
    """Return a way to a gateway that is no neighbour, then the one through it."""
    to_gateway = bytes([32]) + gateway.packed + NOBODY.packed
    return to_gateway + bytes([0]) + gateway.packed


def _fqdn(name: str, asked: bytes | None) -> bytes:
    """Return option 81 in the encoding that the client uses."""
    flags = asked[0] if asked is not None else _FQDN_WIRE
    answer = flags & _FQDN_WIRE | _FQDN_NO_UPDATE
    if flags & _FQDN_SERVER:
        answer |= _FQDN_OVERRIDE
    wire = dnsname.encode(name) if flags & _FQDN_WIRE else name.encode("ascii")
    return bytes([answer, 255, 255]) + wire

# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv6 (RFC 8415) for a link with one guest and one address.

As with DHCP nothing is remembered about clients: the first association of a message
(the one that names the guest's address, if any does) is bound to that address, all
others are not bound to anything. There are neither temporary addresses nor prefixes.
"""

from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Final, assert_never

from passtpy.addr import inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.errors import WireError
from passtpy.services.facts import INFINITE, REBIND_S, RENEW_S, Facts
from passtpy.wire import dnsname
from passtpy.wire.dhcpv6 import (
    ALL_SERVERS,
    CLIENT_PORT,
    SERVER_PORT,
    Code,
    Dhcpv6,
    Ia,
    IaAddress,
    MessageType,
    Option,
    RawOption,
    Status,
    StatusCode,
)
from passtpy.wire.ethernet import ETHERTYPE_IPV6, Ethernet
from passtpy.wire.ipv6 import Ipv6
from passtpy.wire.udp import Udp

REFRESH_S: Final = 600  # the least that RFC 8415 7.6 allows
MAX_ASSOCIATIONS: Final = 16  # a client has one per interface; keeps answers short
_UDP: Final = 17
# Flags of option 39 (RFC 4704 4.1): we update no DNS, and say so.
_FQDN_SERVER, _FQDN_OVERRIDE, _FQDN_NO_UPDATE = 1, 2, 4

_TO_ONE_SERVER: Final = frozenset(
    (
        MessageType.REQUEST,
        MessageType.RENEW,
        MessageType.RELEASE,
        MessageType.DECLINE,
    )
)
_TO_ANY_SERVER: Final = frozenset(
    (MessageType.SOLICIT, MessageType.CONFIRM, MessageType.REBIND)
)
_BY_CLIENTS: Final = _TO_ONE_SERVER | _TO_ANY_SERVER | {MessageType.INFORMATION_REQUEST}
_RENEWING: Final = (MessageType.RENEW, MessageType.REBIND)


class Dhcpv6Service:
    """Gives the guest its address, and what goes with it; `duid` is who we are."""

    name = "dhcpv6"

    def __init__(self, facts: Facts, guest: GuestAddresses, duid: bytes) -> None:
        self._facts = facts
        self._guest = guest
        self._duid = duid
        self.counters = {"dhcpv6_declined": 0, "dhcpv6_released": 0}

    def update(self, facts: Facts) -> None:
        """Tell this from now on."""
        self._facts = facts

    def handle(self, frame: bytes, _now: int) -> list[bytes]:
        """Answer one message, if we have an address to give."""
        eth = Ethernet.parse(frame)
        packet = Ipv6.parse(eth.payload)
        if packet.proto != _UDP or packet.source.is_unspecified:
            raise WireError("dhcpv6: not from a client")
        request = Dhcpv6.parse(Udp.parse(packet.payload).payload)
        _check(request)
        if self._facts.guest6 is None or not self._is_meant(request):
            return []
        self._guest.observe(inany(packet.source))
        if packet.destination == ALL_SERVERS:
            answer = self._answer(request, self._facts.guest6)
        else:
            answer = self._insist_on_multicast(request)
        return [] if answer is None else [self._frame(eth, packet.source, answer)]

    def tick(self, _now: int) -> list[bytes]:
        """Say nothing unasked."""
        return []

    def due(self) -> int | None:
        """Never."""
        return None

    def _is_meant(self, request: Dhcpv6) -> bool:
        server = request.raw(Code.SERVER_ID)
        return server is None or server == self._duid

    def _insist_on_multicast(self, request: Dhcpv6) -> Dhcpv6 | None:
        """Answer what came to us alone (RFC 8415 16, 18.4.1)."""
        if request.type not in _TO_ONE_SERVER:
            return None
        return self._reply(request, [Status(StatusCode.USE_MULTICAST)])

    def _answer(self, request: Dhcpv6, address: IPv6Address) -> Dhcpv6 | None:
        kind = request.type
        match kind:
            case MessageType.SOLICIT if request.raw(Code.RAPID_COMMIT) is not None:
                granted: list[Option] = [RawOption(Code.RAPID_COMMIT)]
                granted += _assign(request, address)
                return self._reply(request, granted + self._parameters(request))
            case (
                MessageType.SOLICIT
                | MessageType.REQUEST
                | MessageType.RENEW
                | MessageType.REBIND
            ):
                offered = _assign(request, address) + self._parameters(request)
                return self._reply(request, offered)
            case MessageType.CONFIRM:
                return self._confirm(request, address)
            case MessageType.RELEASE | MessageType.DECLINE:
                return self._give_up(request, address)
            case MessageType.INFORMATION_REQUEST:
                return self._reply(request, self._parameters(request))
            case MessageType.ADVERTISE | MessageType.REPLY | MessageType.RECONFIGURE:
                return None  # _check() has refused these
            case _:
                assert_never(kind)

    def _confirm(self, request: Dhcpv6, address: IPv6Address) -> Dhcpv6 | None:
        """Tell a client that comes back whether its addresses still fit."""
        named = {a.addr for ia in request.associations for a in ia.addresses}
        if not named:
            return None  # RFC 8415 18.3.3
        fits = named == {address}
        code = StatusCode.SUCCESS if fits else StatusCode.NOT_ON_LINK
        return self._reply(request, [Status(code)])

    def _give_up(self, request: Dhcpv6, address: IPv6Address) -> Dhcpv6:
        """Take note; the address stays reserved for the guest, whom else."""
        released = request.type is MessageType.RELEASE
        self.counters["dhcpv6_released" if released else "dhcpv6_declined"] += 1
        options: list[Option] = [Status(StatusCode.SUCCESS)]
        bound = _bound(request.associations, address)
        for ia in request.associations:
            if ia is not bound or address not in [a.addr for a in ia.addresses]:
                status = Status(StatusCode.NO_BINDING)
                options.append(Ia(ia.code, ia.iaid, status=status))
        return self._reply(request, options)

    def _parameters(self, request: Dhcpv6) -> list[Option]:
        """Return what is true of the link, whoever asks."""
        facts = self._facts
        options: list[Option] = []
        if facts.resolvers6:
            packed = b"".join(addr.packed for addr in facts.resolvers6)
            options.append(RawOption(Code.DNS, packed))
        if facts.search:
            names = b"".join(map(dnsname.encode, facts.search))
            options.append(RawOption(Code.SEARCH, names))
        asked = request.raw(Code.FQDN)
        if facts.fqdn and (asked is not None or Code.FQDN in request.wanted):
            options.append(RawOption(Code.FQDN, _fqdn(facts.fqdn, asked)))
        informs = request.type is MessageType.INFORMATION_REQUEST
        if informs and Code.REFRESH_TIME in request.wanted:
            time = REFRESH_S.to_bytes(4, "big")
            options.append(RawOption(Code.REFRESH_TIME, time))
        return options

    def _reply(self, request: Dhcpv6, options: Sequence[Option]) -> Dhcpv6:
        """Return the answer with who we are and to whom we speak."""
        identity = [RawOption(Code.SERVER_ID, self._duid)]
        client = request.raw(Code.CLIENT_ID)
        if client is not None:
            identity.append(RawOption(Code.CLIENT_ID, client))
        commits = any(
            isinstance(option, RawOption) and option.code == Code.RAPID_COMMIT
            for option in options
        )
        advertises = request.type is MessageType.SOLICIT and not commits
        kind = MessageType.ADVERTISE if advertises else MessageType.REPLY
        return Dhcpv6(kind, request.xid, (*identity, *options))

    def _frame(self, eth: Ethernet, client: IPv6Address, answer: Dhcpv6) -> bytes:
        source = self._facts.our_link_local
        datagram = Udp(SERVER_PORT, CLIENT_PORT, answer.emit()).emit(source, client)
        packet = Ipv6(source, client, _UDP, datagram).emit()
        return Ethernet(eth.source, self._facts.our_mac, ETHERTYPE_IPV6, packet).emit()


def _check(request: Dhcpv6) -> None:
    """Refuse what RFC 8415 16 tells servers to discard."""
    kind = request.type
    if kind not in _BY_CLIENTS:
        raise WireError("dhcpv6: a server's message")
    names_server = request.raw(Code.SERVER_ID) is not None
    if names_server and kind in _TO_ANY_SERVER:
        raise WireError("dhcpv6: server identifier where none may be")
    if not names_server and kind in _TO_ONE_SERVER:
        raise WireError("dhcpv6: no server identifier")
    informs = kind is MessageType.INFORMATION_REQUEST
    if not informs and request.raw(Code.CLIENT_ID) is None:
        raise WireError("dhcpv6: no client identifier")
    if informs and request.associations:
        raise WireError("dhcpv6: information request with an association")
    sizes = [len(ia.addresses) for ia in request.associations]
    if max(len(sizes), *sizes, 0) > MAX_ASSOCIATIONS:
        raise WireError("dhcpv6: too many associations")


def _bound(associations: Sequence[Ia], address: IPv6Address) -> Ia | None:
    """Return the association that has the address, or else would get it."""
    candidates = [ia for ia in associations if ia.code == Code.IA_NA]
    for ia in candidates:
        if any(named.addr == address for named in ia.addresses):
            return ia
    return candidates[0] if candidates else None


def _assign(request: Dhcpv6, address: IPv6Address) -> list[Option]:
    """Return the answers to all associations of a message, in its order."""
    bound = _bound(request.associations, address)
    answers: list[Option] = []
    for ia in request.associations:
        if ia is not bound:
            status = Status(_nothing_for(ia, request.type))
            answers.append(Ia(ia.code, ia.iaid, status=status))
            continue
        others = [named.addr for named in ia.addresses if named.addr != address]
        if others and request.type is MessageType.REQUEST:
            status = Status(StatusCode.NOT_ON_LINK)
            answers.append(Ia(ia.code, ia.iaid, status=status))
            continue
        given = [IaAddress(address, INFINITE, INFINITE)]
        if request.type in _RENEWING:  # lifetimes of zero: no longer use these
            given += [IaAddress(other) for other in dict.fromkeys(others)]
        answers.append(Ia(ia.code, ia.iaid, RENEW_S, REBIND_S, tuple(given)))
    return answers


def _nothing_for(ia: Ia, kind: MessageType) -> StatusCode:
    if kind in _RENEWING:
        return StatusCode.NO_BINDING
    if ia.code == Code.IA_PD:
        return StatusCode.NO_PREFIXES
    return StatusCode.NO_ADDRESSES


def _fqdn(name: str, asked: bytes | None) -> bytes:
    """Return option 39; who wanted us to update DNS hears that we do not."""
    flags = _FQDN_NO_UPDATE
    if asked and asked[0] & _FQDN_SERVER:
        flags |= _FQDN_OVERRIDE
    return bytes([flags]) + dnsname.encode(name)

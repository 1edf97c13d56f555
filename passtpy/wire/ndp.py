# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour discovery messages and their options (RFC 4861, 8106), inside ICMPv6."""

from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final, Self

from passtpy.addr import Mac, show_mac
from passtpy.errors import WireError
from passtpy.record import record
from passtpy.wire import dnsname
from passtpy.wire.icmpv6 import Icmpv6

INFINITE: Final = 0xFFFFFFFF
_UNIT: Final = 8  # option lengths count these
_SOURCE_LINK, _TARGET_LINK, _PREFIX, _MTU, _RDNSS, _DNSSL = 1, 2, 3, 5, 25, 31
MAX_RESOLVERS: Final = 127  # an option's length is one byte, in units of 8
MAX_SEARCH: Final = 255 * _UNIT - 8  # bytes of names in one option


class NdpType(IntEnum):
    """ICMPv6 types of neighbour discovery."""

    ROUTER_SOLICITATION = 133
    ROUTER_ADVERTISEMENT = 134
    NEIGHBOUR_SOLICITATION = 135
    NEIGHBOUR_ADVERTISEMENT = 136
    REDIRECT = 137


@record
class LinkAddress:
    """A MAC address: the sender's, or the target's."""

    mac: Mac
    is_target: bool = False

    def emit(self) -> bytes:
        """Return the option's bytes."""
        return bytes([_TARGET_LINK if self.is_target else _SOURCE_LINK, 1]) + self.mac


@record
class PrefixInfo:
    """A prefix, and what the guest may do with it."""

    prefix: IPv6Address
    length: int
    on_link: bool = True
    autonomous: bool = True
    valid: int = INFINITE
    preferred: int = INFINITE

    def emit(self) -> bytes:
        """Return the option's bytes, host bits of the prefix cleared."""
        mask = ((1 << self.length) - 1) << (128 - self.length)
        flags = self.on_link << 7 | self.autonomous << 6
        head = bytes([_PREFIX, 4, self.length, flags])
        times = self.valid.to_bytes(4, "big") + self.preferred.to_bytes(4, "big")
        return head + times + bytes(4) + (int(self.prefix) & mask).to_bytes(16, "big")


@record
class LinkMtu:
    """The MTU that everybody on the link shall use."""

    mtu: int

    def emit(self) -> bytes:
        """Return the option's bytes."""
        return bytes([_MTU, 1, 0, 0]) + self.mtu.to_bytes(4, "big")


@record
class Rdnss:
    """Resolvers to ask for so many seconds; 0: no longer."""

    lifetime: int
    resolvers: tuple[IPv6Address, ...]

    def __post_init__(self) -> None:
        if not 0 < len(self.resolvers) <= MAX_RESOLVERS:
            raise ValueError("ndp: number of resolvers")

    def emit(self) -> bytes:
        """Return the option's bytes."""
        head = bytes([_RDNSS, 1 + 2 * len(self.resolvers), 0, 0])
        addresses = b"".join(addr.packed for addr in self.resolvers)
        return head + self.lifetime.to_bytes(4, "big") + addresses


@record
class Dnssl:
    """Domains to search for so many seconds; 0: no longer."""

    lifetime: int
    domains: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.domains or not all(map(dnsname.is_valid, self.domains)):
            raise ValueError("ndp: bad search domain")
        if sum(len(name) + 2 for name in self.domains) > MAX_SEARCH:
            raise ValueError("ndp: too many search domains")

    def emit(self) -> bytes:
        """Return the option's bytes, padded to whole units."""
        names = dnsname.encode_list(self.domains, MAX_SEARCH)
        names += bytes(-len(names) % _UNIT)
        head = bytes([_DNSSL, 1 + len(names) // _UNIT, 0, 0])
        return head + self.lifetime.to_bytes(4, "big") + names


@record
class UnknownOption:
    """An option that we carry but do not read; `data` fills whole units."""

    kind: int
    data: bytes

    def __post_init__(self) -> None:
        if (len(self.data) + 2) % _UNIT or len(self.data) > 255 * _UNIT - 2:
            raise ValueError("ndp: option data of odd size")

    def emit(self) -> bytes:
        """Return the option's bytes."""
        return bytes([self.kind, (len(self.data) + 2) // _UNIT]) + self.data


Option = LinkAddress | PrefixInfo | LinkMtu | Rdnss | Dnssl | UnknownOption


def _parse_option(kind: int, data: bytes) -> Option:
    """Read one option without its two leading bytes."""
    if kind in (_SOURCE_LINK, _TARGET_LINK) and len(data) == 6:
        return LinkAddress(data, kind == _TARGET_LINK)
    if kind == _MTU and len(data) == 6:
        return LinkMtu(int.from_bytes(data[2:6], "big"))
    if kind == _PREFIX and len(data) == 30 and data[0] <= 128:
        valid = int.from_bytes(data[2:6], "big")
        preferred = int.from_bytes(data[6:10], "big")
        on_link, autonomous = bool(data[1] & 0x80), bool(data[1] & 0x40)
        prefix = IPv6Address(data[14:30])
        return PrefixInfo(prefix, data[0], on_link, autonomous, valid, preferred)
    if kind in (_RDNSS, _DNSSL):
        return _parse_dns(kind, data) or UnknownOption(kind, data)
    return UnknownOption(kind, data)


def _parse_dns(kind: int, data: bytes) -> Rdnss | Dnssl | None:
    """Read what an option says about DNS; None if nothing can be made of it."""
    lifetime, rest = int.from_bytes(data[2:6], "big"), data[6:]
    if kind == _RDNSS:
        starts = range(0, len(rest), 16)
        if not rest or len(rest) % 16 or len(starts) > MAX_RESOLVERS:
            return None
        return Rdnss(lifetime, tuple(IPv6Address(rest[at : at + 16]) for at in starts))
    try:
        return Dnssl(lifetime, dnsname.decode_list(rest))
    except (WireError, ValueError):
        return None


def parse_options(data: bytes) -> tuple[Option, ...]:
    """Read the options of a message; one of length zero spoils it (RFC 4861 4.6)."""
    options = []
    while data:
        size = data[1] * _UNIT if len(data) > 1 else 0
        if not size or size > len(data):
            raise WireError("ndp: bad option length")
        options.append(_parse_option(data[0], data[2:size]))
        data = data[size:]
    return tuple(options)


def _emit_options(options: tuple[Option, ...]) -> bytes:
    return b"".join(option.emit() for option in options)


def _check(message: Icmpv6, kind: NdpType, body_len: int) -> bytes:
    if message.type != kind or message.code:
        raise WireError("ndp: wrong type or code")
    if len(message.body) < body_len:
        raise WireError("ndp: truncated")
    return message.body


def link_address(options: tuple[Option, ...]) -> Mac | None:
    """Return the first link-layer address among `options`."""
    for option in options:
        if isinstance(option, LinkAddress):
            return option.mac
    return None


@record
class RouterSolicitation:
    """A host asks for routers."""

    options: tuple[Option, ...] = ()

    @classmethod
    def parse(cls, message: Icmpv6) -> Self:
        """Read the message."""
        body = _check(message, NdpType.ROUTER_SOLICITATION, 4)
        return cls(parse_options(body[4:]))

    def emit(self) -> Icmpv6:
        """Return the ICMPv6 message."""
        body = bytes(4) + _emit_options(self.options)
        return Icmpv6(NdpType.ROUTER_SOLICITATION, 0, body)

    def __str__(self) -> str:
        return "NDP router solicitation"


@record
class RouterAdvertisement:
    """A router tells what a host needs to know."""

    lifetime: int
    hop_limit: int = 255
    managed: bool = False
    other: bool = False
    reachable: int = 0
    retransmit: int = 0
    options: tuple[Option, ...] = ()

    @classmethod
    def parse(cls, message: Icmpv6) -> Self:
        """Read the message."""
        body = _check(message, NdpType.ROUTER_ADVERTISEMENT, 12)
        lifetime, reachable, retransmit = (
            int.from_bytes(body[a:b], "big") for a, b in ((2, 4), (4, 8), (8, 12))
        )
        managed, other = bool(body[1] & 0x80), bool(body[1] & 0x40)
        options = parse_options(body[12:])
        return cls(lifetime, body[0], managed, other, reachable, retransmit, options)

    def emit(self) -> Icmpv6:
        """Return the ICMPv6 message."""
        flags = self.managed << 7 | self.other << 6
        head = bytes([self.hop_limit, flags]) + self.lifetime.to_bytes(2, "big")
        times = self.reachable.to_bytes(4, "big") + self.retransmit.to_bytes(4, "big")
        body = head + times + _emit_options(self.options)
        return Icmpv6(NdpType.ROUTER_ADVERTISEMENT, 0, body)

    def __str__(self) -> str:
        return f"NDP router advertisement, lifetime {self.lifetime} s"


@record
class NeighbourSolicitation:
    """A host asks for the MAC address of `target`."""

    target: IPv6Address
    options: tuple[Option, ...] = ()

    @classmethod
    def parse(cls, message: Icmpv6) -> Self:
        """Read the message."""
        body = _check(message, NdpType.NEIGHBOUR_SOLICITATION, 20)
        target = IPv6Address(body[4:20])
        if target.is_multicast:
            raise WireError("ndp: multicast target")
        return cls(target, parse_options(body[20:]))

    def emit(self) -> Icmpv6:
        """Return the ICMPv6 message."""
        body = bytes(4) + self.target.packed + _emit_options(self.options)
        return Icmpv6(NdpType.NEIGHBOUR_SOLICITATION, 0, body)

    def __str__(self) -> str:
        return f"NDP who has {self.target}"


@record
class NeighbourAdvertisement:
    """The answer: options carry the MAC address of `target`."""

    target: IPv6Address
    router: bool = False
    solicited: bool = False
    override: bool = False
    options: tuple[Option, ...] = ()

    @classmethod
    def parse(cls, message: Icmpv6) -> Self:
        """Read the message."""
        body = _check(message, NdpType.NEIGHBOUR_ADVERTISEMENT, 20)
        router, solicited, override = (bool(body[0] & bit) for bit in (128, 64, 32))
        target = IPv6Address(body[4:20])
        if target.is_multicast:
            raise WireError("ndp: multicast target")
        return cls(target, router, solicited, override, parse_options(body[20:]))

    def emit(self) -> Icmpv6:
        """Return the ICMPv6 message."""
        flags = self.router << 7 | self.solicited << 6 | self.override << 5
        head = bytes([flags, 0, 0, 0]) + self.target.packed
        body = head + _emit_options(self.options)
        return Icmpv6(NdpType.NEIGHBOUR_ADVERTISEMENT, 0, body)

    def __str__(self) -> str:
        mac = link_address(self.options)
        return f"NDP {self.target} is at {show_mac(mac) if mac else 'unknown'}"

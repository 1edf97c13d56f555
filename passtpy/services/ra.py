# SPDX-License-Identifier: GPL-2.0-or-later
"""What we advertise as a router (RFC 4861 6.2, RFC 8106), and when.

Lifetimes are infinite, so what is no longer true has to be withdrawn: it goes on being
advertised with a lifetime of zero. A change is advertised at once and then repeated,
since nobody acknowledges an advertisement.
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from ipaddress import IPv6Address, IPv6Network
from typing import Final, TypeVar

from passtpy.services.facts import INFINITE, SLAAC_PREFIX, Facts
from passtpy.wire.icmpv6 import Icmpv6
from passtpy.wire.ndp import (
    Dnssl,
    LinkAddress,
    LinkMtu,
    Option,
    PrefixInfo,
    Rdnss,
    RouterAdvertisement,
)

LIFETIME_S: Final = 65535
MIN_GAP_NS: Final = 3_000_000_000  # RFC 4861 MIN_DELAY_BETWEEN_RAS
SPAN_S: Final = (200, 600)
REPEATS: Final = 2  # RFC 4861 MAX_INITIAL_RTR_ADVERTISEMENTS, less the first
REPEAT_S: Final = 16  # RFC 4861 MAX_INITIAL_RTR_ADVERT_INTERVAL
MAX_WITHDRAWN: Final = 4  # of a kind; older ones were advertised often enough
MAX_OPTIONS: Final = 1280 - 40 - 16  # IPv6's least MTU, its header, the message's
_SECOND: Final = 1_000_000_000

Item = TypeVar("Item", bound=Hashable)


class Advertiser:
    """Composes advertisements, and tells when an unsolicited one is due.

    It is silent until there has been something to advertise.
    """

    def __init__(self, facts: Facts, spread: Callable[[int, int], int]) -> None:
        self._facts = facts
        self._spread = spread
        self._next: int | None = None
        self._last_to_all: int | None = None
        self._last_change: int | None = None
        self._changed = False
        self._repeats = 0
        self._had_ipv6 = facts.ipv6
        self._old_prefixes: tuple[IPv6Network, ...] = ()
        self._old_resolvers: tuple[IPv6Address, ...] = ()
        self._old_search: tuple[str, ...] = ()

    def update(self, facts: Facts) -> None:
        """Advertise this from now on, and withdraw the rest."""
        before, self._facts = self._facts, facts
        message = _message_of(before)
        self._had_ipv6 = self._had_ipv6 or facts.ipv6
        self._old_prefixes = _withdrawn(
            self._old_prefixes, _prefixes(before), _prefixes(facts)
        )
        self._old_resolvers = _withdrawn(
            self._old_resolvers, before.resolvers6, facts.resolvers6
        )
        self._old_search = _withdrawn(self._old_search, before.search, facts.search)
        if _message_of(facts) != message and self._is_on():
            self._changed = True

    def due(self) -> int | None:
        """Return when tick() has something to do."""
        if not self._is_on():
            return None
        if self._changed:
            last = self._last_change
            return 0 if last is None else last + MIN_GAP_NS
        return 0 if self._next is None else self._next

    def tick(self, now: int) -> Icmpv6 | None:
        """Return the unsolicited advertisement, if it is time for one."""
        due = self.due()
        if due is None or now < due:
            return None
        if self._next is None and not self._changed:  # nobody waits for the first one
            self._schedule(now)
            return None
        if self._changed:
            self._changed = False
            self._last_change = now
            self._repeats = REPEATS
        elif self._repeats:
            self._repeats -= 1
        self._schedule(now)
        self._last_to_all = now
        return self.advertisement()

    def answer_all(self, now: int) -> Icmpv6 | None:
        """Return an advertisement to all nodes, unless there has just been one."""
        if self._last_to_all is not None and now - self._last_to_all < MIN_GAP_NS:
            return None
        message = self.advertisement()
        if message is not None:
            self._last_to_all = now
        return message

    def advertisement(self) -> Icmpv6 | None:
        """Return what is true now; None if nothing is to be said."""
        if not self._is_on():
            return None
        facts = self._facts
        options = tuple(_fitting([*_current(facts), *self._withdrawals()]))
        return _message_of(facts, options).emit()

    def _is_on(self) -> bool:
        return self._facts.router and self._had_ipv6

    def _schedule(self, now: int) -> None:
        seconds = REPEAT_S if self._repeats else self._spread(*SPAN_S)
        self._next = now + seconds * _SECOND

    def _withdrawals(self) -> Iterator[Option]:
        for net in self._old_prefixes:
            autonomous = net.prefixlen == SLAAC_PREFIX
            yield PrefixInfo(net.network_address, net.prefixlen, True, autonomous, 0, 0)
        if self._old_resolvers:
            yield Rdnss(0, self._old_resolvers)
        for domain in self._old_search:
            yield Dnssl(0, (domain,))


def _prefixes(facts: Facts) -> tuple[IPv6Network, ...]:
    if facts.guest6 is None:
        return ()
    return (IPv6Network((facts.guest6, facts.prefix6), strict=False),)


def _withdrawn(
    old: Iterable[Item], before: Iterable[Item], now: Iterable[Item]
) -> tuple[Item, ...]:
    """Return what was once advertised and is not now, the latest first."""
    gone = dict.fromkeys((*before, *old))
    for item in now:
        gone.pop(item, None)
    return tuple(gone)[:MAX_WITHDRAWN]


def _current(facts: Facts) -> Iterator[Option]:
    """Yield the options that describe the link."""
    for net in _prefixes(facts):
        autonomous = net.prefixlen == SLAAC_PREFIX
        yield PrefixInfo(net.network_address, net.prefixlen, autonomous=autonomous)
    if facts.mtu:
        yield LinkMtu(facts.mtu)
    yield LinkAddress(facts.our_mac)
    if facts.ipv6 and facts.resolvers6:
        yield Rdnss(INFINITE, facts.resolvers6)
    if facts.ipv6 and facts.search:
        yield Dnssl(INFINITE, facts.search)


def _fitting(options: Iterable[Option]) -> Iterator[Option]:
    """Yield what fits into one packet of any link."""
    room = MAX_OPTIONS
    for option in options:
        size = len(option.emit())
        if size <= room:
            room -= size
            yield option


def _message_of(
    facts: Facts, options: tuple[Option, ...] | None = None
) -> RouterAdvertisement:
    """Return the advertisement; who lost its IPv6 is no router any more."""
    return RouterAdvertisement(
        LIFETIME_S if facts.ipv6 else 0,
        managed=facts.managed,
        other=facts.managed,
        options=tuple(_current(facts)) if options is None else options,
    )

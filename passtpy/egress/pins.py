# SPDX-License-Identifier: GPL-2.0-or-later
"""Remembers which names the guest was told an address for, and until when.

A pin joins an address to a name. It is made when the resolver answers, lasts for the
answer's time to live and a grace, and makes a flow to that address a flow to that name.
An expired pin stays until its place is needed: a flow that began while it held is
judged by it as long as the flow is open. The guest decides what is asked, so all of it
is bounded; who asks for more than there is room for loses its own oldest pins.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

# Programs go on with an address for some time after its TTL; TTL 0 is common
GRACE_S: Final = 60
MOST_TTL_S: Final = 86400  # a day; an answer may say 68 years
MOST_PINS: Final = 16384
MOST_OF_A_NAME: Final = 64  # addresses; who connects tries a few
MOST_OF_AN_ADDRESS: Final = 64  # names; each is matched when a flow begins
_NS: Final = 1_000_000_000

K = TypeVar("K")
V = TypeVar("V")


class Pin(NamedTuple):
    """One address under one name."""

    address: bytes  # inany
    name: str
    expires_ns: int


class Pins:
    """The pins of a guest."""

    def __init__(self, most: int = MOST_PINS, grace_s: int = GRACE_S) -> None:
        self._most = most
        self._grace_s = grace_s
        # In the order in which they were last told; both indexes hold the same pins
        self._expiry: dict[tuple[bytes, str], int] = {}
        self._names: dict[bytes, dict[str, None]] = {}
        self._addresses: dict[str, dict[bytes, None]] = {}
        self.evicted = 0  # pins that went before their time
        self.forgotten = 0  # all that went

    def __len__(self) -> int:
        return len(self._expiry)

    def pin(
        self, name: str, addresses: Iterable[bytes], ttl_s: int, now_ns: int
    ) -> tuple[bytes, ...]:
        """Pin addresses to a name; return those that are, in the order they came."""
        wanted = tuple(dict.fromkeys(addresses))[:MOST_OF_A_NAME]
        ttl_s = min(max(ttl_s, 0), MOST_TTL_S)
        expires_ns = now_ns + (ttl_s + self._grace_s) * _NS
        for address in wanted:
            key = address, name
            # A short answer does not shorten what an earlier one said
            earlier_ns = self._expiry.pop(key, 0)
            self._expiry[key] = max(expires_ns, earlier_ns)
            _put_last(self._names, address, name)
            _put_last(self._addresses, name, address)
            if len(self._names[address]) > MOST_OF_AN_ADDRESS:
                self._evict((address, next(iter(self._names[address]))), now_ns)
        while len(self._addresses.get(name, ())) > MOST_OF_A_NAME:
            self._evict((next(iter(self._addresses[name])), name), now_ns)
        while len(self._expiry) > self._most:
            self._evict(next(iter(self._expiry)), now_ns)
        return wanted

    def names_of(self, address: bytes, now_ns: int) -> tuple[str, ...]:
        """Return the names that an address has at this time.

        For a flow that is open, that is the time at which it began.
        """
        names = self._names.get(address)
        if names is None:
            return ()
        expiry = self._expiry
        return tuple(name for name in names if expiry[address, name] > now_ns)

    def addresses_of(self, name: str, now_ns: int) -> tuple[bytes, ...]:
        """Return the addresses that a name has at this time."""
        expiry = self._expiry
        return tuple(
            address
            for address in self._addresses.get(name, ())
            if expiry[address, name] > now_ns
        )

    def listed(self, now_ns: int) -> Iterator[Pin]:
        """Yield the pins that hold at this time, the last told at the end."""
        for (address, name), expires_ns in self._expiry.items():
            if expires_ns > now_ns:
                yield Pin(address, name, expires_ns)

    def keep(self, allowed: Callable[[str], bool]) -> None:
        """Forget every name that is not allowed any more."""
        for name in [name for name in self._addresses if not allowed(name)]:
            for address in tuple(self._addresses[name]):
                self._forget((address, name))

    def _evict(self, key: tuple[bytes, str], now_ns: int) -> None:
        self.evicted += self._expiry[key] > now_ns
        self._forget(key)

    def _forget(self, key: tuple[bytes, str]) -> None:
        address, name = key
        self.forgotten += 1
        del self._expiry[key]
        _drop(self._names, address, name)
        _drop(self._addresses, name, address)


def _put_last(index: dict[K, dict[V, None]], key: K, value: V) -> None:
    """Make a value the last told of its key."""
    values = index.setdefault(key, {})
    values.pop(value, None)
    values[value] = None


def _drop(index: dict[K, dict[V, None]], key: K, value: V) -> None:
    """Take a value out of an index, and its key with the last one."""
    del index[key][value]
    if not index[key]:
        del index[key]

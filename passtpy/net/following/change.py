# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes addresses and routes of the guest's interface while it is in use.

The daemon composes the requests; the process in the namespace sends them (factory.py).
Only what was put there by us is ever taken away: the guest may have added to it.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from errno import EADDRNOTAVAIL, EEXIST, ENOENT, ESRCH
from os import strerror
from typing import Final, NamedTuple

from passtpy.net.kernel import rtnl
from passtpy.net.kernel.rtnl import (
    IFA_F_DEPRECATED,
    IFA_F_NOPREFIXROUTE,
    RTNH_F_ONLINK,
    LinkAddress,
    Request,
    Route,
)
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory import MESSAGES_LEN, MESSAGES_MAX
from passtpy.net.namespace.factory_client import Factory

# Somebody else did it already, or the kernel did it by itself.
_GONE: Final = frozenset((0, ESRCH, ENOENT, EADDRNOTAVAIL))
_THERE: Final = frozenset((0, EEXIST))

Done = Callable[[list[str]], None]


class _Order(NamedTuple):
    """A request, and what it is about."""

    request: Request
    what: str
    fine: frozenset[int] = _THERE
    again: bool = False  # it may work once another one has


def plain_address(address: LinkAddress) -> LinkAddress:
    """Return an address without what is true of the host's interface only."""
    flags = address.flags & (IFA_F_NOPREFIXROUTE | IFA_F_DEPRECATED)
    return replace(address, index=0, flags=flags)


def plain_route(route: Route) -> Route:
    """Return a route without what is true of the host's interface only."""
    return replace(route, oif=0, flags=route.flags & RTNH_F_ONLINK)


def plain_addresses(found: Iterable[LinkAddress]) -> tuple[LinkAddress, ...]:
    """Return each of them once, in the form above."""
    return tuple(dict.fromkeys(map(plain_address, found)))


def plain_routes(found: Iterable[Route]) -> tuple[Route, ...]:
    """Return each of them once, in the form above."""
    return tuple(dict.fromkeys(map(plain_route, found)))


def fading(address: LinkAddress) -> LinkAddress:
    """Return an address in the form it has when only old flows may use it."""
    ip = address.address.ip
    return replace(
        plain_address(address),
        address=type(address.address)((ip, ip.max_prefixlen)),
        flags=IFA_F_NOPREFIXROUTE | IFA_F_DEPRECATED,
        peer=None,
        broadcast=None,
    )


class GuestNetwork:
    """What the interface was given, and how to give it something else."""

    def __init__(
        self,
        source: Factory,
        index: int,
        addresses: Iterable[LinkAddress],
        routes: Iterable[Route],
    ) -> None:
        self._factory = source
        self._index = index
        self.addresses = plain_addresses(addresses)
        self.routes = plain_routes(routes)

    def has(self, addresses: Iterable[LinkAddress], routes: Iterable[Route]) -> bool:
        """Tell whether the interface was given just these."""
        same = self.addresses == plain_addresses(addresses)
        return same and self.routes == plain_routes(routes)

    def change(
        self, addresses: Iterable[LinkAddress], routes: Iterable[Route], done: Done
    ) -> None:
        """Give the interface these; `done` is told what could not be done.

        Taking an address away takes others and routes with it, so afterwards all that
        should be there is added, not only what is new.
        """
        new_addresses, new_routes = plain_addresses(addresses), plain_routes(routes)
        orders = list(self._orders(new_addresses, new_routes))
        self.addresses, self.routes = new_addresses, new_routes
        self._send(orders, done)

    def _orders(
        self, addresses: Sequence[LinkAddress], routes: Sequence[Route]
    ) -> Iterator[_Order]:
        index = self._index
        for route in self.routes:
            if route not in routes:
                what = f"remove route {route.destination}"
                yield _Order(rtnl.delete_route(index, route), what, _GONE)
        for address in self.addresses:
            if address not in addresses:
                what = f"remove address {address.address}"
                yield _Order(rtnl.delete_address(index, address), what, _GONE)
        for address in addresses:
            what = f"set address {address.address}"
            yield _Order(rtnl.add_address(index, address), what)
        for route in routes:
            what = f"set route {route.destination}"
            yield _Order(rtnl.add_route(index, route), what, again=True)

    def _send(self, orders: Sequence[_Order], done: Done) -> None:
        """Send in batches; routes that failed once more, while that helps."""
        failed: list[tuple[_Order, int]] = []
        batches = list(_batches(orders))
        left = len(batches)

        def answered(batch: Sequence[_Order], answer: bytes) -> None:
            nonlocal left
            left -= 1
            errors = factory.read_errnos(answer, len(batch))
            results = zip(batch, errors, strict=True)
            failed.extend((o, error) for o, error in results if error not in o.fine)
            if not left:
                self._finish(len(orders), failed, done)

        if not batches:
            done([])
        for batch, request in batches:
            self._factory.ask(request, _then(answered, batch))

    def _finish(
        self, tried: int, failed: Sequence[tuple[_Order, int]], done: Done
    ) -> None:
        again = [order for order, _ in failed if order.again]
        if not again or len(again) == tried or self._factory.gone:
            done([f"Couldn't {order.what}: {strerror(e)}" for order, e in failed])
            return
        lost = [f"Couldn't {o.what}: {strerror(e)}" for o, e in failed if not o.again]
        self._send(again, lambda more: done(lost + more))


def _then(
    answered: Callable[[Sequence[_Order], bytes], None], batch: Sequence[_Order]
) -> Callable[[bytes, list[int]], None]:
    return lambda text, _: answered(batch, text)


def _batches(
    orders: Sequence[_Order],
) -> Iterator[tuple[Sequence[_Order], bytes]]:
    """Yield pieces of `orders`, each with the request that fits them."""
    batch: list[_Order] = []
    messages: list[bytes] = []
    length = 0
    for sequence, order in enumerate(orders, start=1):
        message = order.request.encode(sequence)
        full = len(batch) == MESSAGES_MAX or length + len(message) > MESSAGES_LEN
        if batch and full:
            yield batch, factory.netlink_request(messages)
            batch, messages, length = [], [], 0
        batch.append(order)
        messages.append(message)
        length += len(message)
    if batch:
        yield batch, factory.netlink_request(messages)

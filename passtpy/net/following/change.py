# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes addresses and routes of the guest's interface while it is in use.

The daemon composes the requests; the process in the namespace sends them (factory.py).
Only what was put there by us is ever taken away: the guest may have added to it.
"""

import asyncio
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Sequence,
)
from errno import EADDRNOTAVAIL, EEXIST, ENOENT, ESRCH
from os import strerror
from typing import Final, NamedTuple, TypeVar

from passtpy.net.following.pace import Pace
from passtpy.net.kernel import rtnl
from passtpy.net.kernel.nlmsg import HEADER
from passtpy.net.kernel.rtnl import (
    IFA_F_DEPRECATED,
    IFA_F_NOPREFIXROUTE,
    LinkAddress,
    Request,
    Route,
)
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory import MESSAGES_LEN
from passtpy.net.namespace.factory_client import Factory
from passtpy.record import replace

# Somebody else did it already, or the kernel did it by itself.
_GONE: Final = frozenset((0, ESRCH, ENOENT, EADDRNOTAVAIL))
_THERE: Final = frozenset((0, EEXIST))
BATCH: Final = 64  # requests on their way: others want something of the namespace too

Item = TypeVar("Item", LinkAddress, Route)


class _Order(NamedTuple):
    """A request, and what it is about."""

    request: Request
    item: LinkAddress | Route
    removes: bool = False

    @property
    def fine(self) -> frozenset[int]:
        """Return the errors that are as good as none."""
        return _GONE if self.removes else _THERE

    @property
    def may_come_later(self) -> bool:
        """Tell whether it may work once another one has."""
        return isinstance(self.item, Route) and not self.removes

    def failed(self, error: int) -> str:
        """Return what is to be said when it did not work."""
        is_route = isinstance(self.item, Route)
        of = (
            self.item.destination if isinstance(self.item, Route) else self.item.address
        )
        kind = "route" if is_route else "address"
        verb = "remove" if self.removes else "set"
        return f"Couldn't {verb} {kind} {of}: {strerror(error)}"


def plain_address(address: LinkAddress) -> LinkAddress:
    """Return an address without what is true of the host's interface only."""
    flags = address.flags & (IFA_F_NOPREFIXROUTE | IFA_F_DEPRECATED)
    return replace(address, index=0, flags=flags)


def plain_route(route: Route) -> Route:
    """Return a route without what is true of the host's interface only."""
    return replace(route, oif=0)


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
    """What the interface was given, and how to give it something else.

    There may be thousands of routes, so nothing here is done to all of them at once.
    """

    def __init__(
        self,
        source: Factory,
        index: int,
        addresses: Iterable[LinkAddress],
        routes: Iterable[Route],
        pace: Pace,
    ) -> None:
        self._factory = source
        self._index = index
        self._pace = pace
        self.addresses = dict.fromkeys(map(plain_address, addresses))
        self._routes = dict.fromkeys(map(plain_route, routes))

    async def change(
        self, addresses: Iterable[LinkAddress], routes: Iterable[Route]
    ) -> list[str] | None:
        """Give the interface these; return what could not be done.

        None when it was given just these already.
        What failed is tried again with the next change, if it is still wanted then.
        """
        new_addresses = await self._each(plain_address, addresses)
        new_routes = await self._each(plain_route, routes)
        orders = [o async for o in self._orders(new_addresses, new_routes)]
        self.addresses, self._routes = new_addresses, new_routes
        if not orders:
            return None
        failed = await self._send(orders)
        for order, _ in failed:
            self._forget(order.item)
        return [order.failed(error) for order, error in failed]

    def _forget(self, item: LinkAddress | Route) -> None:
        """Take note that something is not there."""
        if isinstance(item, Route):
            self._routes.pop(item, None)
        else:
            self.addresses.pop(item, None)

    async def _each(
        self, plain: Callable[[Item], Item], items: Iterable[Item]
    ) -> dict[Item, None]:
        found: dict[Item, None] = {}
        for item in items:
            await self._pace.spend()
            found[plain(item)] = None
        return found

    async def _without(
        self, items: Iterable[Item], others: Collection[Item]
    ) -> list[Item]:
        found = []
        for item in items:
            await self._pace.spend()
            if item not in others:
                found.append(item)
        return found

    async def _orders(
        self, addresses: Collection[LinkAddress], routes: Collection[Route]
    ) -> AsyncIterator[_Order]:
        """Yield what goes, and then what comes.

        With an address the kernel takes away others of its network, and routes. So
        all of that family that should be there is added, not only what is new.
        """
        index = self._index
        for route in await self._without(self._routes, routes):
            yield _Order(rtnl.delete_route(index, route), route, removes=True)
        gone = await self._without(self.addresses, addresses)
        for address in gone:
            yield _Order(rtnl.delete_address(index, address), address, removes=True)
        shaken = {address.address.version for address in gone}
        for address in addresses:
            await self._pace.spend()
            if address.address.version in shaken or address not in self.addresses:
                yield _Order(rtnl.add_address(index, address), address)
        for route in routes:
            await self._pace.spend()
            if route.destination.version in shaken or route not in self._routes:
                yield _Order(rtnl.add_route(index, route), route)

    async def _send(self, orders: Sequence[_Order]) -> list[tuple[_Order, int]]:
        """Send all; routes that failed once more, while that helps.

        Returns what failed for good. One route may need another one.
        """
        failed: list[tuple[_Order, int]] = []
        while orders:
            missed: list[tuple[_Order, int]] = []
            for batch in _batches(orders):
                await self._pace.spend(len(batch))
                missed += await self._send_batch(batch)
            later = [miss for miss in missed if miss[0].may_come_later]
            failed += [miss for miss in missed if not miss[0].may_come_later]
            if len(later) == len(orders) or self._factory.gone:
                return failed + later
            orders = [order for order, _ in later]
        return failed

    async def _send_batch(self, batch: Sequence[_Order]) -> list[tuple[_Order, int]]:
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        def answered(text: bytes, _: list[int]) -> None:
            if not answer.done():
                answer.set_result(text)

        messages = [o.request.encode(number) for number, o in enumerate(batch, 1)]
        self._factory.ask(factory.netlink_request(messages), answered)
        errors = factory.read_errnos(await answer, len(batch))
        results = zip(batch, errors, strict=True)
        return [(order, error) for order, error in results if error not in order.fine]


def _batches(orders: Sequence[_Order]) -> Iterator[Sequence[_Order]]:
    """Yield pieces of `orders` that fit into one request."""
    batch: list[_Order] = []
    length = 0
    for order in orders:
        size = HEADER.size + len(order.request.message) + 3
        if len(batch) == BATCH or (batch and length + size > MESSAGES_LEN):
            yield batch
            batch, length = [], 0
        batch.append(order)
        length += size
    if batch:
        yield batch

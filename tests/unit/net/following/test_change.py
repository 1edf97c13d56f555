# SPDX-License-Identifier: GPL-2.0-or-later
"""How the guest's interface is given other addresses and routes."""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from errno import EEXIST, ENETUNREACH, EPERM, EPIPE
from ipaddress import ip_interface, ip_network
from socket import AF_INET
from struct import pack
from typing import cast

import pytest

from passtpy.net.following.change import BATCH, GuestNetwork, fading
from passtpy.net.following.pace import Pace
from passtpy.net.kernel.nlmsg import (
    RTM_DELADDR,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWROUTE,
    split,
)
from passtpy.net.kernel.rtnl import (
    IFA_F_DEPRECATED,
    LinkAddress,
    Route,
)
from passtpy.net.namespace.factory import REQUEST_MAX
from passtpy.net.namespace.factory_client import Factory

RTA_ENCAP = 22
KINDS = {
    RTM_NEWADDR: "+addr",
    RTM_DELADDR: "-addr",
    RTM_NEWROUTE: "+route",
    RTM_DELROUTE: "-route",
}


class Namespace:
    """In the place of a factory: answers with the errors it was given."""

    def __init__(self) -> None:
        self.gone = False
        self.said: list[str] = []
        self.requests = self.longest = 0
        self.errors: deque[int] = deque()

    def ask(self, request: bytes, then: Callable[[bytes, list[int]], None]) -> None:
        self.requests += 1
        self.longest = max(self.longest, len(request))
        answer = b""
        for _, kind, _, _ in split(request[1:]):
            self.said.append(KINDS[kind])
            answer += pack("=i", self.errors.popleft() if self.errors else 0)
        then(answer, [])


def address(text: str) -> LinkAddress:
    return LinkAddress(7, ip_interface(text), 0, 0x80)


def route(text: str, oif: int = 7) -> Route:
    return Route(AF_INET, ip_network(text), oif, "192.0.2.1")


def network(
    namespace: Namespace,
    addresses: Iterable[LinkAddress],
    routes: Iterable[Route],
    pace: Pace | None = None,
) -> GuestNetwork:
    source = cast(Factory, namespace)
    return GuestNetwork(source, 2, addresses, routes, pace or Pace())


def change(
    net: GuestNetwork, addresses: Iterable[LinkAddress], routes: Iterable[Route]
) -> list[str] | None:
    return asyncio.run(net.change(addresses, routes))


OLD, NEW = address("192.0.2.5/24"), address("198.51.100.5/24")
HOME, AWAY = route("0.0.0.0/0"), route("10.0.0.0/8")


def test_what_goes_goes_first_and_all_that_stays_is_made_sure_of() -> None:
    there = Namespace()
    net = network(there, [OLD], [HOME])
    there.errors.extend([0, 0, 0, EEXIST])
    assert change(net, [NEW], [HOME, AWAY]) == []
    assert there.said == ["-addr", "+addr", "+route", "+route"]
    assert change(net, [NEW], [HOME, AWAY]) is None
    assert change(net, [OLD], [HOME]) == []


def test_what_comes_is_all_that_is_sent() -> None:
    there = Namespace()
    net = network(there, [OLD], [HOME])
    change(net, [OLD, NEW], [HOME, AWAY])
    assert there.said == ["+addr", "+route"]


def test_what_goes_shakes_only_its_own_family() -> None:
    there = Namespace()
    six = address("2001:db8::5/64")
    change(network(there, [OLD, six], [HOME]), [OLD], [HOME])
    assert there.said == ["-addr"]


def test_routes_that_depend_on_others_are_tried_again() -> None:
    there = Namespace()
    there.errors.extend([ENETUNREACH, 0, 0])
    assert change(network(there, [OLD], []), [OLD], [HOME, AWAY]) == []
    assert there.said == ["+route", "+route", "+route"]


def test_what_cannot_be_done_is_told_and_tried_again_next_time() -> None:
    there = Namespace()
    there.errors.extend([EPERM, ENETUNREACH, ENETUNREACH])
    net = network(there, [], [])
    assert change(net, [NEW], [HOME]) == [
        "Couldn't set address 198.51.100.5/24: Operation not permitted",
        "Couldn't set route 0.0.0.0/0: Network is unreachable",
    ]
    there.said.clear()
    assert change(net, [NEW], [HOME]) == []
    assert there.said == ["+addr", "+route"]


def test_a_namespace_that_is_gone_is_told_of_at_once() -> None:
    there = Namespace()
    there.gone = True
    there.errors.extend([EPIPE] * 2)
    assert change(network(there, [OLD], []), [OLD], [HOME, AWAY]) == [
        "Couldn't set route 0.0.0.0/0: Broken pipe",
        "Couldn't set route 10.0.0.0/8: Broken pipe",
    ]
    assert there.requests == 1


def many(count: int) -> list[Route]:
    return [route(f"10.{i >> 8}.{i & 255}.0/24") for i in range(count)]


def test_many_routes_are_sent_in_pieces() -> None:
    there = Namespace()
    assert change(network(there, [], []), [], many(3 * BATCH)) == []
    assert there.requests == 3


def test_one_route_of_many_is_one_request_and_little_work_at_a_time() -> None:
    """All routes were added again without a pause, each compared with every other."""
    rests: list[int] = []

    async def rest() -> None:
        rests.append(compared.count)
        compared.count = 0

    before, after = many(10_000), many(10_000)
    after[5000] = route("192.168.7.0/24")
    there = Namespace()
    net = network(there, [OLD], before, Pace(100, rest))
    with counted_comparisons(Route) as compared:
        change(net, [OLD], after)
    assert there.said == ["-route", "+route"]
    assert len(rests) >= 3 * 10_000 // 100
    assert max(rests) <= 2 * 100


class Count:
    count = 0


@contextmanager
def counted_comparisons(kind: type[Route | LinkAddress]) -> Iterator[Count]:
    """Count how often two of a kind are compared, field by field."""
    seen, original = Count(), kind.__eq__

    def compare(self: object, other: object) -> bool:
        seen.count += 1
        return original(self, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kind, "__eq__", compare)
        yield seen


def test_long_messages_are_not_too_long_for_one_request() -> None:
    there = Namespace()
    long = ((RTA_ENCAP, bytes(2000)),)
    routes = [replace(r, attributes=long) for r in many(BATCH)]
    assert change(network(there, [], []), [], routes) == []
    assert there.longest <= REQUEST_MAX


def test_the_interface_that_a_route_was_read_from_does_not_matter() -> None:
    net = network(Namespace(), [OLD], [HOME])
    again = [replace(OLD, index=9, flags=0)], [replace(HOME, oif=9)]
    assert change(net, *again) is None


def test_an_address_that_fades_is_alone_and_deprecated() -> None:
    faded = fading(OLD)
    assert str(faded.address) == "192.0.2.5/32"
    assert faded.flags & IFA_F_DEPRECATED

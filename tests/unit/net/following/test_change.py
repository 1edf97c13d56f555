# SPDX-License-Identifier: GPL-2.0-or-later
"""How the guest's interface is given other addresses and routes."""

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from errno import EEXIST, ENETUNREACH, EPERM
from ipaddress import ip_interface, ip_network
from socket import AF_INET
from struct import pack
from typing import cast

from passtpy.net.following.change import GuestNetwork, fading
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
from passtpy.net.namespace.factory import MESSAGES_MAX
from passtpy.net.namespace.factory_client import Factory

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
        self.requests = 0
        self.errors: deque[int] = deque()

    def ask(self, request: bytes, then: Callable[[bytes, list[int]], None]) -> None:
        self.requests += 1
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
    namespace: Namespace, addresses: list[LinkAddress], routes: list[Route]
) -> GuestNetwork:
    return GuestNetwork(cast(Factory, namespace), 2, addresses, routes)


OLD, NEW = address("192.0.2.5/24"), address("198.51.100.5/24")
HOME, AWAY = route("0.0.0.0/0"), route("10.0.0.0/8")


def test_what_goes_goes_first_and_all_that_stays_is_made_sure_of() -> None:
    there = Namespace()
    told: list[list[str]] = []
    net = network(there, [OLD], [HOME])
    there.errors.extend([0, 0, 0, EEXIST])
    net.change([NEW], [HOME, AWAY], told.append)
    assert there.said == ["-addr", "+addr", "+route", "+route"]
    assert told == [[]]
    assert net.has([NEW], [HOME, AWAY])
    assert not net.has([OLD], [HOME])


def test_routes_that_depend_on_others_are_tried_again() -> None:
    there = Namespace()
    told: list[list[str]] = []
    there.errors.extend([0, ENETUNREACH, 0, 0])
    network(there, [OLD], []).change([OLD], [HOME, AWAY], told.append)
    assert there.said == ["+addr", "+route", "+route", "+route"]
    assert told == [[]]


def test_what_cannot_be_done_is_told_once() -> None:
    there = Namespace()
    told: list[list[str]] = []
    there.errors.extend([EPERM, ENETUNREACH, ENETUNREACH])
    network(there, [], []).change([NEW], [HOME], told.append)
    assert told == [
        [
            "Couldn't set address 198.51.100.5/24: Operation not permitted",
            "Couldn't set route 0.0.0.0/0: Network is unreachable",
        ]
    ]


def test_many_routes_are_sent_in_pieces() -> None:
    there = Namespace()
    told: list[list[str]] = []
    routes = [route(f"10.{i >> 8}.{i & 255}.0/24") for i in range(3 * MESSAGES_MAX)]
    network(there, [], []).change([], routes, told.append)
    assert there.requests == 3
    assert told == [[]]


def test_the_interface_that_a_route_was_read_from_does_not_matter() -> None:
    net = network(Namespace(), [OLD], [HOME])
    assert net.has([replace(OLD, index=9, flags=0)], [replace(HOME, oif=9)])


def test_an_address_that_fades_is_alone_and_deprecated() -> None:
    faded = fading(OLD)
    assert str(faded.address) == "192.0.2.5/32"
    assert faded.flags & IFA_F_DEPRECATED

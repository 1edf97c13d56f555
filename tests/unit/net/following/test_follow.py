# SPDX-License-Identifier: GPL-2.0-or-later
"""What is done when the host's network has changed, and when that fails."""

import asyncio
from collections.abc import Iterator
from errno import EMFILE
from ipaddress import ip_interface, ip_network
from socket import AF_INET
from typing import cast

import pytest

from passtpy.config.cli import parse_pasta
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.resolver import NO_RESOLVER
from passtpy.config.view import View
from passtpy.log import Log
from passtpy.net.following.change import GuestNetwork
from passtpy.net.following.follow import RETRY_MAX_S, RETRY_S, EngineLike, Follow
from passtpy.net.following.monitor import Monitor
from passtpy.net.following.pace import Pace
from passtpy.net.host.resolv import ResolverFeed
from passtpy.net.host.template import HostNetwork, make_plan
from passtpy.net.kernel.dump import Dump
from passtpy.net.kernel.rtnl import Link, LinkAddress, Route
from passtpy.net.namespace.factory_client import Factory
from passtpy.net.namespace.guest import Guest
from tests.unit.lines import Lines
from tests.unit.net.following.test_change import Namespace, counted_comparisons

LINK = Link(7, "eth0", b"\x02\0\0\0\0\7", 1500, 1)
DEFAULT = Route(AF_INET, ip_network("0.0.0.0/0"), 7, "192.0.2.1")


def address(number: int) -> LinkAddress:
    return LinkAddress(7, ip_interface(f"10.{number >> 8}.{number & 255}.1/24"), 0, 0)


class Host:
    """In the place of a dump: the network as the test says it is."""

    def __init__(self, addresses: int) -> None:
        self.links = (LINK,)
        self.addresses = tuple(map(address, range(addresses)))
        self.routes = (DEFAULT,)
        self.own = ()
        self.error: Exception | None = None

    def steps(self) -> Iterator[int]:
        yield 1
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        pass


class NoFlows:
    """In the place of a datapath."""

    def flows(self, cursor: int = 0, limit: int = 256) -> tuple[bytes, int]:
        return b"", 0


class Engine:
    """Remembers what it was told."""

    datapath = NoFlows()

    def __init__(self) -> None:
        self.told: list[View] = []
        self.view = View.of(Config(), HostInfo())

    def tell(self, view: View) -> None:
        self.told.append(view)


class Later:
    """In the place of a monitor: remembers when it is to look again."""

    def __init__(self, delays: list[float]) -> None:
        self.touch_later = delays.append

    def close(self) -> None:
        pass


class House:
    """Somebody who follows a host."""

    def __init__(self, addresses: int) -> None:
        self.host, self.engine, self.lines = Host(addresses), Engine(), Lines()
        config = parse_pasta(["-4"])
        network = HostNetwork(self.host.links, self.host.addresses, self.host.routes)
        plan = make_plan(config, network)
        got = Guest(plan.host, "eth0", 1500, 0, (), plan=plan)
        seen, log = GuestAddresses.from_host(plan.host), Log([self.lines])
        self.feed = ResolverFeed(NO_RESOLVER)
        self.follow = Follow(config, got, plan, NO_RESOLVER, seen, log, self.feed)
        self.follow._dump.close()
        self.follow._dump = cast(Dump, self.host)
        self.follow._engine = cast(EngineLike, self.engine)
        self.later: list[float] = []
        self.follow._monitor.close()
        self.follow._monitor = cast(Monitor, Later(self.later))

    def give_network(self, namespace: Namespace, pace: Pace) -> None:
        """Have an interface to configure, with what is planned so far on it."""
        follow, plan = self.follow, self.follow._plan
        given = follow._addresses(plan), follow._routes(plan)
        follow._pace = pace
        follow._network = GuestNetwork(cast(Factory, namespace), 2, *given, pace)

    def look(self) -> None:
        asyncio.run(self.follow._update())

    def close(self) -> None:
        self.follow.close()


@pytest.fixture
def house() -> Iterator[House]:
    made = House(5000)
    yield made
    made.close()


def test_thousands_of_addresses_are_one_short_line(house: House) -> None:
    house.host.addresses = house.host.addresses[:4000]
    house.look()
    (line,) = [line for line in house.lines.lines if "host.changed" in line]
    assert "and 3992 more" in line
    assert len(line) < 300


def test_thousands_of_addresses_that_go_are_little_work_at_a_time(house: House) -> None:
    """Each was looked for among all the others, without a pause."""
    rests: list[int] = []

    async def rest() -> None:
        rests.append(compared.count)
        compared.count = 0

    there, pace = Namespace(), Pace(100, rest)
    house.give_network(there, pace)
    house.host.addresses = house.host.addresses[:1000]
    with counted_comparisons(LinkAddress) as compared:
        house.look()
    assert there.said.count("-addr") == 4000
    assert len(rests) >= 5000 // 100
    assert max(rests) <= 2 * 100
    assert compared.count <= 2 * 100


def test_a_change_that_failed_is_tried_again_later_and_later(house: House) -> None:
    house.host.addresses = house.host.addresses[1:]
    house.host.error = OSError(EMFILE, "Too many open files")
    for _ in range(9):
        house.look()
    assert house.later[:3] == [RETRY_S, 2 * RETRY_S, 4 * RETRY_S]
    assert house.later[-1] == RETRY_MAX_S
    assert house.engine.told == []
    assert "follow.failed reason='Too many open files'" in house.lines.lines[0]
    assert not any("  at " in line for line in house.lines.lines)  # no traceback
    house.host.error = None
    house.look()
    assert len(house.engine.told) == 1
    house.host.error = OSError(EMFILE, "Too many open files")
    house.look()
    assert house.later[-1] == RETRY_S


def test_a_fault_of_ours_has_its_traceback_and_is_tried_again(house: House) -> None:
    house.host.error = ValueError("odd")
    house.look()
    assert house.later == [RETRY_S]
    assert any("in steps" in line for line in house.lines.lines)


def test_a_resolv_conf_that_is_no_file_is_one_line_and_changes_nothing(
    house: House,
) -> None:
    house.feed.hear(None, "it is no regular file")
    for _ in range(3):
        house.look()
    (line,) = house.lines.lines
    assert "resolver.unusable /etc/resolv.conf reason='it is no regular" in line
    assert house.later == []

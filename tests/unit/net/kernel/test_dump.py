# SPDX-License-Identifier: GPL-2.0-or-later
"""A host's network is read in steps, whatever it is that the kernel tells."""

from collections import deque
from collections.abc import Iterator
from errno import EBUSY, ENOENT
from ipaddress import IPv4Address, ip_network
from socket import AF_INET, socket
from struct import pack
from typing import cast

import pytest

from passtpy.net.kernel.dump import READ, STEP, Dump
from passtpy.net.kernel.nlmsg import (
    HEADER,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETLINK,
    RTM_GETROUTE,
    RTM_NEWROUTE,
    split,
)
from passtpy.net.kernel.rtnl import (
    RT_TABLE_LOCAL,
    RTMSG,
    RTN_LOCAL,
    RTN_UNICAST,
    Route,
    add_route,
)
from passtpy.net.kernel.rtnl_parse import read_own

PER_DATAGRAM = 300
FOREIGN = 100  # a table


def route(number: int) -> Route:
    network = ip_network(f"{IPv4Address(0x0A000000 + number * 256)}/24")
    return Route(AF_INET, network, 0, "192.0.2.1")


def message(number: int, sequence: int, table: int, kind: int = RTN_UNICAST) -> bytes:
    data = bytearray(add_route(7, route(number)).encode(sequence))
    HEADER.pack_into(data, 0, len(data), RTM_NEWROUTE, 2, sequence, 0)
    data[HEADER.size + 4], data[HEADER.size + 7] = table, kind
    return bytes(data)


class Kernel:
    """A socket whose kernel has no links, no addresses, and these IPv4 routes."""

    def __init__(self, count: int, table: int = 254, filters: bool = False) -> None:
        self.count, self.table, self.filters = count, table, filters
        self.answers: deque[bytes] = deque()
        self.error = 0
        self.kind = RTN_UNICAST

    def setsockopt(self, *_args: object) -> None:
        pass

    def send(self, request: bytes) -> None:
        if self.answers:
            raise OSError(EBUSY, "a dump is under way")
        ((_, kind, sequence, data),) = split(request)
        self.answers.extend(self._answers(kind, sequence, data))

    def recv(self, _length: int) -> bytes:
        return self.answers.popleft()

    def _answers(self, kind: int, sequence: int, request: bytes) -> Iterator[bytes]:
        if kind == RTM_GETROUTE and request[HEADER.size] == AF_INET:
            fixed = RTMSG.unpack_from(request, HEADER.size)
            count = self.count
            if self.filters and fixed[4] != self.table:
                count = 0
            for first in range(0, count, PER_DATAGRAM):
                numbers = range(first, min(first + PER_DATAGRAM, count))
                yield b"".join(
                    message(n, sequence, self.table, self.kind) for n in numbers
                )
        end = NLMSG_ERROR if self.error else NLMSG_DONE
        yield pack("=IHHIIi", 20, end, 2, sequence, 0, -self.error)


def dump_of(kernel: Kernel) -> Dump:
    return Dump(cast(socket, kernel))


@pytest.mark.parametrize("count", [0, 1, 299, 300, 20_000])
def test_all_routes_are_read(count: int) -> None:
    dump = dump_of(Kernel(count))
    list(dump.steps())
    assert len(dump.routes) == count
    assert [r.destination for r in dump.routes[:3]] == [
        route(n).destination for n in range(min(count, 3))
    ]


@pytest.mark.parametrize("table", [254, FOREIGN], ids=["ours", "foreign"])
def test_no_step_is_longer_than_a_step_whatever_is_told(table: int) -> None:
    """Messages count, not what is kept of them."""
    dump = dump_of(Kernel(20_000, table))
    work = list(dump.steps())
    assert max(work) <= STEP
    assert sum(work) == 20_000 * (1 + READ * (table == 254))
    assert len(dump.routes) == 20_000 * (table == 254)


def test_the_kernel_is_asked_to_leave_out_foreign_tables() -> None:
    dump = dump_of(Kernel(20_000, FOREIGN, filters=True))
    assert sum(dump.steps()) == 0


@pytest.mark.parametrize(
    ("table", "kind", "own"),
    [
        (RT_TABLE_LOCAL, RTN_LOCAL, True),
        (RT_TABLE_LOCAL, RTN_UNICAST, False),
        (FOREIGN, RTN_LOCAL, False),
    ],
)
def test_what_is_local_to_the_namespace_is_read(
    table: int, kind: int, own: bool
) -> None:
    found = read_own(message(3, 1, table, kind))
    assert found == (route(3).destination if own else None)


def test_only_who_asks_is_told_what_is_local() -> None:
    for asks in (False, True):
        kernel = Kernel(5, RT_TABLE_LOCAL, filters=True)
        kernel.kind = RTN_LOCAL
        dump = Dump(cast(socket, kernel), asks)
        list(dump.steps())
        assert dump.own == (tuple(route(n).destination for n in range(5)) * asks)
        assert not dump.routes


def test_what_has_not_changed_is_not_read_again() -> None:
    kernel = Kernel(5000)
    dump = dump_of(kernel)
    list(dump.steps())
    before = dump.routes
    kernel.count = 5001
    work = list(dump.steps())
    assert max(work) <= STEP
    assert sum(work) == 5001 + READ
    assert all(a is b for a, b in zip(before, dump.routes, strict=False))


def test_a_dump_that_was_given_up_is_finished_first() -> None:
    dump = dump_of(Kernel(5000))
    steps = dump.steps()
    for _ in range(5):
        next(steps)
    del steps
    assert max(dump.steps()) <= STEP
    assert len(dump.routes) == 5000


def test_a_table_that_was_never_used_is_empty() -> None:
    kernel = Kernel(0)
    dump = dump_of(kernel)
    kernel.error = ENOENT
    list(dump.steps())
    assert dump.routes == ()


def test_an_error_of_the_kernel_is_raised_and_can_be_tried_again() -> None:
    kernel = Kernel(5)
    dump = dump_of(kernel)
    kernel.error = EBUSY
    with pytest.raises(OSError, match="busy"):
        list(dump.steps())
    kernel.error = 0
    list(dump.steps())
    assert len(dump.routes) == 5


def test_links_are_asked_for_without_their_statistics() -> None:
    asked: list[bytes] = []

    class Asked(Kernel):
        def send(self, request: bytes) -> None:
            asked.append(request)
            super().send(request)

    list(dump_of(Asked(0)).steps())
    links = next(r for r in asked if HEADER.unpack_from(r)[1] == RTM_GETLINK)
    assert links.endswith(pack("=HHI", 8, 29, 8))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads a namespace's links, addresses and routes, in steps of bounded length.

There may be half a million routes, most of them in tables that are none of our
business. The kernel is asked to leave those out; one that does not know how to tells
all, and each message counts, wanted or not.
"""

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from errno import ENOENT
from typing import Final, Generic, TypeVar

from passtpy.addr import Network
from passtpy.net.kernel.netlink import raise_error
from passtpy.net.kernel.nlmsg import (
    NLM_F_DUMP,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETADDR,
    RTM_GETLINK,
    RTM_GETROUTE,
    split,
)
from passtpy.net.kernel.rtnl import (
    IFADDRMSG,
    IFINFOMSG,
    IFLA_EXT_MASK,
    RT_TABLE_LOCAL,
    RT_TABLE_MAIN,
    RTMSG,
    Link,
    LinkAddress,
    Request,
    Route,
    number,
)
from passtpy.net.kernel.rtnl_parse import read_address, read_link, read_own, read_route

STEP: Final = 512  # units of work: a message costs one, and READ more if it is read
READ: Final = 7
SOL_NETLINK: Final = 270
NETLINK_GET_STRICT_CHK: Final = 12  # Linux 4.20: a dump is filtered by its request
_RTEXT_FILTER_SKIP_STATS: Final = 8
_RECEIVE_LEN: Final = 1 << 16  # the kernel fills at most 32 KiB
_KEY: Final = 16  # where a message differs from the same one in another dump

Item = TypeVar("Item")


class _Kept(Generic[Item]):
    """What was read in the last dump, by the bytes that told it.

    Most of it comes again, as the same object: quickly compared, and never read twice.
    """

    def __init__(self, read: Callable[[bytes], Item | None]) -> None:
        self._read = read
        self._before: dict[bytes, Item | None] = {}
        self._now: dict[bytes, Item | None] = {}
        self.items: list[Item] = []

    def begin(self) -> None:
        self._now, self.items = {}, []

    def add(self, message: bytes) -> int:
        """Take a message; return what it cost."""
        key = message[_KEY:]
        cost = 1
        if key in self._before:
            item = self._before[key]
        else:
            item = self._read(message)
            cost += READ * (item is not None)
        if item is not None:
            self._now[key] = item
            self.items.append(item)
        return cost

    def end(self) -> None:
        self._before = self._now


class Dump:
    """Asks over a netlink socket that was opened in the namespace of interest."""

    def __init__(self, sock: socket.socket, own: bool = False) -> None:
        """Ask there; with `own` also for networks that are local to the namespace."""
        self._sock = sock
        with suppress(OSError):
            sock.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        self._sequence = 0
        self._unfinished = False  # the kernel answers one dump at a time
        self._links = _Kept(read_link)
        self._addresses = _Kept(read_address)
        self._routes = {
            family: _Kept(read_route) for family in (socket.AF_INET, socket.AF_INET6)
        }
        families = tuple(self._routes) if own else ()
        self._own: dict[int, _Kept[Network]] = {
            family: _Kept(read_own) for family in families
        }

    def close(self) -> None:
        """Forget the socket."""
        self._sock.close()

    @property
    def links(self) -> tuple[Link, ...]:
        """Return all interfaces, as of the last steps()."""
        return tuple(self._links.items)

    @property
    def addresses(self) -> tuple[LinkAddress, ...]:
        """Return all addresses of all interfaces, in the kernel's order."""
        return tuple(self._addresses.items)

    @property
    def routes(self) -> tuple[Route, ...]:
        """Return the unicast routes of the main table, in the kernel's order."""
        return tuple(r for kept in self._routes.values() for r in kept.items)

    @property
    def own(self) -> tuple[Network, ...]:
        """Return what is local to the namespace, if that was to be asked for."""
        return tuple(n for kept in self._own.values() for n in kept.items)

    def steps(self) -> Iterator[int]:
        """Read everything; yield the work that was done, before it exceeds STEP."""
        no_stats = number(IFLA_EXT_MASK, _RTEXT_FILTER_SKIP_STATS)
        link = IFINFOMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + no_stats
        yield from self._steps(RTM_GETLINK, link, self._links)
        address = IFADDRMSG.pack(socket.AF_UNSPEC, 0, 0, 0, 0)
        yield from self._steps(RTM_GETADDR, address, self._addresses)
        for family, kept in self._routes.items():
            route = RTMSG.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0)
            yield from self._steps(RTM_GETROUTE, route, kept)
        for kind, own in self._own.items():
            route = RTMSG.pack(kind, 0, 0, 0, RT_TABLE_LOCAL, 0, 0, 0, 0)
            yield from self._steps(RTM_GETROUTE, route, own)

    def _steps(self, kind: int, question: bytes, kept: _Kept[Item]) -> Iterator[int]:
        kept.begin()
        work = 0
        for message in self._messages(kind, question):
            if work + 1 + READ > STEP:
                yield work
                work = 0
            work += kept.add(message) if message else 1
        kept.end()
        yield work

    def _messages(self, kind: int, question: bytes) -> Iterator[bytes]:
        """Yield the answers; b"" for each one to a question that was given up."""
        while self._unfinished:
            for _ in self._answers():
                yield b""
        self._sequence += 1
        request = Request(kind, NLM_F_DUMP, question)
        self._sock.send(request.encode(self._sequence))
        self._unfinished = True
        while self._unfinished:
            yield from self._answers()

    def _answers(self) -> Iterator[bytes]:
        # There is always one: the kernel makes the next when it is asked for it.
        for _, kind, _, data in split(self._sock.recv(_RECEIVE_LEN)):
            if kind in (NLMSG_ERROR, NLMSG_DONE):
                self._unfinished = False
                _check(data)
                return
            yield data


def _check(end: bytes) -> None:
    """Raise what the end of a dump says; a table that was never used is empty."""
    try:
        raise_error(end)
    except OSError as error:
        if error.errno != ENOENT:
            raise

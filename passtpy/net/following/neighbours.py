# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirrors which MAC addresses the host's neighbours have.

The guest sees its neighbours with the MAC addresses that they have on the host's wire.
The kernel announces every change of its table, most of which say only how sure it is:
what counts is where an address is. On a busy wire there are hundreds of these
messages.
"""

import asyncio
import socket
import struct
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from errno import ENOBUFS
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from passtpy.addr import NO_MAC, Address, Mac
from passtpy.net.kernel.nlmsg import (
    HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    RTMGRP_NEIGH,
    attributes,
    split,
)

SETTLE_S: Final = 0.1  # for what belongs together to come together
MAX_NEIGHBOURS: Final = 4096  # the kernel keeps 1024 of a family unless told otherwise
# Reachable, stale, delay, probe, permanent: the address was valid, and may still be.
_KNOWN: Final = 0x02 | 0x04 | 0x08 | 0x10 | 0x80
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NDMSG: Final = struct.Struct("=BxxxiHBB")
_MAC_LEN: Final = 6
_RECEIVE_LEN: Final = 1 << 16
_RECEIVES: Final = 16  # of messages between turns

Key = tuple[int, Address]  # interface, address
Table = dict[Key, Mac]


def read_neighbour(message: bytes) -> tuple[Key, Mac | None] | None:
    """Read RTM_NEWNEIGH or RTM_DELNEIGH: who, and where; None: nowhere now.

    The whole is None when it is about anything else than an IP address.
    """
    start = HEADER.size + _NDMSG.size
    if len(message) < start:
        return None
    kind = HEADER.unpack_from(message)[1]
    family, index, state, _, _ = _NDMSG.unpack_from(message, HEADER.size)
    found = attributes(message[start:])
    raw = found.get(_NDA_DST, b"")
    address: Address
    if family == socket.AF_INET and len(raw) == 4:
        address = IPv4Address(raw)
    elif family == socket.AF_INET6 and len(raw) == 16:
        address = IPv6Address(raw)
    else:
        return None
    mac = found.get(_NDA_LLADDR, b"")
    is_known = kind == RTM_NEWNEIGH and state & _KNOWN
    usable = len(mac) == _MAC_LEN and mac != NO_MAC and not mac[0] & 1
    return (index, address), mac if is_known and usable else None


class Neighbours:
    """The neighbours at some interfaces; tells when one of them has moved."""

    def __init__(self) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._sock = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        self._sock.bind((0, RTMGRP_NEIGH))
        self._interfaces: frozenset[int] = frozenset()
        self._table: Table = {}
        self._fresh: Table | None = None  # what a dump under way has told
        self._told: Mapping[Address, Mac] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed: Callable[[Mapping[Address, Mac]], None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        changed: Callable[[Mapping[Address, Mac]], None],
    ) -> None:
        """Tell `changed` about all neighbours whenever one of them has."""
        self._loop, self._changed = loop, changed
        loop.add_reader(self._sock.fileno(), self._on_message)

    def close(self) -> None:
        """Stop watching."""
        if self._loop is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._loop = None
        if self._timer is not None:
            self._timer.cancel()
        self._sock.close()

    def look_at(self, interfaces: Collection[int]) -> None:
        """Mirror the neighbours at these interfaces from now on."""
        wanted = frozenset(interfaces)
        if wanted != self._interfaces:
            self._interfaces = wanted
            self._ask()

    def _ask(self) -> None:
        """Have the whole table told; what is announced meanwhile counts as well."""
        self._fresh = {}
        flags = NLM_F_REQUEST | NLM_F_DUMP
        length = HEADER.size + _NDMSG.size
        header = HEADER.pack(length, RTM_GETNEIGH, flags, 1, 0)
        with suppress(OSError):  # another dump is under way: it will tell as much
            self._sock.send(header + bytes(_NDMSG.size))

    def _on_message(self) -> None:
        for _ in range(_RECEIVES):
            try:
                data = self._sock.recv(_RECEIVE_LEN)
            except OSError as error:
                if error.errno == ENOBUFS:  # some were lost
                    self._ask()
                break
            for _, kind, _, message in split(data):
                self._take(kind, message)
        if self._timer is None and self._loop is not None:
            self._timer = self._loop.call_later(SETTLE_S, self._tell)

    def _take(self, kind: int, message: bytes) -> None:
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            if self._fresh is not None and kind == NLMSG_DONE:
                self._table, self._fresh = self._fresh, None
            return
        read = read_neighbour(message)
        if read is None or read[0][0] not in self._interfaces:
            return
        for table in (self._table, self._fresh):
            if table is not None:
                _put(table, *read)

    def _tell(self) -> None:
        self._timer = None
        now = {
            addr: mac
            for (index, addr), mac in self._table.items()
            if index in self._interfaces
        }
        if now != self._told and self._changed is not None:
            self._told = now
            self._changed(now)


def _put(table: Table, key: Key, mac: Mac | None) -> None:
    if mac is None:
        table.pop(key, None)
    elif key in table or len(table) < MAX_NEIGHBOURS:
        table[key] = mac

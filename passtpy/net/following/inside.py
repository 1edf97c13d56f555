# SPDX-License-Identifier: GPL-2.0-or-later
"""Mirrors which addresses the guest's namespace has.

It may have been configured by somebody else: a router advertisement, a DHCP client, its
owner. So its kernel is asked, and tells of every change, over a netlink socket that the
process in the namespace has opened for us.
"""

import socket
from contextlib import suppress
from errno import ENOBUFS
from typing import Final

from passtpy.addr import inany
from passtpy.config.guest_addresses import GuestAddresses
from passtpy.net.kernel.dump import SOL_NETLINK
from passtpy.net.kernel.loop import Readers
from passtpy.net.kernel.nlmsg import (
    HEADER,
    NLM_F_DUMP,
    NLM_F_REQUEST,
    NLMSG_DONE,
    NLMSG_ERROR,
    RTM_DELADDR,
    RTM_GETADDR,
    RTM_NEWADDR,
    split,
)
from passtpy.net.kernel.rtnl import (
    IFA_F_DADFAILED,
    IFA_F_DEPRECATED,
    IFA_F_TENTATIVE,
    IFADDRMSG,
    RT_SCOPE_LINK,
    LinkAddress,
)
from passtpy.net.kernel.rtnl_parse import read_address
from passtpy.net.namespace import factory
from passtpy.net.namespace.factory_client import Factory, close_all

MAX_ADDRESSES: Final = 256  # the guest's root may add more, which we need not know
LOOPBACK_INDEX: Final = 1  # of `lo`, in every namespace
_NETLINK_ADD_MEMBERSHIP: Final = 1
_RTNLGRP_IPV4_IFADDR: Final = 5
_RTNLGRP_IPV6_IFADDR: Final = 9
_RECEIVE_LEN: Final = 1 << 16
_RECEIVES: Final = 16  # of messages between turns

Key = tuple[int, bytes]  # interface, address
Table = dict[Key, bool]  # is it to be preferred?


def is_preferred(address: LinkAddress) -> bool | None:
    """Tell whether new flows shall go there; None: none may.

    That is so for one that is not ready (yet), on the loopback, or for the link only.
    """
    if address.index == LOOPBACK_INDEX or address.scope >= RT_SCOPE_LINK:
        return None
    if address.flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED):
        return None
    return not address.flags & IFA_F_DEPRECATED


class NamespaceAddresses:
    """Keeps `GuestAddresses.present` true; without an answer nothing is known."""

    def __init__(self, guest: GuestAddresses) -> None:
        self._guest = guest
        self._loop: Readers | None = None
        self._sock: socket.socket | None = None
        self._table: Table = {}
        self._fresh: Table | None = None  # what a whole answer has told so far

    def start(self, loop: Readers, source: Factory) -> None:
        """Mirror from now on what `source` has access to."""
        self._loop = loop
        source.ask(factory.route_request(), self._came)

    def close(self) -> None:
        """Stop; what was known last stays."""
        loop, self._loop = self._loop, None
        if self._sock is not None:
            if loop is not None:
                loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _came(self, _: bytes, fds: list[int]) -> None:
        if self._loop is None or not fds:
            close_all(fds)
            return
        self._sock = socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE, fileno=fds[0]
        )
        self._sock.setblocking(False)
        with suppress(OSError):  # then it is at least read once
            for group in (_RTNLGRP_IPV4_IFADDR, _RTNLGRP_IPV6_IFADDR):
                self._sock.setsockopt(SOL_NETLINK, _NETLINK_ADD_MEMBERSHIP, group)
        self._loop.add_reader(self._sock.fileno(), self._on_message)
        self._ask(self._sock)

    def _ask(self, sock: socket.socket) -> None:
        """Have all of them told; what is announced meanwhile counts as well."""
        self._fresh = {}
        flags = NLM_F_REQUEST | NLM_F_DUMP
        length = HEADER.size + IFADDRMSG.size
        header = HEADER.pack(length, RTM_GETADDR, flags, 1, 0)
        with suppress(OSError):  # another answer is under way: it will tell as much
            sock.send(header + bytes(IFADDRMSG.size))

    def _on_message(self) -> None:
        sock = self._sock
        if sock is None:
            return
        for _ in range(_RECEIVES):
            try:
                data = sock.recv(_RECEIVE_LEN)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != ENOBUFS:
                    self.close()
                    return
                self._ask(sock)  # some were lost
                break
            for _, kind, _, message in split(data):
                self._take(kind, message)
        if self._fresh is None:
            ranked = sorted(self._table, key=lambda key: not self._table[key])
            self._guest.present = tuple(dict.fromkeys(raw for _, raw in ranked))

    def _take(self, kind: int, message: bytes) -> None:
        if kind in (NLMSG_DONE, NLMSG_ERROR):
            if self._fresh is not None and kind == NLMSG_DONE:
                self._table, self._fresh = self._fresh, None
            return
        if kind not in (RTM_NEWADDR, RTM_DELADDR):
            return
        address = read_address(message)
        if address is None:
            return
        preferred = is_preferred(address) if kind == RTM_NEWADDR else None
        key = address.index, inany(address.address.ip)
        for table in (self._table, self._fresh):
            if table is not None:
                _put(table, key, preferred)


def _put(table: Table, key: Key, preferred: bool | None) -> None:
    if preferred is None:
        table.pop(key, None)
    elif key in table or len(table) < MAX_ADDRESSES:
        table[key] = preferred

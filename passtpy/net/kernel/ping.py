# SPDX-License-Identifier: GPL-2.0-or-later
"""Opens raw sockets for the guest's echo requests, where we may have no ping sockets.

Which groups may have ping sockets is a sysctl, often set to none. Raw sockets are a
privilege, so they are opened while we have it, and lent to flows one at a time: the
datapath lets each hear the answers to its own requests only. A daemon that was started
without privileges has none, and the guest is told "administratively prohibited".
"""

import os
import socket
from typing import Final, Protocol

from passtpy import limits

RANGE_FILE: Final = "/proc/sys/net/ipv4/ping_group_range"
SOCKETS: Final = 32  # of each family: flows of echo at a time

_KINDS: Final = (
    (socket.AF_INET, socket.IPPROTO_ICMP),
    (socket.AF_INET6, socket.IPPROTO_ICMPV6),
)


class Lender(Protocol):
    """The part of a datapath that lends raw sockets to flows."""

    def ping_raw(self, fd: int, /) -> None: ...


def may_ping(gid: int, path: str = RANGE_FILE) -> bool:
    """Tell whether a process of this group may have ping sockets, as far as we know."""
    try:
        with open(path, encoding="ascii") as file:
            first, last = map(int, file.read().split())
    except (OSError, ValueError):
        return True  # then each flow finds out
    return first <= gid <= last


def lend_raw_sockets(datapath: Lender, count: int = SOCKETS) -> int:
    """Open raw sockets for the datapath to lend; return how many it got."""
    lent = 0
    for family, proto in _KINDS:
        for _ in range(count):
            try:
                sock = socket.socket(
                    family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, proto
                )
            except OSError:  # no right to, no such family, or no descriptor left
                break
            try:
                datapath.ping_raw(sock.fileno())
            except OSError:
                sock.close()
                break
            sock.detach()
            lent += 1
    return lent


def prepare_ping(datapath: Lender, gid: int | None = None) -> int:
    """Lend raw sockets if the group that we will have may have no others.

    Where few files are allowed, most of them are left to flows of other kinds.
    """
    if may_ping(os.getegid() if gid is None else gid):
        return 0
    return lend_raw_sockets(datapath, min(SOCKETS, limits.spare_files() // 8))

# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of the guest whose host socket this process holds the other end of."""

import os
import socket
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from passtpy import _native
from passtpy.addr import UNSPECIFIED
from passtpy.flow import Action, Pif, Verdict
from tests.datapath.guest import WAIT_S, Connection, Decide, Guest

RULE = 3


class Ends:
    """Makes pairs of UNIX sockets, and closes what is left of them."""

    def __init__(self) -> None:
        self._made: list[socket.socket] = []

    def __call__(self) -> tuple[socket.socket, socket.socket]:
        """A pair: ours, and the one that the datapath is to get."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.settimeout(WAIT_S)
        self._made += [ours, theirs]
        return ours, theirs

    def close(self) -> None:
        """Close them, but for what was given away."""
        for sock in self._made:
            sock.close()


def to_itself(miss: _native.Miss) -> Verdict:
    """Where the guest wants to go."""
    to = miss.oaddr, miss.oport
    return Verdict(Action.FORWARD, Pif.HOST, *to, UNSPECIFIED, 0, RULE)


def opened_with(guest: Guest, miss: _native.Miss, sock: socket.socket) -> int:
    """Open with a socket, which the datapath has from then on unless that failed."""
    flow_id = guest.open(miss.miss_id, to_itself(miss), sock.fileno())
    if flow_id > 0:
        sock.detach()
    return flow_id


def given(guest: Guest, sock: socket.socket) -> Decide:
    """A policy: the next connection has this socket as its peer."""

    def decide(miss: _native.Miss) -> None:
        guest.opened.append(opened_with(guest, miss, sock))

    return decide


def pair(guest: Guest, ends: Ends, **fields: Any) -> tuple[Connection, socket.socket]:
    """A connection that stands, and the other end of its host socket."""
    ours, theirs = ends()
    guest.decide = given(guest, theirs)
    return Connection.open(guest, **fields), ours


def is_watched(fd: int) -> bool:
    """Whether an epoll instance knows this descriptor."""
    for name in os.listdir("/proc/self/fdinfo"):
        with suppress(OSError):
            words = Path(f"/proc/self/fdinfo/{name}").read_text().split()
            if ("tfd:", str(fd)) in pairwise(words):
                return True
    return False

# SPDX-License-Identifier: GPL-2.0-or-later
"""Interfaces by which sockets leave the host, whatever their names are."""

import socket
from ipaddress import IPv4Address

import pytest

from passtpy.addr import UNSPECIFIED, inany
from passtpy.net.kernel.leaving import Leaving, begin_to_connect
from passtpy.net.kernel.source import SourceLookup

ELSEWHERE = IPv4Address("198.51.100.1")
LATIN1 = "b\udcfcro"  # an interface that is not there, named in Latin-1


def test_a_route_by_an_interface_of_any_name_is_looked_up() -> None:
    assert SourceLookup(LATIN1)(inany(ELSEWHERE)) == UNSPECIFIED


def test_a_socket_by_an_interface_that_is_not_there_is_an_error() -> None:
    with pytest.raises(OSError, match="No such device"):
        begin_to_connect(
            socket.SOCK_DGRAM, ELSEWHERE, 53, Leaving(interfaces=(LATIN1, None))
        )


def test_nothing_is_bound_on_the_way_to_the_loopback() -> None:
    leaving = Leaving((inany(ELSEWHERE),), (LATIN1, None))
    with begin_to_connect(
        socket.SOCK_DGRAM, IPv4Address("127.0.0.1"), 53, leaving
    ) as s:
        assert s.getpeername() == ("127.0.0.1", 53)

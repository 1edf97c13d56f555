# SPDX-License-Identifier: GPL-2.0-or-later
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from socket import AF_BRIDGE, AF_INET, AF_INET6

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import Mac
from passtpy.net.following.neighbours import (
    MAX_NEIGHBOURS,
    Table,
    _put,
    read_neighbour,
)
from passtpy.net.kernel.nlmsg import RTM_DELNEIGH, RTM_NEWNEIGH

MAC = b"\x02\0\0\0\0\7"
INCOMPLETE, REACHABLE, STALE, FAILED, NOARP, PERMANENT = 1, 2, 4, 0x20, 0x40, 0x80


def attribute(kind: int, value: bytes) -> bytes:
    head = struct.pack("=HH", 4 + len(value), kind)
    return head + value.ljust((len(value) + 3) & ~3, b"\0")


def message(
    kind: int = RTM_NEWNEIGH,
    address: str = "192.0.2.7",
    mac: bytes = MAC,
    state: int = REACHABLE,
    family: int = 0,
) -> bytes:
    who = ip_address(address)
    family = family or (AF_INET if who.version == 4 else AF_INET6)
    body = struct.pack("=BxxxiHBB", family, 3, state, 0, 1)
    body += attribute(9, b"odd") + attribute(1, who.packed) + attribute(2, mac)
    return struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body


@pytest.mark.parametrize(
    ("data", "mac"),
    [
        (message(), MAC),
        (message(state=STALE), MAC),
        (message(state=PERMANENT), MAC),
        (message(state=INCOMPLETE), None),
        (message(state=FAILED), None),
        (message(state=NOARP), None),
        (message(kind=RTM_DELNEIGH), None),
        (message(mac=b""), None),
        (message(mac=bytes(6)), None),
        (message(mac=b"\x33\x33\0\0\0\1"), None),
        (message(mac=bytes(20)), None),
    ],
)
def test_a_neighbour_is_somewhere_or_nowhere(data: bytes, mac: Mac | None) -> None:
    assert read_neighbour(data) == ((3, IPv4Address("192.0.2.7")), mac)


def test_ipv6_neighbours_are_read_too() -> None:
    data = message(address="2001:db8::7")
    assert read_neighbour(data) == ((3, IPv6Address("2001:db8::7")), MAC)


@pytest.mark.parametrize(
    "data", [b"", message()[:20], message()[:28], message(family=AF_BRIDGE)]
)
def test_anything_else_is_nothing(data: bytes) -> None:
    assert read_neighbour(data) is None


@given(st.binary(max_size=60))
def test_any_attributes_can_be_read(data: bytes) -> None:
    read_neighbour(message()[:28] + data)


def test_the_table_has_an_end() -> None:
    table: Table = {}
    for number in range(MAX_NEIGHBOURS + 1):
        _put(table, (1, IPv4Address(number)), MAC)
    assert len(table) == MAX_NEIGHBOURS
    _put(table, (1, IPv4Address(0)), None)
    assert len(table) == MAX_NEIGHBOURS - 1

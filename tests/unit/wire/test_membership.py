# SPDX-License-Identifier: GPL-2.0-or-later
"""Membership reports, as real guests send them, and whatever else may come."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet6 import (
    ICMPv6MLDMultAddrRec,
    ICMPv6MLReport2,
)

from passtpy.errors import WireError
from passtpy.wire.checksum import checksum
from passtpy.wire.membership import Membership

GROUP, OTHER = "224.0.0.251", "239.255.255.250"
GROUP6 = "ff02::fb"
Record = tuple[int, bytes, list[bytes], int]  # type, group, sources, auxiliary words


def igmp(kind: int, rest: bytes) -> bytes:
    """A message with the right checksum."""
    total = checksum(bytes([kind, 0, 0, 0]) + rest)
    return bytes([kind, 0]) + total.to_bytes(2, "big") + rest


def old(kind: int) -> bytes:
    """A message of version 1 or 2."""
    return igmp(kind, IPv4Address(GROUP).packed)


def record(kind: int, *sources: str) -> bytes:
    """A report of version 3: one record, and one of another group that is wanted."""
    first = bytes([kind, 0, 0, len(sources)]) + IPv4Address(GROUP).packed
    first += b"".join(IPv4Address(source).packed for source in sources)
    second = bytes([4, 1, 0, 0]) + IPv4Address(OTHER).packed + b"auxi"
    return igmp(0x22, bytes([0, 0, 0, 2]) + first + second)


@pytest.mark.parametrize(
    ("data", "joined", "left"),
    [
        (old(0x11), (), ()),
        (old(0x12), (GROUP,), ()),
        (old(0x16), (GROUP,), ()),
        (old(0x17), (), (GROUP,)),
        (record(1), (OTHER,), (GROUP,)),
        (record(1, "192.0.2.1"), (GROUP, OTHER), ()),
        (record(2), (GROUP, OTHER), ()),
        (record(3), (OTHER,), (GROUP,)),
        (record(3, "192.0.2.1"), (GROUP, OTHER), ()),
        (record(4, "192.0.2.1", "192.0.2.2"), (GROUP, OTHER), ()),
        (record(5, "192.0.2.1"), (GROUP, OTHER), ()),
        (record(6, "192.0.2.1"), (OTHER,), ()),
    ],
)
def test_igmp(data: bytes, joined: tuple[str, ...], left: tuple[str, ...]) -> None:
    said = Membership.parse_igmp(data)
    assert said.joined == tuple(map(IPv4Address, joined))
    assert said.left == tuple(map(IPv4Address, left))


def test_mld() -> None:
    group = IPv6Address(GROUP6)
    body = bytes(4) + group.packed
    assert Membership.parse_mld(130, body) == Membership()
    assert Membership.parse_mld(131, body) == Membership(joined=(group,))
    assert Membership.parse_mld(132, body) == Membership(left=(group,))
    for kind, want in ((4, Membership((group,))), (3, Membership(left=(group,)))):
        records = [ICMPv6MLDMultAddrRec(rtype=kind, dst=GROUP6)]
        report = bytes(ICMPv6MLReport2(records=records))
        assert Membership.parse_mld(143, report[4:]) == want


def test_bad_checksum_is_refused() -> None:
    data = bytearray(old(0x16))
    data[7] ^= 1
    with pytest.raises(WireError):
        Membership.parse_igmp(bytes(data))


def reports(groups: st.SearchStrategy[bytes]) -> st.SearchStrategy[list[Record]]:
    return st.lists(
        st.tuples(
            st.integers(1, 6), groups, st.lists(groups, max_size=3), st.integers(0, 2)
        ),
        max_size=5,
    )


def emitted(records: list[Record]) -> bytes:
    """The number of records, and the records (RFC 3376 4.2, RFC 3810 5.2)."""
    parts = [len(records).to_bytes(2, "big")]
    for kind, group, sources, auxiliary in records:
        parts += [bytes([kind, auxiliary]), len(sources).to_bytes(2, "big"), group]
        parts += [*sources, bytes(4 * auxiliary)]
    return b"".join(parts)


def meant(records: list[Record]) -> Membership:
    """What a listener to whole groups makes of them."""
    joined, left = [], []
    for kind, group, sources, _ in records:
        excludes = kind in (2, 4)
        if excludes or (kind in (1, 3, 5) and sources):
            joined.append(ip_address(group))
        elif kind in (1, 3):
            left.append(ip_address(group))
    return Membership(tuple(joined), tuple(left))


@given(reports(st.binary(min_size=4, max_size=4)))
def test_igmp_reports_are_read_as_they_were_meant(records: list[Record]) -> None:
    data = igmp(0x22, bytes(2) + emitted(records))
    assert Membership.parse_igmp(data) == meant(records)


@given(reports(st.binary(min_size=16, max_size=16)))
def test_mld_reports_are_read_as_they_were_meant(records: list[Record]) -> None:
    assert Membership.parse_mld(143, bytes(2) + emitted(records)) == meant(records)


@given(st.binary(max_size=80), st.booleans())
def test_anything_is_read_or_refused(data: bytes, mend: bool) -> None:
    if mend and len(data) >= 8:
        clean = data[:2] + bytes(2) + data[4:]
        data = clean[:2] + checksum(clean).to_bytes(2, "big") + clean[4:]
    with suppress(WireError):
        Membership.parse_igmp(data)
    with suppress(WireError):
        Membership.parse_igmp(b"\x22" + data[1:])
    with suppress(WireError):
        Membership.parse_mld(143, data)
    with suppress(WireError):
        Membership.parse_mld(131, data)

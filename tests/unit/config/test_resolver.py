# SPDX-License-Identifier: GPL-2.0-or-later
"""resolv.conf as text, in all the ways it is written."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import Address
from passtpy.config.resolver import MAX_SEARCH, Resolver, parse_resolv_conf

DNS4, DNS6 = IPv4Address("192.0.2.53"), IPv6Address("2001:db8::53")


@pytest.mark.parametrize(
    ("text", "nameservers"),
    [
        ("", ()),
        ("nameserver 192.0.2.53\nnameserver 2001:db8::53\n", (DNS4, DNS6)),
        ("nameserver\t192.0.2.53  # ours", (DNS4,)),
        ("  nameserver 192.0.2.53", (DNS4,)),
        ("nameserver 192.0.2.53\r\n", (DNS4,)),
        ("nameserver fe80::1%eth0", (IPv6Address("fe80::1%eth0"),)),
        ("nameserver 127.0.0.53", (IPv4Address("127.0.0.53"),)),
        ("nameserver 192.0.2.53\nnameserver 192.0.2.53", (DNS4,)),
        ("#nameserver 192.0.2.53\n; nameserver 192.0.2.53", ()),
        ("nameserver\nnameserver x\nnameserver 0.0.0.0\nnameserver ff02::fb", ()),
        ("nameservers 192.0.2.53\noptions rotate\nsortlist 192.0.2.0", ()),
    ],
)
def test_nameservers(text: str, nameservers: tuple[Address, ...]) -> None:
    assert parse_resolv_conf(text) == Resolver(nameservers)


@pytest.mark.parametrize(
    ("text", "search"),
    [
        ("search a.example b.example.", ("a.example", "b.example")),
        ("search a\nsearch b", ("b",)),
        ("search a\ndomain b", ("b",)),
        ("domain b c\nsearch a", ("a",)),
        ("domain b c", ("b",)),
        ("search .", ()),
        ("search", ()),
        ("search a a", ("a",)),
        ("search a " + "x" * 64 + " b..c ä b", ("a", "b")),
        ("search a b c d e f g", ("a", "b", "c", "d", "e", "f")),
    ],
)
def test_search_list(text: str, search: tuple[str, ...]) -> None:
    assert parse_resolv_conf(text).search == search


@given(st.text())
def test_any_text_can_be_read(text: str) -> None:
    assert len(parse_resolv_conf(text).search) <= MAX_SEARCH

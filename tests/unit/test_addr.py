# SPDX-License-Identifier: GPL-2.0-or-later
"""Addresses at the border survive the way there and back."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from passtpy import addr
from passtpy.errors import PasstpyError


@given(st.ip_addresses(v=4))
def test_v4_survives_the_border(value: IPv4Address) -> None:
    raw = addr.inany(value)
    assert addr.is_v4(raw)
    assert addr.from_inany(raw) == value


@given(st.ip_addresses(v=6))
def test_v6_survives_the_border(value: IPv6Address) -> None:
    assume(value.ipv4_mapped is None)
    raw = addr.inany(value)
    assert not addr.is_v4(raw)
    assert addr.from_inany(raw) == value


def test_endpoint_has_one_form_for_both_families() -> None:
    assert addr.show_endpoint(addr.inany(ip_address("192.0.2.5")), 40000) == (
        "[192.0.2.5]:40000"
    )
    assert addr.show_endpoint(addr.inany(ip_address("2001:db8::1")), 80) == (
        "[2001:db8::1]:80"
    )


def test_inany_of_a_wrong_length_is_refused() -> None:
    with pytest.raises(PasstpyError):
        addr.from_inany(b"\0" * 4)


@given(st.binary(min_size=6, max_size=6))
def test_mac_survives_its_text(mac: bytes) -> None:
    assert addr.parse_mac(addr.show_mac(mac)) == mac
    assert addr.parse_mac(addr.show_mac(mac).upper()) == mac


@pytest.mark.parametrize(
    "text",
    [
        "",
        "9a:55:9a:55:9a",
        "9a:55:9a:55:9a:5",
        "9a:55:9a:55:9a:5g",
        "9a:55:9a:55:9a:555",
        "9a-55-9a-55-9a-55",
        "+9:55:9a:55:9a:55",
        " 9:55:9a:55:9a:55",
        "0x:55:9a:55:9a:55",
        "9a:55:9a:55:9a:5\u0665",
    ],
)
def test_what_is_no_mac_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="MAC"):
        addr.parse_mac(text)


def test_link_local_has_the_modified_eui64() -> None:
    mac = addr.parse_mac("9a:55:9a:55:9a:55")
    assert addr.link_local_from_mac(mac) == IPv6Address("fe80::9855:9aff:fe55:9a55")

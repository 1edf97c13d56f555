# SPDX-License-Identifier: GPL-2.0-or-later
"""Neighbour discovery messages and options."""

from collections.abc import Callable
from ipaddress import IPv6Address
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.icmpv6 import Icmpv6
from passtpy.wire.ndp import (
    MAX_RESOLVERS,
    Dnssl,
    LinkAddress,
    LinkMtu,
    NdpType,
    NeighbourAdvertisement,
    NeighbourSolicitation,
    PrefixInfo,
    Rdnss,
    RouterAdvertisement,
    RouterSolicitation,
    UnknownOption,
    link_address,
    parse_options,
)

words = st.integers(0, 0xFFFFFFFF)
labels = st.text("abcxyz-_09", min_size=1, max_size=63)
names = st.lists(labels, min_size=1, max_size=3).map(".".join)
lengths = st.integers(0, 128)


def _prefix(addr: IPv6Address, length: int, *rest: Any) -> PrefixInfo:
    mask = ((1 << length) - 1) << (128 - length)
    return PrefixInfo(IPv6Address(int(addr) & mask), length, *rest)


options = st.lists(
    st.one_of(
        st.builds(LinkAddress, st.binary(min_size=6, max_size=6), st.booleans()),
        st.builds(LinkMtu, words),
        st.builds(
            _prefix,
            st.ip_addresses(v=6),
            lengths,
            st.booleans(),
            st.booleans(),
            words,
            words,
        ),
        st.builds(
            Rdnss,
            words,
            st.lists(st.ip_addresses(v=6), min_size=1, max_size=5).map(tuple),
        ),
        st.builds(Dnssl, words, st.lists(names, min_size=1, max_size=4).map(tuple)),
        st.builds(
            UnknownOption, st.integers(32, 255), st.binary(min_size=14, max_size=14)
        ),
    ),
    max_size=4,
).map(tuple)
targets = st.ip_addresses(v=6).filter(lambda a: not a.is_multicast)
flags = st.booleans()

messages = st.one_of(
    st.builds(RouterSolicitation, options),
    st.builds(
        RouterAdvertisement,
        st.integers(0, 65535),
        st.integers(0, 255),
        flags,
        flags,
        words,
        words,
        options,
    ),
    st.builds(NeighbourSolicitation, targets, options),
    st.builds(NeighbourAdvertisement, targets, flags, flags, flags, options),
)


@given(messages)
def test_messages_survive(message: Any) -> None:
    assert type(message).parse(message.emit()) == message
    assert str(message).startswith("NDP ")


PARSERS: list[tuple[int, Callable[[Icmpv6], object]]] = [
    (133, RouterSolicitation.parse),
    (134, RouterAdvertisement.parse),
    (135, NeighbourSolicitation.parse),
    (136, NeighbourAdvertisement.parse),
]


@pytest.mark.parametrize(("kind", "parse"), PARSERS)
@given(body=st.binary(max_size=80))
def test_hostile_bodies_raise_wire_error_only(
    kind: int, parse: Callable[[Icmpv6], object], body: bytes
) -> None:
    try:
        parse(Icmpv6(kind, 0, body))
    except WireError:
        return


@pytest.mark.parametrize(
    "data",
    [b"\1", b"\1\0" + bytes(6), b"\1\2" + bytes(6), b"\1\1" + bytes(6) + b"\5"],
)
def test_bad_option_spoils_the_message(data: bytes) -> None:
    with pytest.raises(WireError, match="option"):
        parse_options(data)


def test_prefix_leaves_without_host_bits() -> None:
    option = PrefixInfo(IPv6Address("2001:db8::5"), 64)
    assert option.emit()[16:] == IPv6Address("2001:db8::").packed


def test_wrong_type_code_or_target_is_refused() -> None:
    good = NeighbourSolicitation(IPv6Address("2001:db8::1")).emit()
    with pytest.raises(WireError):
        NeighbourSolicitation.parse(Icmpv6(NdpType.REDIRECT, 0, good.body))
    with pytest.raises(WireError):
        NeighbourSolicitation.parse(Icmpv6(good.type, 1, good.body))
    multicast = bytes(4) + IPv6Address("ff02::1").packed
    with pytest.raises(WireError):
        NeighbourSolicitation.parse(Icmpv6(good.type, 0, multicast))


def test_link_address_is_found_among_others() -> None:
    mac = b"\2\0\0\0\0\1"
    assert link_address((LinkMtu(1500), LinkAddress(mac))) == mac
    assert link_address((LinkMtu(1500),)) is None


def test_unknown_option_must_fill_whole_units() -> None:
    with pytest.raises(ValueError, match="size"):
        UnknownOption(31, b"123")


@pytest.mark.parametrize(
    "resolvers", [(), (IPv6Address("2001:db8::1"),) * (MAX_RESOLVERS + 1)]
)
def test_number_of_resolvers_has_limits(resolvers: tuple[IPv6Address, ...]) -> None:
    with pytest.raises(ValueError, match="resolvers"):
        Rdnss(1, resolvers)


@pytest.mark.parametrize("domains", [(), ("",), ("a..b",), ("x" * 64,)])
def test_domains_must_be_encodable(domains: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="domain"):
        Dnssl(1, domains)


def test_search_list_has_a_limit() -> None:
    with pytest.raises(ValueError, match="too many"):
        Dnssl(1, (".".join(["x" * 60] * 4),) * 9)


@pytest.mark.parametrize(
    "data",
    [
        bytes.fromhex("1901 0000 00000001"),  # no resolver
        bytes.fromhex("1902 0000 00000001") + bytes(8),  # half a resolver
        bytes.fromhex("1f01 0000 00000001"),  # no domain
        bytes.fromhex("1f02 0000 00000001") + b"\7example",  # no end
    ],
)
def test_odd_dns_options_are_carried_unread(data: bytes) -> None:
    (option,) = parse_options(data)
    assert option == UnknownOption(data[0], data[2:])

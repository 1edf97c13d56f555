# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv6 messages and the options that hold options."""

from ipaddress import IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.dhcpv6 import (
    Code,
    Dhcpv6,
    Ia,
    IaAddress,
    MessageType,
    RawOption,
    Status,
)

words = st.integers(0, 0xFFFFFFFF)
statuses = st.builds(Status, st.integers(0, 0xFFFF), st.text(max_size=20))
maybe = st.one_of(st.none(), statuses)
held = st.builds(IaAddress, st.ip_addresses(v=6), words, words, maybe)
tuples = st.lists(held, max_size=3).map(tuple)
parsed = frozenset((Code.IA_NA, Code.IA_TA, Code.IA_PD, Code.STATUS))
checked = frozenset((Code.CLIENT_ID, Code.SERVER_ID, Code.WANTED))
codes = st.integers(0, 0xFFFF).filter(lambda c: c not in parsed | checked)
options = st.one_of(
    st.builds(RawOption, codes, st.binary(max_size=30)),
    st.builds(
        RawOption,
        st.sampled_from((Code.CLIENT_ID, Code.SERVER_ID)),
        st.binary(min_size=3, max_size=130),
    ),
    statuses,
    st.builds(
        Ia,
        st.sampled_from((Code.IA_NA, Code.IA_PD)),
        words,
        words,
        words,
        tuples,
        maybe,
    ),
    st.builds(lambda iaid, items: Ia(Code.IA_TA, iaid, 0, 0, items), words, tuples),
)
messages = st.builds(
    Dhcpv6,
    st.sampled_from(MessageType),
    st.integers(0, 0xFFFFFF),
    st.lists(options, max_size=5).map(tuple),
)


@given(messages)
def test_messages_survive(message: Dhcpv6) -> None:
    assert Dhcpv6.parse(message.emit()) == message
    assert str(message).startswith("DHCPv6 ")


@given(st.binary(max_size=200))
def test_hostile_messages_raise_wire_error_only(data: bytes) -> None:
    inside = b"\0\3" + len(data).to_bytes(2, "big") + data
    for candidate in (data, b"\1\0\0\1" + data, b"\1\0\0\1" + inside):
        try:
            message = Dhcpv6.parse(candidate)
        except WireError:
            continue
        again = Dhcpv6.parse(message.emit())
        assert again == message
        assert isinstance(again.wanted, frozenset)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0\0",
        b"\0\0\0\0",
        b"\x0c\0\0\0",  # relay
        b"\1\0\0\1\0",
        b"\1\0\0\1\0\1\0",
        b"\1\0\0\1\0\1\0\4abc",
        b"\1\0\0\1\0\1\0\2ab",  # DUID of two bytes
        b"\1\0\0\1\0\6\0\1a",  # half an option code
        b"\1\0\0\1\0\x0d\0\1a",  # half a status
        b"\1\0\0\1\0\3\0\x0b" + bytes(11),
        b"\1\0\0\1\0\4\0\3" + bytes(3),
        b"\1\0\0\1\0\3\0\x11" + bytes(12) + b"\0\5\0\1x",  # short address
        b"\1\0\0\1\0\3\0\x10" + bytes(12) + b"\0\5\0\1",  # longer than its place
    ],
)
def test_odd_messages_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        Dhcpv6.parse(data)


def test_known_bytes_of_an_association() -> None:
    address = IaAddress(IPv6Address("2001:db8::5"), 1, 2, Status(4, "no"))
    assert Ia(Code.IA_NA, 7, 3, 4, (address,)).emit() == bytes.fromhex(
        "0003 0030 00000007 00000003 00000004"
        "0005 0020 20010db8000000000000000000000005 00000001 00000002"
        "000d 0004 0004 6e6f"
    )


def test_bad_text_does_not_grow_when_sent_again() -> None:
    data = b"\7\0\0\1\0\x0d\0\4\0\1\xff\xfe"
    assert Dhcpv6.parse(data).options == (Status(1, ""),)


def test_wanted_codes_are_read() -> None:
    wanted = RawOption(Code.WANTED, b"\0\x17\0\x18")
    assert Dhcpv6(MessageType.SOLICIT, 1, (wanted,)).wanted == {23, 24}
    assert Dhcpv6(MessageType.SOLICIT, 1).wanted == frozenset()


@pytest.mark.parametrize("size", [0x10000, 0xFFFF])
def test_option_has_a_longest(size: int) -> None:
    if size > 0xFFFF:
        with pytest.raises(ValueError, match="too long"):
            RawOption(1, bytes(size))
    else:
        assert len(RawOption(1, bytes(size)).emit()) == size + 4

# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP messages: the fixed fields, and options in all the ways they can come."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.dhcp import MIN_LEN, Code, Dhcp, MessageType, Op

MAC = b"\x02\0\0\0\0\5"
COOKIE = bytes.fromhex("63825363")
SNAME, FILE, OPTIONS = 44, 108, 240

addresses = st.ip_addresses(v=4)
codes = st.integers(1, 254).filter(lambda code: code not in (50, 52, 53, 54, 57))
free = codes.filter(lambda code: code not in (61, 80, 81))
lists = st.dictionaries(free, st.binary(max_size=40), max_size=6)
kinds = st.sampled_from(MessageType).map(lambda kind: {53: bytes([kind])})

messages = st.builds(
    lambda kind, rest, **fields: Dhcp(options=kind | rest, **fields),
    st.one_of(st.just({}), kinds),
    lists,
    op=st.sampled_from(Op),
    xid=st.integers(0, 0xFFFFFFFF),
    chaddr=st.binary(min_size=6, max_size=6),
    secs=st.integers(0, 0xFFFF),
    broadcast=st.booleans(),
    ciaddr=addresses,
    yiaddr=addresses,
    siaddr=addresses,
    giaddr=addresses,
)


def request(options: dict[int, bytes] | None = None, **fields: Any) -> Dhcp:
    return Dhcp(op=Op.REQUEST, xid=1, chaddr=MAC, options=options or {}, **fields)


def raw(area: bytes, sname: bytes = b"", file: bytes = b"") -> bytes:
    """A message with these bytes where options can be."""
    data = bytearray(request().emit()[:OPTIONS])
    data[SNAME : SNAME + len(sname)] = sname
    data[FILE : FILE + len(file)] = file
    return bytes(data) + area


@given(messages)
def test_messages_survive(message: Dhcp) -> None:
    data = message.emit(1472)
    assert MIN_LEN <= len(data) <= 1472
    assert Dhcp.parse(data) == message
    assert str(message).startswith("DHCP ")


@given(st.dictionaries(free, st.binary(max_size=700), max_size=8), st.integers(0, 1500))
def test_what_is_sent_is_true_and_fits(options: dict[int, bytes], room: int) -> None:
    data = request(options).emit(room)
    assert len(data) <= max(room, MIN_LEN)
    sent = Dhcp.parse(data).options
    assert all(options[code] == value for code, value in sent.items())


@given(st.binary(max_size=700))
def test_hostile_messages_raise_wire_error_only(data: bytes) -> None:
    for candidate in (data, raw(data), raw(b"\x34\1\3\xff", data[:64], data[64:192])):
        try:
            message = Dhcp.parse(candidate)
        except WireError:
            continue
        assert message.max_size >= 576
        str(message)


def test_long_option_comes_in_parts() -> None:
    data = request({119: b"x" * 300}).emit(700)
    assert data[OPTIONS : OPTIONS + 2] == b"\x77\xff"
    assert data[OPTIONS + 257 : OPTIONS + 259] == bytes([119, 45])
    assert Dhcp.parse(data).options[119] == b"x" * 300


def test_parts_are_joined_across_the_fields() -> None:
    data = raw(b"\x34\1\3\x77\1a\xff", sname=b"\x77\1c\xff", file=b"\x77\1b\xff")
    assert Dhcp.parse(data).options == {119: b"abc"}


def test_fields_hold_no_options_unless_said() -> None:
    assert Dhcp.parse(raw(b"\xff", b"\x77\1c\xff", b"\x77\1b\xff")).options == {}


def test_what_does_not_fit_goes_to_the_fields() -> None:
    options = {119: b"x" * 290, 12: b"y" * 100, 15: b"z" * 60, 17: b"w" * 60}
    data = request(options).emit(548)
    assert len(data) <= 548
    assert data[FILE : FILE + 2] == b"\x0c\x64"
    assert data[SNAME : SNAME + 2] == b"\x0f\x3c"
    assert set(Dhcp.parse(data).options) == {119, 12, 15}


def test_pad_and_end_are_no_options() -> None:
    assert Dhcp.parse(raw(b"\0\0\x35\1\1\0\xff\xff\x0cgarbage")).options == {53: b"\1"}


@pytest.mark.parametrize("tail", [b"\xff\0", b"\xff\xff\4", b"\xff", b"\0\xff\0\xff"])
def test_bytes_behind_the_end_do_no_harm(tail: bytes) -> None:
    assert Dhcp.parse(raw(b"\x35\1\1" + tail)).kind is MessageType.DISCOVER


def test_end_may_be_missing() -> None:
    assert Dhcp.parse(raw(b"\x35\1\1")).kind is MessageType.DISCOVER


def test_message_without_the_cookie_is_bootp() -> None:
    data = bytearray(request({53: b"\1"}).emit())
    data[236] ^= 1
    message = Dhcp.parse(bytes(data))
    assert (message.kind, message.options) == (None, {})
    assert "BOOTP" in str(message)


@pytest.mark.parametrize(
    "area",
    [
        b"\x35",
        b"\x35\1",
        b"\x35\2\1",
        b"\x35\2\1\1\xff",  # type of two bytes
        b"\x35\1\1\x35\1\1\xff",  # twice
        b"\x35\1\0\xff",
        b"\x35\1\x09\xff",  # no such type
        b"\x32\3\1\1\1\xff",
        b"\x36\5\1\1\1\1\1\xff",
        b"\x39\1\1\xff",
        b"\x50\1\0\xff",
        b"\x51\2\0\0\xff",
        b"\x34\0\xff",
        b"\x34\1\4\xff",
        b"\x34\1\1\x34\1\1\xff",
    ],
)
def test_odd_options_are_refused(area: bytes) -> None:
    with pytest.raises(WireError):
        Dhcp.parse(raw(area))


@pytest.mark.parametrize(("offset", "value"), [(0, 0), (0, 3), (1, 6), (2, 0), (2, 16)])
def test_odd_headers_are_refused(offset: int, value: int) -> None:
    data = bytearray(request().emit())
    data[offset] = value
    with pytest.raises(WireError):
        Dhcp.parse(bytes(data))


def test_truncated_header_is_refused() -> None:
    with pytest.raises(WireError):
        Dhcp.parse(request().emit()[:235])


@pytest.mark.parametrize("code", [0, 52, 255, 256])
def test_what_is_no_option_cannot_be_built(code: int) -> None:
    with pytest.raises(ValueError, match="dhcp"):
        request({code: b""})


def test_properties_read_options() -> None:
    message = request({Code.WANTED: b"\1\3", Code.MAX_SIZE: b"\5\xdc"})
    assert (message.wanted, message.max_size) == (b"\1\3", 1500)
    assert request({Code.MAX_SIZE: b"\0\1"}).max_size == 576
    assert request().address(Code.SERVER) is None

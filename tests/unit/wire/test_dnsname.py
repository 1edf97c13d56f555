# SPDX-License-Identifier: GPL-2.0-or-later
"""Domain names on the wire, compressed and not."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire import dnsname

labels = st.text("abcXYZ-_09", min_size=1, max_size=63)
names = st.lists(labels, min_size=1, max_size=4).map(".".join)
valid = names.filter(dnsname.is_valid)


@given(st.lists(valid, max_size=6))
def test_names_survive(domains: list[str]) -> None:
    plain = dnsname.encode_list(domains, 1 << 16)
    assert dnsname.decode_list(plain) == tuple(domains)


@given(st.lists(st.sampled_from(["a", "b.a", "c.b.a", "b.c", "x" * 63]), max_size=9))
def test_compressed_names_survive(domains: list[str]) -> None:
    packed = dnsname.encode_compressed(domains)
    assert dnsname.decode_list(packed) == tuple(domains)
    assert len(packed) <= len(dnsname.encode_list(domains, 1 << 16))


@given(st.lists(valid, max_size=6))
def test_compressed_names_survive_but_for_case(domains: list[str]) -> None:
    read = dnsname.decode_list(dnsname.encode_compressed(domains))
    assert [name.lower() for name in read] == [name.lower() for name in domains]


def test_list_of_the_rfc_is_compressed_as_there() -> None:
    packed = dnsname.encode_compressed(["eng.apple.com", "marketing.apple.com"])
    assert packed == b"\3eng\5apple\3com\0\x09marketing\xc0\x04"  # RFC 3397 2


def test_list_ends_where_there_is_no_room() -> None:
    assert dnsname.encode_list(["abc", "def"], 9) == b"\3abc\0"
    assert dnsname.encode_list(["abc", "def"], 10) == b"\3abc\0\3def\0"


def test_padding_is_no_name() -> None:
    assert dnsname.decode_list(b"\1a\0\0\0\0") == ("a",)


@pytest.mark.parametrize(
    "data",
    [
        b"\1",
        b"\1a",
        b"\x40" + bytes(64),
        b"\xc0",
        b"\xc0\x00",  # to itself
        b"\1a\xc0\x00",  # round in a circle
        b"\xc0\x02\1a\0",  # forwards
        b"\1\xff\0",
        b"\1 \0",
        b"\1.\0",
        b"\x3f" + b"x" * 63 + (b"\x3f" + b"x" * 63) * 3 + b"\0",  # 255 characters
    ],
)
def test_odd_names_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        dnsname.decode_list(data)


@given(st.binary(max_size=300))
def test_hostile_lists_raise_wire_error_only(data: bytes) -> None:
    with suppress(WireError):
        dnsname.decode_list(data)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", ".a", "a.", "x" * 64, "a b", "ä", "a\\b", "a\tb", "x." * 127],
)
def test_what_is_no_name(name: str) -> None:
    assert not dnsname.is_valid(name)


def test_longest_name_is_one() -> None:
    name = ".".join(["x" * 63] * 3 + ["y" * 61])
    assert len(name) == dnsname.MAX_NAME
    assert dnsname.is_valid(name)
    assert len(dnsname.encode(name)) == 255

# SPDX-License-Identifier: GPL-2.0-or-later
"""The bytes of pesto's protocol, in both directions, however they arrive."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import inany
from passtpy.errors import WireError
from passtpy.wire import pesto
from passtpy.wire.pesto import GreetingReader, RawRule, RawTable, UpdateReader

TABLES = frozenset((pesto.HOST_TABLE, pesto.SPLICE_TABLE))
# -t 127.0.0.1%lo/8080-8081:8180-8181
RULE = RawRule(
    inany(ip_address("127.0.0.1")), bytes(16), b"lo", (8080, 8081, 8180), 6, 0
)
RULE_HEX = (
    "00000000000000000000ffff7f000001 00000000000000000000000000000000"
    "6c6f0000000000000000000000000000 1f90 1f91 1ff4 06 00"
)
ANY = RawRule(bytes(16), bytes(16), b"", (22, 22, 22), 17, pesto.DUAL | pesto.SCAN)


def test_a_rule_is_56_bytes() -> None:
    assert RULE.emit() == bytes.fromhex(RULE_HEX)
    assert RawRule.parse(RULE.emit()) == RULE


def test_the_daemon_says_who_it_is_and_what_it_has() -> None:
    said = pesto.emit_greeting([RawTable(1, "HOST", 0x3F, (RULE,))])
    assert said[:20] == b"basil:s\0" + bytes.fromhex("00000002 00000080 00000010")
    assert said[20] == 1
    assert said[21:149] == b"HOST".ljust(128, b"\0")
    assert said[149:157] == bytes.fromhex("0000003f 00000001")
    assert said[157:-1] == RULE.emit()
    assert said[-1:] == b"\0"


def test_an_update_names_each_table() -> None:
    update = pesto.emit_update([(1, (RULE,)), (3, ())])
    assert update == bytes.fromhex("01 00000001" + RULE_HEX + "03 00000000 00")


@given(cuts=st.lists(st.integers(0, 500), max_size=8))
def test_both_readers_take_bytes_cut_anywhere(cuts: list[int]) -> None:
    tables = (RawTable(1, "HOST", 0x3F, (RULE, ANY)), RawTable(3, "SPLICE", 63, ()))
    greeting, update = GreetingReader(), UpdateReader(TABLES)
    said = (
        (greeting, pesto.emit_greeting(tables)),
        (update, pesto.emit_update([(1, (RULE, ANY)), (3, ()), (1, (ANY,))])),
    )
    for reader, data in said:
        at = 0
        for cut in sorted(cuts):
            reader.feed(data[at:cut])
            at = max(at, cut)
        reader.feed(data[at:])
    assert greeting.tables == tables
    assert update.tables == ((1, (RULE, ANY)), (3, ()), (1, (ANY,)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x02" + bytes(4), "Received rules for non-existent table"),
        (bytes.fromhex("01 00000100"), "Received 256 rules (maximum 255)"),
        (
            bytes.fromhex("01 00000001") + bytes(32) + b"x" * 16 + bytes(8),
            "Interface name was not NULL terminated",
        ),
        (bytes.fromhex("01 00000000") * 17, "Received too many tables"),
    ],
)
def test_an_update_that_lies_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(WireError, match=message.replace("(", r"\(").replace(")", ".")):
        UpdateReader(TABLES).feed(data)


def test_a_lone_zero_empties_everything() -> None:
    reader = UpdateReader(TABLES)
    reader.feed(b"\0")
    assert reader.tables == ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"basil:x\0" + bytes(12), "Bad magic number from server"),
        (pesto.MAGIC + bytes(12), "Unsupported experimental server protocol"),
        (
            pesto.MAGIC + bytes.fromhex("00000003 00000080 00000010"),
            "Unknown server protocol version 3 > 2",
        ),
        (
            pesto.MAGIC + bytes.fromhex("00000001 00000080 00000010"),
            "Unknown server protocol version 1 < 2",
        ),
        (
            pesto.MAGIC + bytes.fromhex("00000002 00000040 00000010"),
            "Server has unexpected pif name size (64 not 128)",
        ),
        (
            pesto.MAGIC + bytes.fromhex("00000002 00000080 00000020"),
            "Server has unexpected IFNAMSIZ (32 not 16)",
        ),
        (
            pesto.emit_greeting([RawTable(1, "a", 0, ()), RawTable(1, "b", 0, ())]),
            "Received duplicate interface identifier",
        ),
        (
            pesto.emit_greeting([RawTable(1, "a", 0, ()), RawTable(3, "a", 0, ())]),
            "Received duplicate interface name",
        ),
        (
            pesto.emit_greeting([RawTable(n, str(n), 0, ()) for n in range(1, 5)]),
            "passt has more pifs than pesto can manage (max 3)",
        ),
    ],
)
def test_a_greeting_that_is_none_is_named(data: bytes, message: str) -> None:
    with pytest.raises(WireError) as caught:
        GreetingReader().feed(data)
    assert str(caught.value) == message


@given(st.binary(max_size=400))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    for reader in (UpdateReader(TABLES), GreetingReader()):
        try:
            reader.feed(data)
        except WireError:
            continue

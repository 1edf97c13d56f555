# SPDX-License-Identifier: GPL-2.0-or-later
"""Pesto's protocol at the daemon's end: byte transcripts, and what is refused."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.config.portrule import PortRule, PortTable
from passtpy.config.rawrule import from_raw, to_raw
from passtpy.control.forwards import Applied
from passtpy.control.pesto import PestoConversation
from passtpy.record import replace
from passtpy.wire.pesto import GreetingReader, RawRule, emit_update
from tests.unit.control.fakes import Forwards, rule

RULE = bytes.fromhex(
    "00000000000000000000ffff7f000001 00000000000000000000000000000000"
    "6c6f0000000000000000000000000000 1f90 1f91 1ff4 06 00"
)


def begin(forwards: Forwards) -> tuple[PestoConversation, list[str]]:
    notes: list[str] = []
    client = PestoConversation(forwards, notes.append)
    reader = GreetingReader()
    reader.feed(client.begin())
    assert reader.tables is not None
    return client, notes


def test_who_looks_and_goes_changes_nothing() -> None:
    forwards = Forwards(rule(22))
    client, notes = begin(forwards)
    assert client.receive(b"") == b""
    assert client.over
    assert not forwards.asked
    assert not notes


def test_an_update_is_the_whole_new_state() -> None:
    forwards = Forwards(rule(22))
    client, _ = begin(forwards)
    for byte in bytes.fromhex("01 00000001") + RULE + bytes.fromhex("03 00000000 00"):
        assert not client.over
        assert client.receive(bytes((byte,))) == b""
    (host, splice), *_ = forwards.asked
    assert [str(r) for r in host.rules] == [
        "TCP [127.0.0.1]%lo:8080-8081  =>  8180-8181 "
    ]
    assert not splice.rules
    assert client.over


def test_a_lone_zero_byte_empties_all_tables() -> None:
    forwards = Forwards(rule(22))
    client, _ = begin(forwards)
    client.receive(b"\0")
    assert [table.rules for table in forwards.asked[0]] == [(), ()]


def test_a_table_told_twice_adds_up() -> None:
    forwards = Forwards()
    client, _ = begin(forwards)
    other = to_raw(rule(22)).emit()
    one = bytes.fromhex("01 00000001")
    client.receive(one + RULE + one + other + b"\0")
    assert [str(r) for r in forwards.asked[0][0].rules] == [
        "TCP [127.0.0.1]%lo:8080-8081  =>  8180-8181 ",
        "TCP [*]:22  =>  22 ",
    ]


def test_the_whole_of_what_a_client_is_told() -> None:
    """As pasta told it that was started with -t 127.0.0.1%lo/8080-8081:8180-8181."""
    client = PestoConversation(
        Forwards(from_raw(RawRule.parse(RULE))), lambda line: None
    )
    assert client.begin() == bytes.fromhex(
        "626173696c3a7300 00000002 00000080 00000010"
        f"01 {b'HOST'.ljust(128, bytes(1)).hex()} 0000003f 00000001 {RULE.hex()}"
        f"03 {b'SPLICE'.ljust(128, bytes(1)).hex()} 0000003f 00000000"
        "00"
    )


@pytest.mark.parametrize(
    "beyond", [{"proxy": 2}, {"path": "/run/x.sock"}, {"to_path": "/run/x.sock"}]
)
def test_a_rule_that_it_has_no_words_for_is_left_alone(beyond: dict[str, Any]) -> None:
    asked: list[tuple[tuple[PortTable, ...], tuple[PortTable, ...]]] = []

    class Asked(Forwards):
        def replace(
            self,
            old: tuple[PortTable, ...],
            tables: tuple[PortTable, ...],
            applied: Applied,
        ) -> None:
            asked.append((old, tables))

    forwards = Asked(rule(22), replace(rule(80), **beyond))
    client = PestoConversation(forwards, lambda line: None)
    reader = GreetingReader()
    reader.feed(client.begin())
    assert reader.tables is not None
    assert [len(table.rules) for table in reader.tables] == [1, 0]
    client.receive(b"\0")
    ((old, new),) = asked
    assert [table.rules for table in old] == [(rule(22),), ()]
    assert [table.rules for table in new] == [(), ()]


def test_it_hangs_up_when_the_sockets_are_there() -> None:
    forwards = Forwards()
    forwards.waits = True
    client, _ = begin(forwards)
    client.receive(b"\0")
    assert client.answering
    assert not client.over
    assert forwards.applied is not None
    forwards.applied(())
    assert client.more() == b""
    assert client.over


def test_what_went_wrong_is_told_and_logged() -> None:
    forwards = Forwards()
    forwards.reasons = ("Listen failed for HOST TCP port */22: in use",)
    client, notes = begin(forwards)
    assert client.receive(b"\0") == b"Listen failed for HOST TCP port */22: in use\n"
    assert notes == list(forwards.reasons)
    assert client.over


@pytest.mark.parametrize(
    ("update", "text"),
    [
        (b"\x02", "Received rules for non-existent table"),
        (bytes.fromhex("01 00000100"), "Received 256 rules (maximum 255)"),
        (
            emit_update([(1, (to_raw(rule(22)), to_raw(rule(22))))]),
            (
                "Forwarding configuration conflict: TCP [*]:22  =>  22 "
                " versus TCP [*]:22  =>  22 \nUnable to add rule TCP [*]:22  =>  22 "
            ),
        ),
        (
            emit_update([(1, (RawRule(bytes(16), bytes(16), b"", (1, 1, 1), 6, 8),))]),
            "Rule has invalid flags 0x8",
        ),
        (
            emit_update([(1, (RawRule(b"\1" * 16, bytes(16), b"", (9, 8, 9), 6, 9),))]),
            "Rule has invalid port range 9-8",
        ),
        (
            emit_update([(1, (RawRule(b"\1" * 16, bytes(16), b"", (0, 8, 9), 6, 9),))]),
            "Forwarding rule attempts to map from port 0",
        ),
        (
            emit_update([(1, (RawRule(b"\1" * 16, bytes(16), b"", (8, 8, 0), 6, 9),))]),
            "Forwarding rule attempts to map to port 0",
        ),
        (
            emit_update([(1, (RawRule(b"\1" * 16, bytes(16), b"", (1, 1, 1), 6, 1),))]),
            "Dual stack rule has non-wildcard address 101:101:101:101:101:101:101:101",
        ),
    ],
)
def test_a_wrong_update_changes_nothing(update: bytes, text: str) -> None:
    forwards = Forwards()
    client, _ = begin(forwards)
    assert client.receive(update).decode() == f"{text}\n"
    assert client.over
    assert not forwards.asked


def test_a_client_that_stops_half_way_leaves_nothing_behind() -> None:
    forwards = Forwards()
    client, _ = begin(forwards)
    client.receive(bytes.fromhex("01 00000001") + RULE[:20])
    client.receive(b"")
    assert client.over
    assert not forwards.asked


@given(st.lists(st.binary(max_size=80), max_size=4))
def test_any_bytes_are_survived(pieces: list[bytes]) -> None:
    client, _ = begin(Forwards())
    for piece in pieces:
        client.receive(piece)


@pytest.mark.parametrize(
    "given_rule",
    [
        rule(22),
        rule(22, weak=True, scan=True, ifname="lo"),
        rule(22, delta=5),
    ],
)
def test_rules_survive_the_wire(given_rule: PortRule) -> None:
    assert from_raw(RawRule.parse(to_raw(given_rule).emit())) == given_rule

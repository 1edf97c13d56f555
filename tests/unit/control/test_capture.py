# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures as streams of pcapng: their blocks, limits, counts, and how they end."""

from collections.abc import Iterator
from typing import Any

import pytest

from passtpy.control import capture
from passtpy.control.capture import PIECE, Captures, CaptureStream, Wish
from passtpy.control.verb import Code, ControlError
from tests.lab.pcapng import INTERFACE, PACKET, SECTION, STATISTICS, Block, blocks
from tests.unit.control.fakes import Packets, packet_block

STARTTIME, ENDTIME, IFRECV, IFDROP = 2, 3, 4, 5
SECOND = 10**9


class Reader:
    """A client, and what it was given."""

    def __init__(self, stream: CaptureStream) -> None:
        self.stream = stream
        self.raw = b""
        self._woken = False
        stream.wake = self._wake

    def _wake(self) -> None:
        self._woken = True

    def woken(self) -> bool:
        """Whether there is more to take."""
        return self._woken

    def read(self) -> list[Block]:
        """Take as long as there is more to take."""
        self._woken = True
        while self._woken:
            self._woken = False
            self.raw += self.stream.take()
        return list(blocks(self.raw))

    def counts(self) -> list[tuple[int, int]]:
        last = [block for block in self.read() if block.kind == STATISTICS][-2:]
        return [(each.number(IFRECV), each.number(IFDROP)) for each in last]


@pytest.fixture
def source() -> Packets:
    return Packets()


@pytest.fixture
def captures(source: Packets) -> Iterator[Captures]:
    made = Captures(source)
    yield made
    made.close()
    assert not source.running
    assert not [timer for timer in source.timers if timer.set]


def start(captures: Captures, **wish: Any) -> Reader:
    return Reader(captures.start(Wish(program=b"", **wish)))


def test_a_file_begins_with_what_it_is(captures: Captures) -> None:
    reader = start(captures, filter="tcp", comments=["rule 1: all"], snaplen=99)
    section, tap, sockets = reader.read()
    assert section.kind == SECTION
    assert section.body == (bytes.fromhex("4d3c2b1a 0100 0000 ffffffffffffffff"))
    assert section.texts(1) == ["capture 1, of tcp", "rule 1: all"]
    assert section.texts(4)[0].startswith("passtpy ")
    assert (tap.kind, tap.body) == (INTERFACE, bytes.fromhex("0100 0000 63000000"))
    assert sockets.body == bytes.fromhex("6500 0000 63000000")
    assert [tap.texts(2), sockets.texts(2)] == [["tap"], ["sockets"]]
    assert tap.number(9) == sockets.number(9) == 9


def test_packets_follow_as_they_come(captures: Captures, source: Packets) -> None:
    reader = start(captures)
    assert len(reader.read()) == 3
    source.arrive(0, packet_block(b"one"))
    source.look()
    assert reader.woken()
    assert [block.kind for block in reader.read()[3:]] == [PACKET]


def test_who_has_nothing_to_take_is_not_woken(
    captures: Captures, source: Packets
) -> None:
    reader = start(captures)
    reader.read()
    source.look()
    assert not reader.woken()


def test_a_limit_of_packets_is_exact(captures: Captures, source: Packets) -> None:
    reader = start(captures, packets=3)
    source.arrive(0, *(packet_block(b"x") for _ in range(5)))
    kinds = [block.kind for block in reader.read()[3:]]
    assert kinds == [PACKET] * 3 + [STATISTICS] * 2
    assert reader.stream.ended
    assert captures.listed() == []


def test_a_limit_of_bytes_is_kept_with_the_last_counts(
    captures: Captures, source: Packets
) -> None:
    reader = start(captures, bytes=10_000)
    source.arrive(0, *(packet_block(b"x" * 900) for _ in range(20)))
    kinds = [block.kind for block in reader.read()[3:]]
    assert kinds[-2:] == [STATISTICS] * 2
    assert 9_000 < len(reader.raw) <= 10_000


def test_a_limit_of_seconds_gives_what_is_there(
    captures: Captures, source: Packets
) -> None:
    reader = start(captures, seconds=5)
    reader.read()
    source.pass_time(4.9)
    source.arrive(0, packet_block(b"in time"))
    source.pass_time(0.2)
    source.arrive(0, packet_block(b"too late"))
    kinds = [block.kind for block in reader.read()[3:]]
    assert kinds == [PACKET, STATISTICS, STATISTICS]
    assert reader.stream.ended


def test_drops_are_told_within_a_second_and_at_the_end(
    captures: Captures, source: Packets
) -> None:
    reader = start(captures)
    source.arrive(0, packet_block(b"x"))
    source.drop(0, tap=7, sockets=2)
    assert STATISTICS not in {block.kind for block in reader.read()}
    source.pass_time(1.1)
    assert reader.woken()
    assert reader.counts() == [(8, 7), (2, 2)]
    told = len(reader.raw)
    source.pass_time(1.1)
    assert not reader.woken()
    source.drop(0, tap=1)
    captures.stop(None)
    assert reader.counts() == [(9, 8), (2, 2)]
    assert len(reader.raw) > told


def test_counts_have_the_time_from_the_start(
    captures: Captures, source: Packets
) -> None:
    reader = start(captures)
    began = source.time
    source.pass_time(3)
    captures.stop(None)
    last = reader.read()[-1]
    times = {code: value for code, value in last.options if code in (2, 3)}
    for code, at in ((STARTTIME, began), (ENDTIME, began + 3 * SECOND)):
        high, low = at >> 32, at & 0xFFFFFFFF
        assert times[code] == high.to_bytes(4, "little") + low.to_bytes(4, "little")


def test_who_leaves_ends_its_capture(captures: Captures, source: Packets) -> None:
    reader, other = start(captures), start(captures)
    reader.stream.end()
    assert reader.stream.take() == b""
    assert list(source.running) == [1]
    assert [each["id"] for each in captures.listed()] == [other.stream.id]


def test_who_takes_nothing_after_the_end_is_let_go(
    captures: Captures, source: Packets
) -> None:
    reader = start(captures)
    source.arrive(0, packet_block(b"x"))
    captures.stop(reader.stream.id)
    assert source.finished == [0]
    assert source.running
    source.pass_time(capture.PATIENCE_S + 1)
    assert not source.running
    assert reader.stream.ended


def test_one_is_ended_by_its_id(captures: Captures) -> None:
    first, second = start(captures), start(captures)
    (told,) = captures.stop(first.stream.id)
    assert told["id"] == first.stream.id
    first.read()
    assert [each["id"] for each in captures.listed()] == [second.stream.id]
    with pytest.raises(ControlError, match="no capture 9"):
        captures.stop(9)


def test_too_many_are_refused(captures: Captures, source: Packets) -> None:
    for _ in range(source.most):
        start(captures)
    with pytest.raises(ControlError) as refused:
        start(captures)
    assert refused.value.code == Code.TOO_MUCH


def test_a_long_backlog_is_taken_in_pieces(captures: Captures, source: Packets) -> None:
    reader = start(captures)
    reader.read()
    source.arrive(0, *(packet_block(b"x" * 60_000) for _ in range(8)))
    piece = reader.stream.take()
    assert 60_000 < len(piece) <= PIECE
    assert reader.woken()
    assert len(reader.read()) == 3 + 8 - 2  # without the piece

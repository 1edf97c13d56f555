# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture in many files: each is one, and together they are what was sent."""

import os
from pathlib import Path
from struct import pack

import pytest

from passtpy.client.rotating import Rotating
from passtpy.control.pcapng import ETHERNET, RAW_IP, interface, section, statistics
from tests.lab.pcapng import INTERFACE, PACKET, SECTION, STATISTICS, blocks

OPTIONS = pack("=HH4sHH", 2, 4, b"\0\0\0\1", 0, 0)


def packet(number: int, size: int = 60) -> bytes:
    """An enhanced packet block."""
    data = bytes([number]) * size
    body = pack("=IIIII", 0, 0, 0, size, size) + data + OPTIONS
    total = len(body) + 12
    return pack("=II", PACKET, total) + body + pack("=I", total)


HEAD = (
    section("test", ["about"])
    + interface(ETHERNET, 100, "tap", "tap")
    + interface(RAW_IP, 100, "sockets", "sockets")
)
END = statistics(0, 0, 1, 2, 0) + statistics(1, 0, 1, 2, 0)
STREAM = HEAD + b"".join(map(packet, range(50))) + END
SIZE = len(HEAD) + 10 * len(packet(0)) + 20


def rotate(folder: Path, step: int, keep: int | None = None) -> list[Path]:
    files = Rotating(str(folder / "day.1.pcapng"), SIZE, keep)
    for at in range(0, len(STREAM), step):
        files.feed(STREAM[at : at + step])
    files.close()
    found = sorted(folder.iterdir())
    assert files.latest == str(found[-1])
    return found


@pytest.mark.parametrize("step", [1, 7, 100, len(STREAM)])
def test_each_file_is_whole_and_nothing_is_missing(tmp_path: Path, step: int) -> None:
    found = rotate(tmp_path, step)
    assert [path.name for path in found[:2]] == [
        "day.1_00001.pcapng",
        "day.1_00002.pcapng",
    ]
    numbers = []
    for path in found:
        raw = path.read_bytes()
        assert len(raw) <= SIZE
        kinds = [block.kind for block in blocks(raw)]
        assert kinds[:3] == [SECTION, INTERFACE, INTERFACE]
        assert not {SECTION, INTERFACE} & set(kinds[3:])
        numbers += [b.body[20] for b in blocks(raw) if b.kind == PACKET]
    assert numbers == list(range(50))
    assert kinds[-2:] == [STATISTICS, STATISTICS]


def test_the_oldest_go(tmp_path: Path) -> None:
    names = [path.name for path in rotate(tmp_path, 1000, keep=2)]
    assert names == ["day.1_00005.pcapng", "day.1_00006.pcapng"]


def test_a_packet_may_be_longer_than_a_file(tmp_path: Path) -> None:
    files = Rotating(str(tmp_path / "x"), 10)
    files.feed(HEAD + packet(1) + packet(2))
    files.close()
    found = sorted(tmp_path.iterdir())
    assert [path.name for path in found] == ["x_00001", "x_00002"]
    for path in found:
        assert [b.kind for b in blocks(path.read_bytes())][3:] == [PACKET]


def test_a_file_that_somebody_took_away_is_not_missed(tmp_path: Path) -> None:
    files = Rotating(str(tmp_path / "x"), 10, keep=1)
    files.feed(HEAD + packet(1))
    os.unlink(tmp_path / "x_00001")
    files.feed(packet(2))
    files.close()
    assert [path.name for path in tmp_path.iterdir()] == ["x_00002"]


def test_only_their_owner_reads_them(tmp_path: Path) -> None:
    (first, *_) = rotate(tmp_path, 1000)
    assert first.stat().st_mode & 0o777 == 0o600

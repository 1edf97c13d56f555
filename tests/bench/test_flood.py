# SPDX-License-Identifier: GPL-2.0-or-later
"""A number of a flood row counts only if the flood went on until the work had ended."""

import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.bench import loadgen
from tests.bench.cell import Cell
from tests.bench.flood import OPENING, Flood
from tests.lab import TRANSLATORS, Attachment, Lab, LabError

pytestmark = [pytest.mark.root, pytest.mark.netns]
PORT = 40000
FLOOD = Flood("udp", outside=True)


@pytest.fixture
def cell() -> Iterator[Cell]:
    """A plain veth: who floods is looked at here, not who is flooded."""
    loadgen.build()
    direct = TRANSLATORS["direct"]
    with Lab() as lab, lab.attach(direct, Attachment()) as attached:
        yield Cell(lab, direct, attached, 0.1, iter(()))


def test_a_flood_goes_on_until_it_is_stopped_and_tells_its_rate(cell: Cell) -> None:
    with FLOOD.flooding(cell, PORT) as flood:
        flood.check()
        assert flood.stop() > 0
        with pytest.raises(LabError, match="ended early"):
            flood.check()


def test_what_was_measured_beside_a_flood_that_had_ended_is_a_failure(
    cell: Cell,
) -> None:
    def work() -> float:
        time.sleep(OPENING + 1)  # the flood begins after OPENING, and ends at once
        return 1.0

    short = replace(FLOOD, at_most=0.0)
    with (
        pytest.raises(LabError, match="ended early"),
        short.beside(cell, PORT, work),
    ):
        pass


def test_a_flood_that_cannot_be_sent_is_a_failure(cell: Cell) -> None:
    nowhere = Flood("arp", frames=True, device="no-such-device")
    with (
        pytest.raises(LabError, match=r"no flood: .*first packets"),
        nowhere.flooding(cell, PORT),
    ):
        pass

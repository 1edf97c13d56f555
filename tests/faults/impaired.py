# SPDX-License-Identifier: GPL-2.0-or-later
"""A part of the scenario: packets that wait on a link that is worse than it is."""

from passtpy.flow import Action
from tests.datapath.guest import answer
from tests.datapath.packets import echo, udp
from tests.faults.scenario import Part, Stage

LATE, WELL = (1_000_000, 0, 0, False), (0, 0, 0, False)


def impaired(stage: Stage) -> None:
    """Packets of the guest are late, and what refuses them is too."""
    guest = stage.guest()
    guest.decide = answer(Action.REJECT)
    try:
        guest.dp.impair(LATE, LATE)
        guest.send(udp(b"late"), echo())
        guest.advance(0.001)
        guest.advance(0.001)
    finally:
        guest.dp.impair(WELL, WELL)
        guest.advance(0.001)


IMPAIRED = Part(impaired)

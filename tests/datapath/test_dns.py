# SPDX-License-Identifier: GPL-2.0-or-later
"""Questions to DNS servers: lifted to Python where it answers them, else traffic."""

import pytest
from scapy.packet import Packet

from passtpy.flow import PuntKind
from tests.datapath.guest import Guest
from tests.datapath.packets import tcp, udp

QUESTIONS = {
    "v4": udp(b"question", dst="198.51.100.53", dport=53),
    "v6": udp(b"question", v6=True, dst="2001:db8::53", dport=53),
}


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions_to_any_server_are_lifted(guest: Guest, name: str) -> None:
    guest.dp.lift_dns = True
    guest.send(QUESTIONS[name])
    assert guest.kinds == [PuntKind.DNS]
    assert not guest.misses


@pytest.mark.parametrize("name", QUESTIONS)
def test_they_are_for_the_policy_otherwise(guest: Guest, name: str) -> None:
    guest.send(QUESTIONS[name])
    assert guest.kinds == []
    assert len(guest.misses) == 1


@pytest.mark.parametrize(
    "other",
    [
        udp(b"x", dport=5353),
        udp(b"x", sport=53, dport=54),
        tcp(dport=53, flags="S"),
    ],
    ids=["another-port", "from-port-53", "tcp"],
)
def test_nothing_else_is(guest: Guest, other: Packet) -> None:
    guest.dp.lift_dns = True
    guest.send(other)
    assert guest.kinds == []
    assert len(guest.misses) == 1


def test_a_flow_of_before_is_cut_off(guest: Guest) -> None:
    """A resolver that is switched on later misses no question."""
    guest.send(QUESTIONS["v4"])
    assert len(guest.misses) == 1
    guest.dp.lift_dns = True
    guest.send(QUESTIONS["v4"])
    assert guest.kinds == [PuntKind.DNS]

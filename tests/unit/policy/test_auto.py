# SPDX-License-Identifier: GPL-2.0-or-later
"""Which ports automatic forwarding wants, from what was found listening."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import inany
from passtpy.policy.auto import (
    HOST_LOOPBACK,
    LOOPBACK_INDEX,
    V4,
    V6,
    Heard,
    Reach,
    changes,
    gather,
    limited,
    served,
)

OUTSIDE = Reach(loopback=False, outside=True)
EVERYWHERE = Reach(loopback=True, outside=True)
BOTH = V4 | V6


def heard(address: str, port: int = 80, only: bool = False, device: int = 0) -> Heard:
    v6 = ":" in address
    return Heard(port, inany(ip_address(address)), v6, only, device)


@pytest.mark.parametrize(
    ("socket", "reach", "expected"),
    [
        (heard("0.0.0.0"), OUTSIDE, V4),
        (heard("::"), OUTSIDE, BOTH),
        (heard("::", only=True), OUTSIDE, V6),
        (heard("192.0.2.5"), OUTSIDE, V4),
        (heard("2001:db8::5"), OUTSIDE, V6),
        (heard("::ffff:192.0.2.5"), OUTSIDE, V4),
        (heard("::ffff:0.0.0.0"), OUTSIDE, V4),
        (heard("127.0.0.1"), OUTSIDE, 0),
        (heard("::1"), OUTSIDE, 0),
        (heard("127.0.0.1"), EVERYWHERE, V4),
        (heard("192.0.2.5"), EVERYWHERE, V4),
        (heard("0.0.0.0"), HOST_LOOPBACK, V4),
        (heard("::"), HOST_LOOPBACK, BOTH),
        (heard("127.0.0.1"), HOST_LOOPBACK, V4),
        (heard("::1"), HOST_LOOPBACK, V6),
        (heard("192.0.2.5"), HOST_LOOPBACK, 0),
        (heard("127.0.0.53"), HOST_LOOPBACK, V4),
        (heard("127.0.0.53"), EVERYWHERE, V4),
        (heard("127.0.0.53"), OUTSIDE, 0),
        (heard("0.0.0.0", device=LOOPBACK_INDEX), HOST_LOOPBACK, V4),
        (heard("0.0.0.0", device=LOOPBACK_INDEX), OUTSIDE, 0),
        (heard("0.0.0.0", device=2), HOST_LOOPBACK, 0),
        (heard("::", device=2), OUTSIDE, BOTH),
    ],
)
def test_a_port_is_served_where_a_flow_would_arrive(
    socket: Heard, reach: Reach, expected: int
) -> None:
    assert served([socket], reach, ()) == ({80: expected} if expected else {})


def test_sockets_of_a_port_add_up() -> None:
    sockets = [heard("0.0.0.0"), heard("::", only=True), heard("::", 81)]
    assert served(sockets, OUTSIDE, ()) == {80: BOTH, 81: BOTH}


def test_what_we_listen_on_ourselves_is_not_followed() -> None:
    sockets = [heard("0.0.0.0", 80), heard("0.0.0.0", 81)]
    assert served(sockets, OUTSIDE, [80]) == {81: V4}


def test_udp_follows_tcp_too() -> None:
    ports = {53: V4}
    gather(ports, {53: V6, 80: BOTH})
    assert ports == {53: BOTH, 80: BOTH}


def test_a_family_that_is_off_is_not_served() -> None:
    assert limited({80: BOTH, 81: V6}, V4) == {80: V4}


def test_a_change_of_families_closes_and_opens() -> None:
    assert changes({80: V4, 81: V4}, {80: BOTH, 81: V4}) == ([80], [80])


ports = st.dictionaries(st.integers(1, 30), st.sampled_from([V4, V6, BOTH]))


@given(ports, ports)
def test_changes_lead_from_one_state_to_the_other(
    bound: dict[int, int], wanted: dict[int, int]
) -> None:
    close, open_ = changes(bound, wanted)
    state = {port: bits for port, bits in bound.items() if port not in close}
    assert not state.keys() & set(open_)
    assert state | {port: wanted[port] for port in open_} == wanted
    assert changes(wanted, wanted) == ([], [])

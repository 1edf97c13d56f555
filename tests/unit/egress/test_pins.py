# SPDX-License-Identifier: GPL-2.0-or-later
"""Which names an address has, and for how long."""

from ipaddress import IPv4Address

from passtpy.addr import inany
from passtpy.egress.pins import MOST_OF_A_NAME, MOST_OF_AN_ADDRESS, Pins

S = 1_000_000_000
A, B, C = (inany(IPv4Address(f"198.51.100.{n}")) for n in (1, 2, 3))


def _addresses(count: int) -> list[bytes]:
    return [inany(IPv4Address(0xC6336400 + n)) for n in range(count)]


def test_a_pin_holds_for_its_ttl_and_a_grace() -> None:
    pins = Pins(grace_s=60)
    pins.pin("a.example", [A], 30, now_ns=5 * S)
    assert pins.names_of(A, 95 * S - 1) == ("a.example",)
    assert pins.names_of(A, 95 * S) == ()


def test_a_ttl_of_zero_leaves_the_grace() -> None:
    pins = Pins(grace_s=60)
    pins.pin("a.example", [A], 0, now_ns=0)
    assert pins.names_of(A, 59 * S) == ("a.example",)


def test_a_short_answer_does_not_shorten_an_earlier_one() -> None:
    pins = Pins(grace_s=0)
    pins.pin("a.example", [A], 100, now_ns=0)
    pins.pin("a.example", [A, B], 1, now_ns=0)
    assert pins.names_of(A, 50 * S) == ("a.example",)
    assert pins.names_of(B, 50 * S) == ()


def test_a_ttl_of_years_is_a_day() -> None:
    pins = Pins(grace_s=0)
    pins.pin("a.example", [A], 2**31, now_ns=0)
    assert pins.names_of(A, 86400 * S) == ()


def test_an_address_has_all_the_names_it_was_told_for() -> None:
    pins = Pins()
    pins.pin("a.example", [A, B], 30, now_ns=0)
    pins.pin("b.example", [B], 30, now_ns=0)
    assert pins.names_of(B, S) == ("a.example", "b.example")
    assert pins.addresses_of("a.example", S) == (A, B)
    assert [pin.address for pin in pins.listed(S)] == [A, B, B]


def test_an_open_flow_is_judged_by_the_time_it_began() -> None:
    pins = Pins(grace_s=0)
    pins.pin("a.example", [A], 30, now_ns=0)
    assert pins.names_of(A, 1000 * S) == ()
    assert pins.names_of(A, 10 * S) == ("a.example",)


def test_a_thousand_answers_leave_as_many_as_a_name_may_have() -> None:
    pins = Pins()
    pinned = pins.pin("a.example", _addresses(1000), 30, now_ns=0)
    assert len(pinned) == len(pins) == MOST_OF_A_NAME
    assert pinned == tuple(_addresses(MOST_OF_A_NAME))


def test_answer_after_answer_leaves_the_last_addresses_of_a_name() -> None:
    pins = Pins()
    for address in _addresses(1000):
        pins.pin("a.example", [address], 30, now_ns=0)
    assert pins.addresses_of("a.example", S) == tuple(_addresses(1000)[-64:])


def test_an_address_told_again_goes_last() -> None:
    pins = Pins()
    first, *others = _addresses(MOST_OF_A_NAME)
    pins.pin("a.example", [first, *others], 30, now_ns=0)
    pins.pin("a.example", [first], 30, now_ns=S)
    pins.pin("a.example", [_addresses(1000)[-1]], 30, now_ns=S)
    assert "a.example" in pins.names_of(first, S)
    assert pins.names_of(others[0], S) == ()


def test_names_without_end_leave_as_many_as_an_address_may_have() -> None:
    pins = Pins()
    for n in range(1000):
        pins.pin(f"{n}.example", [A], 30, now_ns=0)
    names = pins.names_of(A, S)
    assert len(names) == MOST_OF_AN_ADDRESS
    assert names[-1] == "999.example"


def test_pins_are_bounded_and_the_oldest_goes() -> None:
    pins = Pins(most=10)
    for n in range(30):
        pins.pin(f"{n}.example", [_addresses(30)[n]], 30, now_ns=0)
    assert len(pins) == 10
    assert pins.evicted == 20
    assert pins.addresses_of("0.example", S) == ()
    assert pins.addresses_of("29.example", S) != ()


def test_names_that_are_not_allowed_any_more_are_forgotten() -> None:
    pins = Pins()
    pins.pin("a.example", [A, B], 30, now_ns=0)
    pins.pin("b.example", [B, C], 30, now_ns=0)
    pins.keep(lambda name: name == "b.example")
    assert pins.names_of(A, S) == ()
    assert pins.names_of(B, S) == ("b.example",)
    assert pins.addresses_of("a.example", S) == ()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Which addresses are the guest's."""

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address

from passtpy.addr import UNSPECIFIED, inany
from passtpy.config.guest_addresses import MAX_SEEN, GuestAddresses
from passtpy.config.host import HostInfo

HOST = HostInfo(
    guest4=IPv4Address("192.0.2.5"),
    guest6=IPv6Address("2001:db8::5"),
    guests=frozenset((IPv6Address("2001:db8::5"), IPv6Address("2001:db8::6"))),
)


def raw(text: str) -> bytes:
    return inany(ip_address(text))


def made() -> GuestAddresses:
    return GuestAddresses.from_host(HOST)


def test_every_planned_address_is_its_own() -> None:
    guest = made()
    for text in ("192.0.2.5", "2001:db8::5", "2001:db8::6"):
        assert guest.owns(raw(text))
    assert not guest.owns(raw("2001:db8::7"))
    assert not guest.owns(UNSPECIFIED)


def test_a_second_address_does_not_take_the_first_away() -> None:
    """A machine that has one from DHCPv6, and made one from the prefix."""
    guest = made()
    guest.observe(raw("2001:db8::aaaa"))
    guest.observe(raw("2001:db8::5"))
    guest.observe(raw("fe80::1"))
    for text in ("2001:db8::5", "2001:db8::aaaa", "fe80::1"):
        assert guest.owns(raw(text))
    assert guest.towards(raw("2001:db8:1::1")) == raw("2001:db8::5")


def test_who_uses_thousands_of_addresses_is_believed_some() -> None:
    guest = made()
    for number in range(5000):
        guest.observe(raw(f"2001:db8:1::{number:x}"))
    owned = [n for n in range(5000) if guest.owns(raw(f"2001:db8:1::{n:x}"))]
    assert owned == list(range(5000 - MAX_SEEN, 5000))
    assert guest.owns(raw("2001:db8::5"))


def test_another_plan_replaces_the_first() -> None:
    guest = made()
    guest.plan(HostInfo(guest4=IPv4Address("192.0.2.77")))
    assert guest.owns(raw("192.0.2.77"))
    assert not guest.owns(raw("192.0.2.5"))


def test_its_kernel_knows_better() -> None:
    guest = made()
    guest.present = (raw("198.51.100.3"), raw("2001:db8::aaaa"))
    assert guest.inside(True) == raw("198.51.100.3")
    assert guest.towards(raw("2001:db8:1::1")) == raw("2001:db8::aaaa")
    assert guest.owns(raw("2001:db8::aaaa"))
    assert not guest.owns(raw("2001:db8::5"))


def test_of_what_it_has_it_was_last_seen_to_use_one() -> None:
    guest = made()
    guest.present = (raw("192.0.2.5"), raw("192.0.2.6"))
    guest.observe(raw("192.0.2.6"))
    assert guest.inside(True) == raw("192.0.2.6")
    assert guest.inside(False) == UNSPECIFIED


def test_an_address_that_the_user_said_is_where_it_is_reached() -> None:
    pinned = (IPv4Address("192.0.2.5"),)
    guest = GuestAddresses.from_host(replace(HOST, pinned=pinned))
    for text in ("192.0.2.6", "2001:db8::aaaa", "fe80::77"):
        guest.observe(raw(text))
    guest.present = (raw("192.0.2.6"), raw("2001:db8::aaaa"))
    assert guest.towards(raw("198.51.100.1")) == raw("192.0.2.5")
    assert guest.towards(raw("2001:db8:1::1")) == raw("2001:db8::aaaa")
    assert guest.owns(raw("192.0.2.6"))


def test_of_a_pinned_guest_the_link_local_address_follows() -> None:
    pinned = (IPv6Address("2001:db8::5"),)
    guest = GuestAddresses.from_host(replace(HOST, pinned=pinned))
    for text in ("fe80::77", "2001:db8::aaaa"):
        guest.observe(raw(text))
    assert guest.towards(raw("2001:db8:1::1")) == raw("2001:db8::5")
    assert guest.towards(raw("fe80::1")) == raw("fe80::77")
    guest.observe(raw("fe80::78"))
    assert guest.towards(raw("fe80::1")) == raw("fe80::78")


def test_what_shows_itself_in_one_family_prefers_it() -> None:
    guest = made()
    assert not guest.prefers(True)
    assert not guest.prefers(False)
    guest.observe(raw("192.0.2.5"))
    assert guest.prefers(True)
    assert not guest.prefers(True, surely=True)  # it may have just begun
    guest.observe(raw("fe80::77"))
    assert not guest.prefers(True)
    guest.present = (raw("2001:db8::aaaa"),)  # its kernel knows better
    assert guest.prefers(False)
    assert guest.prefers(False, surely=True)
    assert not guest.prefers(True)


def test_a_family_that_the_user_said_an_address_of_is_there() -> None:
    pinned = (IPv6Address("2001:db8::5"),)
    guest = GuestAddresses.from_host(replace(HOST, pinned=pinned))
    guest.observe(raw("192.0.2.5"))
    assert not guest.prefers(True)

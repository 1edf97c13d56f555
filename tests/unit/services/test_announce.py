# SPDX-License-Identifier: GPL-2.0-or-later
from dataclasses import replace
from ipaddress import IPv4Address

from passtpy.services.announce import MAX_TOLD, Announcer
from tests.unit.services.conversation import GATEWAY4, HOST, PEER4, PEER6, facts

MAC, OTHER = b"\x02\0\0\0\0\7", b"\x02\0\0\0\0\x08"


def test_only_what_was_told_is_announced_and_once() -> None:
    announcer = Announcer(IPv4Address)
    before, now = facts(), facts(host=replace(HOST, neighbours={PEER4: MAC}))
    announcer.update(before, now)
    assert not announcer.has_news()
    announcer.told(PEER4)
    announcer.update(before, now)
    assert announcer.has_news()
    assert announcer.take() == {PEER4: MAC}
    assert announcer.take() == {}


def test_the_last_of_two_changes_counts() -> None:
    announcer = Announcer(IPv4Address)
    announcer.told(PEER4)
    first = facts(host=replace(HOST, neighbours={PEER4: MAC}))
    second = facts(host=replace(HOST, neighbours={PEER4: OTHER, PEER6: MAC}))
    announcer.update(facts(), first)
    announcer.update(first, second)
    assert announcer.take() == {PEER4: OTHER}


def test_an_address_that_becomes_ours_is_announced_to_all() -> None:
    announcer = Announcer(IPv4Address)
    announcer.update(facts(host=replace(HOST, gateway4=PEER4)), facts())
    assert announcer.take() == {GATEWAY4: HOST.our_mac}


def test_those_told_long_ago_are_forgotten() -> None:
    announcer = Announcer(IPv4Address)
    announcer.told(PEER4)
    for number in range(MAX_TOLD):
        announcer.told(IPv4Address(0x0A000000 + number))
    announcer.update(facts(), facts(host=replace(HOST, neighbours={PEER4: MAC})))
    assert not announcer.has_news()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The ring of events: order, places, what is missed, and who costs nothing."""

import json
from typing import Any

from passtpy.control.events import PIECE, EventReader, Events


def taken(reader: EventReader) -> list[dict[str, Any]]:
    return [json.loads(line) for line in reader.take().splitlines()]


def make(room: int = 8) -> Events:
    return Events(clock=lambda: 12.5, room=room)


def test_a_reader_gets_what_comes_after_it() -> None:
    events = make()
    events.publish("before", {})
    reader = events.subscribe()
    events.publish("flow.opened", {"flow": 7})
    assert taken(reader) == [
        {"seq": 2, "time": 12.5, "event": "flow.opened", "flow": 7}
    ]
    assert taken(reader) == []


def test_what_is_kept_can_be_asked_for() -> None:
    events = make()
    for n in range(5):
        events.publish(str(n), {})
    assert [e["event"] for e in taken(events.subscribe(since=3))] == ["2", "3", "4"]
    assert taken(events.subscribe(since=1000)) == []


def test_who_falls_behind_is_told_how_much_it_missed() -> None:
    events = make(room=4)
    reader = events.subscribe()
    for n in range(10):
        events.publish(str(n), {})
    first, *rest = taken(reader)
    assert first == {"event": "events.missed", "count": 6}
    assert [e["event"] for e in rest] == ["6", "7", "8", "9"]
    assert events.missed == 6


def test_only_readers_that_wait_are_woken() -> None:
    events = make()
    woken: list[int] = []
    readers = [events.subscribe() for _ in range(1000)]
    for number, reader in enumerate(readers):
        reader.wake = lambda number=number: woken.append(number)  # type: ignore[misc]
    readers[5].take()
    events.publish("x", {})
    events.publish("y", {})
    assert woken == [5]


def test_much_is_taken_in_pieces() -> None:
    events = make(room=PIECE * 3)
    reader = events.subscribe()
    woken: list[bool] = []
    reader.wake = lambda: woken.append(True)
    for n in range(PIECE * 2):
        events.publish(str(n), {})
    assert len(taken(reader)) == PIECE
    assert woken
    assert len(taken(reader)) == PIECE


def test_the_first_and_the_last_reader_are_told() -> None:
    told: list[bool] = []
    events = Events(told.append)
    first, second = events.subscribe(), events.subscribe()
    first.end()
    first.end()
    assert told == [True]
    second.end()
    assert told == [True, False]
    assert first.take() == b""


def test_names_that_are_no_text_keep_their_bytes() -> None:
    events = make()
    reader = events.subscribe()
    events.publish("x", {"name": b"b\xfcro".decode(errors="surrogateescape")})
    assert b"b\\udcfcro" in reader.take()


def test_what_nobody_reads_is_counted_and_not_made_into_text() -> None:
    events, asked = Events(room=4), []
    reader = events.subscribe()

    def fields() -> dict[str, int]:
        asked.append(1)
        return {"n": 1}

    for _ in range(10):
        events.publish("flow.opened", fields)
    assert (events.missed, asked) == (6, [])
    other = events.subscribe(since=1)
    assert reader.take().count(b'"n":1') == other.take().count(b'"n":1') == 4
    assert len(asked) == 4  # once for both
    late = events.subscribe()
    missed = events.missed
    for _ in range(7):
        events.publish("flow.opened", {})
    late.end()  # has never read
    assert events.missed == missed + 3 + 3 + 3

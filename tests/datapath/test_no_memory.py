# SPDX-License-Identifier: GPL-2.0-or-later
"""Python's allocator says no, in each place where the module asks it.

It says so to every thread of a process, and a test runner has threads of its own, so
each test runs in a copy of the process, which has only the thread that made it.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from passtpy import _native
from tests.datapath.conftest import Server
from tests.datapath.guest import Guest, forward_to
from tests.datapath.packets import udp
from tests.lab.alone import alone

testcapi = pytest.importorskip(
    "_testcapi", reason="this Python has no tests of its own"
)
ENOUGH = 400  # requests for memory of one call
MISS_NS = 60_000_000_000  # longer than any miss is kept


def starved(call: Callable[[], Any]) -> Iterator[Any]:
    """Results of a call whose first, second, … request fails; at last none does."""
    for number in range(ENOUGH):
        testcapi.set_nomemory(number, number + 1)
        try:
            result = call()
        except MemoryError:
            result = None
        finally:
            testcapi.remove_mem_hooks()
        if result is not None:
            yield result
            return
        yield None
    raise AssertionError("it never had enough")


def last(results: Iterator[Any]) -> Any:
    """What came when there was enough, and that it was missed before."""
    found = list(results)
    assert len(found) > 1
    return found[-1]


@pytest.mark.taps("plain", why="records are the same on each")
@pytest.mark.parametrize(
    "what", ["counters", "flows", "capture_counts", "capture_take"]
)
@alone
def test_what_is_asked_again_is_complete(
    guest: Guest, server: Server, what: str
) -> None:
    guest.decide = forward_to(server.port)
    number = guest.dp.capture_start(bytes(0), 3, 100) if "capture" in what else 0
    guest.connect()
    calls: dict[str, Callable[[], Any]] = {
        "counters": guest.dp.counters,
        "flows": guest.dp.flows,
        "capture_counts": lambda: guest.dp.capture_counts(number),
        "capture_take": lambda: guest.dp.capture_take(number, 100, 1),
    }
    assert last(starved(calls[what]))


@pytest.mark.taps("plain", why="records are the same on each")
@alone
def test_a_miss_that_could_not_be_told_expires(guest: Guest) -> None:
    """So whoever sends again is asked about again."""
    told: list[object] = []
    for number in range(20):
        guest.put(udp(b"x", sport=41000 + number))
        testcapi.set_nomemory(number, number + 1)
        try:
            told.extend(guest.dp.turn(now=guest.now, spin_us=0))
        except MemoryError:
            continue
        finally:
            testcapi.remove_mem_hooks()
    assert 0 < len(told) < 20
    guest.now += MISS_NS
    guest.dp.turn(now=guest.now, spin_us=0)
    assert guest.counter("miss_expired") == 20
    guest.put(udp(b"x", sport=41000))
    assert len(guest.dp.turn(now=guest.now, spin_us=0)) == 1


@pytest.mark.taps("plain", why="records are the same on each")
@alone
def test_open_has_worked_though_its_answer_could_not_be_made(
    guest: Guest, server: Server
) -> None:
    def decide(miss: _native.Miss) -> None:
        verdict = forward_to(server.port)(miss)
        with pytest.raises(OSError, match="Stale"):
            list(starved(lambda: guest.dp.open(miss.miss_id, verdict)))  # type: ignore[arg-type]

    guest.decide = decide
    conn = guest.connect()
    conn.send(b"through")
    assert server.accept().recv(99) == b"through"

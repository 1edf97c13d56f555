# SPDX-License-Identifier: GPL-2.0-or-later
"""Calls of the datapath that fail on request, and what must hold whatever fails.

`Site` is one place where C makes a system call or asks for memory; a debug build lists
all of them. `trial()` runs a part of the scenario while some fail, then lets the kernel
be itself again and looks at what is left.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from passtpy import _native
from tests.datapath.guest import forward_to
from tests.datapath.packets import udp
from tests.faults.scenario import (
    HURRIED_S,
    PATIENT_S,
    WARY_S,
    Part,
    ScenarioGuest,
    Stage,
    settle,
)
from tests.lab.descriptors import none_left

ALWAYS = 2**32 - 1
EVENTS = [name for name, *_ in _native.EVENTS]


@dataclass(frozen=True)
class Site:
    """One place, by its number in this build."""

    number: int
    file: str
    line: int
    call: str
    errors: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.file}:{self.line} {self.call}"


@dataclass(frozen=True)
class Failure:
    """What a site is to do: fail with an error, after so many calls, so often."""

    site: Site
    error: int
    after: int = 0
    times: int = 1


def sites() -> list[Site]:
    """Every place, or none in a build that cannot do it."""
    if not hasattr(_native, "fault_sites"):
        return []
    return [
        Site(
            number,
            file.removeprefix("native/"),
            line,
            call,
            tuple(filter(None, errors)),
        )
        for number, (file, line, call, errors, _, _) in enumerate(_native.fault_sites())
    ]


def calls() -> list[int]:
    """How often each was called so far."""
    return [site[4] for site in _native.fault_sites()]


def first_of(part: Part) -> list[Failure]:
    """The failure that a part begins with."""
    if part.first is None:
        return []
    file, call, which, error, times = part.first
    there = [site for site in sites() if (site.file, site.call) == (file, call)]
    return [
        Failure(sorted(there, key=lambda site: site.line)[which], error, times=times)
    ]


@contextmanager
def failing(failures: Iterable[Failure]) -> Iterator[None]:
    """While the block runs these calls fail."""
    failures = list(failures)
    for it in failures:
        _native.fault(it.site.number, it.error, after=it.after, times=it.times)
    try:
        yield
    finally:
        for it in failures:
            _native.fault(it.site.number, 0, times=0)


def failed() -> int:
    """Calls that were made to fail so far."""
    return sum(site[5] for site in _native.fault_sites())


def trial(
    part: Part, tap: str, failures: list[Failure], *, patient: bool = False
) -> None:
    """Run a part while calls fail, and check what is left of it."""
    stage = Stage(tap, _patience(part, failures, patient))
    before = failed()
    with none_left():
        try:
            with failing([*first_of(part), *failures]):
                _run(part, stage, expected=bool(failures or part.first))
            stage.leave()
            for guest in stage.guests:
                _check(guest, failed() - before)
        finally:
            stage.close()


def _patience(part: Part, failures: list[Failure], patient: bool) -> float:
    """How long to wait for anything in a trial."""
    if failures and not patient:
        return HURRIED_S
    return WARY_S if failures or part.first else PATIENT_S


def _run(part: Part, stage: Stage, *, expected: bool) -> None:
    try:
        part.run(stage)
    except Stage.FAILURES:
        if not expected:
            raise


def _check(guest: ScenarioGuest, failures: int) -> None:
    """No flow is left, no failure was told twice, and what comes next is served."""
    if not guest.gone:
        settle(guest)
        assert guest.flows() == [], "stuck"
    lines = [EVENTS[event.event] for event in guest.dp.events(4096)]
    assert len(lines) <= failures, lines
    if not guest.gone:
        _serves(guest)


def _serves(guest: ScenarioGuest) -> None:
    """As if nothing had been."""
    guest.patience = PATIENT_S
    stage = Stage("")
    try:
        peer, server = stage.peer(), stage.server()
        guest.decide = forward_to(peer.getsockname()[1])
        guest.send(udp(b"still there?", sport=50001))
        assert peer.recv(99) == b"still there?"
        guest.decide = forward_to(server.port)
        guest.connect(sport=50002).say("R")
    finally:
        stage.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever call of the datapath fails: no crash, nothing left, and it goes on."""

import os
import random
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.datapath.conftest import TAPS
from tests.faults.impaired import IMPAIRED
from tests.faults.local import LOCAL
from tests.faults.policed import POLICED
from tests.faults.scenario import PARTS as USUAL
from tests.faults.scenario import (
    Part,
    ping_bound,
    ping_raw,
    splice_waiting,
)
from tests.faults.sites import ALWAYS, Failure, Site, calls, failed, sites, trial
from tests.lab.namespace import Namespace

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not sites(), reason="this build has no faults"),
]
RANGE, NOBODY, EVERYBODY = "net.ipv4.ping_group_range", "1 0", "0 2147483647"
PAIRS = int(os.environ.get("PASSTPY_FAULT_PAIRS", "100"))

# Calls that no part makes, and why none needs to
UNREACHED = {
    "base/sock.h getsockopt": "in open.c, for a port that is taken, and then stays so",
    "link/guest_mem.c mmap": "in the place of memory of ours: none is asked for",
    "link/tap_tun.c ioctl": "filters of a device, where these taps have sockets",
    "proto/splice_move.c recv": "with the pool used up; takes what was read already",
    "table/flow_hash.c madvise": "a hint, in a table that has grown",
    "table/pool.c madvise": "a hint, when much is given back",
}

SLOW = Part(splice_waiting)
PARTS = [*USUAL, IMPAIRED, LOCAL, *POLICED]

Reached = dict[Site, list[tuple[str, Part]]]


@pytest.fixture(scope="module")
def space() -> Iterator[Namespace]:
    """A namespace with nothing but loopback."""
    made = Namespace.create(f"passtpy-faults-{os.getpid()}")
    made.sysctl(RANGE, EVERYBODY)
    yield made
    made.delete()


def attempt(
    space: Namespace,
    tap: str,
    part: Part,
    failures: list[Failure],
    *,
    patient: bool = False,
) -> None:
    """A trial in that namespace."""
    if part.run in (ping_raw, ping_bound):
        space.sysctl(RANGE, NOBODY)
    try:
        with space.entered():
            trial(part, tap, failures, patient=patient)
    finally:
        space.sysctl(RANGE, EVERYBODY)


@pytest.fixture(scope="module")
def reached(space: Namespace) -> Reached:
    """Which parts make which calls, on which taps; all of them go well."""
    found: Reached = defaultdict(list)
    for tap in TAPS:
        for part in PARTS:
            before = calls()
            attempt(space, tap, part, [])
            for site, was, now in zip(sites(), before, calls(), strict=True):
                if now > was:
                    found[site].append((tap, part))
    return found


def test_the_scenario_makes_every_call(reached: Reached) -> None:
    missing = {f"{site.file} {site.call}" for site in sites() if site not in reached}
    assert missing == set(UNREACHED)


@pytest.mark.parametrize("site", sites(), ids=str)
def test_one_fails(space: Namespace, reached: Reached, site: Site) -> None:
    """Once, and always; in every part of the scenario that makes this call."""
    parts = {part: (tap, part) for tap, part in reached.get(site, [])}
    if len(parts) > 1:
        parts.pop(SLOW, None)
    before = failed()
    for tap, part in parts.values():
        for error in site.errors:
            for times in (1, ALWAYS):
                attempt(space, tap, part, [Failure(site, error, times=times)])
    if failed() == before:  # who hurries may give up before it comes to this call
        for tap, part in parts.values():
            failure = Failure(site, site.errors[0])
            attempt(space, tap, part, [failure], patient=True)
    assert failed() > before or not parts


@pytest.mark.parametrize("seed", range(PAIRS))
def test_two_fail(space: Namespace, reached: Reached, seed: int) -> None:
    dice = random.Random(seed)
    tap, part = dice.choice([(tap, part) for tap in TAPS for part in PARTS])
    there = [site for site, places in reached.items() if (tap, part) in places]
    attempt(
        space,
        tap,
        part,
        [
            Failure(
                site,
                dice.choice(site.errors),
                after=dice.choice((0, 0, 1, 3, 10)),
                times=dice.choice((1, 2, ALWAYS)),
            )
            for site in dice.sample(there, 2)
        ],
    )

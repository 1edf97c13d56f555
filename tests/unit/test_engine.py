# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine carries records between the datapath and those who answer them."""

import asyncio
import errno
from collections.abc import Callable
from ipaddress import IPv4Address
from typing import Any, Literal, cast

import pytest

from passtpy._native import EVENTS, Datapath, Event, Gone, Miss, Punt, Said
from passtpy.addr import UNSPECIFIED, inany
from passtpy.config.cli import parse_pasta
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.resolver import Resolver
from passtpy.config.view import View
from passtpy.engine import DROP, TURNS_PER_WAKE, Engine
from passtpy.flow import (
    FLOW_STRUCT,
    Action,
    FlowRecord,
    FlowWhy,
    MissLike,
    Pif,
    PuntKind,
    Verdict,
)
from passtpy.log import Log
from passtpy.policy.decide import Decider
from passtpy.policy.rules import ANY4, Drop, Match, Rule, ToHost
from passtpy.services.facts import Facts
from passtpy.services.registry import Services

MISS = Miss((5, 6, 2, UNSPECIFIED, 1, UNSPECIFIED, 2, -1, False, False))
ARP, BAD = Punt((PuntKind.ARP, b"abc")), Punt((PuntKind.ARP, b"bad"))
VERDICT = Verdict(Action.FORWARD, Pif.HOST, UNSPECIFIED, 2, UNSPECIFIED, 0, 9)


class FakeDatapath:
    """Returns prepared records, and remembers what it is told."""

    log_level = 0
    scope_id = 0

    def __init__(self, *turns: list[Any]) -> None:
        self.turns = list(turns)
        self.taken = 0
        self.pending: list[Any] = []
        self.opened: list[tuple[int, Verdict]] = []
        self.injected: list[bytes] = []
        self.closed = False
        self.fails = 0
        self.table: list[FlowRecord] = []
        self.verbs: list[tuple[int, ...]] = []
        self.ours: tuple[bytes, bytes] | None = None

    def our_addrs(self, v4: bytes, v6: bytes) -> None:
        self.ours = v4, v6

    def turn(self, **_: int) -> list[Any]:
        self.taken += 1
        return self.turns.pop(0) if self.turns else []

    def open(self, miss_id: int, verdict: Verdict, fd: int = -1) -> int:
        self.opened.append((miss_id, verdict))
        if self.fails:
            raise OSError(self.fails, "no")
        return 1

    def flows(self, cursor: int, limit: int) -> tuple[bytes, int]:
        last = cursor + 2  # two in a page, whatever was asked for
        page = b"".join(FLOW_STRUCT.pack(*flow) for flow in self.table[cursor:last])
        return page, last if last < len(self.table) else 0

    def close_flow(self, flow_id: int, why: int) -> None:
        self.verbs.append((flow_id, why))

    def verdict(self, flow_id: int, *, rule: int, generation: int) -> None:
        self.verbs.append((flow_id, rule, generation))

    def inject(self, frame: bytes) -> None:
        self.injected.append(frame)

    def fileno(self) -> int:
        return -1

    def events(self, limit: int) -> list[Any]:
        events, self.pending = self.pending[:limit], self.pending[limit:]
        return events

    def counters(self) -> dict[str, int]:
        return {"miss": 1}

    def close(self) -> None:
        self.closed = True


class FakeServices:
    """Answers each frame with its reverse; ticks when told to."""

    def __init__(self, due: int | None = None) -> None:
        self.next_due = due
        self.ticks: list[int] = []
        self.facts: Facts | None = None

    def update(self, facts: Facts) -> None:
        self.facts = facts
        self.next_due = 0

    def welcome(self) -> None:
        self.next_due = 0

    def handle(self, kind: int, frame: bytes, now: int) -> list[bytes]:
        if frame == b"bad":
            raise RuntimeError("a bug")
        return [frame[::-1]]

    def tick(self, now: int) -> list[bytes]:
        self.ticks.append(now)
        self.next_due = None
        return [b"tick"]

    def due(self) -> int | None:
        return self.next_due

    def counters(self) -> dict[str, int]:
        return {"arp": 2}


class FakeLoop:
    """Remembers what is to be called."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        pass

    def remove_reader(self, fd: int) -> bool:
        return True

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(
        self, delay: float, callback: Callable[[], None]
    ) -> asyncio.TimerHandle:
        self.later.append((delay, callback))
        return cast(asyncio.TimerHandle, FakeTimer())


class FakeTimer:
    def cancel(self) -> None:
        pass


class Decides(Decider):
    """Says the same about every miss, or fails."""

    def __init__(self, fails: bool = False) -> None:
        super().__init__(())
        self.fails = fails

    def decide(self, miss: MissLike) -> Verdict:
        if self.fails:
            raise RuntimeError("a bug")
        return VERDICT


def engine(
    datapath: FakeDatapath,
    services: FakeServices | None = None,
    decider: Decider | None = None,
) -> tuple[Engine, FakeLoop]:
    made = Engine(
        cast(Datapath, datapath),
        decider or Decides(),
        cast(Services, services or FakeServices()),
        View.of(Config(), HostInfo()),
        Log(),
        clock=lambda: 1_000_000_000,
    )
    loop = FakeLoop()
    made.start(cast(asyncio.AbstractEventLoop, loop), lambda errno: None)
    return made, loop


def test_a_miss_is_opened_with_its_verdict() -> None:
    datapath = FakeDatapath([MISS])
    engine(datapath)[0].pump()
    assert datapath.opened == [(5, VERDICT)]


def test_a_punted_frame_is_answered() -> None:
    datapath = FakeDatapath(
        [
            Punt(
                (
                    PuntKind.ARP,
                    b"abc",
                )
            )
        ]
    )
    engine(datapath)[0].pump()
    assert datapath.injected == [b"cba"]


def test_a_limit_that_was_hit_is_told_at_any_level() -> None:
    datapath = FakeDatapath()
    names = [name for name, _, _ in EVENTS]
    number = names.index("sock_limit")
    datapath.pending = [Event((5, number, -1, None, (24, 0, 0, 0)))]
    subject, told = engine(datapath)[0], []
    subject._log.warning = lambda event, **fields: told.append((event, fields))  # type: ignore[method-assign]
    subject.pump()
    reason = "Too many open files"
    assert told == [("sock_limit", {"errno": 24, "reason": reason})]


def test_one_more_turn_sends_what_was_answered() -> None:
    datapath = FakeDatapath([MISS])
    engine(datapath)[0].pump()
    assert datapath.taken == 2


def test_an_idle_wake_is_one_turn() -> None:
    datapath = FakeDatapath()
    engine(datapath)[0].pump()
    assert datapath.taken == 1


def test_a_flood_leaves_room_for_others() -> None:
    datapath = FakeDatapath(*([MISS] for _ in range(100)))
    made, loop = engine(datapath)
    made.pump()
    assert datapath.taken == TURNS_PER_WAKE
    assert len(loop.soon) == 1


def test_a_failing_decision_drops_the_miss() -> None:
    datapath = FakeDatapath([MISS])
    made, _ = engine(datapath, decider=Decides(fails=True))
    made.pump()
    assert datapath.opened == [(5, DROP)]
    assert made.statistics()["decide_failed"] == 1


@pytest.mark.parametrize(
    ("error", "told"),
    [(errno.ESTALE, 0), (errno.ENETUNREACH, 0), (errno.EINVAL, 1)],
)
def test_what_a_verdict_cannot_be_is_told(error: int, told: int) -> None:
    datapath = FakeDatapath([MISS, MISS])
    datapath.fails = error
    made, _ = engine(datapath)
    logged: list[str] = []
    made._log.warning = lambda event, **fields: logged.append(event)  # type: ignore[method-assign]
    made.pump()
    assert datapath.taken == 2  # the others go on
    assert made.statistics()["open_failed"] == 2 * told
    assert logged == ["open.failed"] * 2 * told


def test_a_failing_service_costs_its_frame_only() -> None:
    datapath = FakeDatapath(
        [
            Punt(
                (
                    PuntKind.ARP,
                    b"bad",
                )
            ),
            Punt(
                (
                    PuntKind.ARP,
                    b"abc",
                )
            ),
        ]
    )
    made, _ = engine(datapath)
    made.pump()
    assert datapath.injected == [b"cba"]
    assert made.statistics()["service_failed"] == 1


def test_services_are_asked_when_due() -> None:
    services = FakeServices(due=3_000_000_000)
    datapath = FakeDatapath()
    _, loop = engine(datapath, services)
    (delay, tick), *more = loop.later
    assert (delay, more) == (2.0, [])
    tick()
    assert services.ticks == [1_000_000_000]
    assert datapath.injected == [b"tick"]


def test_what_a_guest_says_is_heard_and_a_bug_costs_one_flow() -> None:
    datapath = FakeDatapath([Said((7, b"abc", False)), Said((8, b"bad", False))])
    made, loop = engine(datapath)
    heard: list[bytes | None] = []

    def hear(said: Said) -> None:
        heard.append(said.data)
        if said.data == b"bad":
            raise RuntimeError("a bug")

    made.inspect_by(hear)
    made.start(cast(asyncio.AbstractEventLoop, loop), lambda _: None)
    made.pump()
    assert heard == [b"abc", b"bad"]
    assert datapath.verbs == [(8, FlowWhy.ASKED)]
    assert made.statistics()["inspect_failed"] == 1


def test_a_vanished_tap_is_told() -> None:
    datapath = FakeDatapath([Gone((77,))])
    made, loop = engine(datapath)
    told: list[int] = []
    made.start(cast(asyncio.AbstractEventLoop, loop), told.append)
    made.pump()
    assert told == [77]


def test_statistics_are_of_everybody() -> None:
    made, _ = engine(FakeDatapath())
    assert {"miss", "arp", "decide_failed"} <= made.statistics().keys()


def test_stop_closes_the_datapath() -> None:
    datapath = FakeDatapath()
    made, _ = engine(datapath)
    made.stop()
    assert datapath.closed


@pytest.mark.parametrize(
    "records",
    [
        [MISS],
        [
            Punt(
                (
                    PuntKind.ARP,
                    b"abc",
                )
            )
        ],
    ],
)
def test_nothing_runs_after_stop(records: list[Any]) -> None:
    datapath = FakeDatapath(*([MISS] for _ in range(100)))
    made, loop = engine(datapath)
    made.pump()
    made.stop()
    taken = datapath.taken
    loop.soon[0]()
    assert datapath.taken == taken


def test_another_host_is_told_to_everybody() -> None:
    datapath, services, decider = FakeDatapath(), FakeServices(), Decides()
    made, loop = engine(datapath, services, decider)
    config = parse_pasta(["-4", "--dns-forward", "169.254.1.1"])
    host = HostInfo(ipv6=False, guest4=IPv4Address("192.0.2.7"), template6="lo")
    made.tell(View.of(config, host, Resolver((IPv4Address("192.0.2.53"),))))
    outcomes = [listed.rule.outcome for listed in decider.rules]
    assert ToHost(IPv4Address("192.0.2.53")) in outcomes
    assert services.facts is not None
    assert services.facts.guest4 == IPv4Address("192.0.2.7")
    assert datapath.scope_id == 1
    assert datapath.ours == (UNSPECIFIED, inany(host.our_link_local))
    assert loop.later[-1][0] < 0.1  # the services have something to say


def test_a_guest_may_leave_more_than_once() -> None:
    datapath = FakeDatapath([Gone((107,))], [], [Gone((71,)), MISS])
    made, loop = engine(datapath)
    told: list[int] = []
    made.start(cast(asyncio.AbstractEventLoop, loop), told.append)
    made.pump()
    made.pump()
    assert told == [107, 71]
    assert datapath.opened == [(5, VERDICT)]  # the rest goes on


def test_a_new_guest_is_welcomed_at_once() -> None:
    services = FakeServices()
    made, loop = engine(FakeDatapath(), services)
    made.welcome()
    (delay, tick) = loop.later[-1]
    assert delay <= 0.01
    tick()
    assert services.ticks


def flow(flow_id: int, port: int, generation: int) -> FlowRecord:
    """A TCP connection of the guest."""
    fields = dict.fromkeys(FlowRecord._fields, 0)
    guest, peer = inany(IPv4Address("192.0.2.5")), inany(IPv4Address("198.51.100.1"))
    sides = {"eaddr0": guest, "oaddr0": peer, "eaddr1": peer, "oaddr1": UNSPECIFIED}
    record = FlowRecord(**(fields | sides))  # type: ignore[arg-type]
    return record._replace(
        flow_id=flow_id,
        proto=6,
        pif0=Pif.TAP,
        pif1=Pif.HOST,
        oport0=port,
        listener=-1,
        generation=generation,
    )


def rules(*ports: int) -> list[Rule]:
    """All but these ports."""
    tcp = frozenset((6,))
    dropped = [Rule(Match(Pif.TAP, tcp, port=p), Drop(), "no") for p in ports]
    return [*dropped, Rule(Match(Pif.TAP, destinations=(ANY4,)), ToHost(), "yes")]


def test_open_flows_are_rechecked_between_turns() -> None:
    datapath = FakeDatapath()
    decider = Decider(rules())
    made, loop = engine(datapath, decider=decider)
    datapath.table = [flow(n, 20 + n % 2, 1) for n in range(5)]
    decider.replace(rules(21))
    datapath.table += [flow(5, 21, 2), flow(6, 21, 1)]
    made.recheck()
    assert len(datapath.verbs) == 2  # one page; the rest lets packets pass first
    while loop.soon:
        loop.soon.pop(0)()
    yes = decider.rules[-1].id
    asked = FlowWhy.POLICY
    assert datapath.verbs == [  # 5 is of this policy: not asked about again
        (0, yes, 2),
        (1, asked),
        (2, yes, 2),
        (3, asked),
        (4, yes, 2),
        (6, asked),
    ]
    assert made.statistics()["closed_by_policy"] == 3
    assert sum(decider.hits.values()) == 0


def test_a_second_recheck_starts_again() -> None:
    datapath = FakeDatapath()
    decider = Decider(rules())
    made, loop = engine(datapath, decider=decider)
    datapath.table = [flow(n, 20, 1) for n in range(3)]
    decider.replace(rules(99))
    made.recheck()
    decider.replace(rules(20))
    made.recheck()
    while loop.soon:
        loop.soon.pop(0)()
    assert datapath.verbs[2:] == [(n, FlowWhy.POLICY) for n in range(3)]


def test_a_recheck_ends_with_the_engine() -> None:
    datapath = FakeDatapath()
    decider = Decider(rules())
    made, loop = engine(datapath, decider=decider)
    datapath.table = [flow(n, 20, 1) for n in range(9)]
    decider.replace(rules(20))
    made.recheck()
    made.stop()
    for call in loop.soon:
        call()
    assert len(datapath.verbs) == 2


@pytest.mark.parametrize("open_flows", ["keep", "recheck"])
def test_whoever_tells_of_another_host_says_what_becomes_of_flows(
    open_flows: Literal["keep", "recheck"],
) -> None:
    datapath, decider = FakeDatapath(), Decider(rules())
    made, _ = engine(datapath, decider=decider)
    datapath.table = [flow(3, 80, 1)]
    view = View.of(parse_pasta(["-6"]), HostInfo(ipv4=False))
    made.tell(view, open_flows)
    assert datapath.verbs == ([(3, FlowWhy.POLICY)] if open_flows == "recheck" else [])

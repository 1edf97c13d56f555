# SPDX-License-Identifier: GPL-2.0-or-later
"""Owns the datapath: runs its turns, and carries what they return to those who know.

The engine is a plain callback of the event loop. A turn returns the few records that
Python must see: a miss goes to the decider, a punted frame to the services, and the
answers go straight back. Nothing here waits.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Literal, assert_never

from passtpy._native import EVENTS, Datapath, Event, Gone, Miss, Punt, Said
from passtpy.addr import UNSPECIFIED, is_v4
from passtpy.config.view import View
from passtpy.datapath import tell_host
from passtpy.flow import (
    IPPROTO_TCP,
    IPPROTO_UDP,
    Action,
    FlowRecord,
    FlowWhy,
    MissLike,
    Pif,
    PuntKind,
    Relayed,
    Verdict,
    describe_event,
    ends_inside,
    flows_in,
)
from passtpy.log import DATAPATH_LEVEL, Log, level_of_datapath_event
from passtpy.policy.listing import NO_RULE
from passtpy.policy.recheck import REFUSALS, recheck
from passtpy.policy.rules import Rule, refuse_all, rules_from_view
from passtpy.services.facts import facts_from_view

if TYPE_CHECKING:
    from passtpy.net.forwarding.multicast import Relay
    from passtpy.net.namespace.factory_client import SocketStock
    from passtpy.policy.decide import Decider, Waiting
    from passtpy.resolving import Resolving
    from passtpy.services.registry import Services

TURNS_PER_WAKE: Final = 16  # then other tasks of the loop get their chance
EVENTS_PER_WAKE: Final = 1024  # log records formatted between turns
FLOWS_PER_WAKE: Final = 128  # open flows decided about anew between turns
FLOWS_PER_PAGE: Final = 6  # listed between turns: some 25 us of text
FLOW_LIFE: Final = 1  # level of what tells how flows begin and end
_TICK_MIN_S: Final = 0.01

_KINDS: Final = {
    IPPROTO_TCP: socket.SOCK_STREAM,
    IPPROTO_UDP: socket.SOCK_DGRAM,
}
_FIRST_STOCK: Final = (socket.AF_INET, socket.AF_INET6)
_STOCK_DELAY_S: Final = 0.1  # a command that ends sooner has no use for it

# errno values of Datapath.open() that nobody but the decider can cause
_WRONG_VERDICT: Final = frozenset(
    (errno.EBADF, errno.EDESTADDRREQ, errno.EINVAL, errno.EPROTONOSUPPORT)
)

_OPENS: Final = (Action.FORWARD, Action.SPLICE, Action.INSPECT)
_DNS_PORT: Final = 53
_FOR_RELAY: Final = (PuntKind.GROUP, PuntKind.MEMBERSHIP)

Watcher = Callable[[str, Event], None]  # name of the event, and the event
Parked = Miss  # for those who hold one, and do not look into it
# Connects to a UNIX socket by its path; then a descriptor, or -1 and why
Connect = Callable[[str, Callable[[int, int], None]], None]
Hold = Callable[[Parked, "Waiting"], None]  # who has flows that wait
Hear = Callable[[Said], None]  # what guests say to flows that are inspected
Limited = Callable[[MissLike, Verdict], None]  # told of flows beyond a limit
Spent = Callable[[int, bool, int], None]  # told of a total: rule, outwards, bytes

DROP: Final = Verdict(Action.DROP, Pif.NONE, UNSPECIFIED, 0, UNSPECIFIED, 0, 0)


def _family(addr: bytes) -> int:
    return socket.AF_INET if is_v4(addr) else socket.AF_INET6


def _refused(verdict: Verdict) -> Verdict:
    return verdict._replace(action=Action.REJECT)


class Engine:
    """One datapath and its control plane."""

    def __init__(
        self,
        datapath: Datapath,
        decider: Decider,
        services: Services,
        view: View,
        log: Log,
        clock: Callable[[], int] = time.monotonic_ns,
        stock: SocketStock | None = None,
        relay: Relay | None = None,
    ) -> None:
        self.datapath = datapath
        self._decider = decider
        self._services = services
        self.view = view  # what rules and services were made from
        self._log = log
        self._clock = clock
        self._stock = stock
        self._relay = relay
        datapath.lift_groups = relay is not None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_gone: Callable[[int], None] = lambda errno: None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_due: int | None = None
        self._failures = {
            "decide_failed": 0,
            "inject_failed": 0,
            "inspect_failed": 0,
            "open_failed": 0,
            "service_failed": 0,
        }
        self._closed_by_policy = 0
        self._recheck_at: int | None = None  # where the walk over open flows goes on
        self._watcher: Watcher | None = None
        self._first_rules: tuple[Rule, ...] = ()  # before those of the view
        self._resolving: Resolving | None = None
        self._hold: Hold | None = None
        self._hear: Hear | None = None
        self._limited: Limited | None = None
        self._spent: Spent | None = None
        self._connect: Connect | None = None
        self._unix_targets = view.unix_targets()
        self.set_log_level()

    def start(
        self,
        loop: asyncio.AbstractEventLoop,
        on_gone: Callable[[int], None],
        early: Iterable[Miss | Punt | Said | Gone] = (),
    ) -> None:
        """Run from now on; `on_gone(errno)` each time the guest has disappeared.

        `early` is what a turn before that has returned.
        """
        self._loop = loop
        self._on_gone = on_gone
        loop.add_reader(self.datapath.fileno(), self.pump)
        self._schedule()
        if self._stock is not None:
            loop.call_later(_STOCK_DELAY_S, self._fill_stock)
        for record in early:
            self._dispatch(record)
            self._again()

    def stop(self) -> None:
        """Leave the loop, tell the last events, and close the datapath."""
        if self._loop is not None:
            self._loop.remove_reader(self.datapath.fileno())
            self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._drain_events():
            pass
        if self._stock is not None:
            self._stock.close()
        if self._relay is not None:
            self._relay.close()
        if self._resolving is not None:
            self._resolving.close()
        self.datapath.close()

    def pump(self) -> None:
        """Run turns while they return something to do, within bounds.

        What is decided or injected goes out with the next turn, so one more follows
        whenever a record was handled.
        """
        turn = self.datapath.turn
        records = turn()
        turns = 1
        while records:
            for record in records:
                self._dispatch(record)
            if turns == TURNS_PER_WAKE or self._loop is None:
                self._again()
                break
            records = turn()
            turns += 1
        if self._drain_events() and self._loop is not None:
            self._again()
        if turns > 1:
            self._schedule()

    def tell(self, view: View, open_flows: Literal["keep", "recheck"] = "keep") -> None:
        """Decide and answer after this view from now on.

        All new flows are decided about by its rules, at once. Open ones are kept, or
        rechecked: those that it would not let in are closed, the others go on.
        """
        self.view = view
        self._unix_targets = view.unix_targets()
        self._decider.replace((*self._first_rules, *rules_from_view(view)))
        egress = self._decider.egress
        if egress is not None and egress.look(view):
            self._decider.renew()
        if open_flows == "recheck":
            self.recheck()
        self.tell_services(view)
        tell_host(self.datapath, view)
        if self._relay is not None:
            self._relay.update(view.host)

    def tell_services(self, view: View) -> None:
        """Answer after this view; for facts that decide nothing about flows."""
        self.view = view
        self._services.update(facts_from_view(view))
        if self._resolving is not None:
            self._resolving.update(view)
        self._schedule()

    def recheck(self) -> None:
        """Close every open flow that the policy of now would not let in.

        A page at a time, between turns. Flows that were let in by this policy are not
        looked at, so none is missed and none is closed that is opened meanwhile.
        """
        running = self._recheck_at is not None
        self._recheck_at = 0
        if not running:
            self._recheck_page()

    def obey_policy(self) -> None:
        """Decide after what egress says from now on, about open flows as well."""
        egress = self._decider.egress
        assert egress is not None
        self._decider.renew()
        if self._resolving is not None:
            self._resolving.policy_changed()
            answers = self.view.config.dns_server or egress.captures_dns
            self.datapath.lift_dns = answers
        self.recheck()

    def connect_by(self, connect: Connect) -> None:
        """Have flows to UNIX sockets connected there."""
        self._connect = connect

    def hold_by(self, hold: Hold) -> None:
        """Have flows wait there for which something is to be done first.

        What becomes of them comes to carry_out(), or to decide() once more.
        """
        self._hold = hold

    def inspect_by(self, hear: Hear) -> None:
        """Have guests heard out there, whose flows are inspected."""
        self._hear = hear

    def tell_of_limits(self, limited: Limited, spent: Spent) -> None:
        """Have somebody told what limits refuse, and that a total is reached."""
        self._limited, self._spent = limited, spent

    def go_on(self) -> None:
        """Run a turn soon: something was opened, or refused, between two."""
        self._again()

    def refuse_connections(self) -> None:
        """Refuse every new TCP connection; what is open goes on."""
        self._first_rules = tuple(refuse_all(IPPROTO_TCP, "the daemon is ending"))
        self.tell(self.view)

    def answer_dns(self, resolving: Resolving) -> None:
        """Let every question of the guest be answered here from now on."""
        self._resolving = resolving
        self._services.add(PuntKind.DNS, resolving.service)
        egress = self._decider.egress
        by_policy = egress is not None and egress.captures_dns
        self.datapath.lift_dns = self.view.config.dns_server or by_policy

    def send(self, frame: bytes) -> None:
        """Send a frame to the guest, whenever."""
        if self._loop is not None:
            self._inject((frame,))
            self._again()

    def welcome(self) -> None:
        """A guest has come: tell it, and ask it, what every new one is."""
        self._services.welcome()
        self._schedule()
        self._again()

    def watch(self, watcher: Watcher | None) -> None:
        """Let somebody see how flows begin and end, and what hits a limit."""
        self._watcher = watcher
        self.set_log_level()

    def set_log_level(self) -> None:
        """Have the datapath tell what the log, or who watches, wants to know."""
        self.datapath.log_level = DATAPATH_LEVEL[self._log.level]
        self.datapath.watched = self._watcher is not None

    def pages(self) -> Iterator[list[FlowRecord]]:
        """Yield open flows, a page at a time; packets may move between two."""
        cursor = 0
        while True:
            page, cursor = self.datapath.flows(cursor, FLOWS_PER_PAGE)
            yield list(flows_in(page))
            if not cursor:
                return

    def close_flow(self, flow_id: int) -> bool:
        """Reset both ends of a flow; False if there is none."""
        try:
            self.datapath.close_flow(flow_id, FlowWhy.ASKED)
        except OSError:
            return False
        self._again()  # what it said goes out
        return True

    def statistics(self) -> dict[str, int]:
        """Return every counter of the datapath, the services and the engine."""
        counters = self.datapath.counters() | self._services.counters()
        if self._stock is not None:
            counters |= self._stock.counters()
        if self._relay is not None:
            counters |= self._relay.counters()
        if self._decider.egress is not None:
            counters |= self._decider.egress.counters()
        log = {"log_lines_lost": self._log.lost, "log_failures": self._log.failures}
        counters["closed_by_policy"] = self._closed_by_policy
        return counters | self._failures | log

    def _recheck_page(self) -> None:
        if self._loop is None or self._recheck_at is None:
            self._recheck_at = None
            return
        page, following = self.datapath.flows(self._recheck_at, FLOWS_PER_WAKE)
        closed = self._closed_by_policy
        for flow_id, verdict in recheck(self._decider, flows_in(page)):
            if verdict.action in REFUSALS:
                self.datapath.close_flow(flow_id, FlowWhy.POLICY)
                self._closed_by_policy += 1
            else:
                rule, generation = verdict.rule, verdict.generation
                self.datapath.verdict(flow_id, rule=rule, generation=generation)
        if self._closed_by_policy != closed:
            self._again()  # what it said goes out
        self._recheck_at = following or None
        if following:
            self._loop.call_soon(self._recheck_page)

    def _fill_stock(self) -> None:
        if self._loop is not None and self._stock is not None:
            for family in _FIRST_STOCK:
                self._stock.fill(family, socket.SOCK_STREAM)

    def _again(self) -> None:
        if self._loop is not None:
            self._loop.call_soon(self._pump_if_running)

    def _pump_if_running(self) -> None:
        if self._loop is not None:
            self.pump()

    def _dispatch(self, record: Miss | Punt | Said | Gone) -> None:
        match record:
            case Miss():
                self.decide(record)
            case Punt():
                self._on_punt(record.kind, record.frame)
            case Said():
                self._said(record)
            case Gone():
                self._on_gone(record.errno)
            case _:
                assert_never(record)

    def _said(self, record: Said) -> None:
        if self._hear is None:
            return
        try:
            self._hear(record)
        except Exception as error:  # as in decide()
            self._failures["inspect_failed"] += 1
            self._log.failure("inspect.failed", error)
            self.close_flow(record.flow_id)

    def decide(self, miss: Parked) -> None:
        """Decide about a miss, and do so."""
        if self._resolving is not None and self._is_question(miss):
            self._open_question(miss, self._resolving)
            return
        try:
            verdict = self._decider.decide(miss)
        except Exception as error:  # a bug must cost one flow, not the program
            self._failures["decide_failed"] += 1
            self._log.failure("decide.failed", error)
            verdict = DROP
        if isinstance(verdict, Verdict):
            self.carry_out(miss, verdict)
        elif self._hold is not None:
            self._hold(miss, verdict)
        else:
            self.carry_out(miss, _refused(verdict.verdict))

    def carry_out(self, miss: Miss, verdict: Verdict, fd: int = -1) -> None:
        """Make a flow of a miss, or refuse it; `fd`: a socket of ours for it."""
        if fd >= 0:
            self._open(miss, verdict, fd)
            return
        if verdict.action == Action.SPLICE and ends_inside(miss, verdict):
            self._open_inside(miss, verdict)
        elif verdict.action == Action.SPLICE and miss.listener in self._unix_targets:
            self._open_unix(miss, verdict, self._unix_targets[miss.listener])
        else:
            self._open(miss, verdict)

    def relay(self, miss: Miss, verdict: Verdict, relayed: Relayed) -> None:
        """Make a flow of datagrams that leave through a proxy."""
        if not self._open(miss, verdict, relayed.fd, relayed):
            os.close(relayed.control)

    def is_current(self, verdict: Verdict) -> bool:
        """Tell whether a verdict is of the policy of now."""
        return verdict.generation == self._decider.generation

    def _open(
        self,
        miss: Miss,
        verdict: Verdict,
        fd: int = -1,
        relayed: Relayed | None = None,
    ) -> bool:
        """Carry out a verdict; the initiator has been told when that failed.

        Networks, peers and limits refuse flows all day, which the datapath counts and
        logs. What only a wrong verdict can bring about is told here. False: it failed,
        and `fd` is closed.
        """
        try:
            if relayed is None:
                opened = self.datapath.open(miss.miss_id, verdict, fd)
            else:
                opened = self.datapath.open_relayed(
                    miss.miss_id, verdict, **relayed._asdict()
                )
        except OSError as error:
            if fd >= 0:
                os.close(fd)
            # Of who is accepted already the datapath keeps the miss, once
            refused = isinstance(error, ConnectionRefusedError)
            if refused and miss.pif != Pif.TAP and not miss.again:
                self.decide(Miss((*miss[:-1], True)))
            elif error.errno in _WRONG_VERDICT:
                self._failures["open_failed"] += 1
                self._log.warning("open.failed", error=str(error), rule=verdict.rule)
            return False
        if opened is None and verdict.action in _OPENS and self._limited is not None:
            self._limited(miss, verdict)
        return True

    def _is_question(self, miss: Miss) -> bool:
        """Tell whether a connection is for any DNS server: UDP is lifted by itself."""
        dns = miss.proto == IPPROTO_TCP and miss.oport == _DNS_PORT
        return dns and miss.pif == Pif.TAP and self.datapath.lift_dns

    def _open_question(self, miss: Miss, resolving: Resolving) -> None:
        """Let a connection end where questions are answered."""
        generation = self._decider.generation
        ends = miss.oaddr, miss.oport, UNSPECIFIED, 0
        try:
            fd = resolving.serve()
        except OSError:  # no descriptor is left, which the guest will see
            self._open(miss, _refused(DROP))
            return
        verdict = Verdict(Action.FORWARD, Pif.HOST, *ends, NO_RULE, generation)
        self._open(miss, verdict, fd)

    def _open_inside(self, miss: Miss, verdict: Verdict) -> None:
        """Open a flow with a socket of the namespace, at once or when it comes."""
        if self._stock is None:
            self._open(miss, _refused(verdict))
            return

        def use(fd: int) -> None:
            if late and verdict.generation != self._decider.generation:
                if fd >= 0:  # made for a flow of another policy
                    os.close(fd)
                self.decide(miss)
            elif fd < 0 and verdict.pif == Pif.SPLICE:
                self._open(miss, _refused(verdict))
            else:
                self._open(miss, verdict, fd)
            if late:
                self._again()

        late = False
        inside = verdict.eaddr if verdict.pif == Pif.SPLICE else miss.eaddr
        self._stock.take(_family(inside), _KINDS[miss.proto], use)
        late = True

    def _open_unix(self, miss: Miss, verdict: Verdict, path: str) -> None:
        """Open a flow with a socket that somebody else connects."""

        def use(fd: int, error: int) -> None:
            if verdict.generation != self._decider.generation:
                if fd >= 0:  # made for a flow of another policy
                    os.close(fd)
                self.decide(miss)
            elif fd < 0:
                self._log.debug("unix.failed", path=path, reason=os.strerror(error))
                self._open(miss, _refused(verdict))
            else:
                self._open(miss, verdict, fd)
            self._again()

        if self._connect is None:
            self._open(miss, _refused(verdict))
        else:
            self._connect(path, use)

    def _on_punt(self, kind: int, frame: bytes) -> None:
        now = self._clock()
        try:
            if self._relay is not None:
                self._relay.expire(now)
            if self._relay is not None and kind in _FOR_RELAY:
                self._relay.take(kind, frame, now)
            else:
                self._inject(self._services.handle(kind, frame, now))
        except Exception as error:  # as above: this frame only
            self._failures["service_failed"] += 1
            self._log.failure("service.failed", error)

    def _on_tick(self) -> None:
        self._timer = None
        if self._loop is None:
            return
        try:
            self._inject(self._services.tick(self._clock()))
        except Exception as error:
            self._failures["service_failed"] += 1
            self._log.failure("service.failed", error)
        self.pump()
        self._schedule()

    def _inject(self, frames: Iterable[bytes]) -> None:
        for frame in frames:
            try:
                self.datapath.inject(frame)
            except OSError:  # the guest's interface is down, or nobody is there
                self._failures["inject_failed"] += 1

    def _schedule(self) -> None:
        """Set the timer for when the services want to be asked next."""
        if self._loop is None:
            return
        due = self._services.due()
        if self._timer is not None:
            if due == self._timer_due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            delay = max((due - self._clock()) / 1e9, _TICK_MIN_S)
            self._timer = self._loop.call_later(delay, self._on_tick)
            self._timer_due = due

    def _drain_events(self) -> bool:
        """Log what happened to flows; True when there may be more."""
        events = self.datapath.events(EVENTS_PER_WAKE)
        logged = DATAPATH_LEVEL[self._log.level]
        for event in events:
            name, level, _ = EVENTS[event.event]
            if self._watcher is not None and level <= FLOW_LIFE:
                self._watcher(name.lower(), event)
            if name == "meter_spent" and self._spent is not None:
                rule, outwards, size = event.args[:3]
                self._spent(rule, bool(outwards), size)
            if level > logged:
                continue  # is there for the watcher only
            name, level, fields = describe_event(event, EVENTS)
            if level == 0:  # a limit was hit: always told, never in a flood
                if "errno" in fields:
                    fields["reason"] = os.strerror(int(str(fields["errno"])))
                self._log.warning(name, **fields)
                continue
            self._log.emit(level_of_datapath_event(level), name, fields, event.time_ns)
        return len(events) == EVENTS_PER_WAKE

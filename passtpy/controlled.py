# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as its control sockets see it: who answers what, and who may ask.

Each class here answers for one part of the daemon what passtpy/control/owners.py asks.
The sockets are made while we may still make them; they are served once all is set up.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from passtpy import __version__
from passtpy._native import COUNTER_MEANINGS, COUNTERS, Event
from passtpy.addr import Address, Mac, from_inany
from passtpy.config.model import AttachPath, AttachPid, Config, ServeSocket
from passtpy.config.portrule import PortTable
from passtpy.control.capture import Captures, Counts
from passtpy.control.events import Events
from passtpy.control.flows import PIF_NAMES
from passtpy.control.forwards import Applied, Listed
from passtpy.control.gvproxy import GVPROXY_VERBS, Services, as_text
from passtpy.control.http import Conversation, Router
from passtpy.control.owners import Owners, Question, RuleListed
from passtpy.control.pesto import PestoConversation
from passtpy.control.server import MAX_CLIENTS, Admit, Dialect, Server, WhoIs, admit_all
from passtpy.control.slirp import SlirpApi, SlirpConversation
from passtpy.control.verb import Code, ControlError, Json, Later, Value
from passtpy.control.verbs import METRICS, VERBS
from passtpy.engine import Engine
from passtpy.errors import PolicyError
from passtpy.flow import FlowRecord, FlowWhy, Pif, describe_flow, flows_in
from passtpy.log import Log, LogLevel
from passtpy.net.forwarding.listeners import Forwarding
from passtpy.net.namespace.guest import Guest
from passtpy.policy.decide import Decider
from passtpy.policy.explain import show_match, show_outcome
from passtpy.policy.question import QuestionError, answer, read_question

if TYPE_CHECKING:
    from passtpy.egress.egress import Egress
    from passtpy.limiting import Limiting
    from passtpy.policed import Policed

_MOST_READERS: Final = 16  # of metrics: anybody who can connect may be one
_SIDES: Final = {Pif.HOST: "HOST", Pif.SPLICE: "SPLICE"}


class Parts:
    """What the owners share: the parts of the daemon."""

    def __init__(
        self,
        config: Config,
        got: Guest,
        engine: Engine,
        decider: Decider,
        forwarding: Forwarding,
        log: Log,
        policed: Policed | None,
        limiting: Limiting | None,
        reload: Callable[[Callable[[PolicyError | None], None]], None],
        stop: Callable[[], None],
    ) -> None:
        self.config = config
        self.got = got
        self.engine = engine
        self.decider = decider
        self.forwarding = forwarding
        self.log = log
        self.policed = policed
        self.limiting = limiting
        self.reload = reload
        self.stop = stop
        self.started = time.time()
        self.pid = os.getpid()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.clients: Callable[[], Mapping[str, int]] = dict  # counters of ours

    @property
    def name(self) -> str:
        """Return what this instance is called."""
        return self.config.name or str(self.pid)


class DaemonInstance:
    """The daemon as a whole."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def describe(self) -> Json:
        parts, view = self._parts, self._parts.engine.view
        seen = parts.decider.guest
        return {
            "name": parts.name,
            "version": __version__,
            "program": parts.config.program,
            "pid": parts.pid,
            "uptime_s": round(time.time() - parts.started, 3),
            "started_at": round(parts.started, 3),
            "cpu_s": round(time.process_time(), 3),
            "guest": _guest_name(parts.config),
            "interface": parts.got.ifname or None,
            "mtu": parts.got.mtu,
            "addresses": [str(from_inany(raw)) for raw in seen.known()],
            "gateways": [str(a) for a in (view.host.gateway4, view.host.gateway6) if a],
            "dns": [str(each.target) for each in view.dns],
            "resolvers": [str(address) for address in view.resolver.nameservers],
        }

    def statistics(self) -> Mapping[str, int]:
        counters = {**self._parts.engine.statistics(), **self._parts.clients()}
        counters["flows"] = counters["flows_opened"] - counters["flows_closed"]
        return counters

    def meanings(self) -> Mapping[str, str]:
        return dict(zip(COUNTERS, COUNTER_MEANINGS, strict=True))

    def reload(self) -> Later:
        parts, later = self._parts, Later()

        def reloaded(error: PolicyError | None) -> None:
            if error is not None:
                later.settle(ControlError(Code.CONFLICT, str(error)))
            else:
                later.settle(Value({"generation": parts.decider.generation}))

        parts.reload(reloaded)
        return later

    def stop(self) -> Value:
        assert self._parts.loop is not None
        self._parts.loop.call_later(0.05, self._parts.stop)  # the answer goes first
        return Value({"stopping": True})


def _guest_name(config: Config) -> str:
    match config.target:
        case AttachPid(pid=pid):
            return f"pid {pid}"
        case AttachPath(path=path):
            return path
        case ServeSocket(path=path):
            return path or "machine"
    return "machine" if config.for_machine else "command"


class EngineFlows:
    """The flow table."""

    def __init__(self, parts: Parts) -> None:
        self._engine = parts.engine

    def pages(self) -> Iterator[Sequence[FlowRecord]]:
        return self._engine.pages()

    def close(self, flow_id: int) -> bool:
        return self._engine.close_flow(flow_id)

    def now(self) -> int:
        return time.monotonic_ns()


class DeciderRules:
    """The policy."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @property
    def generation(self) -> int:
        return self._parts.decider.generation

    def listed(self) -> Sequence[RuleListed]:
        decider = self._parts.decider
        hits = decider.hits
        listed = [
            RuleListed(
                each.id,
                each.number,
                None,
                show_match(each.rule.match),
                show_outcome(each.rule.outcome),
                each.rule.why,
                hits[each.id],
            )
            for each in decider.rules
        ]
        if decider.egress is not None:
            listed += _listed(decider.egress, len(listed))
        return listed

    def explain(self, question: Question) -> Json:
        decider, view = self._parts.decider, self._parts.engine.view
        asked = question.origin, question.proto, question.src, question.dst
        try:
            miss = read_question(*asked, decider.guest, view)
            return answer(decider, miss, question.name)
        except QuestionError as error:
            raise ControlError(Code.BAD_REQUEST, str(error), error.field) from None


def _listed(egress: Egress, before: int) -> Iterator[RuleListed]:
    """Yield the rules of a policy as every list of rules shows them."""
    from passtpy.egress.show import show_match

    for number, (each, rule, place, hits) in enumerate(egress.listed(), before + 1):
        match, outcome = show_match(rule), rule.effect.value
        yield RuleListed(each, number, rule.name, match, outcome, place, hits)


class PolicedPolicy:
    """What the guest may reach."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def _policed(self) -> Policed:
        policed = self._parts.policed
        if policed is None:
            text = "there is no policy: it was started without --policy and --allow"
            raise ControlError(Code.NOT_FOUND, text)
        return policed

    def limits(self) -> Iterator[Json]:
        limiting = self._parts.limiting
        return iter(()) if limiting is None else limiting.listed()

    def describe(self) -> Json:
        policed = self._policed()
        generation = self._parts.decider.generation
        return policed.describe() | {"generation": generation}

    def replace(self, text: str, files: Mapping[str, str]) -> Json:
        policed = self._policed()
        try:
            policed.replace(text, files)
        except PolicyError as error:
            raise ControlError(Code.CONFLICT, str(error), "text") from None
        generation = self._parts.decider.generation
        count = len(policed.egress.policy.rules)
        return {"generation": generation, "rules": count}

    def pins(self) -> Iterator[Json]:
        return self._policed().pins()

    def questions(self) -> Iterator[Json]:
        return self._policed().questions()

    def answer(self, number: int, allow: bool, remember: bool) -> Json:
        told = self._policed().answer(number, allow, remember)
        if told is None:
            raise ControlError(Code.NOT_FOUND, f"there is no question {number}", "id")
        return told


class ForwardingForwards:
    """The forwarding tables."""

    def __init__(self, parts: Parts) -> None:
        self._forwarding = parts.forwarding

    def tables(self) -> tuple[PortTable, ...]:
        return self._forwarding.tables()

    def listed(self) -> Sequence[Listed]:
        sides = {table.side.value: table.side for table in self.tables()}
        return [
            Listed(
                each.forward.id,
                sides[_SIDES[each.forward.pif]],
                each.forward.rule,
                each.open_ports,
            )
            for each in self._forwarding.standing()
        ]

    def replace(
        self,
        old: tuple[PortTable, ...],
        new: tuple[PortTable, ...],
        applied: Applied,
    ) -> None:
        self._forwarding.replace(old, new, applied)


class LogLevels:
    """The level of the log, for good or for a while."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._timer: asyncio.TimerHandle | None = None
        self._before: LogLevel | None = None

    def level(self) -> str:
        return self._parts.log.level.name.lower()

    def set_level(self, level: str, seconds: int | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        before = self._parts.log.level if self._before is None else self._before
        self._before = None
        self._set(LogLevel[level.upper()])
        if seconds is not None:
            assert self._parts.loop is not None
            self._before = before
            self._timer = self._parts.loop.call_later(seconds, self._go_back)

    def _go_back(self) -> None:
        self._timer = None
        if self._before is not None:
            self._set(self._before)
            self._before = None

    def _set(self, level: LogLevel) -> None:
        self._parts.log.level = level
        self._parts.engine.set_log_level()


class EventFeed:
    """Puts what happens to flows, and what the log says, into the ring of events."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.events = Events(self._heard)

    def _heard(self, anybody: bool) -> None:
        """Look at flows only while somebody listens."""
        self._parts.engine.watch(self._flow if anybody else None)
        self._parts.log.watcher = self._said if anybody else None

    def _said(self, level: str, event: str, fields: Mapping[str, object]) -> None:
        self.events.publish(event, {"level": level, **fields})

    def _flow(self, name: str, event: Event) -> None:
        if event.flow is None:
            return  # a limit: the log says it
        if name == "flow_closed":
            about = partial(_about, event.flow, event.args[0])
            self.events.publish("flow.closed", about)
        elif name == "flow_opened":
            self.events.publish("flow.opened", partial(_about, event.flow, None))


def _about(record: bytes, why: int | None) -> dict[str, object]:
    """Return what an event tells of a flow."""
    (flow,) = flows_in(record)
    about: dict[str, object] = {
        "id": flow.flow_id,
        "from": PIF_NAMES[Pif(flow.pif0)],
        "flow": describe_flow(flow),
    }
    if why is not None:
        about["reason"] = FlowWhy(why).name.lower()
    return about


class PacketRings:
    """The datapath's side of captures."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def start(self, program: bytes, sides: int, snaplen: int) -> int:
        return self._parts.engine.datapath.capture_start(program, sides, snaplen)

    def take(
        self, number: int, room: int, packets: int, last: bool
    ) -> tuple[bytes, int, bool]:
        return self._parts.engine.datapath.capture_take(number, room, packets, last)

    def counts(self, number: int) -> Counts:
        found = self._parts.engine.datapath.capture_counts(number)
        return Counts((found[0], found[2]), (found[1], found[3]), found[4])

    def finish(self, number: int) -> None:
        self._parts.engine.datapath.capture_finish(number)

    def stop(self, number: int) -> None:
        self._parts.engine.datapath.capture_stop(number)

    def now(self) -> int:
        return time.time_ns()

    def later(self, seconds: float, callback: Callable[[], None]) -> Callable[[], None]:
        assert self._parts.loop is not None
        return self._parts.loop.call_later(seconds, callback).cancel


class Control:
    """Serves all control sockets."""

    def __init__(
        self,
        sockets: Mapping[str, socket.socket],
        parts: Parts,
        owner: int,
        admit: Admit,
        who_is: WhoIs,
    ) -> None:
        """`owner` is the user who started us; root may always ask.

        `admit` says who else than such a user may not use the native socket, `who_is`
        whose process one is.
        """
        self._parts = parts
        parts.clients = self.counters
        self._feed = EventFeed(parts)
        self._captures = Captures(PacketRings(parts))
        self._users = frozenset((0, owner))
        self._servers = [
            Server(
                sock,
                self._dialect(kind),
                None if kind == "metrics" else self._users,
                self._failed,
                admit if kind == "native" else admit_all,
                _MOST_READERS if kind == "metrics" else MAX_CLIENTS,
                who_is,
            )
            for kind, sock in sockets.items()
        ]

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Answer from now on."""
        self._parts.loop = loop
        for server in self._servers:
            server.start(loop)

    def counters(self) -> dict[str, int]:
        """Return how many clients came, were refused, and failed."""
        found: dict[str, int] = {}
        for server in self._servers:
            for name, count in server.counters().items():
                found[name] = found.get(name, 0) + count
        return found | {"control_events_missed": self._feed.events.missed}

    def close(self) -> None:
        """Hang up on everybody."""
        self._feed.events.close()
        self._captures.close()
        for server in self._servers:
            server.close()

    def _failed(self, what: str, error: Exception) -> None:
        self._parts.log.failure("control.failed", error, request=what)

    def _dialect(self, kind: str) -> Callable[[int], Dialect]:
        parts = self._parts
        forwards = ForwardingForwards(parts)
        match kind:
            case "pesto":
                return lambda pid: self._pesto(forwards, pid)
            case "slirp":
                api = SlirpApi(forwards, lambda: _guest4(parts))
                return lambda pid: SlirpConversation(api)
            case "gvproxy":
                services = Services(
                    forwards,
                    lambda: _guest4(parts),
                    lambda: _leases(parts),
                    parts.engine.statistics,
                )
                foreign = Router(GVPROXY_VERBS, services, self._failed, as_text)
                return lambda pid: Conversation(foreign)
        owners = Owners(
            instance=DaemonInstance(parts),
            flows=EngineFlows(parts),
            rules=DeciderRules(parts),
            forwards=forwards,
            logging=LogLevels(parts),
            events=self._feed.events,
            captures=self._captures,
            policy=PolicedPolicy(parts),
        )
        verbs = (METRICS,) if kind == "metrics" else VERBS
        router = Router(verbs, owners, self._failed)
        return lambda pid: Conversation(router)

    def _pesto(self, forwards: ForwardingForwards, pid: int) -> Dialect:
        log = self._parts.log
        log.info("conf.client", text=f"Accepted configuration client, PID {pid}")
        return PestoConversation(
            forwards, lambda line: log.warning("conf.refused", text=line)
        )


def _guest4(parts: Parts) -> Any:
    return parts.engine.view.host.guest4


def _leases(parts: Parts) -> Mapping[Address, Mac]:
    host, mac = parts.engine.view.host, parts.engine.datapath.guest_mac
    return {} if host.guest4 is None else {host.guest4: mac}

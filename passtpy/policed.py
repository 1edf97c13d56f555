# SPDX-License-Identifier: GPL-2.0-or-later
"""A policy at work: joins what decides, the engine that obeys, and whoever is told.

It reads the policy again when it is told to, has flows wait about which somebody is to
be asked, and tells refusals to the log and to the audit file.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from passtpy.addr import from_inany
from passtpy.config.model import UdpFilter
from passtpy.egress.answers import Asked, Open
from passtpy.egress.audit import WINDOW_NS, Audit, Fields
from passtpy.egress.egress import Egress, Refused
from passtpy.egress.learn import Learner
from passtpy.egress.model import Effect, Policy
from passtpy.egress.show import show_policy
from passtpy.egress.source import Opened, PolicySource
from passtpy.egress.zones import surroundings_from_view
from passtpy.errors import PolicyError
from passtpy.flow import PROTO_NAMES, MissLike, Pif, Verdict
from passtpy.inspecting import Again, Found, Inspecting
from passtpy.net.kernel.connecting import WriterLoop
from passtpy.proxying import Proxying

if TYPE_CHECKING:
    import asyncio

    from passtpy.engine import Engine, Parked
    from passtpy.limiting import Limiting
    from passtpy.log import Log
    from passtpy.policy.decide import Decider, Waiting

_MOST_WAITING: Final = 256  # flows; the stage has more places
_NS: Final = 1_000_000_000

Write = Callable[[str, Fields], None]  # to the audit
Find = Callable[[str, int, Found], None]  # the addresses of a name


class Policed:
    """The policy of a running daemon."""

    def __init__(
        self,
        source: PolicySource,
        policy: Policy,
        engine: Engine,
        decider: Decider,
        log: Log,
        write: Write | None = None,
        learn_fd: int = -1,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._source = source
        self._engine = engine
        self._decider = decider
        self._log = log
        self._write = write
        self._clock = clock
        self._loop: asyncio.AbstractEventLoop | None = None
        around = surroundings_from_view(engine.view)
        self.egress = Egress(policy, around, decider.ids_besides().give, clock)
        self._audit = Audit(self._tell)
        self._waiting: dict[int, list[Again]] = {}  # by question
        self.egress.watchers.append(self._refused)
        self._learn_fd = learn_fd
        self._learner = Learner()
        if learn_fd >= 0:
            self.egress.watchers.append(self._learner.take)
        decider.guard(self.egress)
        engine.hold_by(self._take_waiting)
        self._filter_answers()
        self._limiting: Limiting | None = None
        self._inspecting: Inspecting | None = None
        self._proxying: Proxying | None = None

    def limit_by(self, limiting: Limiting) -> None:
        """Have limits obeyed, those of the policy that there is and of later ones."""
        self._limiting = limiting
        self._limit()
        self._engine.tell_of_limits(self._limited, self._spent)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have time pass, from now on."""
        self._loop = loop

    def connect_by(self, loop: WriterLoop, find: Find) -> None:
        """Let clients name their servers, and proxies connect.

        `find` looks names up.
        """
        config, engine = self._engine.view.config, self._engine
        self._inspecting = Inspecting(
            loop,
            engine.datapath,
            self.egress,
            find,
            self._ask,
            engine.go_on,
            (config.outbound_if4, config.outbound_if6),
            self._clock,
        )
        engine.inspect_by(self._inspecting.hear)
        self.egress.counts_besides = self._inspecting.counters

        def refuse(miss: Parked, waiting: Waiting) -> None:
            engine.carry_out(miss, self._decider.refuse(waiting.ruling))

        self._proxying = Proxying(loop, engine, self.egress, refuse, self._log)

    def close(self) -> None:
        """Tell what was counted and learnt."""
        if self._inspecting is not None:
            self._inspecting.close()
        if self._proxying is not None:
            self._proxying.close()
        self._audit.flush()
        if self._learn_fd >= 0:
            data = memoryview(self._learner.text().encode())
            with suppress(OSError):  # a disk that is full, a reader that left
                while data:
                    data = data[os.write(self._learn_fd, data) :]

    def reload(self, opened: Sequence[Opened]) -> None:
        """Read the policy from its files, which somebody has opened again.

        PolicyError: it is wrong, and the old one stays.
        """
        self._take(lambda: self._source.load_opened(opened))

    def replace(self, text: str, files: Mapping[str, str]) -> None:
        """Decide after a policy that somebody sent; PolicyError as above."""
        self._take(lambda: self._source.load_sent(text, files))

    def _take(self, load: Callable[[], Policy]) -> None:
        try:
            policy = load()
        except PolicyError as error:
            self._log.error("policy.wrong", text=str(error))
            raise
        self.egress.replace(policy)
        self._filter_answers()
        self._limit()
        self._engine.obey_policy()
        for question in self.egress.answers.open():
            self.egress.answers.take(question.number)
            for again in self._waiting.pop(question.number, ()):
                again()
        self._engine.go_on()
        count, generation = len(policy.rules), self._decider.generation
        self._log.info("policy.loaded", rules=count, generation=generation)

    def _filter_answers(self) -> None:
        """Let no port answer the guest that it may not have sent to.

        What answers from another port begins a flow, back through which the guest could
        send.
        """
        strict = self._engine.view.config.udp_filter is UdpFilter.ENDPOINT
        self._engine.datapath.udp_strict = strict or self.egress.policy.tells_ports

    # Limits

    def _limit(self) -> None:
        if self._limiting is None:
            return
        listed = self.egress.listed()
        names = {each: rule.name or place for each, rule, place, _ in listed}
        self._limiting.names = names
        self._limiting.hold(self.egress.limits())

    def _limited(self, miss: MissLike, verdict: Verdict) -> None:
        """Tell that a flow was refused for a limit of its rule, or of the guest."""
        if verdict.pif != Pif.HOST:
            return  # it came from outside, which no policy is about
        target, port = verdict.eaddr, verdict.eport
        ruling = self.egress.judge(target, port, miss.proto)
        ruling = ruling._replace(effect=Effect.REJECT)
        spent = self._limiting is not None and self._limiting.is_spent(verdict.rule)
        why = self.egress.beyond(ruling, spent=spent)
        self.egress.refused(miss, target, port, ruling, why=why)

    def _spent(self, rule: int, outwards: bool, size: int) -> None:
        if self._write is None:
            return
        names = {} if self._limiting is None else self._limiting.names
        fields: Fields = {"rule": rule}
        if rule in names:
            fields["reason"] = names[rule]
        fields |= {"direction": "out" if outwards else "in", "bytes": size}
        self._write("policy.used_up", fields)

    # Refusals

    def _refused(self, refused: Refused) -> None:
        begins = self._audit.take(refused, self._clock())
        if begins and self._loop is not None:
            self._loop.call_later(WINDOW_NS / _NS, self._audit.flush)

    def _tell(self, fields: Fields) -> None:
        self._log.info("policy.refused", **fields)
        if self._write is not None:
            self._write("policy.refused", fields)

    # Flows that may pass later

    def _take_waiting(self, miss: Parked, waiting: Waiting) -> None:
        """Let a flow pass, once it has done what it has to, or somebody has said so."""
        ruling, verdict = waiting.ruling, waiting.verdict
        ends = miss.proto, verdict.eaddr, verdict.eport
        if self.egress.has_to_name(ruling, miss.proto, verdict.eport):
            self._inspect(miss, waiting)
        elif ruling.effect is Effect.ASK:
            question = self.egress.question(ruling, *ends)
            if not self._ask(question, partial(self._engine.decide, miss)):
                self._refuse(miss, waiting, self._unanswered)
        elif ruling.via is None:
            self._engine.carry_out(miss, verdict)
        elif self._proxying is None or not self._proxying.take(
            miss, waiting, ruling.via
        ):
            self._refuse(miss, waiting, Effect.REJECT)

    def _inspect(self, miss: Parked, waiting: Waiting) -> None:
        """Have a client name its server; where that cannot be, it is refused."""
        inspecting, verdict = self._inspecting, waiting.verdict
        taken = inspecting is not None and inspecting.take(
            miss, miss.miss_id, verdict, waiting.ruling
        )
        if not taken:
            self._refuse(miss, waiting, Effect.REJECT)

    def _refuse(self, miss: Parked, waiting: Waiting, effect: Effect) -> None:
        ruling = waiting.ruling._replace(effect=effect)
        end = waiting.verdict.eaddr, waiting.verdict.eport
        self.egress.refused(miss, *end, ruling)
        self._engine.carry_out(miss, self._decider.refuse(ruling))

    # Questions

    def _ask(self, asked: Asked, again: Again) -> bool:
        """Have a flow wait, and ask about it unless somebody has been asked.

        `again` decides about it once more, when there is an answer. False: too many
        flows wait, or too many questions.
        """
        seconds = self.egress.policy.ask_s
        question = self.egress.answers.ask(asked)
        if question is None:
            return False
        flows = self._waiting.setdefault(question.number, [])
        if len(flows) >= _MOST_WAITING:
            return False
        if not flows:
            self._log.warning("policy.asked", **describe(question))
            if self._loop is not None:
                # By its number: a timer may run out a little before the clock says so.
                self._loop.call_later(seconds, self._expire, question.number)
        flows.append(again)
        return True

    @property
    def _unanswered(self) -> Effect:
        """Return what becomes of a flow about which nobody says anything."""
        drops = self.egress.policy.default is Effect.DROP
        return Effect.DROP if drops else Effect.REJECT

    def describe(self) -> dict[str, Any]:
        """Return what the policy says, for programs."""
        return {"file": self._source.path, **show_policy(self.egress)}

    def pins(self) -> Iterator[dict[str, Any]]:
        """Yield the pins that hold, for programs."""
        now = self._clock()
        for pin in list(self.egress.pins.listed(now)):
            yield {
                "address": str(from_inany(pin.address)),
                "name": pin.name,
                "seconds": (pin.expires_ns - now) // _NS,
            }

    def questions(self) -> Iterator[dict[str, Any]]:
        """Yield the questions that wait, for programs."""
        for question in self.egress.answers.open():
            flows = len(self._waiting.get(question.number, ()))
            yield describe(question) | {"flows": flows}

    def answer(self, number: int, allow: bool, remember: bool) -> dict[str, Any] | None:
        """Let the flows that wait for an answer pass, or refuse them; None: no such.

        `remember`: whatever is like them, too, as long as the rule stays. Otherwise it
        holds for those that wait, and as long as their clients try again.
        """
        question = self.egress.answers.take(number)
        if question is None:
            return None
        effect = Effect.ALLOW if allow else Effect.REJECT
        self._settle(question, effect, remember)
        return describe(question) | {"answer": "allow" if allow else "deny"}

    def _settle(self, question: Open, effect: Effect, remember: bool) -> None:
        """Do what was answered with the flows that wait.

        Those that waited longer than the stage keeps them are tried again by their
        clients, and find the answer.
        """
        answers, wait_s = self.egress.answers, self.egress.policy.ask_s
        answers.remember(question.asked, effect)
        if not remember and self._loop is not None:
            self._loop.call_later(wait_s, answers.forget, question.asked)
        for again in self._waiting.pop(question.number, ()):
            again()  # by the policy of now, which has the answer
        self._engine.go_on()

    def _expire(self, number: int) -> None:
        question = self.egress.answers.take(number)
        if question is not None:  # nobody has answered it
            self._settle(question, self._unanswered, False)


def describe(question: Open) -> dict[str, Any]:
    """Return what a question says."""
    asked = question.asked
    return {
        "question": question.number,
        "proto": PROTO_NAMES[asked.proto],
        "to": asked.where,
        "address": str(from_inany(asked.target)),
        "port": asked.port,
        "rule": asked.rule,
    }

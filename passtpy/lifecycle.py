# SPDX-License-Identifier: GPL-2.0-or-later
"""What signals mean to a daemon that serves, and what its service manager is told.

SIGTERM, SIGINT, SIGQUIT, `passtpy stop`: end; with --drain-timeout once open TCP
connections have ended, and the second one at once. SIGHUP, `passtpy reload`: open the
log file again by its name, and apply the policy to open flows. SIGUSR1: write what is
open, and the counters, to the log. A command gets its signals itself, and none of this
is about it.
"""

import signal
from collections import Counter
from collections.abc import Callable
from typing import Final

from passtpy.errors import PolicyError
from passtpy.flow import FlowType
from passtpy.log import Log
from passtpy.net.kernel.signals import Signal, take_signals
from passtpy.reloading import Reloaded
from passtpy.session import EXIT_OK, Session
from passtpy.supervisor import Supervisor

SERVING: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
)
CONNECTIONS: Final = (FlowType.TCP, FlowType.TCP_SPLICE)
LOOK_S: Final = 0.1  # while connections are waited for
WATCHDOG_SHARE: Final = 0.5  # of the time that the service manager allows


class LifeCycle:
    """The life of a daemon, from readiness to the end."""

    def __init__(
        self, session: Session, supervisor: Supervisor, log: Log, drain_s: float
    ) -> None:
        self._session = session
        self._supervisor = supervisor
        self._log = log
        self._drain_s = drain_s
        self._draining = False
        self._status = ""

    def take_signals(self) -> None:
        """Have every signal that is ours do what it means, from now on."""
        self._session.on_signals(take_signals(SERVING), self._on_signal)
        self._session.obey(self._reload, lambda: self._end("passtpy stop"))

    def start(self, status: str) -> None:
        """Tell that we serve, and that we are alive, from now on."""
        self._status = status
        self._supervisor.ready(status)
        self._beat()

    def _on_signal(self, got: Signal) -> None:
        if got.number == signal.SIGHUP:
            self._reload(lambda error: None)  # the log has it
        elif got.number == signal.SIGUSR1:
            self._summarise()
        else:
            self._end(signal.Signals(got.number).name)

    def _beat(self) -> None:
        allowed = self._supervisor.watchdog_s
        if allowed is not None:
            self._supervisor.alive()
            self._session.loop.call_later(allowed * WATCHDOG_SHARE, self._beat)

    def _reload(self, done: Reloaded) -> None:
        def reloaded(error: PolicyError | None) -> None:
            self._supervisor.ready(self._status)
            done(error)

        self._supervisor.reloading()
        self._session.reload(reloaded)

    def _end(self, why: str) -> None:
        if self._drain_s and not self._draining:
            self._draining = True
            self._log.info("drain.started", cause=why, timeout_s=self._drain_s)
            self._supervisor.stopping("waiting for open connections to end")
            self._session.refuse_connections()
            self._wait(self._session.loop.time() + self._drain_s)
            return
        self._supervisor.stopping("ending")
        self._session.stop(EXIT_OK)

    def _wait(self, until: float) -> None:
        """End when no connection is left, or it is late."""
        loop = self._session.loop

        def counted(open_flows: Counter[FlowType]) -> None:
            left = sum(open_flows[kind] for kind in CONNECTIONS)
            if left and loop.time() < until:
                loop.call_later(LOOK_S, self._wait, until)
                return
            self._log.info("drain.ended", connections_left=left)
            self._session.stop(EXIT_OK)

        self._count(counted)

    def _summarise(self) -> None:
        """Log how many flows of each type are open, then each counter that counted."""

        def counted(open_flows: Counter[FlowType]) -> None:
            each = {kind.name.lower(): count for kind, count in open_flows.items()}
            self._log.info("summary.flows", total=open_flows.total(), **each)
            counters = self._session.statistics()
            counted = {name: count for name, count in counters.items() if count}
            self._log.info("summary.counters", **counted)

        self._count(counted)

    def _count(self, done: Callable[[Counter[FlowType]], None]) -> None:
        """Count open flows by type, a page between turns; then call `done`."""
        found: Counter[FlowType] = Counter()
        pages = self._session.pages()

        def step() -> None:
            page = next(pages, None)
            if page is None:
                done(found)
            else:
                found.update(FlowType(flow.type) for flow in page)
                self._session.loop.call_soon(step)

        step()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A flow that ends in the namespace needs a socket from there: now, or later."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, cast

import pytest

from passtpy._native import Datapath, Miss
from passtpy.addr import UNSPECIFIED, inany
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.portrule import PortRule
from passtpy.config.view import View
from passtpy.engine import Engine
from passtpy.flow import Action, MissLike, Pif, Verdict
from passtpy.log import Log
from passtpy.net.namespace.factory_client import SocketStock
from passtpy.policy.decide import Decider
from passtpy.policy.rules import Drop, Match, Rule
from passtpy.services.facts import Facts
from passtpy.services.registry import Services

LO4, LO6 = inany(ip_address("127.0.0.1")), inany(ip_address("::1"))
TCP, UDP = 6, 17


class FakeDatapath:
    log_level = 0

    def __init__(self, *records: Miss) -> None:
        self.records = [*records]
        self.opened: list[tuple[int, Verdict, int]] = []

    def turn(self, **_: int) -> list[Miss]:
        taken, self.records = self.records, []
        return taken

    def open(self, miss_id: int, verdict: Verdict, fd: int = -1) -> int:
        self.opened.append((miss_id, verdict, fd))
        return 1

    def events(self, limit: int) -> list[Any]:
        return []

    def fileno(self) -> int:
        return -1

    def close(self) -> None:
        pass


class FakeStock:
    def __init__(self, *ready: int) -> None:
        self.ready = [*ready]
        self.waiting: list[Callable[[int], None]] = []
        self.asked: list[tuple[int, int]] = []
        self.closed = False

    def take(self, family: int, kind: int, use: Callable[[int], None]) -> None:
        self.asked.append((family, kind))
        if self.ready:
            use(self.ready.pop(0))
        else:
            self.waiting.append(use)

    def fill(self, family: int, kind: int) -> None:
        self.asked.append((family, kind))

    def counters(self) -> dict[str, int]:
        return {"splice_waited": len(self.waiting)}

    def close(self) -> None:
        self.closed = True


class NoServices:
    def welcome(self) -> None:
        pass

    def handle(self, kind: int, frame: bytes, now: int) -> list[bytes]:
        return []

    def tick(self, now: int) -> list[bytes]:
        return []

    def due(self) -> None:
        return None

    def counters(self) -> dict[str, int]:
        return {}

    def update(self, facts: Facts) -> None:
        pass


class FakeLoop:
    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []

    def add_reader(self, *_: Any) -> None:
        pass

    def remove_reader(self, *_: Any) -> None:
        pass

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.soon.append(callback)

    def call_later(self, *_: Any) -> None:
        pass


class Decides(Decider):
    """Says the same about every miss, in the name of the policy of now."""

    def __init__(self, verdict: Verdict) -> None:
        super().__init__(())
        self.verdict = verdict
        self.asked = 0

    def decide(self, miss: MissLike) -> Verdict:
        self.asked += 1
        return self.verdict._replace(generation=self.generation)


def miss(proto: int = TCP) -> Miss:
    return Miss((5, proto, Pif.HOST, LO4, 40000, LO4, 80, 0, False, False))


def inside(target: bytes = LO4) -> Verdict:
    return Verdict(Action.SPLICE, Pif.SPLICE, target, 80, UNSPECIFIED, 0, 3, 1)


def engine(
    datapath: FakeDatapath,
    verdict: Verdict,
    stock: FakeStock | None,
    decider: Decider | None = None,
    view: View | None = None,
) -> tuple[Engine, FakeLoop]:
    made = Engine(
        cast(Datapath, datapath),
        decider or Decides(verdict),
        cast(Services, NoServices()),
        view or View.of(Config(), HostInfo()),
        Log(),
        stock=cast(SocketStock, stock),
    )
    loop = FakeLoop()
    made.start(cast(asyncio.AbstractEventLoop, loop), lambda errno: None)
    return made, loop


@pytest.mark.parametrize(
    ("proto", "target", "asked"),
    [
        (TCP, LO4, (socket.AF_INET, socket.SOCK_STREAM)),
        (TCP, LO6, (socket.AF_INET6, socket.SOCK_STREAM)),
        (UDP, LO4, (socket.AF_INET, socket.SOCK_DGRAM)),
    ],
)
def test_a_ready_socket_is_used_at_once(
    proto: int, target: bytes, asked: tuple[int, int]
) -> None:
    datapath, stock = FakeDatapath(miss(proto)), FakeStock(17)
    engine(datapath, inside(target), stock)[0].pump()
    assert datapath.opened == [(5, inside(target), 17)]
    assert stock.asked == [asked]


def test_an_initiator_inside_has_a_socket_of_its_own_family() -> None:
    """Its datagrams may go on in the other one."""
    outward = inside(LO6)._replace(pif=Pif.HOST)
    asked = Miss((5, UDP, Pif.SPLICE, LO4, 40000, LO4, 80, 0, False, True))
    datapath, stock = FakeDatapath(asked), FakeStock(17)
    engine(datapath, outward, stock)[0].pump()
    assert datapath.opened == [(5, outward, 17)]
    assert stock.asked == [(socket.AF_INET, socket.SOCK_DGRAM)]


def test_a_verdict_waits_for_its_socket() -> None:
    datapath, stock = FakeDatapath(miss()), FakeStock()
    _, loop = (made := engine(datapath, inside(), stock))
    made[0].pump()
    assert datapath.opened == []
    stock.waiting[0](17)
    assert datapath.opened == [(5, inside(), 17)]
    assert len(loop.soon) == 1  # what it moved goes out with another turn


def test_a_verdict_of_an_older_policy_is_not_carried_out() -> None:
    datapath, stock = FakeDatapath(miss()), FakeStock()
    decider = Decides(inside())
    engine(datapath, inside(), stock, decider)[0].pump()
    decider.verdict = inside()._replace(action=Action.REJECT, rule=4)
    decider.replace([Rule(Match(Pif.HOST), Drop(), "no more")])
    came = os.dup(0)
    stock.waiting[0](came)
    assert decider.asked == 2
    refusal = decider.verdict._replace(generation=2)
    assert datapath.opened == [(5, refusal, -1)]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(came)


def test_who_is_refused_is_decided_about_once_more() -> None:
    class Refusing(FakeDatapath):
        def open(self, miss_id: int, verdict: Verdict, fd: int = -1) -> int:
            super().open(miss_id, verdict, fd)
            raise ConnectionRefusedError

    class Elsewhere(Decides):
        def decide(self, miss: MissLike) -> Verdict:
            return super().decide(miss)._replace(eaddr=LO6 if miss.again else LO4)

    came = [os.dup(0), os.dup(0)]
    datapath, stock = Refusing(miss()), FakeStock(*came)
    decider = Elsewhere(inside())
    engine(datapath, inside(), stock, decider)[0].pump()
    assert datapath.opened == [(5, inside(), came[0]), (5, inside(LO6), came[1])]
    for fd in came:  # no flow has taken it over
        with pytest.raises(OSError, match="Bad file"):
            os.fstat(fd)


def test_without_a_socket_the_flow_is_rejected() -> None:
    datapath, stock = FakeDatapath(miss()), FakeStock(-1)
    engine(datapath, inside(), stock)[0].pump()
    assert [(v.action, fd) for _, v, fd in datapath.opened] == [(Action.REJECT, -1)]


def test_without_a_factory_the_flow_is_rejected() -> None:
    datapath = FakeDatapath(miss())
    engine(datapath, inside(), None)[0].pump()
    assert [v.action for _, v, _ in datapath.opened] == [Action.REJECT]


def test_a_flow_to_the_hosts_loopback_needs_no_socket() -> None:
    verdict = inside()._replace(pif=Pif.HOST)
    datapath, stock = FakeDatapath(miss()), FakeStock(17)
    engine(datapath, verdict, stock)[0].pump()
    assert datapath.opened == [(5, verdict, -1)]
    assert stock.ready == [17]


class Connector:
    """Connects to UNIX sockets when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Callable[[int, int], None]]] = []

    def __call__(self, path: str, use: Callable[[int, int], None]) -> None:
        self.asked.append((path, use))


def towards_unix(
    decider: Decides | None = None,
) -> tuple[FakeDatapath, Verdict, Connector, FakeLoop]:
    """A miss of a listener that leads to a UNIX socket of the host."""
    verdict, connector = inside()._replace(pif=Pif.HOST), Connector()
    datapath = FakeDatapath(miss())
    rule = PortRule(TCP, None, "lo", 80, 80, to_path="/run/x.sock")
    view = View.of(Config(ns_ports=(rule,)), HostInfo())
    made, loop = engine(datapath, verdict, None, decider, view)
    made.connect_by(connector)
    made.pump()
    return datapath, verdict, connector, loop


def test_a_flow_to_a_unix_socket_waits_until_it_is_connected() -> None:
    datapath, verdict, connector, loop = towards_unix()
    ((path, use),) = connector.asked
    assert path == "/run/x.sock"
    assert datapath.opened == []
    use(17, 0)
    assert datapath.opened == [(5, verdict, 17)]
    assert loop.soon


def test_a_unix_socket_that_refuses_refuses_the_flow() -> None:
    datapath, _, connector, _ = towards_unix()
    connector.asked[0][1](-1, errno.ECONNREFUSED)
    assert [(v.action, fd) for _, v, fd in datapath.opened] == [(Action.REJECT, -1)]


def test_a_connected_socket_for_an_older_policy_is_not_used() -> None:
    decider = Decides(inside()._replace(pif=Pif.HOST))
    datapath, _, connector, _ = towards_unix(decider)
    decider.verdict = inside()._replace(action=Action.REJECT)
    decider.replace([Rule(Match(Pif.HOST), Drop(), "no more")])
    came = os.dup(0)
    connector.asked[0][1](came, 0)
    assert [v.action for _, v, _ in datapath.opened] == [Action.REJECT]
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(came)


def test_the_stock_ends_with_the_engine() -> None:
    stock = FakeStock()
    engine(FakeDatapath(), inside(), stock)[0].stop()
    assert stock.closed

# SPDX-License-Identifier: GPL-2.0-or-later
"""Automatic ports by the thousand are opened and closed in steps."""

from collections.abc import Callable
from typing import Any

import pytest

from passtpy.addr import UNSPECIFIED
from passtpy.config.model import Config
from passtpy.config.portrule import PortRule
from passtpy.flow import IPPROTO_TCP, IPPROTO_UDP
from passtpy.log import Log
from passtpy.net.forwarding import sockets
from passtpy.net.forwarding.listeners import LOOKED_AT, Forwarding
from passtpy.net.forwarding.sockets import PIECE
from passtpy.net.kernel.sockdiag import Found
from passtpy.policy import auto
from passtpy.policy.auto import Heard
from tests.unit.net.forwarding.test_change import Loop, tables

MANY = 5000
SCAN = PortRule(proto=6, addr=None, ifname=None, first=1, last=65535, scan=True)


class Datapath:
    """Remembers what listens, and counts the work."""

    def __init__(self) -> None:
        self.heard: set[int] = set()
        self.work = 0

    def listen(self, _fd: int, _proto: int, listener: int, _pif: int = 1) -> None:
        self.heard.add(listener)
        self.work += 1

    def unlisten(self, listener: int) -> None:
        self.heard.remove(listener)
        self.work += 1


class Socket:
    """Never opened."""

    def detach(self) -> int:
        return -1


class House:
    def __init__(self) -> None:
        self.datapath, self.loop = Datapath(), Loop()
        it: Any = self.datapath
        config = Config(host_ports=(SCAN,))
        self.forwarding = Forwarding(config, tables(SCAN), it, None, Log())
        self.forwarding._room = 65536
        loop: Any = self.loop
        self.forwarding._loop = loop
        self.forwarding._sockets.start(loop)

    def look(self, inside: Found) -> list[int]:
        """Find this in the namespace; return the work of each callback."""
        work = []
        self.datapath.work = 0
        self.forwarding._follow({}, inside)
        while True:
            work.append(self.datapath.work)
            self.datapath.work = 0
            if not self.loop.due:
                return work
            self.loop.due.pop(0)()


def found(count: int) -> Found:
    heard = [Heard(20_000 + n, UNSPECIFIED, True) for n in range(count)]
    return {IPPROTO_TCP: heard, IPPROTO_UDP: []}


@pytest.fixture
def house(monkeypatch: pytest.MonkeyPatch) -> House:
    def opener(*_args: Any, **_more: Any) -> Callable[[int], Socket]:
        return lambda port: Socket()

    monkeypatch.setattr(sockets, "opener", opener)
    return House()


def test_thousands_of_ports_come_and_go_in_steps(house: House) -> None:
    came = house.look(found(MANY))
    assert (sum(came), max(came)) == (MANY, PIECE)
    assert len(house.datapath.heard) == MANY
    house.look(found(0))  # what is gone is looked for twice
    went = house.look(found(0))
    assert (sum(went), max(went)) == (MANY, PIECE)
    assert house.datapath.heard == set()


def test_what_was_found_is_looked_at_in_steps(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[int] = []
    original = auto.served

    def served(heard: Any, reach: Any, ours: Any) -> auto.Ports:
        looked_at.append(len(heard))
        return original(heard, reach, ours)

    monkeypatch.setattr(auto, "served", served)
    house.look(found(MANY))
    assert (sum(looked_at), max(looked_at)) == (MANY, LOOKED_AT)


def test_a_look_that_comes_too_early_is_left_out(house: House) -> None:
    house.forwarding._follow({}, found(MANY))
    house.forwarding._follow({}, found(0))
    house.loop.run()
    assert len(house.datapath.heard) == MANY


def test_a_forward_that_goes_meanwhile_takes_all_its_ports_along(house: House) -> None:
    house.look(found(MANY))
    house.look(found(0))
    house.forwarding._follow({}, found(0))
    house.loop.due.pop(0)()
    house.forwarding.replace(house.forwarding.tables(), tables(), lambda why: None)
    house.loop.run()
    assert house.datapath.heard == set()


def test_a_port_that_is_named_comes_before_all(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    weak = PortRule(proto=6, addr=None, ifname=None, first=1, last=100, weak=True)
    named = PortRule(proto=6, addr=None, ifname=None, first=4000, last=4000)
    it: Any = house.datapath
    config = Config(host_ports=(weak, named))
    forwarding = Forwarding(config, tables(weak, named), it, None, Log())
    forwarding._room = 40
    forwarding.open()
    all_ports, port = forwarding.forwards
    assert forwarding._open[port.id] == {4000}
    assert len(forwarding._open[all_ports.id]) == 39

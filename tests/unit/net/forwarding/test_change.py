# SPDX-License-Identifier: GPL-2.0-or-later
"""Forwards replaced while in use: all or nothing, and what stays is never closed."""

import os
import random
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest

from passtpy.addr import inany
from passtpy.config.model import Config
from passtpy.config.portrule import Able, PortRule, PortTable, Side
from passtpy.errors import SetupError
from passtpy.log import Log
from passtpy.net.forwarding.listeners import Forwarding
from tests.lab.loopback import wait_delivered

ALL = Able(63)
# Others bind to 127.0.0.1: tests in other processes, and whoever connects to them
LO = IPv4Address("127.64.0.0") + os.getpid()
NAMELESS, ANY4 = IPv4Address("127.0.0.1"), IPv4Address(0)


class Datapath:
    """Remembers which socket listens under which number."""

    def __init__(self) -> None:
        self.heard: dict[int, int] = {}
        self.closed: list[int] = []

    def listen(self, fd: int, proto: int, listener: int, pif: int = 1) -> None:
        assert listener not in self.heard
        self.heard[listener] = fd

    def listen_nameless(self, fd: int, listener: int, addr: bytes, port: int) -> None:
        assert (addr, port) == (inany(NAMELESS), 80)
        self.listen(fd, 6, listener)

    def unlisten(self, listener: int) -> None:
        fd = self.heard.pop(listener)
        self.closed.append(port_of(fd))
        os.close(fd)

    def renumber(self, old: int, new: int) -> None:
        assert new not in self.heard
        self.heard[new] = self.heard.pop(old)

    def ports(self) -> list[int]:
        return sorted(port_of(fd) for fd in self.heard.values())


def port_of(fd: int) -> int:
    with socket.socket(fileno=os.dup(fd)) as sock:
        name = sock.getsockname()
        return 0 if sock.family == socket.AF_UNIX else int(name[1])


class Loop:
    """Runs callbacks when the test says so."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self.due.append(callback)

    def run(self) -> int:
        steps = 0
        while self.due:
            self.due.pop(0)()
            steps += 1
        return steps


def rule(port: int, last: int | None = None, **more: Any) -> PortRule:
    fields: dict[str, Any] = {"proto": 6, "addr": LO, "ifname": None}
    return PortRule(first=port, last=last or port, **(fields | more))


def tables(*rules: PortRule) -> tuple[PortTable, ...]:
    return (PortTable(Side.HOST, ALL, rules),)


class Run:
    def __init__(self, *rules: PortRule) -> None:
        self.datapath, self.loop = Datapath(), Loop()
        RUNS.append(self)
        self.told: list[int] = []
        config = Config(host_ports=rules)
        it: Any = self.datapath
        self.forwarding = Forwarding(
            config,
            tables(*rules),
            it,
            None,
            Log(),
            lambda forwards: self.told.append(len(forwards)),
        )
        self.forwarding.open()
        loop: Any = self.loop
        self.forwarding.start(loop)

    def replace(
        self, *rules: PortRule, seen: tuple[PortTable, ...] | None = None
    ) -> list[str]:
        answers: list[Sequence[str]] = []
        old = self.forwarding.tables() if seen is None else seen
        self.forwarding.replace(old, tables(*rules), answers.append)
        self.loop.run()
        (reasons,) = answers
        return list(reasons)

    def ids(self) -> dict[int, int]:
        return {f.rule.first: f.id for f in self.forwarding.forwards}


RUNS: list[Run] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """No socket outlives its test."""
    yield
    for run in RUNS:
        for fd in run.datapath.heard.values():
            os.close(fd)
    RUNS.clear()


@pytest.fixture
def free() -> Callable[[], int]:
    """Ports that nobody has, nor gets who asks for any; they differ from each other."""
    ports = random.sample(range(10_000, 20_000), 100)

    def pick() -> int:
        while True:
            port = ports.pop()
            with suppress(OSError), socket.create_server(("", port)):
                return port

    return pick


def test_what_stays_keeps_socket_number_and_id(free: Callable[[], int]) -> None:
    a, b, c = free(), free(), free()
    run = Run(rule(a), rule(b))
    before, ids = dict(run.datapath.heard), run.ids()
    assert run.replace(rule(c), rule(a)) == []
    assert run.datapath.ports() == sorted((a, c))
    assert run.datapath.closed == [b]
    kept = {n: fd for n, fd in run.datapath.heard.items() if before.get(n) == fd}
    assert [port_of(fd) for fd in kept.values()] == [a]
    assert run.ids()[a] == ids[a]
    assert run.told == [2]


def test_a_port_that_leads_elsewhere_is_never_closed(free: Callable[[], int]) -> None:
    a = free()
    run = Run(rule(a))
    (fd,) = run.datapath.heard.values()
    with socket.create_connection((str(LO), a)):  # waits to be accepted
        assert run.replace(rule(a, delta=5)) == []
        assert run.datapath.heard == {run.forwarding.forwards[0].number(a): fd}
        assert not run.datapath.closed
        wait_delivered()
        with socket.socket(fileno=os.dup(fd)) as listening:
            listening.accept()[0].close()


def test_one_port_that_is_taken_leaves_everything_as_it_was(
    free: Callable[[], int],
) -> None:
    a, b, c = free(), free(), free()
    run = Run(rule(a))
    before = dict(run.datapath.heard)
    with socket.create_server((str(LO), c)):
        (reason,) = run.replace(rule(b), rule(c))
    assert reason == (
        f"Listen failed for HOST TCP port {LO}/{c}: Address already in use"
    )
    assert run.datapath.heard == before
    assert [r.first for t in run.forwarding.tables() for r in t.rules] == [a]
    assert run.told == []
    assert run.replace(rule(a), rule(b), rule(c)) == []
    assert run.datapath.ports() == sorted((a, b, c))


def test_a_socket_in_the_way_gives_way_and_comes_back_if_it_was_in_vain(
    free: Callable[[], int],
) -> None:
    a, b = free(), free()
    run = Run(rule(a, addr=ANY4))
    assert run.replace(rule(a)) == []  # one address where there was any
    assert run.datapath.ports() == [a]
    with socket.create_server((str(LO), b)):
        assert len(run.replace(rule(a, addr=ANY4), rule(b))) == 1
    assert run.datapath.ports() == [a]


def test_a_weak_port_is_not_worth_an_error(free: Callable[[], int]) -> None:
    a = free()
    with socket.create_server((str(LO), a)):
        run = Run()
        low = a - 1
        assert run.replace(rule(low, a, weak=True)) in (
            [],
            [f"All listens failed for HOST TCP {LO}/{low}-{a}"],
        )


def test_many_ports_are_opened_in_pieces() -> None:
    run, low = Run(), 20_000
    answers: list[Sequence[str]] = []
    wanted = tables(rule(low, low + 399, weak=True))
    run.forwarding.replace(run.forwarding.tables(), wanted, answers.append)
    assert not answers
    assert run.loop.run() > 5
    assert answers == [[]]
    assert len(run.datapath.heard) > 300
    assert run.replace() == []
    assert not run.datapath.heard


def test_what_others_changed_meanwhile_stays_changed(free: Callable[[], int]) -> None:
    a, b, c = free(), free(), free()
    run = Run(rule(a))
    seen = run.forwarding.tables()
    assert run.replace(rule(a), rule(b)) == []
    assert run.replace(rule(a), rule(c), seen=seen) == []
    assert run.datapath.ports() == sorted((a, b, c))
    assert run.replace(rule(c), seen=tables(rule(a), rule(c))) == []
    assert run.datapath.ports() == sorted((b, c))


def test_two_changes_at_once_are_made_one_after_the_other(
    free: Callable[[], int],
) -> None:
    a = free()
    run = Run()
    answers: list[Sequence[str]] = []
    seen = run.forwarding.tables()
    low = 20_000
    many = tables(rule(low, low + 200, weak=True))
    run.forwarding.replace(seen, many, answers.append)
    run.forwarding.replace(seen, tables(rule(a)), answers.append)
    run.loop.run()
    assert answers == [[], []]
    assert a in run.datapath.ports()
    assert len(run.forwarding.forwards) == 2


def test_a_rule_that_contradicts_another_is_refused(free: Callable[[], int]) -> None:
    a = free()
    run = Run(rule(a))
    seen = tables()
    reasons = run.replace(rule(a, delta=1), seen=seen)
    assert reasons[0].startswith("Forwarding configuration conflict")


def unix_rule(path: Path, **more: Any) -> PortRule:
    return rule(80, addr=None, path=str(path), **more)


def test_a_unix_socket_is_open_from_the_start_and_goes_with_its_rule(
    tmp_path: Path, free: Callable[[], int]
) -> None:
    path, port = tmp_path / "it", free()
    run = Run(unix_rule(path), rule(port))
    assert path.is_socket()
    assert run.forwarding.files() == [str(path)]
    (standing, _) = run.forwarding.standing()
    assert standing.open_ports == 1
    assert run.replace(rule(port)) == []
    assert not path.exists()
    assert run.forwarding.files() == []
    assert run.datapath.ports() == [port]


def test_a_unix_socket_goes_with_the_forwarding(tmp_path: Path) -> None:
    path = tmp_path / "it"
    run = Run(unix_rule(path))
    run.forwarding.close()
    assert not path.exists()


def test_what_cannot_listen_at_a_path_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no" / "it"
    with pytest.raises(SetupError) as caught:
        Run(unix_rule(path))
    assert str(caught.value) == (
        f"Listen failed for UNIX socket {path}: No such file or directory\n"
        "Couldn't listen on requested ports"
    )


def test_a_start_that_fails_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "it"
    with pytest.raises(SetupError):
        Run(unix_rule(path), unix_rule(tmp_path / "no" / "it"))
    RUNS[-1].forwarding.close()
    assert not path.exists()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that name their server first; the datapath is a stand-in."""

import asyncio
import errno
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address

import pytest

from passtpy import inspecting
from passtpy.addr import UNSPECIFIED, inany
from passtpy.egress.answers import Asked
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress, Refused, Ruling
from passtpy.egress.model import Effect
from passtpy.egress.zones import Surroundings
from passtpy.flow import IPPROTO_TCP, Action, FlowMiss, FlowWhy, Pif, Verdict
from passtpy.inspecting import Again, Found, Inspecting
from passtpy.policy.listing import RuleIds
from tests.unit.openssl import hello

DIALLED, REAL = (inany(IPv4Address(a)) for a in ("192.0.2.1", "127.0.0.1"))
GUEST = inany(IPv4Address("198.51.100.2"))
GET = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n"
MISS = FlowMiss(IPPROTO_TCP, Pif.TAP, GUEST, 40000, DIALLED, 443, -1)
NAMED = Ruling(Effect.ALLOW, 7, 0, ("good.example",), None)


class Datapath:
    """Holds the other ends, and remembers what it was told."""

    def __init__(self) -> None:
        self.guest: socket.socket | None = None  # what the guest says goes in here
        self.adopted: socket.socket | None = None
        self.closed: list[int] = []
        self.refuses = False

    def open(self, miss_id: int, verdict: Verdict, fd: int) -> int:
        if self.refuses:
            raise OSError(errno.ESTALE, "gone")
        self.guest = socket.socket(fileno=fd)
        return miss_id + 1

    def adopt(self, flow_id: int, fd: int) -> None:
        assert flow_id == 6
        self.adopted = socket.socket(fileno=fd)

    def close_flow(self, flow_id: int, why: int) -> None:
        assert flow_id == 6
        assert why in (FlowWhy.ASKED, FlowWhy.POLICY)  # the datapath knows no other
        self.closed.append(why)

    def end(self) -> None:
        for sock in (self.guest, self.adopted):
            if sock is not None:
                with suppress(OSError):
                    sock.close()


SERVER = '[[rule]]\nto = "127.0.0.0/8"\naction = "allow"\n'  # where the test's is
NAME = '[[rule]]\nto = "good.example"\naction = "allow"\n'


def _policy(rules: str) -> Egress:
    policy = parse_policy(f"version = 1\n{rules}", "policy", lambda _: "")
    return Egress(policy, Surroundings(), RuleIds().give, lambda: 0)


class Scene:
    """One connection that begins, and a server that waits for it."""

    def __init__(self, rules: str = NAME + SERVER) -> None:
        self.datapath, self.policy = Datapath(), _policy(rules)
        self.told: list[Refused] = []
        self.policy.watchers.append(self.told.append)
        self.found: list[tuple[str, int, Found]] = []
        self.asked: list[tuple[Asked, Again]] = []
        self.server = socket.create_server(("127.0.0.1", 0))
        self.server.settimeout(5)
        self.port: int = self.server.getsockname()[1]

    def begin(self) -> Inspecting:
        loop = asyncio.get_running_loop()

        def find(name: str, version: int, found: Found) -> None:
            self.found.append((name, version, found))

        def ask(asked: Asked, again: Again) -> bool:
            self.asked.append((asked, again))
            return True

        inspecting = Inspecting(
            *(loop, self.datapath, self.policy, find, ask),
            *(lambda: None, (None, None), lambda: 0),
        )
        verdict = Verdict(
            Action.FORWARD, Pif.HOST, DIALLED, self.port, UNSPECIFIED, 0, 7, 1
        )
        assert inspecting.take(MISS, 5, verdict, NAMED)
        return inspecting

    def say(self, data: bytes) -> None:
        assert self.datapath.guest is not None
        self.datapath.guest.sendall(data)


def played(
    play: Callable[[Scene], Awaitable[None]], rules: str = NAME + SERVER
) -> Scene:
    """Run a scene in a loop of its own."""
    scene = Scene(rules)

    async def run() -> None:
        await asyncio.wait_for(play(scene), 10)

    try:
        asyncio.run(run())
    finally:
        scene.server.close()
    return scene


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize("piece", [1, 7, 10000])
@pytest.mark.parametrize(
    "first", [hello("good.example"), hello("Good.Example."), GET % b"good.example:80"]
)
def test_an_allowed_name_is_connected_to_where_it_really_is(
    first: bytes, piece: int
) -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("good.example", [REAL], 60, 0)
        scene.begin()
        for at in range(0, len(first), piece):
            scene.say(first[at : at + piece])
            await asyncio.sleep(0)
        await until(lambda: scene.datapath.adopted)
        with scene.server.accept()[0] as peer:
            assert peer.recv(1 << 16) == first
        scene.datapath.end()

    assert played(play).datapath.closed == []


def test_an_address_of_the_name_is_dialled_as_the_guest_did() -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("good.example", [REAL], 60, 0)
        inspecting = scene.begin()
        (each,) = inspecting.open
        each._verdict = each._verdict._replace(eaddr=REAL)
        scene.say(hello("good.example"))
        await until(lambda: scene.datapath.adopted)
        scene.datapath.end()

    assert played(play).found == []


def test_a_name_without_known_addresses_is_looked_up() -> None:
    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        await until(lambda: scene.found)
        name, version, found = scene.found[0]
        assert (name, version) == ("good.example", 4)
        scene.say(b"early data")  # waits in the pair
        found([REAL])
        await until(lambda: scene.datapath.adopted)
        with scene.server.accept()[0] as peer:
            assert peer.recv(1 << 16).endswith(b"early data")
        assert not inspecting.open
        scene.datapath.end()

    played(play)


def test_a_name_that_nobody_knows_is_refused_like_a_closed_port() -> None:
    async def play(scene: Scene) -> None:
        scene.begin()
        scene.say(hello("good.example"))
        await until(lambda: scene.found)
        scene.found[0][2]([])
        await until(lambda: scene.datapath.closed)
        scene.datapath.end()

    assert played(play).datapath.closed == [FlowWhy.ASKED]


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        (hello("bad.example"), b"\x15\x03\x03\x00\x02\x02\x70"),
        (hello(None), b"\x15\x03\x03\x00\x02\x02\x70"),
        (GET % b"bad.example", b"HTTP/1.1 403 Forbidden"),
        (GET % b"good.example.evil.example", b"HTTP/1.1 403 Forbidden"),
        (GET % b"192.0.2.1", b"HTTP/1.1 403 Forbidden"),
        (b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 403 Forbidden"),
        (
            GET.replace(b"\r\n\r\n", b"\r\nHost: good.example\r\n\r\n")
            % b"bad.example",
            b"HTTP/1.1 403 Forbidden",
        ),
        (GET % b"good.example\0.evil", b"HTTP/1.1 403 Forbidden"),
    ],
)
def test_any_other_name_is_refused_in_its_own_words(
    first: bytes, answer: bytes
) -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("good.example", [REAL], 60, 0)
        inspecting = scene.begin()
        scene.say(first)
        await until(lambda: not inspecting.open)
        assert scene.datapath.guest is not None
        assert scene.datapath.guest.recv(4096).startswith(answer)
        assert len(scene.told) == 1
        scene.server.setblocking(False)
        with pytest.raises(BlockingIOError):
            scene.server.accept()
        scene.datapath.end()

    assert played(play).datapath.adopted is None


@pytest.mark.parametrize(
    "first", [b"SSH-2.0-x\r\n", b"\0\1\2", b"\x16\3\1\0\5\2\0\0\1\0"]
)
def test_what_names_nobody_is_reset(first: bytes) -> None:
    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(first)
        await until(lambda: not inspecting.open)
        scene.datapath.end()

    scene = played(play)
    assert scene.datapath.adopted is None
    assert len(scene.told) == 1


def test_a_guest_that_says_nothing_does_not_wait_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspecting, "HELLO_S", 0.02)

    async def play(scene: Scene) -> None:
        scene.begin()
        scene.say(hello("good.example")[:-1])
        await until(lambda: scene.told)
        scene.datapath.end()

    played(play)


def test_a_guest_that_leaves_first_is_forgotten() -> None:
    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        assert scene.datapath.guest is not None
        scene.datapath.guest.close()
        await until(lambda: not inspecting.open)

    assert played(play).datapath.closed == [FlowWhy.ASKED]


def test_connections_that_have_not_said_it_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inspecting, "MOST", 1)

    async def play(scene: Scene) -> None:
        all_ = scene.begin()
        verdict = Verdict(Action.FORWARD, Pif.HOST, DIALLED, 1, UNSPECIFIED, 0, 7, 1)
        assert not all_.take(MISS, 6, verdict, NAMED)
        all_.close()
        scene.datapath.end()

    played(play)


def test_a_connection_that_is_gone_costs_nothing() -> None:
    async def play(scene: Scene) -> None:
        scene.datapath.refuses = True
        before = len(os.listdir("/proc/self/fd"))
        assert not scene.begin().open
        assert len(os.listdir("/proc/self/fd")) == before

    played(play)


def test_addresses_that_come_too_late_find_nobody() -> None:
    def check(found: Found, addresses: Sequence[bytes]) -> None:
        found(addresses)

    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        await until(lambda: scene.found)
        inspecting.close()
        check(scene.found[0][2], [REAL])
        scene.datapath.end()

    assert played(play).datapath.adopted is None


CLOSED = '[[rule]]\nto = "127.0.0.0/8"\naction = "reject"\n'
ELSEWHERE = '[[rule]]\nto = "127.0.0.0/8"\nports = 22\naction = "allow"\n'
BEHIND = (
    '[[rule]]\nto = "127.0.0.0/8"\nvia = "http://203.0.113.1:1"\naction = "allow"\n'
)


@pytest.mark.parametrize("known", [True, False], ids=["pinned", "looked up"])
@pytest.mark.parametrize(
    "rules", [CLOSED + NAME, ELSEWHERE + NAME, NAME, BEHIND + NAME]
)
def test_a_name_does_not_lead_to_what_its_address_is_refused_for(
    rules: str, known: bool
) -> None:
    """Dialled is an address that may be reached; the name's own may not."""

    async def play(scene: Scene) -> None:
        if known:
            scene.policy.pins.pin("good.example", [REAL], 60, 0)
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        if not known:
            await until(lambda: scene.found)
            scene.found[0][2]([REAL])
        await until(lambda: not inspecting.open)
        scene.datapath.end()

    scene = played(play, rules)
    assert scene.datapath.adopted is None
    assert [each.target for each in scene.told] == [REAL]


def test_an_address_that_is_allowed_by_itself_is_reached_under_any_name() -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("good.example", [REAL], 60, 0)
        inspecting = scene.begin()
        (each,) = inspecting.open
        each._verdict = each._verdict._replace(eaddr=REAL)
        scene.say(hello("any.example"))
        await until(lambda: scene.datapath.adopted)
        scene.datapath.end()

    assert played(play).found == []


ASK = NAME.replace("allow", "ask") + SERVER


@pytest.mark.parametrize("allow", [True, False])
def test_somebody_is_asked_about_the_name_that_the_client_says(allow: bool) -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("good.example", [REAL], 60, 0)
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        await until(lambda: scene.asked)
        asked, again = scene.asked[0]
        assert asked.names == ("good.example",)
        scene.policy.answers.remember(asked, Effect.ALLOW if allow else Effect.REJECT)
        again()
        await until(lambda: not inspecting.open)
        scene.datapath.end()

    scene = played(play, ASK)
    assert (scene.datapath.adopted is not None) == allow
    assert len(scene.asked) == 1


def test_an_answer_that_comes_when_the_guest_has_left_is_for_nobody() -> None:
    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        await until(lambda: scene.asked)
        inspecting.close()
        scene.asked[0][1]()
        scene.datapath.end()

    assert played(play, ASK).datapath.adopted is None

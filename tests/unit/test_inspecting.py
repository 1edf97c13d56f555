# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections that name their server first; the datapath is a stand-in."""

import asyncio
import errno
import socket
import struct
import time
from collections.abc import Awaitable, Callable, Sequence
from ipaddress import IPv4Address
from typing import NamedTuple

import pytest

from passtpy import inspecting
from passtpy.addr import UNSPECIFIED, Address, from_inany, inany
from passtpy.egress.answers import Asked
from passtpy.egress.document import parse_policy
from passtpy.egress.egress import Egress, Refused, Ruling
from passtpy.egress.model import Effect, Via
from passtpy.egress.zones import Surroundings
from passtpy.flow import IPPROTO_TCP, Action, FlowMiss, FlowWhy, Pif, Verdict
from passtpy.inspecting import Again, Found, Inspecting, conversation_with
from passtpy.policy.listing import RuleIds
from passtpy.wire.proxy import Conversation
from tests.lab.loopback import wait_delivered
from tests.unit.openssl import hello

DIALLED, REAL = (inany(IPv4Address(a)) for a in ("192.0.2.1", "127.0.0.1"))
GUEST = inany(IPv4Address("198.51.100.2"))
GET = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n"
MISS = FlowMiss(IPPROTO_TCP, Pif.TAP, GUEST, 40000, DIALLED, 443, -1)
RESETS = struct.pack("ii", 1, 0)  # struct linger
NAMED = Ruling(Effect.ALLOW, 7, 0, ("good.example",), None)


class Datapath:
    """Keeps what the guest says until there is a socket for it."""

    def __init__(self) -> None:
        self.said = b""
        self.adopted: socket.socket | None = None
        self.answer = b""  # what the guest is told when it is refused
        self.rule = 7
        self.closed: list[int] = []
        self.refuses = False
        self.beyond = 0  # errno, of who comes under another rule
        self.full = False

    def open(self, miss_id: int, verdict: Verdict) -> int | None:
        assert verdict.action is Action.INSPECT
        if self.refuses:
            raise OSError(errno.ESTALE, "gone")
        return None if self.full else miss_id + 1

    def connect(self, flow_id: int, eaddr: bytes, eport: int) -> None:
        where = str(from_inany(eaddr)), eport
        self.adopt(flow_id, socket.create_connection(where).detach())

    def adopt(self, flow_id: int, fd: int, *, forget: bool = False) -> None:
        assert flow_id == 6
        sock = socket.socket(fileno=fd)
        try:
            sock.getpeername()  # as the datapath asks
        except OSError:
            sock.detach()  # is not taken over
            raise
        if forget:
            self.answer = sock.recv(4096)
            sock.close()
        else:
            sock.setblocking(True)
            sock.sendall(self.said)
            self.adopted = sock

    def verdict(
        self, flow_id: int, *, rule: int, generation: int, admit: bool = False
    ) -> None:
        assert (flow_id, generation, admit) == (6, 1, True)
        if self.beyond:
            raise OSError(self.beyond, "beyond a limit")
        self.rule = rule

    def close_flow(self, flow_id: int, why: int) -> None:
        assert flow_id == 6
        assert why in (FlowWhy.ASKED, FlowWhy.POLICY)  # the datapath knows no other
        self.closed.append(why)

    def end(self) -> None:
        if self.adopted is not None:
            self.adopted.close()


class Said(NamedTuple):
    flow_id: int
    data: bytes | None
    ended: bool


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
        self.server.settimeout(30)
        self.inspecting: Inspecting | None = None
        self.port: int = self.server.getsockname()[1]

    def begin(self, clock: Callable[[], int] = lambda: 0) -> Inspecting:
        loop = asyncio.get_running_loop()

        def find(name: str, version: int, found: Found) -> None:
            self.found.append((name, version, found))

        def ask(asked: Asked, again: Again) -> bool:
            self.asked.append((asked, again))
            return True

        inspecting = Inspecting(
            *(loop, self.datapath, self.policy, find, ask),
            *(lambda: None, (None, None), clock),
        )
        self.inspecting = inspecting
        verdict = Verdict(
            Action.FORWARD, Pif.HOST, DIALLED, self.port, UNSPECIFIED, 0, 7, 1
        )
        assert inspecting.take(MISS, 5, verdict, NAMED)
        return inspecting

    def say(self, data: bytes, *, ended: bool = False) -> None:
        """Let the guest say more, or nothing more."""
        self.datapath.said += data
        self._hear(Said(6, self.datapath.said, ended))

    def leave(self) -> None:
        """Let the guest's connection end."""
        self._hear(Said(6, None, True))

    def _hear(self, said: Said) -> None:
        assert self.inspecting is not None
        self.inspecting.hear(said)


def played(
    play: Callable[[Scene], Awaitable[None]], rules: str = NAME + SERVER
) -> Scene:
    """Run a scene in a loop of its own."""
    scene = Scene(rules)

    async def run() -> None:
        await asyncio.wait_for(play(scene), 30)

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
        (each,) = inspecting.open.values()
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
        scene.say(b"early data")  # waits in the datapath
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
        assert scene.datapath.answer.startswith(answer)
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
        inspecting = scene.begin(time.monotonic_ns)
        scene.say(hello("good.example")[:-1])
        await until(lambda: scene.told)
        assert not inspecting.open

    played(play)
    # Who has named it may take longer
    assert not played(waits_for_its_addresses).told


async def waits_for_its_addresses(scene: Scene) -> None:
    scene.begin(time.monotonic_ns)
    scene.say(hello("good.example"))
    await asyncio.sleep(0.05)  # more than is needed, in vain


def test_a_guest_that_leaves_first_is_forgotten() -> None:
    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        assert scene.found
        scene.leave()
        assert not inspecting.open
        scene.found[0][2]([REAL])

    assert played(play).datapath.adopted is None


def test_a_guest_that_ends_before_it_has_named_a_server_is_reset() -> None:
    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(hello("good.example")[:-1], ended=True)
        assert not inspecting.open

    assert played(play).datapath.closed == [FlowWhy.ASKED]


def test_what_comes_after_the_name_is_not_read_again() -> None:
    async def play(scene: Scene) -> None:
        scene.begin()
        scene.say(hello("good.example"))
        scene.say(hello("bad.example"))
        assert len(scene.found) == 1

    assert not played(play).told


def test_the_rule_that_is_about_the_name_is_the_rule_of_the_flow() -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("also.example", [REAL], 60, 0)
        scene.begin()
        scene.say(hello("also.example"))
        await until(lambda: scene.datapath.adopted)
        scene.datapath.end()

    also = NAME.replace("good", "also")
    scene = played(play, also + NAME + SERVER)
    assert scene.datapath.rule == scene.policy.ids[0]


@pytest.mark.parametrize(
    ("beyond", "why"),
    [
        (errno.EUSERS, "too many flows"),
        (errno.EDQUOT, "its bytes are used up"),
        (errno.ESTALE, None),
    ],
)
def test_limits_of_the_rule_that_is_about_the_name_hold(
    beyond: int, why: str | None
) -> None:
    async def play(scene: Scene) -> None:
        scene.policy.pins.pin("good.example", [REAL], 60, 0)
        scene.datapath.beyond = beyond
        inspecting = scene.begin()
        scene.say(GET % b"good.example")
        assert not inspecting.open
        scene.datapath.end()

    scene = played(play)
    assert scene.datapath.adopted is None
    if why is None:  # it has gone: nobody is told
        assert (scene.told, scene.datapath.answer) == ([], b"")
        return
    (told,) = scene.told
    assert told.names == ("good.example",)
    assert told.rule == scene.policy.ids[0]
    assert told.reason.endswith(f": limit: {why}")
    assert why.encode() in scene.datapath.answer


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


@pytest.mark.parametrize("refuses", [True, False], ids=["gone", "beyond a limit"])
def test_a_connection_that_is_not_opened_costs_nothing(refuses: bool) -> None:
    async def play(scene: Scene) -> None:
        scene.datapath.refuses, scene.datapath.full = refuses, not refuses
        assert not scene.begin().open

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
        (each,) = inspecting.open.values()
        each._verdict = each._verdict._replace(eaddr=REAL)
        scene.say(hello("any.example"))
        await until(lambda: scene.datapath.adopted)
        scene.datapath.end()

    assert played(play).found == []


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("192.0.2.0/24", IPv4Address("192.0.2.1")),
        ("any.example", "any.example"),
    ],
)
def test_a_proxy_is_told_no_name_that_its_rule_is_not_about(
    monkeypatch: pytest.MonkeyPatch, to: str, told: object
) -> None:
    """A rule about a network says nothing of where a proxy would find a name."""
    asked: list[object] = []

    def conversation(via: Via, host: str | Address, port: int) -> Conversation:
        asked.append(host)
        return conversation_with(via, host, port)

    monkeypatch.setattr(inspecting, "conversation_with", conversation)

    async def play(scene: Scene) -> None:
        inspecting = scene.begin()
        scene.say(hello("any.example"))
        inspecting.close()

    played(play, NAME + BEHIND.replace("127.0.0.0/8", to))
    assert asked == [told]


def test_a_proxy_that_agrees_and_resets_leaves_nobody_waiting() -> None:
    """What it said is still there to be read, but there is no connection any more."""

    async def play(scene: Scene) -> None:
        via = f'via = "http://127.0.0.1:{scene.port}"\naction'
        scene.policy = _policy(NAME.replace("action", via))
        inspecting = scene.begin()
        scene.say(hello("good.example"))
        proxy, _ = await asyncio.to_thread(scene.server.accept)
        with proxy:
            await asyncio.to_thread(proxy.recv, 4096)
            proxy.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
            proxy.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        wait_delivered()  # both, before either is seen
        await until(lambda: not inspecting.open)
        assert inspecting.counters["inspected_failed"] == 1

    scene = played(play)
    assert (scene.datapath.adopted, scene.datapath.closed) == (None, [FlowWhy.ASKED])


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

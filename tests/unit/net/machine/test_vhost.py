# SPDX-License-Identifier: GPL-2.0-or-later
"""A vhost-user front-end is served, on a socket pair, with a datapath of our own.

Whatever happens: no descriptor is left over, and a bad front-end is only hung up on.
"""

import array
import asyncio
import fcntl
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from passtpy.log import Log
from passtpy.net.machine.vhost import MESSAGES_PER_WAKE, Region, VhostTransport
from passtpy.wire.vhost_user import (
    HEADER_LEN,
    MAX_FDS,
    U64,
    Header,
    MemoryTable,
    Message,
    Request,
    VringFile,
    VringState,
)
from tests.lab.descriptors import none_left
from tests.lab.vhost_frontend import (
    MRG_RXBUF,
    PAGE,
    PROTOCOL_FEATURES,
    REPLY_ACK,
    RX,
    TX,
    VERSION_1,
    Frontend,
)

FEATURES = VERSION_1 | MRG_RXBUF
R = Request


class FakeLoop:
    """Knows who waits for what."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self.readers[fd]


@dataclass
class FakeDatapath:
    """Keeps what it was told, and owns the descriptors it was given."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    fds: dict[tuple[str, int], int] = field(default_factory=dict)
    error: Exception | None = None
    stops_at: int = 0

    def _own(self, name: str, index: int, fd: int) -> None:
        old = self.fds.pop((name, index), -1)
        if old >= 0:
            os.close(old)
        if fd >= 0:
            fcntl.fcntl(fd, fcntl.F_GETFD)  # it is open
            self.fds[name, index] = fd

    def _fail(self) -> None:
        if self.error is not None:
            raise self.error

    def vhost_features(self, features: int) -> None:
        self.calls.append(("features", features))

    def vhost_memory(self, regions: Sequence[Region]) -> None:
        self._fail()
        self.calls.append(("memory", *(region[:4] for region in regions)))
        for *_, fd in regions:
            fcntl.fcntl(fd, fcntl.F_GETFD)

    def vhost_ring(
        self,
        index: int,
        *,
        size: int,
        desc: int,
        used: int,
        avail: int,
        base: int,
        kick_fd: int,
        call_fd: int,
    ) -> None:
        self._fail()
        self.calls.append(("ring", index, size, desc, used, avail, base))
        self._own("kick", index, kick_fd)
        self._own("call", index, call_fd)

    def vhost_call(self, index: int, call_fd: int) -> None:
        self._fail()
        self.calls.append(("call", index, call_fd >= 0))
        self._own("call", index, call_fd)

    def vhost_enable(self, index: int, enabled: bool) -> None:
        self.calls.append(("enable", index, enabled))

    def vhost_stop(self, index: int) -> int:
        self.calls.append(("stop", index))
        self._own("kick", index, -1)
        self._own("call", index, -1)
        return self.stops_at

    def detach(self) -> None:
        self.calls.append(("detach",))
        for name, index in list(self.fds):
            self._own(name, index, -1)


@dataclass
class Table:
    """A transport, and what stands around it."""

    datapath: FakeDatapath = field(default_factory=FakeDatapath)
    loop: FakeLoop = field(default_factory=FakeLoop)
    reasons: list[str] = field(default_factory=list)
    ready: int = 0

    def __post_init__(self) -> None:
        self.transport = VhostTransport(self.datapath, Log(), self._on_ready, FEATURES)

    def connect(self) -> socket.socket:
        """Return a front-end's end of a new connection."""
        ours, theirs = socket.socketpair()
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.transport.attach(ours, loop, self.reasons.append)
        theirs.setblocking(False)
        return theirs

    def _on_ready(self) -> None:
        self.ready += 1

    def run(self) -> None:
        """Let the loop call whoever waits."""
        for callback in list(self.loop.readers.values()):
            callback()

    def frontend(self) -> Frontend:
        """Return a front-end that is connected."""
        return Frontend(self.connect(), FEATURES, idle=self.run)


@pytest.fixture
def table() -> Iterator[Table]:
    """A transport that leaks nothing, whatever the test does."""
    with none_left():
        table = Table()
        yield table
        table.transport.detach()
        assert table.loop.readers == {}
        assert table.datapath.fds == {}


def send(
    sock: socket.socket, message: Message | bytes, fds: Sequence[int] = ()
) -> None:
    """Send a message, or any bytes, with descriptors."""
    data = message if isinstance(message, bytes) else message.emit()
    raw = array.array("i", fds).tobytes()
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, raw)] if fds else [])


@pytest.fixture
def spare() -> Iterator[int]:
    """A descriptor to give away."""
    fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    yield fd
    os.close(fd)


def test_a_front_end_starts_and_stops_its_rings(table: Table) -> None:
    with table.frontend() as frontend:
        frontend.start()
        address = frontend.address(frontend.rings[RX])
        wanted = [
            ("features", FEATURES),
            (
                "memory",
                *(
                    (r.guest_addr, r.size, r.user_addr, r.mmap_offset)
                    for r in frontend.regions()
                ),
            ),
            ("ring", 0, 256, address.desc, address.used, address.avail, 0),
            ("enable", 0, False),
            ("call", 0, True),
            ("enable", 0, True),
        ]
        assert table.datapath.calls[: len(wanted)] == wanted
        assert len(table.datapath.fds) == 4
        table.datapath.stops_at = 17
        assert frontend.stop() == [17, 17]
        assert table.datapath.fds == {}
        assert not frontend.hung_up()
    table.run()
    assert table.reasons == ["connection closed"]


def test_the_next_front_end_starts_from_nothing(table: Table) -> None:
    for _ in range(2):
        with table.frontend() as frontend:
            frontend.start()
        table.run()
    # Nothing that the last one said is known any more.
    with table.frontend() as frontend:
        frontend.start_ring(frontend.rings[RX])
        table.run()
        assert frontend.hung_up()
    assert table.reasons[:2] == ["connection closed"] * 2
    assert "ring 0 without features, memory" in table.reasons[2]


def test_detach_hangs_up_and_tells_nobody(table: Table) -> None:
    with table.frontend() as frontend:
        frontend.start()
        table.transport.detach()
        assert frontend.hung_up()
        assert table.datapath.calls[-1] == ("detach",)
        table.transport.detach()  # once is enough
        assert table.datapath.calls.count(("detach",)) == 1
    assert table.reasons == []


def test_the_guest_is_ready_each_time_its_driver_is(table: Table) -> None:
    with table.frontend() as frontend:
        frontend.start()
        assert table.ready == 1
        frontend.stop()
        frontend.start_ring(frontend.rings[TX])
        frontend.number(R.GET_FEATURES)
        assert table.ready == 1
        frontend.start_ring(frontend.rings[RX])
        frontend.number(R.GET_FEATURES)
        assert table.ready == 2


def test_a_front_end_may_be_replaced_when_it_goes(table: Table) -> None:
    """on_gone may attach the next one at once."""
    next_pair = socket.socketpair()
    first, theirs = socket.socketpair()
    loop = cast(asyncio.AbstractEventLoop, table.loop)

    def attach(sock: socket.socket, on_gone: Callable[[str], None]) -> None:
        table.transport.attach(sock, loop, on_gone)

    attach(first, lambda _reason: attach(next_pair[0], table.reasons.append))
    theirs.close()
    table.run()
    send(next_pair[1], Message(R.GET_QUEUE_NUM))
    table.run()
    assert len(next_pair[1].recv(100)) == HEADER_LEN + 8
    next_pair[1].close()


def test_a_message_may_come_byte_by_byte(table: Table, spare: int) -> None:
    with table.connect() as sock:
        call = Message(R.SET_VRING_CALL, VringFile(0)).emit()
        send(sock, call[:1], [spare])
        for at in range(1, len(call)):
            table.run()
            send(sock, call[at : at + 1])
        for byte in Message(R.GET_FEATURES).emit():
            send(sock, bytes([byte]))
        table.run()
        answer = sock.recv(100)
        wanted = Message(R.GET_FEATURES, U64(FEATURES | PROTOCOL_FEATURES), reply=True)
        assert answer == wanted.emit()
    table.run()
    assert table.reasons == ["connection closed"]


def test_many_messages_at_once_keep_their_descriptors_apart(
    table: Table, spare: int
) -> None:
    with table.connect() as sock:
        for index in (0, 1, 0, 1):
            send(sock, Message(R.SET_OWNER))
            send(sock, Message(R.SET_VRING_CALL, VringFile(index)), [spare])
            send(sock, Message(R.SET_VRING_ERR, VringFile(index)), [spare])
        send(sock, Message(R.GET_QUEUE_NUM))
        table.run()
        assert len(sock.recv(100)) == HEADER_LEN + 8
    assert table.reasons == []


def test_a_wake_handles_a_bounded_number_of_messages(table: Table) -> None:
    with table.connect() as sock:
        for _ in range(MESSAGES_PER_WAKE + 1):
            send(sock, Message(R.GET_QUEUE_NUM))
        table.run()
        assert len(sock.recv(1 << 16)) == MESSAGES_PER_WAKE * (HEADER_LEN + 8)
        table.run()
        assert len(sock.recv(1 << 16)) == HEADER_LEN + 8


def test_what_the_datapath_refuses_is_refused(table: Table) -> None:
    for error in (OSError(12, "Cannot allocate memory"), ValueError("odd address")):
        table.datapath.error = error
        with table.frontend() as frontend:
            frontend.negotiate()
            frontend.say(R.SET_FEATURES, U64(frontend.features))
            regions = frontend.regions()
            fds = [frontend.memfd] * len(regions)
            refused = frontend.ask(R.SET_MEM_TABLE, MemoryTable(regions), *fds)
            assert refused == U64(1)
            assert frontend.hung_up()
        assert str(error) in table.reasons[-1]
        assert "SET_MEM_TABLE" in table.reasons[-1]


def test_a_refused_ring_leaks_nothing(table: Table) -> None:
    with table.frontend() as frontend:
        frontend.negotiate()
        frontend.say(R.SET_FEATURES, U64(frontend.features))
        frontend.share_memory()
        frontend.number(R.GET_FEATURES)
        table.datapath.error = ValueError("outside the guest's memory")
        frontend.start_ring(frontend.rings[RX])
        table.run()
        assert frontend.hung_up()
    assert "SET_VRING_KICK: outside" in table.reasons[0]


def test_a_front_end_that_does_not_read_is_hung_up_on(table: Table) -> None:
    with table.connect() as sock:
        for _ in range(100_000):
            if table.reasons:
                break
            send(sock, Message(R.GET_FEATURES))
            table.run()
    assert table.reasons == ["vhost-user: the front-end does not read our answers"]


@pytest.mark.parametrize(
    ("data", "count", "complaint"),
    [
        (Message(R.SET_OWNER).emit(), 1, "SET_OWNER with 1 descriptors"),
        (Message(R.SET_OWNER).emit(), MAX_FDS, f"with {MAX_FDS} descriptors"),
        (Message(R.SET_OWNER).emit(), MAX_FDS + 2, "too many descriptors"),
        (Message(R.SET_OWNER).emit(), 253, "too many descriptors"),
        (struct.pack("=III", 99, 1, 0), 3, "request 99 was not offered"),
        (struct.pack("=III", 5, 1, 1 << 31), 2, "2147483648 bytes of payload"),
        (Message(R.SET_VRING_CALL, VringFile(207)).emit(), 1, "for ring 207"),
        (Message(R.SET_VRING_KICK, VringFile(0)).emit(), 1, "ring 0 without"),
    ],
)
def test_hostile_messages_leak_nothing(
    table: Table, spare: int, data: bytes, count: int, complaint: str
) -> None:
    with table.connect() as sock:
        send(sock, data, [spare] * count)
        table.run()
        assert sock.recv(1) == b""
    assert complaint in table.reasons[0]


def test_descriptors_in_many_pieces_are_too_many(table: Table, spare: int) -> None:
    with table.connect() as sock:
        for byte in Header(R.SET_OWNER, 0).emit()[:MAX_FDS]:
            send(sock, bytes([byte]), [spare, spare])
        table.run()
    assert table.reasons == ["vhost-user: too many descriptors"]


def test_half_a_message_leaks_nothing(table: Table, spare: int) -> None:
    with table.connect() as sock:
        send(sock, Message(R.SET_VRING_CALL, VringFile(0)).emit()[:15], [spare])
        table.run()
    table.run()
    assert table.reasons == ["connection closed within a message"]


def test_a_reset_is_a_way_to_leave(table: Table) -> None:
    with table.connect() as sock:
        send(sock, Message(R.GET_FEATURES))
        table.run()
    table.run()  # closed with an unread answer: reset by peer
    assert table.reasons == ["Connection reset by peer"]


def sound(frontend: Frontend, spare: int) -> list[tuple[bytes, list[int]]]:
    """A conversation as it should be, message by message."""
    ring, kick = frontend.rings[RX], VringFile(RX)
    script: list[tuple[Message, int]] = [
        (Message(R.GET_FEATURES), 0),
        (Message(R.SET_PROTOCOL_FEATURES, U64(REPLY_ACK)), 0),
        (Message(R.SET_FEATURES, U64(FEATURES | PROTOCOL_FEATURES)), 0),
        (Message(R.SET_MEM_TABLE, MemoryTable(frontend.regions())), 2),
        (Message(R.SET_VRING_NUM, VringState(RX, 256), need_reply=True), 0),
        (Message(R.SET_VRING_CALL, VringFile(RX)), 1),
        (Message(R.SET_VRING_ERR, VringFile(RX)), 1),
        (Message(R.SET_VRING_ADDR, frontend.address(ring)), 0),
        (Message(R.SET_VRING_KICK, kick, need_reply=True), 1),
        (Message(R.SET_VRING_ENABLE, VringState(RX, 1)), 0),
        (Message(R.SET_VRING_CALL, VringFile(RX)), 1),
        (Message(R.GET_VRING_BASE, VringState(RX, 0)), 0),
        (Message(R.SET_VRING_KICK, kick), 1),
    ]
    return [(message.emit(), [spare] * count) for message, count in script]


def mutate(dice: random.Random, data: bytes, fds: list[int]) -> tuple[bytes, list[int]]:
    """Do something to a message that its reader may not expect."""
    changed, spare = bytearray(data), fds or [0]
    match dice.randrange(6):
        case 0:
            changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        case 1:
            changed[dice.randrange(len(changed))] = dice.randrange(256)
        case 2:
            del changed[dice.randrange(len(changed)) :]
        case 3:
            changed += dice.randbytes(dice.randrange(1, 40))
        case 4:
            fds = spare * dice.randrange(12)
        case 5:
            changed[:] = dice.randbytes(dice.randrange(1, 400))
    return bytes(changed) or b"\0", fds


@pytest.mark.parametrize("seed", range(8))
def test_mutated_conversations_end_cleanly(table: Table, spare: int, seed: int) -> None:
    """Some 4000 messages in all; the fixture counts descriptors."""
    dice = random.Random(seed)
    with Frontend(socket.socket(), FEATURES) as model:
        script = sound(model, spare)
    for conversation in range(1, 61):
        with table.connect() as sock:
            bad = dice.randrange(len(script))
            for number, (data, fds) in enumerate(script):
                if number == bad or dice.random() < 0.02:
                    data, fds = mutate(dice, data, fds)
                try:
                    send(sock, data, fds)
                except OSError:
                    break
                if dice.random() < 0.7:
                    table.run()
            table.run()
        table.run()
        assert len(table.reasons) == conversation
        assert table.loop.readers == {}
        assert table.datapath.fds == {}


def test_a_sound_conversation_is_none_of_those(table: Table, spare: int) -> None:
    """The fuzzer's starting point is accepted to its end."""
    with Frontend(socket.socket(), FEATURES) as model:
        script = sound(model, spare)
    with table.connect() as sock:
        for data, fds in script:
            send(sock, data, fds)
            table.run()
        assert table.reasons == []
        assert len(table.datapath.fds) == 1
        assert PAGE in table.datapath.calls[1][1]

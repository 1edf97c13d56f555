# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is let in, who is sent away, and what is said of it, with real sockets."""

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar, cast

import pytest

from passtpy.log import Log, LogLevel
from passtpy.net.machine.acceptor import Acceptor
from passtpy.net.machine.unix_socket import MachineSocket
from passtpy.sinks import HoldOnly


class FakeLoop:
    """Keeps what was asked of it; the test is the one who calls."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}
        self.soon: list[Callable[[], None]] = []
        self.later: list[tuple[float, Callable[[], None]]] = []

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        self.readers.pop(fd, None)

    def call_soon(self, callback: Callable[..., None], *args: object) -> None:
        self.soon.append(lambda: callback(*args))

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        self.later.append((delay, callback))


class FakeTransport:
    """Keeps the sockets that it was given."""

    reasons: ClassVar[dict[int, str]] = {errno.EPROTO: "it broke a rule"}

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []
        self.on_gone: Callable[[str], None] = lambda reason: None
        self.detached = 0
        self.error: OSError | None = None

    def attach(
        self, sock: socket.socket, loop: object, on_gone: Callable[[str], None]
    ) -> None:
        if self.error is not None:
            raise self.error
        self.sockets.append(sock)
        self.on_gone = on_gone

    def detach(self) -> None:
        self.detached += 1


class Sink:
    lost = 0

    def __init__(self) -> None:
        self.lines: list[str] = []

    def start(self, hold_only: HoldOnly | None = None) -> None:
        pass

    def write(self, level: str, line: str) -> None:
        self.lines.append(f"{level} {line}")

    def close(self) -> None:
        pass


class House:
    """An acceptor with everything around it."""

    def __init__(self, listener: MachineSocket) -> None:
        self.listener = listener
        self.loop, self.transport, self.sink = FakeLoop(), FakeTransport(), Sink()
        self.joined = self.left = 0
        log = Log([self.sink], LogLevel.INFO)
        self.acceptor = Acceptor(
            listener, self.transport, log, self._on_joined, self._on_left
        )
        self.clients: list[socket.socket] = []

    def _on_joined(self) -> None:
        self.joined += 1

    def _on_left(self) -> None:
        self.left += 1

    def start(self) -> None:
        self.acceptor.start(cast(asyncio.AbstractEventLoop, self.loop))

    def connect(self) -> socket.socket:
        """Somebody comes, and the loop notices."""
        client = socket.socket(socket.AF_UNIX)
        self.clients.append(client)
        client.settimeout(30)
        client.connect(str(self.listener.path))
        self.loop.readers[self.listener.sock.fileno()]()
        return client

    def run_soon(self) -> None:
        soon, self.loop.soon = self.loop.soon, []
        for callback in soon:
            callback()

    def close(self) -> None:
        self.acceptor.close()
        self.listener.close()
        for sock in self.clients + self.transport.sockets:
            sock.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.bind(str(path))
    sock.listen()
    made = House(MachineSocket(sock, str(path)))
    made.start()
    yield made
    made.close()


def is_closed(client: socket.socket) -> bool:
    return client.recv(1) == b""


def test_the_first_one_gets_the_seat(house: House) -> None:
    house.connect()
    assert (len(house.transport.sockets), house.joined) == (1, 1)
    assert f"machine.joined pid={os.getpid()} uid={os.getuid()}" in house.sink.lines[0]


def test_the_second_one_is_sent_away_by_name(house: House) -> None:
    house.connect()
    second = house.connect()
    house.run_soon()
    assert is_closed(second)
    assert (len(house.transport.sockets), house.joined) == (1, 1)
    assert house.sink.lines[1].startswith("warning ")
    assert f"machine.refused pid={os.getpid()}" in house.sink.lines[1]


def test_who_came_as_the_first_one_left_gets_the_seat(house: House) -> None:
    """The loop may find both at once, and the new one first."""
    house.connect()
    house.connect()
    house.transport.on_gone("connection closed")
    house.run_soon()
    assert (len(house.transport.sockets), house.joined, house.left) == (2, 2, 1)


def test_the_datapath_tells_why_it_lost_a_machine(house: House) -> None:
    for number, reason in (
        (errno.EPROTO, "it broke a rule"),
        (errno.ECONNRESET, "Connection reset by peer"),
    ):
        house.connect()
        house.acceptor.gone(number)
        assert f"machine.left reason='{reason}'" in house.sink.lines[-1]
    assert (house.left, house.transport.detached) == (2, 2)


def test_nobody_leaves_twice(house: House) -> None:
    house.connect()
    house.acceptor.gone(errno.ENOTCONN)
    house.transport.on_gone("closed")
    assert house.left == 1


def test_a_seat_that_refuses_is_no_end(house: House) -> None:
    house.transport.error = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert is_closed(house.connect())
    assert "machine.failed" in house.sink.lines[0]
    house.transport.error = None
    house.connect()
    assert (house.joined, house.left) == (1, 0)


def test_without_descriptors_it_asks_again_later(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Exhausted:
        def __init__(self, sock: socket.socket) -> None:
            self.fileno = sock.fileno
            self.close = sock.close

        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    real = house.listener.sock
    object.__setattr__(house.listener, "sock", Exhausted(real))
    client = socket.socket(socket.AF_UNIX)
    house.clients.append(client)
    client.connect(str(house.listener.path))
    house.loop.readers[real.fileno()]()
    assert house.loop.readers == {}  # or it would be called again at once
    object.__setattr__(house.listener, "sock", real)
    ((delay, again),) = house.loop.later
    assert delay > 0
    again()
    house.loop.readers[real.fileno()]()
    assert house.joined == 1


def test_one_that_is_here_already_needs_no_door() -> None:
    ours, theirs = socket.socketpair()
    house = House(MachineSocket(theirs))
    house.clients.append(ours)
    house.start()
    assert (house.joined, house.loop.readers) == (1, {})
    house.close()


def test_one_that_is_here_but_finds_no_seat_has_left() -> None:
    ours, theirs = socket.socketpair()
    house = House(MachineSocket(theirs))
    house.clients.append(ours)
    house.transport.error = OSError(errno.EPROTOTYPE, "Protocol wrong type for socket")
    house.start()
    assert (house.joined, house.left) == (0, 1)
    house.close()


def test_nobody_is_let_in_after_the_end(house: House) -> None:
    house.connect()
    second = house.connect()
    house.acceptor.close()
    house.run_soon()
    assert is_closed(second)
    assert (house.loop.readers, house.transport.detached) == ({}, 1)

# SPDX-License-Identifier: GPL-2.0-or-later
"""The socket factory: what it makes lives in its namespace, whoever uses it."""

import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from passtpy.net.kernel.sockdiag import Diag, Found, ProcTables, Source, open_proc
from passtpy.net.namespace import factory, factory_client
from passtpy.net.namespace.factory import Server
from passtpy.net.namespace.factory_client import Factory, SocketStock
from tests.lab import Lab, Namespace

TCP, UDP = 6, 17
BOTH = 3
KEY = (socket.AF_INET, socket.SOCK_STREAM)


class Later:
    """A timer of the loop below."""

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback

    def cancel(self) -> None:
        self.callback = lambda: None


class Loop:
    """As much of a loop as the factory needs: one round at a time."""

    def __init__(self) -> None:
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[Later] = []

    def call_soon(self, callback: Callable[[], None]) -> None:
        self._timers.append(Later(callback))

    def call_later(self, delay: float, callback: Callable[[], None]) -> Later:
        self._timers.append(Later(callback))
        return self._timers[-1]

    def late(self) -> None:
        """Let every timer that runs come to its end."""
        timers, self._timers = self._timers, []
        for timer in timers:
            timer.callback()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        del self._readers[fd]

    def once(self, timeout: float = 30) -> None:
        ready, _, _ = select.select(list(self._readers), [], [], timeout)
        for fd in ready:
            self._readers[fd]()


@pytest.fixture
def guest() -> Iterator[Namespace]:
    with Lab() as lab:
        yield lab.guest()


class Made:
    """A factory in a namespace, as a thread; and the daemon's end of it."""

    def __init__(self, where: Namespace, binds_devices: bool = True) -> None:
        ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server = Server(self._theirs)
        self.server._maker.binds_devices = binds_devices
        self.client = Factory(ours)
        self._thread = threading.Thread(target=self._serve, args=(where,))
        self._thread.start()

    def _serve(self, where: Namespace) -> None:
        with where.entered():
            self.server.serve_all()
        self._theirs.close()

    def end(self) -> None:
        if not self.client.gone:
            self.client.close()
        self._thread.join(30)


@pytest.fixture
def made(guest: Namespace) -> Iterator[Made]:
    one = Made(guest)
    yield one
    one.end()


def test_sockets_are_of_the_namespace(made: Made, guest: Namespace) -> None:
    request = factory.sockets_request(*KEY, 3, False)
    text, fds = made.client.now(request)
    assert (factory.read_errno(text), len(fds)) == (0, 3)
    with guest.listen("127.0.0.1") as waiting:
        for fd in fds:
            with socket.socket(fileno=fd) as sock:
                assert not os.get_blocking(fd)
                assert not os.get_inheritable(fd)
                sock.settimeout(30)
                sock.connect(waiting.getsockname())


def test_a_port_that_fails_spoils_no_other(made: Made, guest: Namespace) -> None:
    with guest.listen("0.0.0.0", 7001):
        request = factory.listen_request(TCP, BOTH, [7000, 7001, 7002])
        text, fds = made.client.now(request)
        answers = factory.read_ports(text, 3)
    assert answers == [(0, 1), (errno.EADDRINUSE, 0), (0, 1)]
    for port, fd in zip((7000, 7002), fds, strict=True):
        with socket.socket(fileno=fd) as sock:
            assert sock.getsockname()[:2] == ("::", port)
            device = sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            assert device.rstrip(b"\0") == b"lo"
            with guest.connect("127.0.0.1", port), guest.connect("::1", port):
                pass


def test_without_the_right_to_a_device_there_are_two(guest: Namespace) -> None:
    made = Made(guest, binds_devices=False)
    text, fds = made.client.now(factory.listen_request(UDP, BOTH, [7000]))
    assert factory.read_ports(text, 1) == [(0, 2)]
    names = []
    for fd in fds:
        with socket.socket(fileno=fd) as sock:
            names.append(sock.getsockname()[:2])
    assert names == [("127.0.0.1", 7000), ("::1", 7000)]
    made.end()


def look(source: Source) -> Found:
    source.begin()
    while source.step(block=True):
        pass
    source.close()
    return source.found


def test_what_listens_is_told_in_both_ways(made: Made, guest: Namespace) -> None:
    with guest.listen("0.0.0.0", 7000), guest.udp("::", 7001):
        _, (diag,) = made.client.now(factory.diag_request())
        told = look(Diag.from_fd(diag))
        with guest.entered():
            names = ("tcp", "tcp6", "udp", "udp6")
            paths = [f"/proc/thread-self/net/{name}" for name in names]
            tables = [os.open(path, os.O_RDONLY) for path in paths]
        read = look(ProcTables(tuple(tables)))
    assert {p: [h.port for h in found] for p, found in told.items()} == {
        TCP: [7000],
        UDP: [7001],
    }
    assert read == told


def test_a_flow_that_finds_no_socket_waits_for_it(made: Made) -> None:
    loop, got = Loop(), list[int]()
    made.client.start(loop)
    stock = SocketStock(made.client)
    for _ in range(40):
        stock.take(*KEY, got.append)
    assert got == []
    while len(got) < 40:
        loop.once()
    counters = stock.counters()
    assert counters.pop("splice_made") >= counters.pop("splice_used") == 40
    assert counters == {"splice_waited": 40, "splice_refused": 0}
    assert min(got) > 0
    loop.once()
    stock.take(*KEY, got.append)
    assert (len(got), stock.counters()["splice_waited"]) == (41, 40)
    assert stock.counters()["splice_used"] == 41
    for fd in got:
        os.close(fd)
    stock.close()


def test_without_a_factory_flows_are_refused(made: Made) -> None:
    loop, got = Loop(), list[int]()
    made.client.start(loop)
    stock = SocketStock(made.client)
    made.client.close()
    stock.take(*KEY, got.append)
    assert got == [-1]


def test_those_who_wait_learn_that_the_factory_ended(guest: Namespace) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    loop, got = Loop(), list[int]()
    client = Factory(ours)
    client.start(loop)
    stock = SocketStock(client)
    stock.take(*KEY, got.append)
    theirs.close()
    loop.once()
    assert got == [-1]
    assert client.gone
    client.close()


class Stopped:
    """A factory that says nothing until it is told to; and the daemon's end of it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.server, self.theirs = Server(theirs), theirs
        self.told: list[bool] = []  # whether it was said to be silent
        self.client = Factory(ours, on_silent=self.told.append)
        self.loop, self.stock = Loop(), SocketStock(self.client)
        self.client.start(self.loop)
        self.got: list[int] = []

    def take(self) -> None:
        self.stock.take(*KEY, self.got.append)

    def answer(self) -> None:
        self.server.serve()
        self.loop.once()


@pytest.fixture
def stopped() -> Iterator[Stopped]:
    made = Stopped()
    yield made
    made.stock.close()
    made.client.close()
    for fd in made.server.held() - {made.theirs.fileno()}:
        os.close(fd)
    made.theirs.close()
    for fd in made.got:
        if fd >= 0:
            os.close(fd)


def test_a_silent_factory_holds_nobody_up(stopped: Stopped) -> None:
    for _ in range(3):
        stopped.take()
    assert stopped.got == []
    stopped.loop.late()
    assert (stopped.got, stopped.told) == ([-1, -1, -1], [True])
    stopped.take()  # nobody waits for it again
    assert stopped.got == [-1] * 4
    assert stopped.stock.counters()["splice_refused"] == 4
    stopped.answer()
    assert stopped.told == [True, False]
    stopped.take()
    stopped.answer()
    assert stopped.got[4] >= 0


def test_one_that_answers_is_not_silent(stopped: Stopped) -> None:
    stopped.take()
    stopped.answer()
    for _ in range(80):
        stopped.take()
    stopped.loop.late()  # the timer is that of the first request, which was answered
    assert stopped.told == []
    stopped.loop.late()
    assert stopped.told == [True]


def test_a_start_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(factory_client, "STARTS_S", 0.05)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        gone: list[bool] = []
        client = Factory(ours, lambda: gone.append(True))
        assert client.now(factory.diag_request()) == (b"", [])
        assert client.now(factory.diag_request()) == (b"", [])
        assert (client.gone, gone) == (True, [True])
        client.close()


def test_nonsense_is_answered_and_forgotten(made: Made) -> None:
    text, fds = made.client.now(b"?")
    assert (factory.read_errno(text), fds) == (errno.EINVAL, [])
    text, fds = made.client.now(factory.proc_request())
    assert (factory.read_errno(text), len(fds)) == (0, len(open_proc()))
    for fd in fds:
        os.close(fd)

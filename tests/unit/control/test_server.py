# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients of the control socket: who may talk, and who can stop whom (nobody)."""

import asyncio
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from passtpy.client.connect import Client, answers
from passtpy.config.model import Config
from passtpy.control import server, sockets
from passtpy.control.http import Conversation, Router
from passtpy.control.server import Server
from passtpy.control.sockets import ControlSockets
from passtpy.control.verb import Stream, Verb
from passtpy.log import Log
from passtpy.net.kernel.local import listen

ME = frozenset((os.getuid(),))


class Shout:
    """Answers each line in capitals; `long` gets as much as it takes; `wait` waits."""

    def __init__(self, pid: int) -> None:
        self.woken: Callable[[], None] = lambda: None
        self.pid = pid
        self.left = 0
        self.backlog = 0  # pieces that a stream has now
        self.streaming = False
        self.gentle = False
        self.over = False
        self.gone = False
        self.taken = 0
        SEEN.append(self)

    def begin(self) -> bytes:
        return b"hello\n"

    def receive(self, data: bytes) -> bytes:
        if data == b"long\n":
            self.left = 1000
        elif data == b"wait\n":
            self.streaming = True
            self.woken()
        elif data == b"gentle\n":
            self.streaming = self.gentle = True
            self.woken()
        elif data == b"flood\n":
            self.streaming, self.backlog = True, 40
            self.woken()
        elif data == b"bug\n":
            raise ZeroDivisionError
        elif data in (b"", b"bye\n"):
            self.over = True
        return data.upper()

    @property
    def answering(self) -> bool:
        return self.left > 0 or self.streaming

    def more(self) -> bytes:
        if self.backlog:
            self.backlog -= 1
            self.woken()
            return b"x" * 65536
        if self.gentle:
            self.taken += 1
            self.woken()
            return b"event\n" * 1000
        if self.streaming:
            return b"event\n"
        self.left -= 1
        return b"x" * 65536

    def leave(self) -> None:
        self.gone = True


SEEN: list[Shout] = []
WRITERS: list[asyncio.StreamWriter] = []


@pytest.fixture
def path(tmp_path: Path) -> str:
    SEEN.clear()
    return str(tmp_path / "control")


def serve(
    path: str,
    body: Callable[[Server], Awaitable[None]],
    users: frozenset[int] = ME,
    most: int = server.MAX_CLIENTS,
    who_is: server.WhoIs = server.nobody_knows,
) -> Server:
    async def main() -> Server:
        it = Server(
            listen(path), Shout, users, lambda at, e: None, most=most, who_is=who_is
        )
        it.start(asyncio.get_running_loop())
        try:
            await asyncio.wait_for(body(it), 60)
        finally:
            it.close()
            for writer in WRITERS:
                writer.close()
            await asyncio.gather(
                *(w.wait_closed() for w in WRITERS), return_exceptions=True
            )
            WRITERS.clear()
        return it

    return asyncio.run(main())


async def connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(path)
    WRITERS.append(writer)
    return reader, writer


def test_bytes_go_both_ways_until_the_dialect_is_over(path: str) -> None:
    async def body(it: Server) -> None:
        reader, writer = await connect(path)
        assert await reader.readline() == b"hello\n"
        writer.write(b"how are you\n")
        assert await reader.readline() == b"HOW ARE YOU\n"
        writer.write(b"bye\n")
        assert await reader.read() == b"BYE\n"
        assert SEEN[0].pid == os.getpid()

    serve(path, body)
    assert SEEN[0].gone


def test_who_hangs_up_says_first_how_an_answer_ended(path: str) -> None:
    async def body(it: Server) -> None:
        reader, writer = await connect(path)
        writer.write(b"wait\n")
        assert await reader.readexactly(11) == b"hello\nWAIT\n"
        it.close()
        assert (await reader.read()).endswith(b"event\n")

    serve(path, body)
    assert SEEN[0].gone


def test_the_socket_is_its_owners_alone(path: str) -> None:
    with listen(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def test_another_user_is_not_heard(path: str) -> None:
    async def body(it: Server) -> None:
        reader, _ = await connect(path)
        assert await reader.read() == b""

    it = serve(path, body, users=frozenset((os.getuid() + 1,)))
    assert it.counters()["control_refused"] == 1
    assert not SEEN


@pytest.mark.parametrize(
    ("told", "heard"),
    [
        ((os.getuid(), 1), True),
        ((os.getuid() + 1, 1), False),
        ((os.getuid(), 0), False),  # it is gone: nobody can say whose it was
    ],
)
def test_a_user_whom_the_kernel_does_not_tell_is_asked_for(
    path: str, monkeypatch: pytest.MonkeyPatch, told: tuple[int, int], heard: bool
) -> None:
    monkeypatch.setattr(server, "peer_of", lambda sock: (77, server.NOBODY))
    asked: list[int] = []

    def who_is(pid: int, then: Callable[[int, int], None]) -> None:
        asked.append(pid)
        then(*told)

    async def body(it: Server) -> None:
        reader, _ = await connect(path)
        assert await reader.readline() == (b"hello\n" if heard else b"")

    serve(path, body, who_is=who_is)
    assert asked == [77]


def test_a_client_that_does_not_read_stops_nobody(path: str) -> None:
    async def body(it: Server) -> None:
        deaf = socket.socket(socket.AF_UNIX)
        deaf.connect(path)
        deaf.send(b"long\n")
        reader, writer = await connect(path)
        for _ in range(50):
            writer.write(b"hey\n")
            await reader.readline()
        assert SEEN[0].left > 900  # no more was made than its socket takes
        deaf.close()

    serve(path, body)


def test_a_long_answer_arrives_whole(path: str) -> None:
    async def body(it: Server) -> None:
        reader, writer = await connect(path)
        writer.write(b"long\n")
        got = await reader.readexactly(len(b"hello\nLONG\n") + 1000 * 65536)
        assert got.endswith(b"x")

    serve(path, body)


def test_a_bug_costs_one_client(path: str) -> None:
    async def body(it: Server) -> None:
        reader, writer = await connect(path)
        writer.write(b"bug\n")
        assert await reader.read() == b"hello\n"
        reader, writer = await connect(path)
        writer.write(b"hey\n")
        assert await reader.readexactly(10) == b"hello\nHEY\n"

    assert serve(path, body).counters()["control_failed"] == 1


def test_clients_are_bounded(path: str) -> None:
    async def body(it: Server) -> None:
        kept = [await connect(path) for _ in range(2)]
        for reader, writer in kept:
            writer.write(b"wait\n")
            assert await reader.readexactly(11) == b"hello\nWAIT\n"
        reader, _ = await connect(path)
        assert await reader.read() == b""
        kept[0][1].close()
        while not SEEN[0].gone:
            await asyncio.sleep(0.01)
        reader, _ = await connect(path)
        assert await reader.readline() == b"hello\n"

    assert serve(path, body, most=2).counters()["control_refused"] == 1


def test_who_waits_for_nothing_makes_room(path: str) -> None:
    async def body(it: Server) -> None:
        waiting, writer = await connect(path)
        writer.write(b"wait\n")
        assert await waiting.readexactly(11) == b"hello\nWAIT\n"
        for _ in range(20):
            reader, _ = await connect(path)
            assert await reader.readline() == b"hello\n"
        SEEN[0].woken()
        assert await waiting.readline() == b"event\n"

    assert serve(path, body, most=2).counters()["control_refused"] == 19


def test_silence_ends_a_client_but_no_stream(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body(it: Server) -> None:
        streaming, writer = await connect(path)
        assert await streaming.readline() == b"hello\n"
        # Not before: to say that it waits may take longer than this
        monkeypatch.setattr(server, "SILENCE_S", 0.1)
        writer.write(b"wait\n")
        assert await streaming.readline() == b"WAIT\n"
        silent, _ = await connect(path)
        assert await silent.read() == b"hello\n"
        SEEN[0].woken()
        assert await streaming.readline() == b"event\n"

    serve(path, body)


def test_a_stale_socket_gives_way_and_a_living_one_does_not(path: str) -> None:
    with listen(path), pytest.raises(FileExistsError, match="in use"):
        listen(path)
    with listen(path):
        pass


def test_what_is_no_socket_stays(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(FileExistsError, match="no socket"):
        listen(path)
    assert Path(path).read_text() == "precious"


def test_little_is_kept_for_a_stream_that_is_not_read(path: str) -> None:
    async def body(it: Server) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_UNIX) as sock:
            sock.setblocking(False)
            await loop.sock_connect(sock, path)
            await loop.sock_sendall(sock, b"gentle\n")
            while not it.counters()["control_clients"]:
                await asyncio.sleep(0.01)
            stream, taken = SEEN[-1], 0
            while not taken or stream.taken != taken:
                taken = stream.taken
                await asyncio.sleep(10 * server.STREAM_DELAY_S)
            kept = 6000 * taken
            assert 0 < kept < 64 * 1024

    serve(path, body)


async def fill(path: str, *first: bytes) -> int:
    """Say requests until no more are taken, and read nothing; how many bytes."""
    loop, said = asyncio.get_running_loop(), 0
    with socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        await loop.sock_connect(sock, path)
        for data in first:
            await loop.sock_sendall(sock, data)
        data = b"GET /nowhere HTTP/1.1\r\nhost: x\r\n\r\n" * 100
        try:
            while said < 50_000_000:
                said += await asyncio.wait_for(send_some(sock, data), 0.5)
        except (TimeoutError, BrokenPipeError, ConnectionResetError):
            pass
    return said


async def send_some(sock: socket.socket, data: bytes) -> int:
    await asyncio.get_running_loop().sock_sendall(sock, data)
    return len(data)


class Endless(Stream):
    def take(self) -> bytes:
        return b""


@pytest.mark.parametrize("path_asked", ["/nowhere", "/events"])
def test_requests_that_nobody_waits_for_are_not_kept(
    path: str, path_asked: str
) -> None:
    """Neither behind answers that are not read, nor into one that has no end."""
    endless: Verb[None] = Verb(
        "events", "GET", "/events", "", "", lambda o, a: Endless("text/x")
    )
    router = Router((endless,), None, lambda at, error: None)
    first = f"GET {path_asked} HTTP/1.1\r\nhost: x\r\n\r\n".encode()

    async def main() -> int:
        it = Server(listen(path), lambda _: Conversation(router), ME, print)
        it.start(asyncio.get_running_loop())
        try:
            return await fill(path, first)
        finally:
            it.close()

    assert asyncio.run(main()) < 2_000_000


def crowd(path: str) -> list[socket.socket]:
    """Connect until no more are queued."""
    waiting = []
    while True:
        sock = socket.socket(socket.AF_UNIX)
        sock.setblocking(False)
        waiting.append(sock)
        try:
            sock.connect(path)
        except BlockingIOError:
            return waiting


def test_a_daemon_with_a_crowd_before_it_is_alive(path: str) -> None:
    """No other takes its place, and who asks waits in the queue."""
    with listen(path) as it:
        it.setblocking(True)
        waiting = crowd(path)
        assert answers(path)
        with pytest.raises(FileExistsError):
            listen(path)
        with ThreadPoolExecutor(1) as pool:
            asked = pool.submit(Client(path).ask, "GET", "/v1/instance")
            for _ in range(len(waiting) - 1):
                it.accept()[0].close()
            with it.accept()[0] as last:
                last.recv(4096)
                last.sendall(b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}")
                assert asked.result() == {}
        for sock in waiting:
            sock.close()


def test_sockets_of_daemons_that_are_no_more_are_swept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root's cannot remove their own; one that is alive elsewhere still answers."""
    monkeypatch.setattr(sockets, "runtime_folder", lambda: str(tmp_path))
    gone, elsewhere, ours, named = 4194305, 4194306, os.getpid(), "web"
    kept = {}
    for name in (gone, elsewhere, ours, named):
        sock = listen(str(tmp_path / f"{name}.sock"))
        if name == elsewhere:
            kept[name] = sock
        else:
            sock.close()
    (tmp_path / "4194307.sock").write_text("no socket")
    made = ControlSockets(Config(name="box"), Log())
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {f"{n}.sock" for n in (elsewhere, ours, named, 4194307, "box")}
    for sock in (*made.made.values(), *kept.values()):
        sock.close()


def test_a_stream_goes_on_when_its_client_has_caught_up(path: str) -> None:
    async def body(it: Server) -> None:
        reader, writer = await connect(path)
        writer.write(b"flood\n")
        await asyncio.sleep(0.1)  # what it does not read fills all buffers
        for _ in range(40):
            await reader.readexactly(65536)
        assert SEEN[0].backlog == 0

    serve(path, body)

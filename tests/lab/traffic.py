# SPDX-License-Identifier: GPL-2.0-or-later
"""Traffic for correctness tests: byte-exact transfers, echo servers, many at once.

Everything works on ordinary blocking sockets with time-outs, made by a
:class:`~tests.lab.namespace.Namespace`; threads give the second end its turn.
"""

import hashlib
import random
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Self, TypeVar

from tests.lab.namespace import Namespace

T = TypeVar("T")

CHUNK = 256 * 1024
MEGABYTE = 1_000_000
EXCHANGE_TIMEOUT = 120.0


@dataclass(frozen=True, slots=True)
class Digest:
    """How many bytes went by, and their SHA-256."""

    size: int
    sha256: str


def random_chunks(size: int, seed: int) -> Iterator[bytes]:
    """``size`` reproducible bytes without a period, in pieces."""
    source = random.Random(seed)
    while size > 0:
        piece = source.randbytes(min(CHUNK, size))
        yield piece
        size -= len(piece)


def send_random(sock: socket.socket, size: int, seed: int = 1) -> Digest:
    """Send ``size`` random bytes and then half-close."""
    digest = hashlib.sha256()
    for piece in random_chunks(size, seed):
        sock.sendall(piece)
        digest.update(piece)
    sock.shutdown(socket.SHUT_WR)
    return Digest(size, digest.hexdigest())


def receive_all(sock: socket.socket) -> Digest:
    """Read to the peer's half-close."""
    digest, size = hashlib.sha256(), 0
    while piece := sock.recv(CHUNK):
        digest.update(piece)
        size += len(piece)
    return Digest(size, digest.hexdigest())


def transfer(sender: socket.socket, receiver: socket.socket, size: int) -> None:
    """Move ``size`` random bytes one way, to the half-close; assert them exact."""
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive_all, receiver)
        sent = send_random(sender, size)
        assert received.result(EXCHANGE_TIMEOUT) == sent


def transfer_both_ways(one: socket.socket, other: socket.socket, size: int) -> None:
    """Move ``size`` random bytes in each direction at the same time; assert exact."""
    with ThreadPoolExecutor(3) as pool:
        to_other = pool.submit(send_random, one, size, 1)
        to_one = pool.submit(send_random, other, size, 2)
        at_other = pool.submit(receive_all, other)
        at_one = receive_all(one)
        assert at_other.result(EXCHANGE_TIMEOUT) == to_other.result(EXCHANGE_TIMEOUT)
        assert at_one == to_one.result(EXCHANGE_TIMEOUT)


def tcp_pair(
    client: Namespace, server: Namespace, address: str, port: int = 0
) -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection from ``client`` to a listener in ``server``."""
    with server.listen(address, port) as listener:
        near = client.connect(address, listener.getsockname()[1])
        try:
            far, _ = listener.accept()
        except BaseException:
            near.close()
            raise
    far.settimeout(near.gettimeout())
    return near, far


def in_parallel(count: int, work: Callable[[int], T], threads: int = 64) -> list[T]:
    """Call ``work(0) … work(count - 1)``, many at a time; the results in order."""
    with ThreadPoolExecutor(min(count, threads)) as pool:
        return list(pool.map(work, range(count)))


class _Server:
    """A thread that serves a socket until the ``with`` block ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.settimeout(0.1)  # how often the thread looks for its end
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self.address: str = sock.getsockname()[0]
        self.port: int = sock.getsockname()[1]

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closing.set()
        self._thread.join(30)
        self._sock.close()

    def _serve(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                self._serve_one()

    def _serve_one(self) -> None:
        raise NotImplementedError


class TcpServer(_Server):
    """Accepts connections and gives each to ``handle`` in a thread of its own."""

    def __init__(
        self,
        where: Namespace,
        address: str,
        handle: Callable[[socket.socket], object],
        port: int = 0,
    ) -> None:
        super().__init__(where.listen(address, port))
        self._handle = handle
        self.peers: list[tuple[str, int]] = []

    def _serve_one(self) -> None:
        sock, peer = self._sock.accept()
        self.peers.append((peer[0], peer[1]))
        threading.Thread(target=self._run, args=(sock,), daemon=True).start()

    def _run(self, sock: socket.socket) -> None:
        sock.settimeout(EXCHANGE_TIMEOUT)
        with sock, suppress(OSError):
            self._handle(sock)


def echo(sock: socket.socket) -> None:
    """Send back what comes until the peer's half-close, then half-close too."""
    while piece := sock.recv(CHUNK):
        sock.sendall(piece)
    sock.shutdown(socket.SHUT_WR)


def tcp_echo(where: Namespace, address: str, port: int = 0) -> TcpServer:
    """An echo server; use it in a ``with`` block, read its ``port``."""
    return TcpServer(where, address, echo, port)


class UdpEcho(_Server):
    """Sends each datagram back to where it came from; keeps the list of senders."""

    def __init__(self, where: Namespace, address: str, port: int = 0) -> None:
        super().__init__(where.udp(address, port))
        self.peers: list[tuple[str, int]] = []

    def _serve_one(self) -> None:
        data, peer = self._sock.recvfrom(65535)
        self.peers.append((peer[0], peer[1]))
        self._sock.sendto(data, peer)


def exchange(sock: socket.socket, data: bytes) -> bytes:
    """Send ``data`` to an echo server, half-close, and return what came back."""
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_read_to_end, sock)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return answer.result(EXCHANGE_TIMEOUT)


def _read_to_end(sock: socket.socket) -> bytes:
    pieces: list[bytes] = []
    while piece := sock.recv(CHUNK):
        pieces.append(piece)
    return b"".join(pieces)


@contextmanager
def closing_all(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Close all the sockets at the end of a ``with`` block."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks the host's resolvers, each question from a socket (a port) of its own."""

import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from passtpy.errors import WireError
from passtpy.net.kernel.connecting import WriterLoop
from passtpy.net.kernel.leaving import Leaving, begin_to_connect
from passtpy.net.kernel.loop import Timer
from passtpy.services.dns.message import MAX_SIZE
from passtpy.services.dns.resolver import Server
from passtpy.services.dns.stream import Messages, framed

RESEND_S: Final = 1.0  # a datagram may be lost
PATIENCE_S: Final = 3.0  # of a client that asks again after 5 s

Done = Callable[[bytes | None], None]


class Nameservers:
    """Carries questions to servers, and the first answer that comes back."""

    def __init__(self, loop: WriterLoop, leaving: Leaving) -> None:
        self._loop = loop
        self._leaving = leaving
        self._open: set[_Asked] = set()

    def ask(self, server: Server, query: bytes, tcp: bool, done: Done) -> None:
        """Ask once; `done` is called later, with None if no answer came."""
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        try:
            sock = begin_to_connect(kind, server.address, server.port, self._leaving)
        except OSError:
            self._loop.call_soon(lambda: done(None))
            return

        def over(answer: bytes | None) -> None:
            self._open.discard(asked)
            done(answer)

        asked = (_AskedTcp if tcp else _AskedUdp)(self._loop, sock, query, over)
        self._open.add(asked)

    def close(self) -> None:
        """Ask no more; nobody is called back."""
        for asked in self._open:
            asked.close()
        self._open.clear()


class _Asked:
    """One question under way; its socket is closed with it."""

    def __init__(
        self, loop: WriterLoop, sock: socket.socket, query: bytes, done: Done
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._query = query
        self._done = done
        self._timer: Timer = loop.call_later(PATIENCE_S, lambda: self._over(None))

    def close(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()

    def _over(self, answer: bytes | None) -> None:
        self.close()
        self._done(answer)


class _AskedUdp(_Asked):
    """Over UDP. What is no answer to the question may be forged, and is passed over."""

    def __init__(
        self, loop: WriterLoop, sock: socket.socket, query: bytes, done: Done
    ) -> None:
        super().__init__(loop, sock, query, done)
        loop.add_reader(sock.fileno(), self._read)
        self._again: Timer = loop.call_later(RESEND_S, self._send)
        self._send()

    def close(self) -> None:
        self._again.cancel()
        super().close()

    def _send(self) -> None:
        with suppress(OSError):  # refused, unreachable: reading tells
            self._sock.send(self._query)

    def _read(self) -> None:
        try:
            data = self._sock.recv(MAX_SIZE)
        except BlockingIOError:
            return
        except OSError:
            self._over(None)
            return
        if data[:2] == self._query[:2]:
            self._over(data)


class _AskedTcp(_Asked):
    """Over TCP: connect, say it, read one message."""

    def __init__(
        self, loop: WriterLoop, sock: socket.socket, query: bytes, done: Done
    ) -> None:
        super().__init__(loop, sock, query, done)
        self._left = framed(query)
        self._messages = Messages()
        loop.add_writer(sock.fileno(), self._write)

    def close(self) -> None:
        self._loop.remove_writer(self._sock.fileno())
        super().close()

    def _write(self) -> None:
        try:
            self._left = self._left[self._sock.send(self._left) :]
        except BlockingIOError:
            return
        except OSError:
            self._over(None)
            return
        if not self._left:
            self._loop.remove_writer(self._sock.fileno())
            self._loop.add_reader(self._sock.fileno(), self._read)

    def _read(self) -> None:
        try:
            data = self._sock.recv(MAX_SIZE)
            answers = list(self._messages.feed(data))
        except BlockingIOError:
            return
        except (OSError, WireError):
            self._over(None)
            return
        if answers or not data:
            self._over(answers[0] if answers else None)

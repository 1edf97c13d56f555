# SPDX-License-Identifier: GPL-2.0-or-later
"""Talks DNS over streams with the guest, one connected socket at a time (RFC 7766)."""

import socket
from collections.abc import Callable
from typing import Final

from passtpy.errors import WireError
from passtpy.net.kernel.connecting import WriterLoop
from passtpy.net.kernel.loop import Timer
from passtpy.services.dns.stream import Messages, framed

IDLE_S: Final = 10.0
MOST: Final = 64  # connections; the one that said nothing for longest goes
MOST_BYTES: Final = 1 << 18  # of answers that the guest does not read
_READ: Final = 1 << 12

# Takes one question, and what to do with its answer
Ask = Callable[[bytes, Callable[[bytes], None]], object]


class DnsStreams:
    """All connections over which the guest asks."""

    def __init__(self, loop: WriterLoop, ask: Ask) -> None:
        self._loop = loop
        self._ask = ask
        self._open: dict[_Stream, None] = {}

    def serve(self, sock: socket.socket) -> None:
        """Answer on this socket, which does not block and is ours from now on."""
        if len(self._open) >= MOST:
            next(iter(self._open)).close()
        stream = _Stream(self._loop, sock, self._ask, self._closed)
        self._open[stream] = None

    def close(self) -> None:
        """End all of them."""
        for stream in list(self._open):
            stream.close()

    def _closed(self, stream: "_Stream") -> None:
        self._open.pop(stream, None)


class _Stream:
    """One connection."""

    def __init__(
        self,
        loop: WriterLoop,
        sock: socket.socket,
        ask: Ask,
        closed: Callable[["_Stream"], None],
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._ask = ask
        self._closed = closed
        self._messages = Messages()
        self._unsent = b""
        self._asked = 0  # questions that have no answer yet
        self._ended = False  # the guest asks no more
        self._timer: Timer = loop.call_later(IDLE_S, self.close)
        loop.add_reader(sock.fileno(), self._read)

    def close(self) -> None:
        """End it; what is answered later goes nowhere."""
        fd = self._sock.fileno()
        if fd < 0:
            return
        self._timer.cancel()
        self._loop.remove_reader(fd)
        self._loop.remove_writer(fd)
        self._sock.close()
        self._closed(self)

    def _read(self) -> None:
        try:
            data = self._sock.recv(_READ)
            questions = list(self._messages.feed(data))
        except BlockingIOError:
            return
        except (OSError, WireError):
            self.close()
            return
        if not data:
            self._ended = True
            self._loop.remove_reader(self._sock.fileno())
            self._close_if_done()
            return
        self._timer.cancel()
        self._timer = self._loop.call_later(IDLE_S, self.close)
        self._asked += len(questions)
        for question in questions:
            self._ask(question, self._answer)

    def _answer(self, message: bytes) -> None:
        self._asked -= 1
        if self._sock.fileno() < 0:
            return
        self._unsent += framed(message)
        if len(self._unsent) > MOST_BYTES:
            self.close()
        else:
            self._write()

    def _write(self) -> None:
        try:
            self._unsent = self._unsent[self._sock.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        if self._unsent:
            self._loop.add_writer(self._sock.fileno(), self._write)
        else:
            self._loop.remove_writer(self._sock.fileno())
            self._close_if_done()

    def _close_if_done(self) -> None:
        if self._ended and not self._unsent and self._asked <= 0:
            self.close()

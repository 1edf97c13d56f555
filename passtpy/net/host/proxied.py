# SPDX-License-Identifier: GPL-2.0-or-later
"""Connects through a proxy: to it, then by its words to a name or an address."""

import errno
import os
import socket
from collections.abc import Callable
from typing import Final

from passtpy.addr import Address, inany
from passtpy.errors import WireError
from passtpy.net.kernel.connecting import Connecting, WriterLoop
from passtpy.net.kernel.leaving import Leaving
from passtpy.net.kernel.loop import Timer
from passtpy.wire.proxy import (
    Conversation,
    Credentials,
    HttpConnect,
    ProxyRefusedError,
    Socks5,
)

PATIENCE_S: Final = 30.0  # a proxy connects as well
_LOOK: Final = 1 << 14


def conversation(
    scheme: str, host: str | Address, port: int, credentials: Credentials | None
) -> Conversation:
    """Return what is said to a proxy of this kind."""
    kind = Socks5 if scheme == "socks5" else HttpConnect
    return kind(host, port, credentials)


class Proxied:
    """One connection under way. `done` gets the socket, or why there is none."""

    def __init__(
        self,
        loop: WriterLoop,
        proxy: tuple[Address, int],
        talk: Conversation,
        leaving: Leaving,
        done: Callable[[socket.socket | str], None],
    ) -> None:
        self._loop = loop
        self._talk = talk
        self._done = done
        self._unsent = talk.begin()
        self._sock: socket.socket | None = None
        self._wanted = 1  # bytes without which we are told of nothing but the end
        self._timer: Timer = loop.call_later(
            PATIENCE_S, lambda: self._failed(os.strerror(errno.ETIMEDOUT))
        )
        address, port = proxy
        targets = ((inany(address), port),)
        self._connecting: Connecting | None = Connecting(
            loop, targets, leaving, self._connected
        )

    def close(self) -> None:
        """Give up; nobody is called back."""
        self._timer.cancel()
        if self._connecting is not None:
            self._connecting.close()
        if self._sock is not None:
            self._leave(self._sock).close()

    def _leave(self, sock: socket.socket) -> socket.socket:
        """Look at the socket no more."""
        self._timer.cancel()
        self._sock = None
        self._loop.remove_reader(sock.fileno())
        self._loop.remove_writer(sock.fileno())
        return sock

    def _failed(self, why: str) -> None:
        self.close()
        self._done(why)

    def _connected(self, there: socket.socket | int) -> None:
        self._connecting = None
        if isinstance(there, int):
            self._failed(os.strerror(there))
            return
        self._sock = there
        self._loop.add_reader(there.fileno(), self._read)
        self._write()

    def _write(self) -> None:
        sock = self._sock
        if sock is None:
            return
        try:
            while self._unsent:
                self._unsent = self._unsent[sock.send(self._unsent) :]
        except BlockingIOError:
            self._loop.add_writer(sock.fileno(), self._write)
            return
        except OSError as error:
            self._failed(error.strerror or str(error))
            return
        self._loop.remove_writer(sock.fileno())

    def _read(self) -> None:
        """Look at what the proxy says, and take only what is for us."""
        sock = self._sock
        try:
            while sock is not None:
                data = sock.recv(_LOOK, socket.MSG_PEEK)
                step = self._talk.take(data)
                if step.used:
                    sock.recv(step.used)
                if step.used:
                    self._be_told_of(sock, 1)
                if step.done:
                    self._done(self._leave(sock))
                    return
                if step.send:
                    self._unsent += step.send
                    self._write()
                if len(data) < self._wanted and not step.used:
                    self._failed("it hung up")
                    return
                if not step.used:  # more has to come; what is there stays readable
                    self._be_told_of(sock, len(data) + 1)
                    return
                sock = self._sock
        except BlockingIOError:
            return
        except (WireError, ProxyRefusedError) as error:
            self._failed(str(error))
        except OSError as error:
            self._failed(error.strerror or str(error))

    def _be_told_of(self, sock: socket.socket, count: int) -> None:
        """Be told when there are so many bytes: half a message twice is no news."""
        self._wanted = count
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Connects a TCP socket, one address after the other, without waiting."""

import errno
import socket
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from passtpy.addr import from_inany
from passtpy.net.kernel.leaving import Leaving, begin_to_connect
from passtpy.net.kernel.loop import Loop, Timer

PATIENCE_S: Final = 10.0  # for each address
MOST_ADDRESSES: Final = 4


class WriterLoop(Loop, Protocol):
    """Calls back when a descriptor can be written as well."""

    def add_writer(self, fd: int, callback: Callable[[], None], /) -> object: ...

    def remove_writer(self, fd: int, /) -> object: ...


class Connecting:
    """One connection under way. `done` gets the socket, or the last error's errno."""

    def __init__(
        self,
        loop: WriterLoop,
        targets: Iterable[tuple[bytes, int]],
        leaving: Leaving,
        done: Callable[[socket.socket | int], None],
    ) -> None:
        self._loop = loop
        self._targets = list(targets)[:MOST_ADDRESSES]
        self._leaving = leaving
        self._done = done
        self._error = errno.EHOSTUNREACH
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._next: object = loop.call_soon(self._try)
        self._over = False

    def close(self) -> None:
        """Give up; nobody is called back."""
        self._over = True
        self._drop()

    def _drop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._sock is not None:
            self._loop.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None

    def _try(self) -> None:
        if self._over:
            return
        if not self._targets:
            self._over = True
            self._done(self._error)
            return
        address, port = self._targets.pop(0)
        try:
            self._sock = begin_to_connect(
                socket.SOCK_STREAM, from_inany(address), port, self._leaving
            )
        except OSError as error:
            self._failed(error.errno or errno.EIO)
            return
        self._timer = self._loop.call_later(
            PATIENCE_S, lambda: self._failed(errno.ETIMEDOUT)
        )
        self._loop.add_writer(self._sock.fileno(), self._ready)

    def _ready(self) -> None:
        assert self._sock is not None
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self._failed(error)
            return
        sock, self._sock = self._sock, None
        self._loop.remove_writer(sock.fileno())
        self._drop()
        self._over = True
        self._done(sock)

    def _failed(self, error: int) -> None:
        self._error = error
        self._drop()
        self._next = self._loop.call_soon(self._try)

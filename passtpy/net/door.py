# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets virtual machines in, one at a time, and notices when they leave.

Who comes while another is here is let in just to be sent away: otherwise it would wait
for something that may never happen. A machine that has left may come again before the
loop has seen both, so nobody is sent away before all that happened by then was looked
at once.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from passtpy.log import Log
from passtpy.net.entrance import Entrance
from passtpy.net.seat import Seat

REST_S: Final = 1.0  # before the next try when there was no descriptor for anybody
_CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid


class Door:
    """The entrance, who came through it, and what happens when they leave."""

    def __init__(
        self,
        entrance: Entrance,
        seat: Seat,
        log: Log,
        joined: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        self._entrance = entrance
        self._seat = seat
        self._log = log
        self._joined = joined
        self._left = left
        self._loop: asyncio.AbstractEventLoop | None = None
        self._taken = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let in whoever comes from now on."""
        self._loop = loop
        if self._entrance.listens:
            loop.add_reader(self._entrance.sock.fileno(), self._on_knock)
        else:
            self._seat_or_refuse(self._entrance.sock)

    def close(self) -> None:
        """Let go of the machine; the entrance is its owner's to close."""
        if self._loop is not None and self._entrance.listens:
            self._loop.remove_reader(self._entrance.sock.fileno())
        self._loop = None
        self._seat.detach()

    def gone(self, number: int) -> None:
        """The datapath has lost the machine, and tells why."""
        self._seat.detach()
        self._on_gone(self._seat.reasons.get(number, os.strerror(number)))

    def _on_knock(self) -> None:
        if self._loop is None:
            return
        try:
            sock, _ = self._entrance.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._log.warning("machine.failed", reason=error.strerror)
            self._rest(self._loop)
            return
        if self._taken:
            self._loop.call_soon(self._seat_or_refuse, sock)
        else:
            self._seat_or_refuse(sock)

    def _rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave who waits outside waiting, instead of asking all the time."""
        fd = self._entrance.sock.fileno()
        loop.remove_reader(fd)
        loop.call_later(REST_S, self._listen_again)

    def _listen_again(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._entrance.sock.fileno(), self._on_knock)

    def _seat_or_refuse(self, sock: socket.socket) -> None:
        loop = self._loop
        if loop is None:
            sock.close()
            return
        who = _who(sock)
        if self._taken:
            self._log.warning("machine.refused", **who, reason="another one is here")
            sock.close()
            return
        try:
            self._seat.attach(sock, loop, self._on_gone)
        except OSError as error:
            self._log.warning("machine.failed", **who, reason=error.strerror)
            sock.close()
            if not self._entrance.listens:
                self._left()
            return
        self._taken = True
        self._log.info("machine.joined", **who)
        self._joined()

    def _on_gone(self, reason: str) -> None:
        if not self._taken:
            return
        self._taken = False
        self._log.info("machine.left", reason=reason)
        self._left()


def _who(sock: socket.socket) -> dict[str, object]:
    """Return who is at the other end, as far as the kernel knows."""
    if sock.family != socket.AF_UNIX:
        return {}
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return {"pid": pid, "uid": uid}

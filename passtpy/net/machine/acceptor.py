# SPDX-License-Identifier: GPL-2.0-or-later
"""Accepts the connections of virtual machines, one at a time.

A second machine is accepted just to be sent away: otherwise it would wait for something
that may never happen. But a machine that has left may come again before the loop has
seen either, so all that has happened by then is looked at before anybody is sent away.
"""

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from typing import Final

from passtpy.log import Log
from passtpy.net.machine.transport import Transport
from passtpy.net.machine.unix_socket import MachineSocket

REST_S: Final = 1.0  # before the next try when there was no descriptor for anybody
_CREDENTIALS: Final = struct.Struct("=3i")  # pid, uid, gid


class Acceptor:
    """Accepts a connection, hands it to the transport, and tells who came and left."""

    def __init__(
        self,
        machine_socket: MachineSocket,
        transport: Transport,
        log: Log,
        joined: Callable[[], None],
        left: Callable[[], None],
    ) -> None:
        self._socket = machine_socket
        self._transport = transport
        self._log = log
        self._joined = joined
        self._left = left
        self._loop: asyncio.AbstractEventLoop | None = None
        self._taken = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let in whoever comes from now on."""
        self._loop = loop
        if self._socket.listens:
            loop.add_reader(self._socket.sock.fileno(), self._on_connection)
        else:
            self._attach_or_refuse(self._socket.sock)

    def close(self) -> None:
        """Let go of the machine; the socket is its owner's to close."""
        if self._loop is not None and self._socket.listens:
            self._loop.remove_reader(self._socket.sock.fileno())
        self._loop = None
        self._transport.detach()

    def gone(self, number: int) -> None:
        """The datapath has lost the machine, and tells why."""
        self._transport.detach()
        self._on_gone(self._transport.reasons.get(number, os.strerror(number)))

    def _on_connection(self) -> None:
        if self._loop is None:
            return
        try:
            sock, _ = self._socket.sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self._log.warning("machine.failed", reason=error.strerror)
            self._rest(self._loop)
            return
        if self._taken:
            self._loop.call_soon(self._attach_or_refuse, sock)
        else:
            self._attach_or_refuse(sock)

    def _rest(self, loop: asyncio.AbstractEventLoop) -> None:
        """Leave who waits outside waiting, instead of asking all the time."""
        fd = self._socket.sock.fileno()
        loop.remove_reader(fd)
        loop.call_later(REST_S, self._listen_again)

    def _listen_again(self) -> None:
        if self._loop is not None:
            self._loop.add_reader(self._socket.sock.fileno(), self._on_connection)

    def _attach_or_refuse(self, sock: socket.socket) -> None:
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
            self._transport.attach(sock, loop, self._on_gone)
        except OSError as error:
            self._log.warning("machine.failed", **who, reason=error.strerror)
            sock.close()
            if not self._socket.listens:
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

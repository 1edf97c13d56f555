# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest of the datapath tests that came by vhost-user: both of its ends."""

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any, cast

from passtpy import _native
from passtpy.log import Log
from passtpy.net.machine.vhost import VhostTransport
from tests.datapath.guest import Guest
from tests.datapath.link import Link
from tests.lab.vhost_frontend import OFFLOADS, PLAIN, RX, Frontend, Vnet

_VNET_LEN = 10  # without the number of buffers


class Loop:
    """As much of an event loop as a transport needs; pump() stands for its wake-ups."""

    def __init__(self) -> None:
        self._readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` in pump()."""
        self._readers[fd] = callback

    def remove_reader(self, fd: int) -> None:
        """Call nobody for this descriptor any more."""
        del self._readers[fd]

    def pump(self) -> None:
        """Wake everybody, ready or not."""
        for callback in list(self._readers.values()):
            callback()


class FrontendLink:
    """Rings in shared memory, their front-end, and the transport that serves it."""

    def __init__(self, datapath: _native.Datapath, vnet: bool) -> None:
        """Connect a front-end, with offloads and headers in frames if `vnet`."""
        self._vnet = vnet
        self.loop = Loop()
        self.reasons: list[str] = []
        self.transport = VhostTransport(datapath, Log(), on_ready=lambda: None)
        self.frontend = self.connect(OFFLOADS if vnet else PLAIN)
        self.frontend.start()

    def connect(self, features: int, **options: Any) -> Frontend:
        """Return a new front-end, connected but silent; nobody else may be."""
        ours, theirs = socket.socketpair()
        loop = cast(asyncio.AbstractEventLoop, self.loop)
        self.transport.attach(ours, loop, self.reasons.append)
        return Frontend(theirs, features, idle=self.loop.pump, **options)

    def replace(self, features: int = PLAIN, **options: Any) -> Frontend:
        """The front-end goes and another one comes."""
        self.frontend.close()
        self.loop.pump()
        self.frontend = self.connect(features, **options)
        return self.frontend

    def send(self, frame: bytes) -> None:
        """Send one frame, its header included if there is one."""
        head = Vnet()
        if self._vnet:
            head = Vnet(*struct.unpack_from("<BBHHHH", frame))
            frame = frame[_VNET_LEN:]
        self.frontend.send_frame(frame, head)

    def recv(self) -> bytes:
        """Return the next frame; BlockingIOError when there is none."""
        got = self.frontend.next_frame()
        if got is None:
            raise BlockingIOError
        head, frame = got
        return bytes(head)[:_VNET_LEN] * self._vnet + frame

    def fileno(self) -> int:
        """What is readable when the datapath has called."""
        return self.frontend.rings[RX].call

    def close(self) -> None:
        """Hang up, and let the transport find out."""
        self.frontend.close()
        self.loop.pump()


class FrontendGuest(Guest):
    """A guest whose rings were negotiated, message by message."""

    def _plug_in(self) -> Link:
        return FrontendLink(self.dp, self.vnet)

    def close(self) -> None:
        """Hang up, then destroy the datapath."""
        if not self.dp.closed:
            self.link.close()
            self.dp.close()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Carries the frames of a virtual machine, once its connection was accepted.

They are on the machine's socket itself (a stream), or in its memory: then the socket
tells where (vhost-user).
"""

import asyncio
import socket
from collections.abc import Callable, Mapping
from errno import ENOTCONN, EPROTO
from typing import ClassVar, Protocol

from passtpy._native import Datapath
from passtpy.config.model import Config
from passtpy.log import Log


class Transport(Protocol):
    """Serves the connection of one machine at a time."""

    @property
    def reasons(self) -> Mapping[int, str]:
        """Why the datapath may lose a machine, by errno."""

    def attach(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_gone: Callable[[str], None],
    ) -> None:
        """Take over a connected socket; `on_gone` is told why it came to an end."""

    def detach(self) -> None:
        """Let go of the machine, if it is there."""


class StreamDatapath(Protocol):
    """The part of a datapath that takes a socket with frames on it."""

    def attach(self, fd: int, /) -> None: ...

    def detach(self) -> None: ...


class StreamTransport:
    """Gives the socket to the datapath, which tells the engine when it is gone."""

    reasons: ClassVar[Mapping[int, str]] = {
        ENOTCONN: "connection closed",
        EPROTO: "a length that no frame can have",
    }

    def __init__(self, datapath: StreamDatapath) -> None:
        self._datapath = datapath

    def attach(
        self,
        sock: socket.socket,
        _loop: asyncio.AbstractEventLoop,
        _on_gone: Callable[[str], None],
    ) -> None:
        """Let the datapath have a connected socket."""
        self._datapath.attach(sock.fileno())
        sock.detach()

    def detach(self) -> None:
        """Let go of the machine, if it is there."""
        self._datapath.detach()


def transport_for(
    config: Config, datapath: Datapath, log: Log, on_ready: Callable[[], None]
) -> Transport:
    """Return the transport that the command line asks for.

    A machine on a stream socket may listen from the start. One that has rings does when
    its driver has made them, and `on_ready` is called each time.
    """
    if config.vhost_user:
        from passtpy.net.machine.vhost import VhostTransport

        return VhostTransport(datapath, log, on_ready)
    return StreamTransport(datapath)

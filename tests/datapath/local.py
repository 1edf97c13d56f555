# SPDX-License-Identifier: GPL-2.0-or-later
"""UNIX sockets as ends of forwards: one that the datapath listens at, or is given."""

import os
import socket
from ipaddress import ip_address
from pathlib import Path

from passtpy.addr import inany
from passtpy.flow import Pif
from tests.datapath.guest import WAIT_S, Guest
from tests.datapath.splice import LISTENER, World

NAME = inany(ip_address("127.0.0.1"))
ASKED = 80  # the port that clients appear to have asked for


def listen_at(guest: Guest, path: Path, number: int = LISTENER) -> None:
    """Have the datapath listen at a UNIX socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.bind(str(path))
        sock.listen(1024)
        guest.dp.listen_nameless(sock.fileno(), number, NAME, ASKED)
        sock.detach()


def connect_to(path: Path) -> socket.socket:
    """A client of a UNIX socket."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.settimeout(WAIT_S)
    sock.connect(str(path))
    return sock


class LocalWorld(World):
    """A spliced flow whose end on the host is a UNIX socket, at `path`.

    The other one, of the namespace, is TCP.
    """

    def __init__(self, guest: Guest, path: Path, source: Pif) -> None:
        self.path = path
        super().__init__(guest, socket.SOCK_STREAM, source)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source == Pif.HOST:
            self.guest.dp.unlisten(LISTENER)
            listen_at(self.guest, self.path)

    def brought(self) -> int:
        if self.source == Pif.HOST:
            return super().brought()
        sock = connect_to(self.path)
        sock.setblocking(False)
        return sock.detach()

    def serve(self) -> socket.socket:
        if self.source == Pif.HOST:
            return super().serve()
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(self.path))
        sock.listen(1024)
        sock.settimeout(self.patience)
        self.sockets.append(sock)
        self.target_port = ASKED
        return sock

    def client(self) -> socket.socket:
        if self.source != Pif.HOST:
            return super().client()
        sock = connect_to(self.path)
        self.sockets.append(sock)
        return sock

    def close(self) -> None:
        super().close()
        if self.path.exists():
            os.unlink(self.path)


__all__ = ["ASKED", "NAME", "LocalWorld", "connect_to", "listen_at"]

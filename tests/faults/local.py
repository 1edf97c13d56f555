# SPDX-License-Identifier: GPL-2.0-or-later
"""What clients of a UNIX socket do, as one more part."""

import os
import socket

from passtpy.flow import Pif
from tests.datapath.local import ASKED, NAME
from tests.faults.scenario import LISTENER, Part, Stage


def splice_unix(stage: Stage) -> None:
    """A client of a UNIX socket that the datapath listens at."""
    world = stage.world(socket.SOCK_STREAM, Pif.HOST)
    server = world.serve()
    waiting = stage.keep(socket.socket(socket.AF_UNIX))
    waiting.bind("")  # a name that the kernel chooses
    waiting.listen()
    waiting.setblocking(False)
    world.guest.dp.unlisten(LISTENER)
    fd = os.dup(waiting.fileno())
    try:
        world.guest.dp.listen_nameless(fd, LISTENER, NAME, ASKED)
    except OSError:
        os.close(fd)
        raise
    client = stage.keep(socket.socket(socket.AF_UNIX))
    client.connect(waiting.getsockname())
    conn = stage.keep(world.accept(server))
    client.sendall(b"hello")
    assert world.work(lambda: conn.recv(9)) == b"hello"


LOCAL = Part(splice_unix)

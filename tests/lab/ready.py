# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells what can be read: of any descriptor, where select() ends at 1024; how much."""

import fcntl
import select
import socket
import struct
import termios
from typing import Any


def readable(waited: list[Any], seconds: float) -> list[int]:
    """Return the descriptors of `waited` that can be read by then."""
    poll = select.poll()
    for each in waited:
        poll.register(each, select.POLLIN)
    return [fd for fd, _ in poll.poll(seconds * 1000)]


def queued(sock: socket.socket) -> int:
    """Bytes in the receive queue (SIOCINQ)."""
    return int(struct.unpack("i", fcntl.ioctl(sock, termios.FIONREAD, bytes(4)))[0])

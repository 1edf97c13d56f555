# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes a network that has loopback and nobody else, for tests within one process.

Ports of loopback belong to whoever comes first, of all processes of a network. Several
test runners side by side, and the machine's own programs, would take them from each
other: a port that a test has just closed, or the very number that it asks for.
"""

import ctypes
import fcntl
import os
import socket
import struct
from pathlib import Path

from tests.lab.namespace import CLONE_NEWNET, Namespace

SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_libc = ctypes.CDLL(None, use_errno=True)


def lonely_network() -> Namespace | None:
    """A namespace that lasts as long as this process; None where we may not make one.

    The calling thread is back in its own on return.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.unshare(CLONE_NEWNET) != 0:
            return None
        made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            _bring_up("lo")
        finally:
            back = _libc.setns(home, CLONE_NEWNET)
        assert back == 0, os.strerror(ctypes.get_errno())
    finally:
        os.close(home)
    return Namespace(Path(f"/proc/self/fd/{made}"))


def _bring_up(name: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sh14x", name.encode(), IFF_UP)
        fcntl.ioctl(sock, SIOCSIFFLAGS, request)

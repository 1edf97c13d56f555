# SPDX-License-Identifier: GPL-2.0-or-later
"""Loopback, for tests within one process: one of their own, and when it has delivered.

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

WAIT_S = 60.0
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


def wait_delivered(hops: int = 1) -> None:
    """Return once whatever was sent over loopback before has arrived.

    With more `hops` also what the kernel says to that, and what is said to it then.

    It need not have when send() returns: a kernel that is busy leaves it to a thread of
    its own, which waits for a processor like any other. What is sent from a processor
    is delivered in order, so one more datagram from each comes after all else.
    """
    processors = os.sched_getaffinity(0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(WAIT_S)
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        for _ in range(hops):
            try:
                for processor in processors:
                    os.sched_setaffinity(0, {processor})
                    sock.send(b"last")
            finally:
                os.sched_setaffinity(0, processors)
            for _ in processors:
                sock.recv(4)

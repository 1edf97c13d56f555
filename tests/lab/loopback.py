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
from contextlib import suppress
from pathlib import Path

from tests.lab.namespace import CLONE_NEWNET, Namespace

LOST_S = 5.0  # where too many packets wait, the kernel drops some
LAST = struct.Struct("=II")  # the hop, the processor
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
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(LOST_S)
        sock.bind(("127.0.0.1", 0))
        sock.connect(sock.getsockname())
        for hop in range(hops):
            missing = os.sched_getaffinity(0)
            while missing:
                _send_from(missing, sock, hop)
                with suppress(TimeoutError):
                    while missing:
                        of, processor = LAST.unpack(sock.recv(LAST.size))
                        missing -= {processor} if of == hop else set()


def _send_from(processors: set[int], sock: socket.socket, hop: int) -> None:
    before = os.sched_getaffinity(0)
    try:
        for processor in processors:
            os.sched_setaffinity(0, {processor})
            sock.send(LAST.pack(hop, processor))
    finally:
        os.sched_setaffinity(0, before)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Turns signals into readable events that tell who sent them.

A Ctrl-C comes from the kernel and has already reached the command; a `kill` comes from
a process and was meant for us alone. Python's handlers do not tell the two apart,
signalfd does.
"""

import os
import signal
import struct
from typing import Final

from passtpy import _native
from passtpy.record import record

# What ends us or is passed on to the command; stopping (Ctrl-Z) stays with the kernel.
STOPPING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
FORWARDED: Final = (*STOPPING, signal.SIGUSR1, signal.SIGUSR2)
# The terminal sends these to the whole process group, so to the command as well.
TERMINAL: Final = (signal.SIGINT, signal.SIGQUIT)

_SIGINFO: Final = struct.Struct("=IiiI112x")
_SI_KERNEL: Final = 0x80


@record
class Signal:
    """One signal that arrived."""

    number: int
    from_kernel: bool


def take_signals(numbers: tuple[int, ...]) -> int:
    """Block these signals; return the descriptor on which they arrive from now on."""
    signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    return _native.signalfd(numbers)


def read_signals(fd: int) -> list[Signal]:
    """Return what is waiting on a signalfd."""
    try:
        return parse_signals(os.read(fd, 16 * _SIGINFO.size))
    except BlockingIOError:
        return []


def parse_signals(data: bytes) -> list[Signal]:
    """Return what the records of a signalfd say."""
    return [
        Signal(number, code == _SI_KERNEL)
        for number, _errno, code, _pid in _SIGINFO.iter_unpack(data)
    ]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells the service manager that started this process how it fares: sd_notify(3).

The protocol is one datagram of `NAME=value` lines for each message, to the socket that
$NOTIFY_SOCKET names. Every child inherits that variable, so a pasta started by podman
in a service finds podman's; it must not tell anybody that podman is ready. systemd
says whom it has executed, $SYSTEMD_EXEC_PID; who is not that process says nothing.
"""

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_NS_PER_US: Final = 1000


class Supervisor:
    """The service manager, or nobody."""

    def __init__(
        self, sock: socket.socket | None = None, watchdog_s: float | None = None
    ) -> None:
        """`watchdog_s`: after how many seconds of silence it thinks that we hang."""
        self._sock = sock
        self.watchdog_s = watchdog_s if sock is not None else None

    def ready(self, status: str) -> None:
        """Tell that we serve."""
        self._tell("READY=1", f"STATUS={status}")

    def reloading(self) -> None:
        """Tell that files are read again; ready() ends it."""
        now_us = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // _NS_PER_US
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now_us}")

    def stopping(self, status: str) -> None:
        """Tell that we are about to end."""
        self._tell("STOPPING=1", f"STATUS={status}")

    def alive(self) -> None:
        """Tell that the loop turns."""
        self._tell("WATCHDOG=1")

    def _tell(self, *lines: str) -> None:
        if self._sock is not None:
            with suppress(OSError):  # it does not listen: nothing that concerns a guest
                self._sock.send("\n".join(lines).encode())


def supervisor_from(environ: Mapping[str, str], pid: int) -> Supervisor:
    """Return who supervises the process `pid`, after what its environment says."""
    name = environ.get("NOTIFY_SOCKET", "")
    executed = environ.get("SYSTEMD_EXEC_PID", str(pid))
    if name[:1] not in ("/", "@") or executed != str(pid):
        return Supervisor()
    sock = socket.socket(
        socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
    )
    try:  # now: the name may be out of reach later
        sock.connect(
            os.fsencode(name.replace("@", "\0", 1) if name[0] == "@" else name)
        )
    except (OSError, ValueError):
        sock.close()
        return Supervisor()
    return Supervisor(sock, _watchdog(environ, pid))


def _watchdog(environ: Mapping[str, str], pid: int) -> float | None:
    """Return how many seconds of silence it bears; None: it does not watch."""
    microseconds = environ.get("WATCHDOG_USEC", "")
    if (
        environ.get("WATCHDOG_PID", str(pid)) != str(pid)
        or not microseconds.isdecimal()
    ):
        return None
    return int(microseconds) / 1e6 or None

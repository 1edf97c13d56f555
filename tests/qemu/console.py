# SPDX-License-Identifier: GPL-2.0-or-later
"""The port over which a test tells a guest what to do; guest/init is its other end.

We listen and qemu connects, so that the port is there before the guest looks for it,
and stays when the guest reboots.
"""

import socket
from pathlib import Path

BOOT_PATIENCE = 120.0  # an emulated machine on a busy host


class Console:
    """Commands to one guest, and what they say."""

    def __init__(self, path: Path) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._listener.settimeout(BOOT_PATIENCE)
        self._sock: socket.socket | None = None
        self._pending = b""

    def accept(self) -> None:
        """Take the connection of a qemu that was started anew."""
        self.hang_up()
        self._sock, _ = self._listener.accept()

    def wait_ready(self) -> str:
        """Wait until the guest is up; what names this boot among others."""
        word, _, boot = self._line(BOOT_PATIENCE).partition(" ")
        assert word == "ready", f"the guest says {word!r}"
        return boot

    def run(self, command: str, timeout: float) -> tuple[int, str]:
        """Run a shell command to its end; exit status, and both outputs as one."""
        assert "\n" not in command, "one line is one command"
        self.send(command)
        status, _, size = self._line(timeout).partition(" ")
        return int(status), self._take(int(size), timeout).decode(errors="replace")

    def send(self, command: str) -> None:
        """Start a command that will not be answered, such as a reboot."""
        assert self._sock is not None, "the guest is off"
        self._sock.sendall(command.encode() + b"\n")

    def _line(self, timeout: float) -> str:
        while b"\n" not in self._pending:
            self._receive(timeout)
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def _take(self, size: int, timeout: float) -> bytes:
        while len(self._pending) < size:
            self._receive(timeout)
        taken, self._pending = self._pending[:size], self._pending[size:]
        return taken

    def _receive(self, timeout: float) -> None:
        assert self._sock is not None, "the guest is off"
        self._sock.settimeout(timeout)
        data = self._sock.recv(65536)
        if not data:
            raise ConnectionError("qemu is gone")
        self._pending += data

    def hang_up(self) -> None:
        """Forget a qemu that is gone, and what it had yet to say."""
        self._pending = b""
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    def close(self) -> None:
        """Give up the port."""
        self.hang_up()
        self._listener.close()

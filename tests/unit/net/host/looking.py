# SPDX-License-Identifier: GPL-2.0-or-later
"""A lookout of a test's own, with the daemon's end of it."""

import os
import select
from collections.abc import Callable
from pathlib import Path

from passtpy.config.model import Seccomp
from passtpy.egress.source import PolicySource
from passtpy.net.host.lookout import Lookout
from passtpy.net.host.lookout_process import Orders, start
from passtpy.net.host.named import Folders
from passtpy.net.kernel.local import Name

PATIENCE_S = 30.0


class Loop:
    """A loop that a test turns by hand."""

    def __init__(self) -> None:
        self.readers: dict[int, Callable[[], None]] = {}

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self.readers[fd] = callback

    def remove_reader(self, fd: int) -> bool:
        return self.readers.pop(fd, None) is not None

    def until(self, done: Callable[[], object]) -> None:
        while not done():
            ready, _, _ = select.select(list(self.readers), [], [], PATIENCE_S)
            assert ready, "it said nothing"
            for fd in ready:
                self.readers[fd]()


def children() -> set[int]:
    """Of this thread; a session may have others than those of a test."""
    return {*map(int, Path("/proc/thread-self/children").read_text().split())}


class House:
    """A lookout of its own, with the daemon's end of it."""

    def __init__(self, folder: Path) -> None:
        self.log = folder / "log"
        self.resolv = folder / "resolv.conf"
        self.resolv.write_text("nameserver 192.0.2.1\n")
        self.loop = Loop()
        self.said: list[tuple[bytes | None, str]] = []
        self.names: tuple[Name, ...] = ()
        self.policy: PolicySource | None = None
        self.namespace: tuple[int, str] | None = None
        self.targets: tuple[str, ...] = ()
        self.log_files = 1
        self.folders: Folders = ()
        self.seccomp = Seccomp.OFF
        self._lookout: Lookout | None = None
        self._pid = 0

    @property
    def lookout(self) -> Lookout:
        """The daemon's end; it is started when first asked for."""
        if self._lookout is None:
            orders = Orders(
                None,
                (str(self.log), None),
                self.policy,
                self.names,
                self.seccomp,
                self.targets,
                str(self.resolv),
                self.namespace,
                self.folders,
                self.log_files,
            )
            before = children()
            self._lookout = start(orders)
            (self._pid,) = children() - before
            self._lookout.on_resolver(lambda text, why: self.said.append((text, why)))
            self._lookout.start(self.loop)
        return self._lookout

    def close(self) -> None:
        if self._lookout is not None:
            self._lookout.close()
            self._lookout = None
            os.waitpid(self._pid, 0)

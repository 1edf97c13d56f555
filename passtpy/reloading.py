# SPDX-License-Identifier: GPL-2.0-or-later
"""Has a running daemon read its files again: log and audit by their names, the policy.

And go on in another log file when one is full. Another process opens them; how, is in
docs/lookout.md.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from passtpy.errors import PolicyError
from passtpy.files import AUDIT, LOG, Files

if TYPE_CHECKING:
    from passtpy.config.model import Config
    from passtpy.engine import Engine
    from passtpy.logfile import Successors
    from passtpy.net.host.lookout import Lookout, Opened
    from passtpy.net.kernel.loop import Readers
    from passtpy.policed import Policed

Reloaded = Callable[[PolicyError | None], None]  # told what was wrong with the policy
Reload = Callable[[Reloaded], None]


class Reloading:
    """What takes part when files are read again."""

    def __init__(
        self,
        config: Config,
        files: Files,
        lookout: Lookout,
        engine: Engine,
        policed: Policed | None,
    ) -> None:
        self._names = files.reopened(config)
        self._files = files
        self._lookout = lookout
        self._engine = engine
        self._policed = policed
        self._kept_for = 0  # errno, why a full log has no next file

    def start(self, loop: Readers) -> None:
        """Hear from now on when the log file is full."""
        successors = self._files.log.successors
        if successors is not None:
            loop.add_reader(successors.fileno(), partial(self._full, successors))

    def finish(self) -> None:
        """Write the log out, while there is somebody who opens its files."""
        successors = self._files.log.successors
        if successors is not None:
            self._files.log.close(partial(self._serve, successors))

    def _serve(self, successors: Successors, seconds: float) -> None:
        """Do what start() has the loop do, until the thread that writes has ended."""
        until = time.monotonic() + seconds
        poll = select.poll()
        poll.register(successors.fileno(), select.POLLIN)
        if not self._lookout.gone:
            poll.register(self._lookout.fileno(), select.POLLIN)
        while (left := until - time.monotonic()) > 0:
            for fd, events in poll.poll(left * 1000):
                if fd == self._lookout.fileno():
                    self._lookout.hear()
                elif events & select.POLLHUP:
                    return
                else:
                    self._full(successors)

    def begin(self, done: Reloaded) -> None:
        """Read all again, and apply the policy to open flows.

        Where a name cannot be opened the old file is kept. A policy whose file is wrong
        is what `done` is told, and the one of before goes on.
        """
        for which in (LOG, AUDIT):
            self._lookout.open_log(which, partial(self._opened, which))
        # Answers come in the order of questions: this is the last one
        self._lookout.open_policy(partial(self._read, done))

    def _opened(self, which: int, fd: int, error: int) -> None:
        if fd >= 0:
            self._files.go_on_with(which, fd)
        elif error:
            self._kept(which, error)

    def _full(self, successors: Successors) -> None:
        if successors.was_asked():
            self._lookout.turn_log(partial(self._turned, successors))

    def _turned(self, successors: Successors, fd: int, error: int) -> None:
        if fd >= 0:
            successors.put(fd)
        else:
            successors.refuse()
            if error not in (0, self._kept_for):
                self._kept(LOG, error)
        self._kept_for = error

    def _kept(self, which: int, error: int) -> None:
        name, reason = self._names[which], os.strerror(error)
        self._files.log.warning("log.kept", path=name, reason=reason)

    def _read(self, done: Reloaded, opened: list[Opened]) -> None:
        fault = None
        if self._policed is not None:
            try:
                self._policed.reload(opened)
            except PolicyError as error:
                fault = error
        if fault is None:
            self._engine.tell(self._engine.view, "recheck")
            self._files.log.info("reloaded")
        done(fault)

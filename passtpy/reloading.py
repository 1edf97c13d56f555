# SPDX-License-Identifier: GPL-2.0-or-later
"""Has a running daemon read its files again: log and audit by their names, the policy.

Another process opens them; how, is in docs/lookout.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from passtpy.errors import PolicyError
from passtpy.files import AUDIT, LOG, Files

if TYPE_CHECKING:
    from passtpy.config.model import Config
    from passtpy.engine import Engine
    from passtpy.net.host.lookout import Lookout, Opened
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

# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions that nobody caught: into the log, whoever would have printed them.

Left alone, the event loop and the interpreter write them to standard error, which a
daemon has given up. What a callback of the loop raises costs that callback; the program
goes on.
"""

import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from passtpy.log import Log


class Loop(Protocol):
    """The part of an event loop that is needed here."""

    def set_exception_handler(self, handler: Any, /) -> object: ...


def log_failures(log: Log, loop: Loop) -> None:
    """Log whatever is raised from now on and caught by nobody."""

    def on_loop(_loop: object, context: Mapping[str, Any]) -> None:
        _tell(log, "loop.failed", context.get("exception"), context.get("message"))

    def on_exit(
        _kind: type[BaseException], error: BaseException, _at: TracebackType | None
    ) -> None:
        _tell(log, "program.failed", error, None)

    def in_thread(args: threading.ExceptHookArgs) -> None:
        _tell(log, "thread.failed", args.exc_value, None)

    def while_deleting(args: "sys.UnraisableHookArgs") -> None:
        _tell(log, "object.failed", args.exc_value, args.err_msg)

    loop.set_exception_handler(on_loop)
    sys.excepthook = on_exit
    threading.excepthook = in_thread
    sys.unraisablehook = while_deleting


def _tell(log: Log, event: str, error: BaseException | None, why: str | None) -> None:
    fields = {} if why is None else {"why": why}
    if error is None:  # the loop found something odd by itself
        error = RuntimeError(why or "unknown")
    log.failure(event, error, **fields)

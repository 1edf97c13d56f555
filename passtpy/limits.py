# SPDX-License-Identifier: GPL-2.0-or-later
"""Tells which limit of the process stands in our way, in the words of `ulimit`.

Python meets a limit as an OSError, a MemoryError or an import that failed, anywhere in
the start; the user set a number, and wants to read that one.
"""

import os
import resource
import sys
from contextlib import suppress
from errno import EAGAIN, EMFILE, ENOMEM
from typing import Final, NamedTuple

from passtpy.errors import SetupError

# The start holds about 25 at once; what is left over is for the guest's flows.
FILES_NEEDED: Final = 40
AMPLE_MEMORY: Final = 4 << 30  # of address space: nothing reserves less than it wants


class _Limit(NamedTuple):
    """A limit of the process as users know it."""

    what: str
    letter: str  # of ulimit
    resource: int
    unit: int


_LIMITS: Final[dict[int | None, _Limit]] = {
    EMFILE: _Limit("open files", "-n", resource.RLIMIT_NOFILE, 1),
    ENOMEM: _Limit("memory", "-v, in KiB", resource.RLIMIT_AS, 1024),
    EAGAIN: _Limit("processes", "-u", resource.RLIMIT_NPROC, 1),
}


def raise_files() -> tuple[int, int]:
    """Raise the limit of open files as far as allowed; return what it was.

    SetupError when so few are allowed that nothing could be served.
    """
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    if before[1] != resource.RLIM_INFINITY and before[1] < FILES_NEEDED:
        raise SetupError(
            f"Limit of open files (ulimit -n) is {before[1]}, {FILES_NEEDED} are needed"
        )
    return before


def spare_files() -> int:
    """Return how many open files are allowed beyond those that the start needs."""
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft - FILES_NEEDED


def narrowness() -> str | None:
    """Return what a limit of address space means to a guest; None: there is room.

    Tables reserve addresses for the most they may hold, a tenth of the limit each.
    """
    soft = resource.getrlimit(resource.RLIMIT_AS)[0]
    if soft == resource.RLIM_INFINITY or soft >= AMPLE_MEMORY:
        return None
    return (
        f"limit of memory (ulimit -v) is {soft // 1024}:"
        " room for fewer flows and less data under way"
    )


def reached(error: BaseException) -> str | None:
    """Return the line about the limit behind `error`; None: it was another reason."""
    number = error.errno if isinstance(error, OSError) else None
    if isinstance(error, MemoryError) or _found_no_room(error):
        number = ENOMEM
    limit = _LIMITS.get(number)
    if limit is None:
        return None
    soft = resource.getrlimit(limit.resource)[0]
    if soft == resource.RLIM_INFINITY:
        return f"Out of {limit.what}"
    return f"Limit of {limit.what} (ulimit {limit.letter}) is {soft // limit.unit}"


def reason(error: BaseException) -> str:
    """Return why a start failed, in words: a limit, or what the kernel said.

    Of what the kernel said also where we asked: nobody expected it there.
    """
    limit = reached(error)
    if limit is not None:
        return limit
    if not isinstance(error, OSError) or not error.strerror:
        return repr(error)
    name = "" if error.filename is None else f" {error.filename!r}"
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return f"{error.strerror}{name}"
    place = os.path.basename(trace.tb_frame.f_code.co_filename)
    return f"{error.strerror}{name} ({place}:{trace.tb_lineno})"


def _found_no_room(error: BaseException) -> bool:
    """Tell whether a library or a thread lacked address space: two texts, no number."""
    text = str(error)
    return ("failed to map" in text and isinstance(error, ImportError)) or (
        "start new thread" in text and isinstance(error, RuntimeError)
    )

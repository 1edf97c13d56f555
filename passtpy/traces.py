# SPDX-License-Identifier: GPL-2.0-or-later
"""Makes lines of an exception, wherever it was raised.

Unlike the standard library's, they hold no source text: to read it would open files in
the middle of serving, and find others there after an upgrade.
"""

from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Final

FRAMES_MAX: Final = 16  # of each exception, the innermost
CAUSES_MAX: Final = 4
_TEXT_MAX: Final = 400


def describe(error: BaseException) -> str:
    """Return `KeyError: 'x'`, of bounded length, even if it cannot say what it is."""
    try:
        text = str(error)
    except Exception:
        text = "(no description)"
    return f"{type(error).__name__}: {text}"[:_TEXT_MAX]


def trace(error: BaseException) -> list[str]:
    """Return where `error` was raised, outermost first, and what it was raised from."""
    lines: list[str] = []
    for cause in islice(_causes(error), CAUSES_MAX):
        if cause is not error:
            lines.append(f"raised from {describe(cause)}")
        lines += list(_frames(cause.__traceback__))[-FRAMES_MAX:]
    return lines


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def _frames(found: TracebackType | None) -> Iterator[str]:
    while found is not None:
        code = found.tb_frame.f_code
        yield f"at {code.co_filename}:{found.tb_lineno} in {code.co_name}"
        found = found.tb_next

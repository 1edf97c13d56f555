# SPDX-License-Identifier: GPL-2.0-or-later
"""Lines of passtpy's Python: those that there are, and those that inputs reach."""

import dis
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from tests.fuzz.target import ROOT


def all_lines(path: Path) -> set[int]:
    """Return the lines within functions of a source file."""
    found: set[int] = set()
    module = compile(path.read_text(), str(path), "exec")
    waiting = [each for each in module.co_consts if isinstance(each, CodeType)]
    while waiting:
        code = waiting.pop()
        waiting += [each for each in code.co_consts if isinstance(each, CodeType)]
        if code.co_flags & 2:  # CO_NEWLOCALS: a function, no class
            lines = {line for _, line in dis.findlinestarts(code) if line}
            found |= lines - {code.co_firstlineno}
    return found


def watch(
    play: Callable[[bytes], None], inputs: Iterable[bytes]
) -> dict[str, set[int]]:
    """Return the lines of passtpy that inputs reach."""
    reached: dict[str, set[int]] = defaultdict(set)
    ours = f"{ROOT}/passtpy/"

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        name = str(Path(frame.f_code.co_filename).resolve())
        if not name.startswith(ours):
            return None
        lines = reached[name.removeprefix(f"{ROOT}/")]

        def line(frame: FrameType, event: str, arg: Any) -> Any:
            lines.add(frame.f_lineno)
            return line

        return line

    sys.settrace(trace)
    for data in inputs:
        play(data)
    sys.settrace(None)
    return reached

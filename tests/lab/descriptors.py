# SPDX-License-Identifier: GPL-2.0-or-later
"""Descriptors of this process: which are open, and whether a test left any behind."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def open_descriptors() -> dict[int, str]:
    """Every open descriptor of this process, and what it leads to."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # the folder's own
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


class Opened:
    """Descriptors that were opened after this was made, and are open still.

    Those from before do not count, nor does their end: another thread may close one
    at any time, or the garbage collector.
    """

    def __init__(self) -> None:
        self._before = open_descriptors().items()

    def all(self) -> set[tuple[int, str]]:
        """Each with what it leads to."""
        return open_descriptors().items() - self._before

    def __call__(self) -> int:
        """How many there are."""
        return len(self.all())


@contextmanager
def none_left() -> Iterator[Opened]:
    """What is done leaves no descriptor open that was not open before."""
    opened = Opened()
    yield opened
    if opened():
        gc.collect()  # what nobody refers to is closed by whoever owned it
    left = opened.all()
    assert not left, f"left open: {sorted(left)}"

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


@contextmanager
def none_left() -> Iterator[None]:
    """What is done leaves no descriptor open that was not open before."""
    before = open_descriptors()
    yield
    left = open_descriptors().items() - before.items()
    if left:
        gc.collect()  # what nobody refers to is closed by whoever owned it
        left = open_descriptors().items() - before.items()
    assert not left, f"left open: {sorted(left)}"

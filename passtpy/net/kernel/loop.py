# SPDX-License-Identifier: GPL-2.0-or-later
"""The part of an event loop that whoever follows the kernel needs."""

from collections.abc import Callable
from typing import Protocol


class Loop(Protocol):
    """Calls back when a descriptor can be read, or later."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> object: ...

    def remove_reader(self, fd: int) -> object: ...

    def call_later(self, delay: float, callback: Callable[[], None]) -> object: ...

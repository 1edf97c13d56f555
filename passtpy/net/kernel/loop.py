# SPDX-License-Identifier: GPL-2.0-or-later
"""Says what of an event loop is used by whoever waits for the kernel."""

from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """What call_later() returns."""

    def cancel(self) -> None: ...


class Readers(Protocol):
    """Calls back when a descriptor can be read."""

    def add_reader(self, fd: int, callback: Callable[[], None], /) -> object: ...

    def remove_reader(self, fd: int, /) -> object: ...


class Loop(Readers, Protocol):
    """Calls back soon or later as well."""

    def call_soon(self, callback: Callable[[], None], /) -> object: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...

# SPDX-License-Identifier: GPL-2.0-or-later
"""Long work in the event loop, interrupted often enough that nobody notices it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

PIECE: Final = 256  # units between turns; one is a few microseconds


def _others() -> Awaitable[None]:
    return asyncio.sleep(0)


class Pace:
    """Counts units of work, and lets packets pass when there were enough of them."""

    def __init__(
        self, piece: int = PIECE, rest: Callable[[], Awaitable[None]] = _others
    ) -> None:
        self._piece = piece
        self._rest = rest
        self._done = 0

    async def spend(self, units: int = 1) -> None:
        """Say that this much will be done next."""
        self._done += units
        if self._done > self._piece:
            self._done = units
            await self._rest()

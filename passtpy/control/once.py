# SPDX-License-Identifier: GPL-2.0-or-later
"""Keeps what all conversations of one request know: the answer may take a while."""

from collections.abc import Callable


class OneRequest:
    """A conversation that ends with the answer to its only request."""

    def __init__(self) -> None:
        self._said = b""
        self._waits = False
        self.over = False
        self.woken: Callable[[], None] = lambda: None

    @property
    def answering(self) -> bool:
        """Tell whether what was asked for is being done."""
        return self._waits

    @property
    def gentle(self) -> bool:
        """Tell whether it is one of which little is kept, and nothing is urgent."""
        return False

    @property
    def streaming(self) -> bool:
        """Tell whether the answer under way waits for something to happen."""
        return self._waits

    def more(self) -> bytes:
        """Return the answer, once it is known."""
        said, self._said = self._said, b""
        return said

    def leave(self) -> None:
        """Forget the client; what it asked for goes on."""
        self._waits = False

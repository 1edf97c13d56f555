# SPDX-License-Identifier: GPL-2.0-or-later
"""Cuts a stream into DNS messages, and makes them one (RFC 1035 4.2.2, RFC 7766)."""

from collections.abc import Iterator
from typing import Final

from passtpy.errors import WireError
from passtpy.services.dns.message import HEADER_LEN

LENGTH: Final = 2


class Messages:
    """Collects bytes that may come in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield every message that is whole now; WireError for what cannot be one."""
        self._buffer += data
        while len(self._buffer) >= LENGTH:
            size = int.from_bytes(self._buffer[:LENGTH], "big")
            if size < HEADER_LEN:
                raise WireError("dns: message too short")
            if len(self._buffer) < LENGTH + size:
                return
            message = bytes(self._buffer[LENGTH : LENGTH + size])
            del self._buffer[: LENGTH + size]
            yield message


def framed(message: bytes) -> bytes:
    """Return a message as a stream carries it."""
    return len(message).to_bytes(LENGTH, "big") + message

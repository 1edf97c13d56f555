# SPDX-License-Identifier: GPL-2.0-or-later
"""Where a stream says that it wants to go: TLS and HTTP.

More bytes must not change what the first ones have said.
"""

from collections.abc import Callable
from typing import Any

from passtpy.errors import WireError
from passtpy.wire.client_hello import ClientHello, HelloReader, is_tls
from passtpy.wire.http_head import is_http, read_host


def _read_at_once(data: bytes) -> ClientHello | None:
    return HelloReader().read(data)


def _read(read: Callable[[bytes], Any], data: bytes) -> Any:
    try:
        return read(data)
    except WireError:
        return WireError


def _grow(read: Callable[[bytes], Any], data: bytes) -> None:
    """Give a reader ever more; once it knows, it knows."""
    known = None
    for size in (*range(0, len(data), 1 + len(data) // 8), len(data)):
        found = _read(read, data[:size])
        assert known is None or found == known, (known, found, data[:size])
        known = found


def play(data: bytes) -> None:
    """Read the bytes as the beginning of each kind of stream."""
    reader = HelloReader()

    def read_on(begun: bytes) -> Any:
        found = _read(reader.read, begun)
        assert found == _read(_read_at_once, begun), (found, begun)
        return found

    for read in (_read_at_once, read_host, read_on):
        _grow(read, data)
    is_tls(data)
    is_http(data)

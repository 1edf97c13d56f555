# SPDX-License-Identifier: GPL-2.0-or-later
"""Pesto's protocol, from both ends: whole, and in pieces, which must not matter."""

from collections.abc import Iterator

from passtpy.control.pesto import PestoConversation
from passtpy.errors import WireError
from passtpy.wire.pesto import GreetingReader
from tests.unit.control.fakes import Forwards, rule

_PIECES = (1, 3, 17, 40)


def _pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


def _converse(data: bytes, size: int) -> object:
    """Return all that a client's bytes bring about."""
    forwards, notes = Forwards(rule(22), rule(80)), list[str]()
    client = PestoConversation(forwards, notes.append)
    client.begin()
    said = b""
    for piece in _pieces(data, size):
        if client.over:
            break
        said += client.receive(piece)
    if not client.over:
        said += client.receive(b"")
    return said, notes, forwards.asked, client.over


def _greet(data: bytes, size: int) -> object:
    reader = GreetingReader()
    try:
        for piece in _pieces(data, size):
            reader.feed(piece)
            if reader.tables is not None:
                break
    except WireError as error:
        return str(error)
    return reader.tables


def play(data: bytes) -> None:
    """Be an odd client, then an odd daemon."""
    size = _PIECES[data[0] % len(_PIECES)] if data else 1
    data = data[1:]
    whole = max(1, len(data))
    assert _converse(data, whole) == _converse(data, size)
    assert _greet(data, whole) == _greet(data, size)

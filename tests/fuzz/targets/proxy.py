# SPDX-License-Identifier: GPL-2.0-or-later
"""What a proxy answers: SOCKS5, with and without a password, its datagrams, CONNECT.

How the bytes are cut must not matter, and nothing is taken that has not come.
"""

from collections.abc import Callable, Iterable

from passtpy.errors import WireError
from passtpy.wire.proxy import (
    Conversation,
    Credentials,
    HttpConnect,
    ProxyRefusedError,
    Socks5,
    unwrap_datagram,
    wrap_datagram,
)

_WHO = Credentials("user", "password")
_TALKS: tuple[Callable[[], Conversation], ...] = (
    lambda: Socks5("host.example", 443),
    lambda: Socks5("host.example", 443, _WHO),
    lambda: HttpConnect("host.example", 443, _WHO),
)


def _spoken(talk: Conversation, pieces: Iterable[bytes]) -> tuple[object, ...]:
    """Return what was said in all, how much was taken, and how it ended."""
    said, waiting, taken = talk.begin(), b"", 0
    for piece in pieces:
        waiting += piece
        while True:
            try:
                step = talk.take(waiting)
            except (WireError, ProxyRefusedError) as error:
                return said, taken, type(error)
            assert 0 <= step.used <= len(waiting)
            said, taken = said + step.send, taken + step.used
            waiting = waiting[step.used :]
            if step.done:
                return said, taken, True
            if not step.used:
                break
    return said, taken, False


def play(data: bytes) -> None:
    """Let a proxy say this to each kind of client."""
    for begin in _TALKS:
        whole = _spoken(begin(), [data])
        assert whole == _spoken(begin(), (data[n : n + 1] for n in range(len(data))))
    try:
        host, port, payload = unwrap_datagram(data)
    except WireError:
        return
    if isinstance(host, str) and not (host.isascii() and host):
        return
    assert unwrap_datagram(wrap_datagram(host, port, payload)) == (host, port, payload)

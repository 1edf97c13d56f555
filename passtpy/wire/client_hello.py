# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads the server's name from the first bytes of a TLS client (RFC 8446, RFC 6066).

A client may cut its ClientHello anywhere: into records, and records into segments.
Nothing but the name is read, and what is read is checked as the server would, so that
both understand the same.
"""

from typing import Final, NamedTuple

from passtpy.errors import WireError

MAX_HELLO: Final = 16384  # bytes; those of browsers have some 2000
_RECORD_HEADER: Final = 5
_MAX_RECORD: Final = 1 << 14  # RFC 8446 section 5.1
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0
_ENCRYPTED_HELLO: Final = 0xFE0D  # RFC 9849: hides another name
_HOST_NAME: Final = 0


class ClientHello(NamedTuple):
    """What a TLS client says of where it wants to go.

    `name` None: it names no server. It is as it was sent: no bytes but ASCII, not
    normalised. `encrypted`: there is another ClientHello within, or it pretends that
    there is (GREASE), which cannot be told apart.
    """

    name: str | None
    encrypted: bool


class _Reader:
    """Takes bytes off the front of a message; WireError where there are none left."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, count: int) -> bytes:
        """Return that many bytes."""
        data = self._data[self._at : self._at + count]
        if len(data) < count:
            raise WireError("tls: truncated")
        self._at += count
        return data

    def number(self, size: int) -> int:
        """Return a number of `size` bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> "_Reader":
        """Return what stands behind its length of `size` bytes."""
        return _Reader(self.take(self.number(size)))

    def rest(self) -> bytes:
        """Return all that is left."""
        return self.take(len(self._data) - self._at)


def is_tls(data: bytes) -> bool:
    """Tell whether a stream may begin with a TLS record of a handshake."""
    return data[:1] == bytes([_HANDSHAKE]) and data[1:2] in (b"", b"\x03")


class HelloReader:
    """Reads the beginning of a stream while it grows, and no record twice.

    A client may send records of a byte, one at a time: who began anew with each would
    do nothing else.
    """

    def __init__(self) -> None:
        self._joined = b""  # what is in the records that are whole
        self._at = 0  # where the next one begins

    def read(self, data: bytes) -> ClientHello | None:
        """Read all that has come, what came before included; None: more is needed.

        WireError for what is no ClientHello, or too long to wait for.
        """
        message = self._message(data)
        if message is not None:
            return _parse(message)
        if len(data) >= MAX_HELLO:
            raise WireError("tls: too long")
        return None

    def _message(self, data: bytes) -> bytes | None:
        """Join the records of the first message; None if it is not whole yet."""
        joined, at = self._joined, self._at
        while at + _RECORD_HEADER <= len(data):
            kind, major = data[at], data[at + 1]
            length = int.from_bytes(data[at + 3 : at + 5], "big")
            if kind != _HANDSHAKE or major != 3 or not 0 < length <= _MAX_RECORD:
                raise WireError("tls: no handshake")
            at += _RECORD_HEADER
            joined += data[at : at + length]
            at += length
            if joined and joined[0] != _CLIENT_HELLO:
                raise WireError("tls: no ClientHello")
            if len(joined) >= 4:
                size = 4 + int.from_bytes(joined[1:4], "big")
                if size > MAX_HELLO:
                    raise WireError("tls: too long")
                if len(joined) >= size:
                    return joined[4:size]
            if at <= len(data):
                self._joined, self._at = joined, at
        if data and not is_tls(data):
            raise WireError("tls: no handshake")
        return None


def _parse(message: bytes) -> ClientHello:
    hello = _Reader(message)
    hello.take(2 + 32)  # version, random
    hello.vector(1)  # session
    hello.vector(2)  # cipher suites
    hello.vector(1)  # compression
    if not hello:
        return ClientHello(None, False)
    extensions = hello.vector(2)
    if hello:
        raise WireError("tls: bytes behind the extensions")
    name: str | None = None
    encrypted = False
    seen: set[int] = set()
    while extensions:
        kind, body = extensions.number(2), extensions.take(extensions.number(2))
        if kind in seen:  # RFC 8446 section 4.2: which one would the server take?
            raise WireError("tls: extension twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _server_name(_Reader(body))
        encrypted |= kind == _ENCRYPTED_HELLO
    return ClientHello(name, encrypted)


def _server_name(body: _Reader) -> str:
    """Read the only name of a list (RFC 6066 section 3)."""
    names = body.vector(2)
    if body or names.number(1) != _HOST_NAME:
        raise WireError("tls: bad server name")
    raw = names.vector(2).rest()
    if names or not raw:
        raise WireError("tls: bad server name")
    try:
        return raw.decode("ascii")
    except UnicodeDecodeError:
        raise WireError("tls: server name is not ASCII") from None

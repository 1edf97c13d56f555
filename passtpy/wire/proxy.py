# SPDX-License-Identifier: GPL-2.0-or-later
"""Asks a proxy for a connection, as its client: SOCKS5 and HTTP CONNECT.

Both are conversations without sockets. Whoever has one sends what `begin()` and
`take()` return. It looks at what has come without taking it away (MSG_PEEK), and takes
from the socket only what take() used: the bytes behind are the target's already.
RFC 1928, 1929 (SOCKS5); RFC 9110 section 9.3.6 (CONNECT).
"""

from base64 import b64encode
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple, Protocol

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.record import record

MAX_HEAD: Final = 8192  # bytes of an answer to CONNECT
MAX_INTERIM: Final = 8  # answers before it that only say to wait
_VERSION: Final = 5
_NO_AUTH, _PASSWORD, _NONE_FITS = 0, 2, 0xFF
_CONNECT, _ASSOCIATE = 1, 3
_IPV4, _NAME, _IPV6 = 1, 3, 4
_REPLIES: Final = (
    "succeeded",
    "general failure",
    "not allowed by its rules",
    "network unreachable",
    "host unreachable",
    "connection refused",
    "TTL expired",
    "command not supported",
    "address type not supported",
)


class ProxyRefusedError(Exception):
    """What the proxy said instead of connecting."""


@record
class Credentials:
    """Who we are for a proxy; each at most 255 bytes in SOCKS5."""

    user: str
    password: str


class Step(NamedTuple):
    """What follows from the bytes that have come."""

    used: int  # bytes to take from the socket
    send: bytes  # to say now
    done: bool  # from here on it is the target who speaks


class Conversation(Protocol):
    """A client's half of a handshake."""

    def begin(self) -> bytes:
        """Return what to say first."""

    def take(self, data: bytes, /) -> Step:
        """Go on with all bytes that have come and were not used.

        WireError for what no proxy says; ProxyRefusedError for a refusal.
        """


def _target(host: str | Address, port: int) -> bytes:
    if isinstance(host, IPv4Address):
        kind, body = _IPV4, host.packed
    elif isinstance(host, IPv6Address):
        kind, body = _IPV6, host.packed
    else:
        name = host.encode("ascii")
        if not 0 < len(name) < 256:
            raise ValueError("a name of 1 to 255 bytes")
        kind, body = _NAME, bytes([len(name)]) + name
    return bytes([kind]) + body + port.to_bytes(2, "big")


class Socks5:
    """Asks for a connection to a name or an address, or for a way for datagrams.

    `bound` is what the proxy says in the end: for datagrams, where to send them.
    """

    def __init__(
        self,
        host: str | Address,
        port: int,
        credentials: Credentials | None = None,
        *,
        datagrams: bool = False,
    ) -> None:
        command = _ASSOCIATE if datagrams else _CONNECT
        self._request = bytes([_VERSION, command, 0]) + _target(host, port)
        self._credentials = credentials
        self._next = self._method
        self.bound: tuple[Address | str, int] | None = None

    def begin(self) -> bytes:
        """Offer the ways in which we can say who we are."""
        methods = [_NO_AUTH] if self._credentials is None else [_NO_AUTH, _PASSWORD]
        return bytes([_VERSION, len(methods), *methods])

    def take(self, data: bytes) -> Step:
        """Go on."""
        return self._next(data)

    def _method(self, data: bytes) -> Step:
        if len(data) < 2:
            return Step(0, b"", False)
        if data[0] != _VERSION:
            raise WireError("socks: another version")
        if data[1] == _NONE_FITS:
            raise ProxyRefusedError("it wants to know who asks")
        if data[1] == _NO_AUTH:
            self._next = self._reply
            return Step(2, self._request, False)
        if data[1] != _PASSWORD or self._credentials is None:
            raise WireError("socks: a method that was not offered")
        self._next = self._status
        user = self._credentials.user.encode()
        password = self._credentials.password.encode()
        said = bytes([1, len(user)]) + user + bytes([len(password)]) + password
        return Step(2, said, False)

    def _status(self, data: bytes) -> Step:
        if len(data) < 2:
            return Step(0, b"", False)
        if data[1]:
            raise ProxyRefusedError("wrong user or password")
        self._next = self._reply
        return Step(2, self._request, False)

    def _reply(self, data: bytes) -> Step:
        if len(data) < 5:
            return Step(0, b"", False)
        if data[0] != _VERSION or data[2]:
            raise WireError("socks: bad reply")
        if data[1]:
            known = data[1] < len(_REPLIES)
            raise ProxyRefusedError(_REPLIES[data[1]] if known else f"code {data[1]}")
        end = _end_of_address(data)
        if len(data) < end + 2:
            return Step(0, b"", False)
        self.bound = _address(data, end), int.from_bytes(data[end : end + 2], "big")
        return Step(end + 2, b"", True)


def _end_of_address(data: bytes) -> int:
    """Return where the address of a reply ends, and its port begins."""
    match data[3]:
        case 1:
            return 4 + 4
        case 4:
            return 4 + 16
        case 3:
            return 5 + data[4]
        case _:
            raise WireError("socks: bad address")


def _address(data: bytes, end: int) -> Address | str:
    match data[3]:
        case 1:
            return IPv4Address(data[4:end])
        case 4:
            return IPv6Address(data[4:end])
        case _:
            return data[5:end].decode("latin-1")


def wrap_datagram(host: str | Address, port: int, payload: bytes) -> bytes:
    """Return a datagram as a SOCKS5 proxy passes it on (RFC 1928 section 7)."""
    return b"\0\0\0" + _target(host, port) + payload


def unwrap_datagram(data: bytes) -> tuple[Address | str, int, bytes]:
    """Return who sent a datagram that came through a proxy, and what it said."""
    if len(data) < 5 or data[:2] != b"\0\0":
        raise WireError("socks: bad datagram")
    if data[2]:
        raise WireError("socks: fragment")  # a proxy need not, and we do not join them
    end = _end_of_address(data)
    if len(data) < end + 2:
        raise WireError("socks: truncated")
    port = int.from_bytes(data[end : end + 2], "big")
    return _address(data, end), port, data[end + 2 :]


class HttpConnect:
    """Asks an HTTP proxy for a tunnel."""

    def __init__(
        self, host: str | Address, port: int, credentials: Credentials | None = None
    ) -> None:
        authority = f"[{host}]" if isinstance(host, IPv6Address) else str(host)
        authority = f"{authority}:{port}"
        lines = [f"CONNECT {authority} HTTP/1.1", f"Host: {authority}"]
        if credentials is not None:
            said = f"{credentials.user}:{credentials.password}".encode()
            lines.append(f"Proxy-Authorization: Basic {b64encode(said).decode()}")
        self._request = "\r\n".join((*lines, "", "")).encode("ascii")
        self._interim = 0

    def begin(self) -> bytes:
        """Return the request."""
        return self._request

    def take(self, data: bytes) -> Step:
        """Read the head of the answer; a successful one has no body."""
        head, end, _ = data.partition(b"\r\n\r\n")
        if not data.startswith(b"HTTP/1."[: len(data)]):
            raise WireError("http: no answer")
        if not end:
            if len(data) >= MAX_HEAD:
                raise WireError("http: too long")
            return Step(0, b"", False)
        _, _, status = head.split(b"\r\n")[0].partition(b" ")
        code = status[:3]
        if not code.isdigit() or len(code) < 3:
            raise WireError("http: no answer")
        used = len(head) + len(end)
        if code.startswith(b"1"):  # an interim one: the real one follows
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise WireError("http: it only says to wait")
            return Step(used, b"", False)
        if not code.startswith(b"2"):
            reason = status[:80].decode("latin-1")
            raise ProxyRefusedError(reason if reason.isprintable() else code.decode())
        return Step(used, b"", True)

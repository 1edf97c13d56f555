# SPDX-License-Identifier: GPL-2.0-or-later
"""Handshakes with proxies: byte for byte, in pieces, refused, and of anybody."""

from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.addr import Address
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

ME = Credentials("me", "secret")
BOUND4 = b"\1\xc0\0\2\1\x10\0"


def talk(with_proxy: Conversation, incoming: bytes, piece: int) -> tuple[bytes, bytes]:
    """Let it come in pieces; what we said after begin(), and what was left over."""
    said, waiting, done = b"", b"", False
    for at in range(0, len(incoming), piece):
        waiting += incoming[at : at + piece]
        while not done:
            step = with_proxy.take(waiting)
            waiting, said, done = waiting[step.used :], said + step.send, step.done
            if not step.used:
                break
    assert done
    return said, waiting


@pytest.mark.parametrize("piece", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("host", "as_said"),
    [
        ("example.com", b"\3\x0bexample.com"),
        (IPv4Address("192.0.2.1"), b"\1\xc0\0\2\1"),
        (IPv6Address("2001:db8::1"), b"\4\x20\1\x0d\xb8" + bytes(11) + b"\1"),
    ],
)
def test_socks(host: str | Address, as_said: bytes, piece: int) -> None:
    proxy = Socks5(host, 443)
    assert proxy.begin() == b"\5\1\0"
    said, left = talk(proxy, b"\5\0\5\0\0" + BOUND4 + b"hello", piece)
    assert said == b"\5\1\0" + as_said + b"\1\xbb"
    assert left == b"hello"
    assert proxy.bound == (IPv4Address("192.0.2.1"), 0x1000)


@pytest.mark.parametrize("piece", [1, 100])
def test_socks_with_a_password(piece: int) -> None:
    proxy = Socks5("a.b", 80, ME)
    assert proxy.begin() == b"\5\2\0\2"
    said, _ = talk(proxy, b"\5\2\1\0\5\0\0\3\3x.y\0\1", piece)
    assert said == b"\1\2me\6secret" + b"\5\1\0\3\3a.b\0\x50"
    assert proxy.bound == ("x.y", 1)


def test_socks_for_datagrams() -> None:
    proxy = Socks5(IPv4Address(0), 0, datagrams=True)
    said, _ = talk(proxy, b"\5\0\5\0\0" + BOUND4, 100)
    assert said[:4] == b"\5\3\0\1"
    wrapped = wrap_datagram("a.b", 53, b"question")
    assert wrapped == b"\0\0\0\3\3a.b\0\x35question"
    assert unwrap_datagram(wrapped) == ("a.b", 53, b"question")
    with pytest.raises(WireError, match="fragment"):
        unwrap_datagram(b"\0\0\1" + wrapped[3:])


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"\5\xff", "who asks"),
        (b"\5\2\1\1", "wrong user"),
        (b"\5\0\5\5\0" + BOUND4, "connection refused"),
        (b"\5\0\5\2\0" + BOUND4, "not allowed"),
        (b"\5\0\5\x63\0" + BOUND4, "code 99"),
    ],
)
def test_socks_refuses(answer: bytes, why: str) -> None:
    with pytest.raises(ProxyRefusedError, match=why):
        talk(Socks5("a.b", 80, ME), answer, 100)


@pytest.mark.parametrize(
    "answer", [b"\4\0", b"\5\1", b"\5\0\4\0\0\1x", b"\5\0\5\0\0\2x"]
)
def test_what_no_socks_proxy_says(answer: bytes) -> None:
    with pytest.raises(WireError):
        talk(Socks5("a.b", 80, ME), answer, 100)


def test_a_password_is_not_sent_to_who_does_not_ask() -> None:
    said, _ = talk(Socks5("a.b", 80, ME), b"\5\0\5\0\0" + BOUND4, 100)
    assert b"secret" not in said


@pytest.mark.parametrize("piece", [1, 7, 1000])
def test_http(piece: int) -> None:
    proxy = HttpConnect("example.com", 443, ME)
    assert proxy.begin() == (
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n"
        b"Proxy-Authorization: Basic bWU6c2VjcmV0\r\n\r\n"
    )
    answer = b"HTTP/1.1 100 Wait\r\n\r\nHTTP/1.0 200 OK\r\nVia: x\r\n\r\nSSH-2.0"
    assert talk(proxy, answer, piece) == (b"", b"SSH-2.0")


def test_http_to_an_address() -> None:
    first = HttpConnect(IPv6Address("2001:db8::1"), 80).begin()
    assert first.startswith(b"CONNECT [2001:db8::1]:80 HTTP/1.1\r\n")


def test_http_refuses() -> None:
    with pytest.raises(ProxyRefusedError, match="407 Proxy Auth"):
        talk(HttpConnect("a.b", 1), b"HTTP/1.1 407 Proxy Auth\r\nX: y\r\n\r\n", 100)


@pytest.mark.parametrize("answer", [b"SSH", b"HTTP/2", b"HTTP/1.1 OK\r\n\r\n"])
def test_what_no_http_proxy_says(answer: bytes) -> None:
    with pytest.raises(WireError):
        talk(HttpConnect("a.b", 1), answer, 100)


def test_http_never_ends() -> None:
    with pytest.raises(WireError):
        talk(HttpConnect("a.b", 1), b"HTTP/1.1 200 OK\r\n" + b"x" * 9000, 9000)


def test_http_never_comes_to_the_point() -> None:
    """Whoever reads what is there would go on for as long as it says so."""
    wait = b"HTTP/1.1 100 Wait\r\n\r\n"
    assert talk(HttpConnect("a.b", 1), wait * 8 + b"HTTP/1.1 200 OK\r\n\r\n", 1000)
    with pytest.raises(WireError, match="wait"):
        talk(HttpConnect("a.b", 1), wait * 9, 1000)


@given(st.binary(max_size=60), st.booleans())
def test_no_bytes_do_any_harm(data: bytes, socks: bool) -> None:
    proxy: Conversation = Socks5("a.b", 1, ME) if socks else HttpConnect("a.b", 1)
    with suppress(WireError, ProxyRefusedError):
        for _ in range(4):
            data = data[proxy.take(data).used :]
    with suppress(WireError):
        unwrap_datagram(data)

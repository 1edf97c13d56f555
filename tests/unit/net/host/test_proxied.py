# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections through proxies that talk in pieces, refuse, or hang up."""

import asyncio
import socket
import threading
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest

from passtpy.net.host.proxied import Proxied, conversation
from passtpy.net.kernel.leaving import Leaving
from tests.unit.served import Serve, one_client

HERE = IPv4Address("127.0.0.1")
BOUND = b"\5\0\0\1\x7f\0\0\1\0\x50"


def connect(scheme: str, serve: Serve) -> socket.socket | str:
    """Connect through a proxy that does this with its client."""
    with one_client(serve) as port:

        async def until_done() -> socket.socket | str:
            loop = asyncio.get_running_loop()
            done: asyncio.Future[socket.socket | str] = loop.create_future()
            talk = conversation(scheme, "name.example", 80, None)
            Proxied(loop, (HERE, port), talk, Leaving(), done.set_result)
            return await asyncio.wait_for(done, 30)

        return asyncio.run(until_done())


def slowly(sock: socket.socket, data: bytes) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(len(data)):
        sock.sendall(data[at : at + 1])
        threading.Event().wait(0.002)


def socks(sock: socket.socket) -> None:
    assert sock.recv(3) == b"\5\1\0"
    slowly(sock, b"\5\0")
    assert sock.recv(100).endswith(b"\x0cname.example\0\x50")
    slowly(sock, BOUND + b"banner")


def http(sock: socket.socket) -> None:
    assert sock.recv(1000).startswith(b"CONNECT name.example:80 HTTP/1.1\r\n")
    slowly(sock, b"HTTP/1.1 200 OK\r\n\r\nbanner")


@pytest.mark.parametrize(("scheme", "serve"), [("socks5", socks), ("http", http)])
def test_what_the_target_says_first_is_left_in_the_socket(
    scheme: str, serve: Callable[[socket.socket], None]
) -> None:
    got = connect(scheme, serve)
    assert isinstance(got, socket.socket)
    with got:
        got.setblocking(True)
        got.settimeout(30)
        data = b""
        while len(data) < len(b"banner"):
            data += got.recv(1)
        assert data == b"banner"
        assert got.getsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT) == 1


@pytest.mark.parametrize(
    ("scheme", "answer", "why"),
    [
        ("socks5", b"\5\xff", "who asks"),
        ("http", b"HTTP/1.1 403 No\r\n\r\n", "403 No"),
        ("http", b"", "hung up"),
        ("http", b"HTTP/1.1 200", "hung up"),
        ("socks5", b"HTTP/1.1 400 Bad\r\n\r\n", "another version"),
    ],
)
def test_refusals(scheme: str, answer: bytes, why: str) -> None:
    def serve(sock: socket.socket) -> None:
        sock.recv(1000)
        sock.sendall(answer)

    got = connect(scheme, serve)
    assert isinstance(got, str)
    assert why in got

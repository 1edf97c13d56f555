# SPDX-License-Identifier: GPL-2.0-or-later
"""The name in a ClientHello: of a real client, cut anywhere, forged, and of anybody."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.client_hello import MAX_HELLO, ClientHello, HelloReader, is_tls
from tests.unit import openssl

PADDING, SUPPORTED_GROUPS = 21, 10
ENCRYPTED = 0xFE0D


def read_client_hello(data: bytes) -> ClientHello | None:
    """Read what has come at once."""
    return HelloReader().read(data)


def vector(data: bytes, size: int) -> bytes:
    return len(data).to_bytes(size, "big") + data


def sni(*names: bytes, kind: int = 0) -> bytes:
    return vector(b"".join(bytes([kind]) + vector(name, 2) for name in names), 2)


def hello(*extensions: tuple[int, bytes], behind: bytes = b"") -> bytes:
    """A ClientHello with these extensions, as a message of the handshake."""
    listed = b"".join(k.to_bytes(2, "big") + vector(body, 2) for k, body in extensions)
    body = (
        b"\3\3" + bytes(32) + vector(b"", 1) + vector(b"\x13\1", 2) + vector(b"\0", 1)
    )
    return b"\1" + vector(body + vector(listed, 2) + behind, 3)


def records(message: bytes, piece: int = 1 << 14) -> bytes:
    pieces = (message[at : at + piece] for at in range(0, len(message), piece))
    return b"".join(b"\x16\3\1" + vector(each, 2) for each in pieces)


@pytest.mark.parametrize("name", ["example.com", "a.b.c.d.example", None])
def test_of_a_real_client(name: str | None) -> None:
    data = openssl.hello(name)
    assert read_client_hello(data) == ClientHello(name, False)
    for end in range(len(data)):
        assert is_tls(data[: end + 1])
        assert read_client_hello(data[:end]) is None


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 40])
def test_cut_into_records(piece: int) -> None:
    data = records(hello((0, sni(b"example.com"))), piece)
    assert read_client_hello(data) == ClientHello("example.com", False)


@pytest.mark.parametrize("piece", [1, 2, 7, 100])
def test_read_as_it_comes(piece: int) -> None:
    """Who has read the beginning says the same as who reads all of it at once."""
    data = records(hello((0, sni(b"example.com"))), piece)
    reader = HelloReader()
    for end in range(len(data)):
        assert reader.read(data[:end]) == read_client_hello(data[:end])
    assert reader.read(data) == ClientHello("example.com", False)


def test_records_of_a_byte_are_looked_at_once() -> None:
    """12 KB of them, of which one comes after the other."""
    data = records(hello((1, bytes(2000)), (0, sni(b"example.com"))), 1)
    reader = HelloReader()
    begun = time.thread_time()
    for end in range(0, len(data), 6):
        assert reader.read(data[:end]) is None
    assert reader.read(data) == ClientHello("example.com", False)
    assert time.thread_time() - begun < 0.5


def test_another_one_within() -> None:
    data = records(hello((0, sni(b"front.example")), (ENCRYPTED, bytes(8))))
    assert read_client_hello(data) == ClientHello("front.example", True)


def test_bytes_behind_it_do_not_matter() -> None:
    data = records(hello((0, sni(b"a.b")))) + b"\x17\3\3\0\1x"
    assert read_client_hello(data) == ClientHello("a.b", False)


def test_of_an_old_client_without_extensions() -> None:
    body = b"\3\3" + bytes(32) + vector(b"", 1) + vector(b"\0\5", 2) + vector(b"\0", 1)
    assert read_client_hello(records(b"\1" + vector(body, 3))) == ClientHello(
        None, False
    )


@pytest.mark.parametrize(
    "message",
    [
        hello((0, sni(b"a.b")), (0, sni(b"c.d"))),
        hello((0, sni(b"a.b", b"c.d"))),
        hello((0, sni(b"a.b", kind=1))),
        hello((0, sni(b""))),
        hello((0, b"")),
        hello((0, sni(b"a.b") + b"x")),
        hello((0, sni("ü.b".encode()))),
        hello((0, sni(b"a.b")), behind=b"x"),
        hello((PADDING, bytes(MAX_HELLO))),
        b"\2" + hello()[1:],
    ],
    ids=[
        "twice",
        "two-names",
        "other-kind",
        "empty",
        "no-list",
        "tail",
        "not-ascii",
        "behind",
        "too-long",
        "server-hello",
    ],
)
def test_what_could_be_read_in_two_ways(message: bytes) -> None:
    with pytest.raises(WireError):
        read_client_hello(records(message))


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1",
        b"\x16\2\0",
        b"\x15\3\1\0\2xx",
        b"\x16\3\1\0\0",
        b"\x80\x2e\1\3\1",
        b"\x16\3\1\xff\xff" + bytes(10),
    ],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(WireError):
        read_client_hello(data)


def test_nobody_waits_for_ever() -> None:
    pieces = records(b"\1" + (MAX_HELLO - 4).to_bytes(3, "big") + bytes(9000), 1)
    with pytest.raises(WireError):
        read_client_hello(pieces[:MAX_HELLO])


@given(st.binary(max_size=80), st.integers(0, 120), st.integers(0, 255))
def test_no_bytes_do_any_harm(junk: bytes, at: int, byte: int) -> None:
    for data in (junk, records(hello((0, sni(b"example.com"))) + junk)):
        changed = bytearray(data)
        if at < len(changed):
            changed[at] = byte
        with suppress(WireError):
            read_client_hello(bytes(changed))

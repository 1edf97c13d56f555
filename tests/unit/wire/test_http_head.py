# SPDX-License-Identifier: GPL-2.0-or-later
"""The host of an HTTP request: cut anywhere, said twice, smuggled."""

import time
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.http_head import MAX_HEAD, is_http, read_host

GET = b"GET / HTTP/1.1\r\nUser-Agent: x\r\nHost: Example.com:8080\r\n\r\n"


def test_cut_anywhere() -> None:
    assert read_host(GET) == "Example.com"
    assert read_host(GET + b"body") == "Example.com"
    assert read_host(b"\r\n" + GET) == "Example.com"
    longest = GET.replace(b"GET", b"M" * 32)
    for end in range(len(GET)):
        assert read_host(GET[:end]) is None
        assert read_host(longest[:end]) is None
    assert read_host(longest) == "Example.com"


@pytest.mark.parametrize(
    ("head", "host"),
    [
        (b"GET / HTTP/1.0", ""),
        (b"GET / HTTP/1.1\r\nhost:a.b", "a.b"),
        (b"GET / HTTP/1.1\r\nHOST: \t a.b \t", "a.b"),
        (b"GET / HTTP/1.1\r\nHost: [2001:db8::1]:80", "[2001:db8::1]"),
        (b"GET / HTTP/1.1\r\nHost: 192.0.2.1", "192.0.2.1"),
        (b"GET / HTTP/1.1\r\nHost: a.b.", "a.b."),
        (b"GET http://a.b/x HTTP/1.1\r\nHost: A.b", "a.b"),
        (b"GET http://a.b:80?x HTTP/1.1", "a.b"),
        (b"CONNECT a.b:443 HTTP/1.1\r\nHost: a.b:443", "a.b"),
        (b"OPTIONS * HTTP/1.1\r\nHost: a.b", "a.b"),
        (b"M-SEARCH * HTTP/1.1\r\nHost: a.b", "a.b"),
        (b"GET / HTTP/1.1\r\nHost:", ""),
    ],
)
def test_which_host(head: bytes, host: str) -> None:
    assert read_host(head + b"\r\n\r\n") == host


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a.b\r\nHost: c.d",
        b"GET / HTTP/1.1\r\nHost: a.b\r\nHost: a.b",
        b"GET http://a.b/ HTTP/1.1\r\nHost: c.d",
        b"CONNECT a.b:443 HTTP/1.1\r\nHost: c.d",
        b"GET / HTTP/1.1\r\nHost: a.b\r\n c.d",
        b"GET / HTTP/1.1\r\nX: y\rHost: c.d\r\nHost: a.b",
        b"GET / HTTP/1.1\r\nX: y\nHost: c.d\r\nHost: a.b",
        b"GET / HTTP/1.1\r\nHost : a.b",
        b"GET / HTTP/1.1\r\nHost: a.b\0",
        b"GET / HTTP/1.1\r\nHost: u@a.b",
        b"GET / HTTP/1.1\r\nHost: a.b/c",
        b"GET / HTTP/1.1\r\nHost: a.b:80:80",
        b"GET / HTTP/1.1\r\nHost: \xfc.b",
        b"GET a.b HTTP/1.1\r\nHost: a.b",
        b"GET  / HTTP/1.1\r\nHost: a.b",
        b"GET / HTTP/2.0\r\nHost: a.b",
        b"GET /\r\nHost: a.b",
        b"PRI * HTTP/2.0",
    ],
)
def test_what_could_be_read_in_two_ways(head: bytes) -> None:
    with pytest.raises(WireError):
        read_host(head + b"\r\n\r\n")


@pytest.mark.parametrize(
    "data", [b"\x16\3\1", b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", b"\0"]
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(WireError):
        read_host(data)


def test_nobody_waits_for_ever() -> None:
    with pytest.raises(WireError):
        read_host(b"GET / HTTP/1.1\r\nX: " + b"y" * MAX_HEAD)


@pytest.mark.parametrize(
    "line",
    [b"X: y" + b" " * 16000 + b"z", b"X:" + b" y" * 8000, b"X:" + b"\t" * 16000],
    ids=["blanks within", "blanks and letters", "blanks alone"],
)
def test_no_field_is_much_work(line: bytes) -> None:
    """Nobody else is served meanwhile: some 50 us of processor."""
    begun = time.thread_time()
    assert read_host(b"GET / HTTP/1.1\r\nHost: a.b\r\n%b\r\n\r\n" % line) == "a.b"
    assert time.thread_time() - begun < 0.1


@given(st.binary(max_size=80), st.integers(0, 80), st.binary(max_size=3))
def test_no_bytes_do_any_harm(junk: bytes, at: int, piece: bytes) -> None:
    for data in (junk, GET[:at] + piece + GET[at:]):
        with suppress(WireError):
            is_http(data)
            read_host(data)

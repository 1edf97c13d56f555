# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel does with UNIX sockets, and tells about who connects to one."""

import os
import select
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.descriptors import none_left

SO_PEEK_OFF = 42
SO_NETNS_COOKIE = 71
ALL = select.EPOLLIN | select.EPOLLOUT | select.EPOLLRDHUP


@pytest.mark.root
def test_an_accepted_socket_is_of_the_network_namespace_of_its_client(
    tmp_path: Path,
) -> None:
    path = str(tmp_path / "sock")
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({path!r})"
    cookies = []
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()
        own = listening.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        for words in ([], ["unshare", "--net"]):
            subprocess.run([*words, sys.executable, "-c", code], check=True)
            accepted, _ = listening.accept()
            with accepted:
                cookies.append(
                    accepted.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
                )
    assert cookies[0] == own
    assert cookies[1] != own


Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with one, other:
        yield one, other


def peek(sock: socket.socket) -> bytes:
    return sock.recv(99, socket.MSG_PEEK | socket.MSG_DONTWAIT)


def test_a_peek_goes_on_where_the_last_one_ended(ends: Ends) -> None:
    """As TCP's does, but in every kernel; what is taken out moves it back."""
    one, other = ends
    one.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 0)
    other.sendall(b"first")
    assert peek(one) == b"first"
    with pytest.raises(BlockingIOError):
        peek(one)
    other.sendall(b"second")
    assert peek(one) == b"second"
    assert one.recv(7) == b"firstse"
    one.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, 1)
    assert peek(one) == b"ond"
    other.shutdown(socket.SHUT_WR)
    assert peek(one) == b""


def test_bytes_cannot_be_dropped_without_reading_them(ends: Ends) -> None:
    """MSG_TRUNC is no way to discard, as it is for TCP."""
    one, other = ends
    other.sendall(b"first")
    assert one.recv(5, socket.MSG_TRUNC) == b"first"


def test_a_read_ends_where_descriptors_were_passed(ends: Ends) -> None:
    one, other = ends
    other.sendall(b"one")
    with open(os.devnull) as file:
        socket.send_fds(other, [b"two"], [file.fileno()])
    other.sendall(b"three")
    with none_left():  # nobody wanted them
        assert [one.recv(99), one.recv(99)] == [b"onetwo", b"three"]


def test_the_end_is_told_like_that_of_a_connection(ends: Ends) -> None:
    """And a reset only by bytes that nobody read, whatever SO_LINGER says."""
    one, other = ends
    linger = struct.pack("ii", 1, 0)
    other.sendall(b"last")
    other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    other.close()
    assert events_of(one) == {"IN", "OUT", "HUP", "RDHUP"}
    assert one.recv(99) == b"last"
    assert one.recv(99) == b""
    with pytest.raises(BrokenPipeError):
        one.send(b"x")


def test_bytes_that_nobody_read_are_a_reset(ends: Ends) -> None:
    one, other = ends
    one.sendall(b"unread")
    other.sendall(b"last")
    other.close()
    assert events_of(one) == {"IN", "OUT", "HUP", "RDHUP", "ERR"}
    assert one.recv(99) == b"last"
    with pytest.raises(ConnectionResetError):
        one.recv(99)


def events_of(sock: socket.socket) -> set[str]:
    with select.epoll() as poll:
        poll.register(sock, ALL | select.EPOLLET)
        ((_, events),) = poll.poll(0)
    names = ("IN", "OUT", "HUP", "RDHUP", "ERR")
    return {name for name in names if events & getattr(select, f"EPOLL{name}")}

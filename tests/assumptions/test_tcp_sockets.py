# SPDX-License-Identifier: GPL-2.0-or-later
"""What the TCP handler believes about the kernel, each as a runnable fact."""

import errno
import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.lab.loopback import wait_delivered
from tests.lab.ready import queued

SO_PEEK_OFF = 42  # not in the socket module
FAMILIES = {"v4": (socket.AF_INET, "127.0.0.1"), "v6": (socket.AF_INET6, "::1")}
EDGE = (
    select.EPOLLIN
    | select.EPOLLOUT
    | select.EPOLLPRI
    | select.EPOLLRDHUP
    | select.EPOLLET
)
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=list(FAMILIES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both ends of a connection on loopback; the second is the accepted one."""
    family, host = FAMILIES[request.param]
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.bind((host, 0))
        listener.listen()
        near = socket.socket(family, socket.SOCK_STREAM)
        near.settimeout(30)
        near.connect(listener.getsockname())
        far, _ = listener.accept()
        far.settimeout(30)
    with near, far:
        yield near, far


def peeks_from(sock: socket.socket, offset: int) -> None:
    """Set the peek offset, or skip where the kernel has none for TCP (before 6.9)."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_PEEK_OFF, offset)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("this kernel has no SO_PEEK_OFF for TCP")


def peek(sock: socket.socket, size: int) -> bytes:
    """What a peek sees now."""
    sock.setblocking(False)
    try:
        return sock.recv(size, socket.MSG_PEEK)
    finally:
        sock.settimeout(30)


def discard(sock: socket.socket, size: int) -> int:
    """Take bytes without copying them."""
    return sock.recv_into(bytearray(size), size, socket.MSG_TRUNC)


def arrived(sock: socket.socket, size: int) -> None:
    """Wait until so many bytes are queued, without touching the peek offset."""
    deadline = time.monotonic() + 30
    while queued(sock) < size:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def told(poll: select.epoll, sock: socket.socket, wanted: int) -> int:
    """What is told about a socket until all that is wanted has been."""
    events = 0
    while wanted & ~events:
        found = poll.poll(30)
        assert found, f"told only {events:#x}"
        events |= dict(found)[sock.fileno()]
    return events


# Peeking


def test_peek_offset_moves_with_each_peek(pair: Pair) -> None:
    near, far = pair
    peeks_from(far, 0)
    near.sendall(b"abcdefgh")
    arrived(far, 8)
    assert [peek(far, 3), peek(far, 3), peek(far, 3)] == [b"abc", b"def", b"gh"]


def test_peek_beyond_the_queue_has_to_wait(pair: Pair) -> None:
    near, far = pair
    peeks_from(far, 0)
    near.sendall(b"abc")
    arrived(far, 3)
    assert peek(far, 10) == b"abc"
    with pytest.raises(BlockingIOError):
        peek(far, 10)
    near.sendall(b"def")
    arrived(far, 6)
    assert peek(far, 10) == b"def"


def test_discarding_moves_the_peek_offset_back(pair: Pair) -> None:
    """It is counted from the queue's start: the same byte stays the next one."""
    near, far = pair
    peeks_from(far, 0)
    near.sendall(b"abcdefgh")
    arrived(far, 8)
    assert peek(far, 4) == b"abcd"
    assert discard(far, 3) == 3
    assert peek(far, 10) == b"efgh"


def test_discarding_past_the_peek_offset_leaves_it_at_the_start(pair: Pair) -> None:
    near, far = pair
    peeks_from(far, 0)
    near.sendall(b"abcdefgh")
    arrived(far, 8)
    assert peek(far, 2) == b"ab"
    assert discard(far, 5) == 5
    assert peek(far, 10) == b"fgh"


def test_peek_offset_can_be_set_backwards(pair: Pair) -> None:
    near, far = pair
    peeks_from(far, 0)
    near.sendall(b"abcdefgh")
    arrived(far, 8)
    assert peek(far, 8) == b"abcdefgh"
    peeks_from(far, 2)
    assert peek(far, 3) == b"cde"


def test_peek_at_the_end_of_the_stream_returns_nothing(pair: Pair) -> None:
    near, far = pair
    peeks_from(far, 0)
    near.sendall(b"abc")
    near.shutdown(socket.SHUT_WR)
    arrived(far, 3)
    assert peek(far, 10) == b"abc"
    assert peek(far, 10) == b""
    peeks_from(far, 1)
    assert peek(far, 10) == b"bc"


def test_accepted_sockets_do_not_inherit_the_peek_offset_of_a_listener(
    pair: Pair,
) -> None:
    """An accepted socket peeks from the start until it is told otherwise."""
    near, far = pair
    near.sendall(b"abc")
    arrived(far, 3)
    assert peek(far, 2) == b"ab"
    assert peek(far, 2) == b"ab"


def test_trunc_takes_bytes_without_copying_them(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"abcdefgh")
    arrived(far, 8)
    buffer = bytearray(5)
    assert far.recv_into(buffer, 5, socket.MSG_TRUNC) == 5
    assert buffer == bytes(5)
    assert far.recv(10) == b"fgh"


def test_urgent_byte_in_line_is_part_of_what_is_peeked(pair: Pair) -> None:
    near, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    peeks_from(far, 0)
    near.sendall(b"abc")
    near.send(b"X", socket.MSG_OOB)
    near.sendall(b"def")
    arrived(far, 7)
    got = b""
    with suppress(BlockingIOError):
        while piece := peek(far, 10):
            got += piece
    assert got == b"abcXdef"


def test_peek_ends_at_the_urgent_byte(pair: Pair) -> None:
    """A short peek does not mean that there is no more."""
    near, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    near.sendall(b"abc")
    near.send(b"X", socket.MSG_OOB)
    arrived(far, 4)
    assert peek(far, 10) == b"abc"


# Events


def test_edge_comes_with_each_arrival(pair: Pair) -> None:
    near, far = pair
    with select.epoll() as poll:
        poll.register(far, EDGE)
        poll.poll(0.05)
        for _ in range(3):
            near.sendall(b"x")
            told(poll, far, select.EPOLLIN)
        assert not poll.poll(0.01)


def test_edge_comes_again_after_modify(pair: Pair) -> None:
    """How a flow that gave way to others gets its next turn."""
    near, far = pair
    with select.epoll() as poll:
        poll.register(far, EDGE)
        near.sendall(b"x")
        told(poll, far, select.EPOLLIN)
        assert not poll.poll(0.01)
        poll.modify(far, EDGE)
        told(poll, far, select.EPOLLIN)


def test_edge_comes_when_a_full_socket_drains(pair: Pair) -> None:
    near, far = pair
    near.setblocking(False)
    with select.epoll() as poll:
        poll.register(near, EDGE)
        while poll.poll(0.05):
            with suppress(BlockingIOError):
                while True:
                    near.send(bytes(1 << 16))
            wait_delivered(2)
        far.setblocking(False)
        deadline, events = time.monotonic() + 30, 0
        while not events & select.EPOLLOUT:
            assert time.monotonic() < deadline
            with suppress(BlockingIOError):
                while far.recv(1 << 20):
                    pass
            events |= dict(poll.poll(0.05)).get(near.fileno(), 0)


def test_end_of_the_stream_is_told_as_rdhup(pair: Pair) -> None:
    near, far = pair
    with select.epoll() as poll:
        poll.register(far, EDGE)
        poll.poll(0.01)
        near.shutdown(socket.SHUT_WR)
        events = told(poll, far, select.EPOLLRDHUP)
    assert not events & select.EPOLLHUP


def test_reset_is_told_as_error_and_hang_up(pair: Pair) -> None:
    near, far = pair
    with select.epoll() as poll:
        poll.register(far, EDGE)
        poll.poll(0.01)
        reset(near)
        told(poll, far, select.EPOLLERR | select.EPOLLHUP | select.EPOLLRDHUP)


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def test_data_before_a_reset_is_read_before_the_error(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"answer")
    arrived(far, 6)
    with select.epoll() as poll:
        poll.register(far, EDGE)
        reset(near)
        told(poll, far, select.EPOLLERR)
    assert far.recv(100) == b"answer"
    with pytest.raises(ConnectionResetError):
        far.recv(100)


def test_urgent_data_is_told_as_priority(pair: Pair) -> None:
    near, far = pair
    far.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    with select.epoll() as poll:
        poll.register(far, EDGE)
        near.send(b"abX", socket.MSG_OOB)
        near.close()
        told(poll, far, select.EPOLLPRI | select.EPOLLRDHUP)


# Ends


def test_close_with_unread_data_resets(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"x")
    arrived(far, 1)
    far.close()
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_close_after_everything_was_discarded_is_orderly(pair: Pair) -> None:
    near, far = pair
    near.sendall(b"x" * 100)
    arrived(far, 100)
    assert peek(far, 100)
    assert discard(far, 100) == 100
    far.close()
    assert near.recv(1) == b""


def test_close_without_lingering_resets(pair: Pair) -> None:
    near, far = pair
    reset(far)
    with pytest.raises(ConnectionResetError):
        near.recv(1)


def test_what_was_written_is_sent_after_close(pair: Pair) -> None:
    near, far = pair
    far.setblocking(False)
    size = 0
    with suppress(BlockingIOError):
        while True:
            size += far.send(bytes(1 << 16))
    far.close()
    got = 0
    while piece := near.recv(1 << 20):
        got += len(piece)
    assert got == size


def test_partly_discarded_buffer_keeps_its_memory(pair: Pair) -> None:
    """A window can stay closed because of a few bytes that were not taken."""
    near, far = pair
    size = 60_000  # for which the first window has room
    near.sendall(bytes(size))
    arrived(far, size)
    before = memory(far)
    discard(far, 100)
    assert memory(far) == before
    discard(far, size - 200)
    assert memory(far) > 10_000


def memory(sock: socket.socket) -> int:
    """Memory of the receive queue (SO_MEMINFO, SK_MEMINFO_RMEM_ALLOC)."""
    info = sock.getsockopt(socket.SOL_SOCKET, 55, 36)
    return int(struct.unpack("9I", info)[0])


def test_failed_connect_is_told_once(pair: Pair) -> None:
    _, far = pair
    family, host = far.family, far.getsockname()[0]
    with socket.socket(family, socket.SOCK_STREAM) as closed:
        closed.bind((host, 0))
        sock = socket.socket(family, socket.SOCK_STREAM)
        with sock, select.epoll() as poll:
            sock.setblocking(False)
            poll.register(sock, EDGE)
            assert sock.connect_ex(closed.getsockname()) == errno.EINPROGRESS
            told(poll, sock, select.EPOLLERR)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            again = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    assert (code, again) == (errno.ECONNREFUSED, 0)

# SPDX-License-Identifier: GPL-2.0-or-later
"""A link that is worse than it is; chance begins with a seed, and time is virtual."""

import socket
import time
from collections.abc import Callable
from functools import partial

import pytest

from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Guest, forward_to
from tests.datapath.packets import ISN, syn, tcp, udp
from tests.datapath.tcp_peer import arrived, established, read_exactly
from tests.lab.loopback import wait_delivered

MS = 1_000_000
GOOD = (0, 0, 0, False)
Link = tuple[int, int, int, bool]


def late(delay_ms: int, jitter_ms: int = 0, reorder: bool = False) -> Link:
    return delay_ms * MS, jitter_ms * MS, 0, reorder


def got(sock: socket.socket) -> list[bytes]:
    """Datagrams that were sent to it."""
    wait_delivered()
    sock.setblocking(False)
    found = []
    try:
        while True:
            found.append(sock.recv(65536))
    except BlockingIOError:
        return found


def send_numbers(guest: Guest, count: int) -> None:
    for number in range(count):
        guest.put(udp(b"%d" % number))
        guest.turn()


def test_what_the_guest_sends_is_late(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.impair(late(50), GOOD)
    guest.send(udp(b"x"))
    guest.advance(0.049)
    assert not guest.misses
    guest.advance(0.001)
    assert got(udp_peer) == [b"x"]


def test_what_it_gets_is_late(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.impair(GOOD, late(50))
    guest.send(udp(b"x"))
    _, source = udp_peer.recvfrom(9)
    udp_peer.sendto(b"answer", source)
    guest.wait_for(lambda: guest.flows()[0].packets1 == 1, "the answer")
    guest.advance(0.049)
    assert not arrived(guest)
    guest.advance(0.001)
    assert [frame.payload for frame in arrived(guest)] == [b"answer"]


def test_jitter_keeps_the_order_unless_told(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.impair(late(50, 10), GOOD)
    send_numbers(guest, 50)
    guest.advance(0.039)
    assert not guest.misses
    guest.advance(0.021)
    assert got(udp_peer) == [b"%d" % number for number in range(50)]


def test_another_order_is_had_where_it_is_asked_for(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.impair(late(50, 10, reorder=True), GOOD)
    send_numbers(guest, 50)
    guest.advance(0.06)
    numbers = [int(each) for each in got(udp_peer)]
    assert sorted(numbers) == list(range(50))
    assert numbers != sorted(numbers)


def survivors(guest: Guest, peer: socket.socket, seed: int) -> list[bytes]:
    """Which of 200 datagrams come through a link that loses a quarter."""
    guest.decide = forward_to(peer.getsockname()[1])
    guest.dp.impair((0, 0, 250_000, False), GOOD, seed)
    found = []
    for number in range(200):
        guest.send(udp(b"%d" % number))
        found += got(peer)
    assert len(found) == 200 - guest.counter("impair_lost")
    return found


def test_those_that_are_lost_follow_from_the_seed(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    first, again, other = (
        survivors(make_guest(), udp_peer, seed) for seed in (7, 7, 8)
    )
    assert first == again != other
    assert 120 <= len(first) <= 180


def has_had(guest: Guest, count: int) -> bool:
    """Were so many datagrams sent to the guest?"""
    return guest.flows()[0].packets1 == count


def test_some_for_the_guest_are_lost(guest: Guest, udp_peer: socket.socket) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.impair(GOOD, (0, 0, 500_000, False))
    guest.send(udp(b"x"))
    _, source = udp_peer.recvfrom(9)
    came = 0
    for number in range(1, 41):
        udp_peer.sendto(b"x", source)
        guest.wait_for(partial(has_had, guest, number), "a datagram")
        came += len(arrived(guest))
    assert came == 40 - guest.counter("impair_lost")
    assert 8 <= came <= 32


def test_a_connection_bears_it(guest: Guest, server: Server) -> None:
    """Delay and loss: every byte arrives, in time of its own."""
    guest.dp.impair(late(20, 5), (20 * MS, 5 * MS, 300_000, False))
    guest.decide = forward_to(server.port)
    guest.send(syn())
    ack, size = 0, 1_000_000
    received = bytearray()
    peer = None
    deadline = time.monotonic() + WAIT_S
    while len(received) < size:
        assert time.monotonic() < deadline
        guest.advance(0.005)
        for frame in arrived(guest):
            if "S" in frame.flags:
                ack = frame.tcp.seq + 1
            elif frame.payload and frame.tcp.seq == ack:
                ack = (ack + len(frame.payload)) % 2**32
                received += frame.payload
            guest.put(tcp("A", seq=ISN + 1, ack=ack))
        if peer is None and ack:
            peer = server.accept()
            peer.sendall(bytes(range(250)) * (size // 250))
    assert bytes(received) == bytes(range(250)) * (size // 250)
    assert guest.counter("impair_lost") > 0


def test_a_link_that_is_well_again(guest: Guest, udp_peer: socket.socket) -> None:
    """What is on its way stays so, and nothing overtakes it."""
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.dp.impair(late(50), GOOD)
    guest.send(udp(b"late"))
    guest.dp.impair(GOOD, GOOD)
    guest.send(udp(b"after"))
    assert not guest.misses
    guest.advance(0.05)
    guest.send(udp(b"now"))
    assert got(udp_peer) == [b"late", b"after", b"now"]


@pytest.mark.parametrize(
    "link", [(1, 2, 0, False), (0, 0, 1_000_001, False), (61 * 10**9, 0, 0, False)]
)
def test_links_that_there_are_not(guest: Guest, link: Link) -> None:
    with pytest.raises(ValueError, match="no such link"):
        guest.dp.impair(link, GOOD)


def test_frames_that_wait_are_freed_with_the_datapath(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    guest.dp.impair(late(1000), late(1000))
    peer.sendall(bytes(100_000))
    conn.send(b"x")
    guest.wait_for(lambda: guest.flows()[0].bytes1 > 0, "bytes")
    guest.close()


def test_a_link_without_delay_only_loses(guest: Guest, server: Server) -> None:
    guest.dp.impair((0, 0, 0, False), (0, 0, 0, True))
    conn, peer = established(guest, server)
    conn.send(b"hello")
    assert read_exactly(peer, 5) == b"hello"

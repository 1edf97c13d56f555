# SPDX-License-Identifier: GPL-2.0-or-later
"""Guests that say nothing, guests that ask whether anybody is there, and those gone."""

import socket

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from tests.datapath.conftest import Server
from tests.datapath.guest import Frame, Guest
from tests.datapath.packets import rst
from tests.datapath.tcp_peer import (
    arrived,
    datapaths_end,
    established,
    later_on,
    read_exactly,
)
from tests.lab.loopback import wait_delivered

HOUR = 3600
MINUTE = 60

# Who asks


def test_keepalive_of_the_guest_is_answered(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    conn.say("A", seq=conn.seq - 1)
    guest.expect("A", seq=conn.ack, ack=conn.seq)


def test_keepalive_of_the_guest_with_a_byte_is_answered(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.send(b"ab")
    guest.expect("A")
    conn.say("A", b"b", seq=conn.seq - 1)
    guest.expect("A", seq=conn.ack, ack=conn.seq)
    conn.send(b"c")
    assert read_exactly(peer, 3) == b"abc"


def test_idle_guest_is_probed_after_two_hours_and_then_reset(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    guest.advance(2 * HOUR - 1)
    guest.expect_nothing()
    guest.advance(2)
    guest.expect("A", seq=later_on(conn.ack, -1), ack=conn.seq)
    probes = 1
    for _ in range(20):
        guest.advance(75)
        frames = arrived(guest)
        probes += sum(f.flags == "A" for f in frames)
        if any("R" in f.flags for f in frames):
            break
    assert probes == 9
    assert not guest.flows()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_idle_guest_that_answers_probes_stays(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    for _ in range(3):
        guest.advance(2 * HOUR + 1)
        guest.expect("A", seq=later_on(conn.ack, -1))
        conn.acknowledge()
    assert guest.flows()


# A guest whose window is closed


def is_whole(frame: Frame) -> bool:
    """Is the checksum right?"""
    packet = Ether(frame.raw)
    del packet[TCP].chksum
    return bool(Ether(bytes(packet))[TCP].chksum == frame.tcp.chksum)


def test_guest_that_answers_most_probes_of_its_window_is_never_given_up(
    guest: Guest, server: Server
) -> None:
    """One that is lost, however late, is no two minutes of silence."""
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()
    probes = 0
    for _ in range(1200):
        guest.advance(1)
        for frame in arrived(guest):
            assert "R" not in frame.flags
            assert frame.payload == b"w"
            assert is_whole(frame)
            probes += 1
            if probes % 5:
                conn.say("A", window=0)
    assert probes > 40
    conn.say("A", window=100)
    assert conn.read(7) == b"waiting"


# A guest that has sent its FIN may forget the connection


def test_guest_that_forgot_a_half_closed_connection_frees_it(
    guest: Guest, server: Server
) -> None:
    """Its program was killed; a minute later its kernel knows nothing of it."""
    conn, peer = established(guest, server)
    conn.fin()
    guest.expect("A", ack=conn.seq)
    guest.advance(MINUTE)
    probe = guest.expect("A", seq=later_on(conn.ack, -1), ack=conn.seq)
    guest.send(rst(seq=probe.tcp.ack))
    assert not guest.flows()
    assert peer.recv(1) == b""
    wait_delivered()  # the reset behind the end
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        peer.sendall(b"anybody?")


def test_guest_that_waits_for_an_answer_keeps_its_half_closed_connection(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.fin()
    guest.expect("A")
    probes = 0
    for _ in range(2 * HOUR // MINUTE):
        guest.advance(MINUTE)
        for frame in arrived(guest):
            assert frame.flags == "A"
            probes += 1
            conn.acknowledge()
    assert probes >= 100
    peer.sendall(b"at last")
    assert conn.read(7) == b"at last"


def test_silence_after_a_half_close_is_an_end_in_a_quarter_of_an_hour(
    guest: Guest, server: Server
) -> None:
    conn, _ = established(guest, server)
    conn.fin()
    guest.expect("A")
    for _ in range(10):
        guest.advance(MINUTE)
    assert guest.flows()
    for _ in range(5):
        guest.advance(MINUTE)
    assert not guest.flows()


# What the guest asks, the kernel asks the peer


def keepalive(sock: socket.socket) -> tuple[int, ...]:
    """Whether a socket asks, after how long, how often, and how many times."""
    return (
        sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        *(
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
            )
        ),
    )


@pytest.mark.parametrize(
    ("idle", "asked"),
    [
        (10, (1, 10, 2, 5)),
        (1, (1, 1, 1, 5)),
        (2 * HOUR, (1, 2 * HOUR, 75, 5)),
    ],
)
def test_peer_is_asked_as_soon_as_the_guest_asks(
    guest: Guest, server: Server, idle: int, asked: tuple[int, ...]
) -> None:
    conn, peer = established(guest, server)
    with datapaths_end(peer) as sock:
        assert keepalive(sock)[0] == 0
        guest.now += idle * 10**9
        conn.say("A", seq=conn.seq - 1)
        guest.expect("A", ack=conn.seq)
        assert keepalive(sock) == asked


def test_probe_of_a_closed_window_asks_nobody(guest: Guest, server: Server) -> None:
    """It looks like a keepalive: the byte before the next one, or none."""
    conn, peer = established(guest, server)
    with datapaths_end(peer) as sock:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        window = 1
        while window:
            conn.send(bytes(min(window, 60_000)))
            frames = guest.drain()
            edge = max(later_on(f.tcp.ack, f.tcp.window << 7) for f in frames)
            window = edge - conn.seq
        guest.advance(5)
        conn.say("A", seq=conn.seq - 1)
        guest.expect("A")
        assert keepalive(sock)[0] == 0


def test_dead_peer_fails_the_guests_connection(guest: Guest, server: Server) -> None:
    """It forgot the connection without a word; asked by our kernel, it resets."""
    conn, peer = established(guest, server)
    guest.now += 10**9
    conn.say("A", seq=conn.seq - 1)
    guest.expect("A", ack=conn.seq)
    vanish(peer)
    frame = guest.recv()
    assert "R" in frame.flags
    assert not guest.flows()


def vanish(sock: socket.socket) -> None:
    """Close a socket of which nobody is told, as by a machine that lost its power."""
    tcp_repair = 19
    try:
        sock.setsockopt(socket.IPPROTO_TCP, tcp_repair, 1)
    except PermissionError:
        pytest.skip("to close a socket silently needs CAP_NET_ADMIN")
    sock.close()

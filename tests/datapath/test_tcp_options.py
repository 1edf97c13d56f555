# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP: options that the host's socket of a connection gets only when it needs them."""

import socket
from contextlib import closing

from tests.datapath.conftest import Server
from tests.datapath.guest import Guest
from tests.datapath.tcp_peer import datapaths_end, established, read_exactly
from tests.lab.namespace import wait_until

SO_PEEK_OFF = 42
CLOSE_WAIT = 8  # a state that struct tcp_info begins with
FIRST_ALONE = 536  # bytes: one segment, whatever the peer's MSS is


def peeks_from(sock: socket.socket) -> int:
    """The peek offset of a socket; -1: it has none."""
    return sock.getsockopt(socket.SOL_SOCKET, SO_PEEK_OFF)


def has_ended(sock: socket.socket) -> bool:
    """Whether all that its peer said has come, the end as well."""
    return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == CLOSE_WAIT


def hurries(sock: socket.socket) -> bool:
    """Whether small segments are sent at once, acknowledged or not what was before."""
    return bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


def test_one_question_and_its_answer_need_no_options(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    with closing(datapaths_end(peer)) as ours:
        conn.send(bytes(FIRST_ALONE))
        read_exactly(peer, FIRST_ALONE)
        conn.guest.drain()
        peer.sendall(b"answer")
        conn.expect("PA", b"answer", ack=conn.seq)
        assert (hurries(ours), peeks_from(ours)) == (False, -1)
        peer.close()  # before the answer is acknowledged
        conn.expect("FA")
        assert peeks_from(ours) == -1


def test_the_last_bytes_come_after_those_that_wait(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    with closing(datapaths_end(peer)) as ours:
        peer.sendall(b"first")
        begin = conn.ack
        conn.expect("PA", b"first")
        peer.sendall(b"last")
        peer.close()
        wait_until(lambda: has_ended(ours), 30, "both, when the datapath looks")
        conn.expect("FPA", b"last")
        assert peeks_from(ours) == -1
        guest.advance(1.0)  # nothing was acknowledged: all of it again
        frames = guest.drain()
        assert b"first" in b"".join(f.payload for f in frames)
        assert frames[0].tcp.seq == begin


def test_who_goes_on_gets_both(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    with closing(datapaths_end(peer)) as ours:
        for data in (b"one", b"two"):
            conn.send(data)
            assert read_exactly(peer, 3) == data
        assert hurries(ours)
        conn.guest.drain()
        for data in (b"three", b"four"):  # the second behind the first, unacknowledged
            peer.sendall(data)
            conn.expect("PA", data)
        assert peeks_from(ours) == len(b"threefour")


def test_a_long_first_segment_is_not_cut_by_waiting(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    with closing(datapaths_end(peer)) as ours:
        conn.send(bytes(FIRST_ALONE + 1))
        read_exactly(peer, FIRST_ALONE + 1)
        assert hurries(ours)

# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections of the guest whose host socket Python gives: TCP, or one of a pair."""

import array
import errno
import os
import random
import socket
from collections.abc import Callable

import pytest

from passtpy.flow import Action
from tests.datapath.conftest import Server
from tests.datapath.given import Ends, given, is_watched, opened_with, pair, to_itself
from tests.datapath.guest import Connection, Guest, later
from tests.datapath.packets import syn, udp
from tests.datapath.tcp_peer import (
    WITH_SACK,
    arrived,
    in_flight,
    inbound,
    later_on,
    read_exactly,
    until_fin,
)
from tests.lab.descriptors import Opened


@pytest.fixture
def joined(guest: Guest, ends: Ends) -> tuple[Connection, socket.socket]:
    """A connection of the guest, and the other end of the pair that it has."""
    return pair(guest, ends, options=WITH_SACK)


Joined = tuple[Connection, socket.socket]


def test_handshake_is_complete_at_once(guest: Guest, ends: Ends) -> None:
    _ours, theirs = ends()
    guest.decide = given(guest, theirs)
    guest.put(syn(seq=7))
    guest.turn()
    guest.expect("SA", ack=8)
    (flow,) = guest.flows()
    assert guest.opened == [flow.flow_id]
    assert guest.counter("flows_opened") == 1


def test_lost_answer_is_sent_again(guest: Guest, ends: Ends) -> None:
    _ours, theirs = ends()
    guest.decide = given(guest, theirs)
    guest.send(syn(seq=7))
    first = guest.expect("SA", ack=8)
    guest.advance(0.25)
    guest.expect("SA", ack=8, seq=first.tcp.seq)
    guest.send(syn(seq=7))
    guest.expect("SA", ack=8, seq=first.tcp.seq)


def test_bytes_go_both_ways(joined: Joined) -> None:
    conn, ours = joined
    stream = random.Random(1).randbytes(300_000)
    conn.send(b"question")
    assert ours.recv(99) == b"question"
    conn.guest.expect("A", ack=conn.seq)
    got, rest = b"", stream
    ours.setblocking(False)
    while len(got) < len(stream):
        if rest:
            rest = rest[ours.send(rest[:50_000]) :]
        frame = conn.guest.recv()
        assert frame.tcp.seq == conn.ack
        got += frame.payload
        conn.ack = later_on(conn.ack, len(frame.payload))
        conn.acknowledge()
    assert got == stream


def test_what_the_pair_does_not_take_is_held(joined: Joined) -> None:
    conn, ours = joined
    stream = random.Random(2).randbytes(600_000)
    got, sent, edge = b"", 0, conn.seq + conn.peer_syn.tcp.window
    while sent < len(stream):
        room = edge - conn.seq
        if not room:  # nobody has read, and the promise is used up
            assert conn.guest.counter("tcp_buffered")
            got += ours.recv(1 << 20)
        part = stream[sent : sent + min(room, 14_000)]
        if part:
            conn.send(part)
            sent += len(part)
        for frame in arrived(conn.guest):
            edge = max(edge, frame.tcp.ack + (frame.tcp.window << 7))
    while len(got) < len(stream):
        got += ours.recv(1 << 20)
        conn.guest.turn()
    assert got == stream


def test_guest_ends_first(joined: Joined) -> None:
    conn, ours = joined
    conn.say("FA", b"the end")
    assert read_exactly(ours, 7) == b"the end"
    assert ours.recv(9) == b""
    conn.guest.expect("A", ack=conn.seq)
    ours.sendall(b"not mine")
    conn.expect("PA", b"not mine")
    conn.acknowledge()
    ours.close()
    conn.expect("FA")
    conn.acknowledge()
    conn.guest.wait_for(lambda: not conn.guest.flows(), "the end")


def test_python_ends_first(joined: Joined) -> None:
    conn, ours = joined
    ours.sendall(b"all")
    ours.shutdown(socket.SHUT_WR)
    assert until_fin(conn) == b"all"
    conn.send(b"mine goes on")
    assert read_exactly(ours, 12) == b"mine goes on"
    conn.fin()
    assert ours.recv(1) == b""
    conn.guest.wait_for(lambda: not conn.guest.flows(), "the end")


def test_what_was_written_before_a_close_arrives(joined: Joined) -> None:
    conn, ours = joined
    ours.sendall(b"answer")
    ours.close()
    assert until_fin(conn) == b"answer"
    conn.send(b"nobody reads this")
    while "R" not in conn.guest.recv().flags:
        pass
    assert not conn.guest.flows()


def test_what_nobody_read_resets_the_guest(joined: Joined) -> None:
    conn, ours = joined
    conn.send(b"not to be read")
    conn.guest.expect("A", ack=conn.seq)
    ours.sendall(b"last words")
    ours.close()
    conn.expect("PA", b"last words")
    conn.guest.expect("RA", seq=conn.ack)
    assert not conn.guest.flows()


def test_reset_of_the_guest_ends_the_stream(joined: Joined) -> None:
    conn, ours = joined
    conn.send(b"x")
    conn.say("R")
    conn.guest.advance(0.1)
    assert ours.recv(9) == b"x"
    assert ours.recv(9) == b""


def test_lost_bytes_are_read_again_from_the_pair(joined: Joined) -> None:
    conn, ours = joined
    stream = random.Random(3).randbytes(20_000)
    for at in range(0, len(stream), 3000):  # several buffers in the kernel
        ours.sendall(stream[at : at + 3000])
        conn.guest.turn()
    in_flight(conn.guest, conn, len(stream))
    conn.acknowledge(ack=later_on(conn.ack, 7000))
    conn.ack = later_on(conn.ack, 7000)
    conn.guest.advance(0.2)
    assert conn.read(13_000) == stream[7000:]
    ours.sendall(b"and on")
    conn.expect("PA", b"and on")


def test_closed_window_is_probed(joined: Joined) -> None:
    conn, ours = joined
    conn.acknowledge(window=0)
    ours.sendall(b"wait")
    conn.guest.turn()
    conn.guest.expect_nothing()
    conn.guest.advance(0.3)
    conn.expect("PA", b"w")
    conn.acknowledge()
    conn.expect("PA", b"ait")


def test_end_waits_for_all_bytes_beside_descriptors(
    joined: Joined, opened: Opened
) -> None:
    """A read ends where descriptors were passed, which is not where the bytes end."""
    conn, ours = joined
    before = opened()
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0]))]
    ours.sendall(b"one")
    ours.sendmsg([b"two"], rights)
    ours.sendall(b"three")
    ours.shutdown(socket.SHUT_WR)
    assert until_fin(conn) == b"onetwothree"
    assert opened() == before


@pytest.mark.parametrize("v6", [False, True])
def test_connected_tcp_socket_is_as_if_it_was_ours(
    guest: Guest, server: Server, server6: Server, v6: bool
) -> None:
    there = server6 if v6 else server
    theirs = socket.create_connection(there.sock.getsockname()[:2])
    guest.decide = given(guest, theirs)
    conn, peer = guest.connect(v6=not v6), there.accept()
    conn.send(b"question")
    assert peer.recv(99) == b"question"
    conn.guest.expect("A", ack=conn.seq)
    peer.sendall(b"answer")
    assert conn.read(6) == b"answer"
    peer.close()
    assert until_fin(conn) == b""


# What cannot be given


def unconnected() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM)


def datagrams() -> socket.socket:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    other.close()
    return one


def packets() -> socket.socket:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    other.close()
    return one


WRONG = [
    (unconnected, errno.ENOTCONN),
    (datagrams, errno.EPROTOTYPE),
    (packets, errno.EPROTOTYPE),
]


@pytest.mark.parametrize(("make", "error"), WRONG)
def test_wrong_socket_is_refused_and_stays_the_callers(
    guest: Guest, make: Callable[[], socket.socket], error: int
) -> None:
    with make() as sock:
        guest.decide = given(guest, sock)
        guest.send(syn(seq=7))
        assert guest.opened == [-error]
        assert sock.fileno() == os.dup2(sock.fileno(), sock.fileno())
    guest.expect("RA", ack=8)
    assert not guest.flows()


def test_file_is_refused(guest: Guest) -> None:
    guest.decide = later
    guest.send(syn(seq=7))
    (miss,) = guest.misses
    with open(os.devnull) as file:
        assert (
            guest.open(miss.miss_id, to_itself(miss), file.fileno()) == -errno.ENOTSOCK
        )
        os.fstat(file.fileno())
    guest.expect("RA", ack=8)


def test_only_connections_of_the_guest_can_have_one(
    guest: Guest, server: Server, ends: Ends
) -> None:
    _, theirs = ends()
    guest.decide = given(guest, theirs)
    guest.send(udp(b"x"))
    client, _ = inbound(guest, server, given(guest, theirs))
    assert guest.opened == [-errno.EINVAL, -errno.EINVAL]
    os.fstat(theirs.fileno())
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_answer_that_comes_too_late_leaves_the_socket(guest: Guest, ends: Ends) -> None:
    _, theirs = ends()
    guest.decide = later
    guest.send(syn(seq=7))
    guest.advance(3)
    assert opened_with(guest, guest.misses[0], theirs) == -errno.ESTALE
    os.fstat(theirs.fileno())


def test_refusal_closes_what_came_with_it(guest: Guest, ends: Ends) -> None:
    ours, theirs = ends()
    guest.decide = later
    guest.send(syn(seq=7))
    (miss,) = guest.misses
    refusal = to_itself(miss)._replace(action=Action.REJECT)
    assert guest.open(miss.miss_id, refusal, theirs.detach()) == 0
    assert ours.recv(1) == b""
    guest.expect("RA", ack=8)


def test_socket_that_others_hold_too_leaves_epoll(guest: Guest, ends: Ends) -> None:
    _ours, theirs = ends()
    with theirs.dup():
        fd = theirs.fileno()
        guest.decide = given(guest, theirs)
        conn = guest.connect()
        assert is_watched(fd)
        conn.say("R")
        guest.advance(0.1)
        assert not is_watched(fd)

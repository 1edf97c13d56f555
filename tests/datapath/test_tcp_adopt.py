# SPDX-License-Identifier: GPL-2.0-or-later
"""Another host socket for a connection that stands; the guest must not notice."""

import errno
import os
import random
import socket
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

import pytest

from passtpy.addr import inany
from tests.datapath.conftest import Server
from tests.datapath.given import Ends, given, is_watched, pair
from tests.datapath.guest import WAIT_S, Connection, Guest, forward_to
from tests.datapath.packets import GUEST4, syn, udp
from tests.datapath.tcp_peer import (
    WITH_SACK,
    arrived,
    established,
    full_server,
    in_flight,
    inbound,
    later_on,
    read_exactly,
    until_fin,
)


@dataclass
class Begun:
    """A connection that begins with a pair of sockets, and goes on at a server."""

    guest: Guest
    server: Server
    conn: Connection
    ours: socket.socket

    @property
    def flow_id(self) -> int:
        """The only flow."""
        (flow,) = self.guest.flows()
        return flow.flow_id

    def adopt(self, sock: socket.socket) -> int:
        """Let the flow have this one; 0, or the errno, and it stays ours."""
        try:
            self.guest.dp.adopt(self.flow_id, sock.fileno())
        except OSError as error:
            os.fstat(sock.fileno())
            return error.errno or -1
        sock.detach()
        self.guest.turn()
        return 0

    def dial(self) -> tuple[socket.socket, socket.socket]:
        """A connection to the server: for the datapath, and the server's end."""
        sock = socket.create_connection(self.server.sock.getsockname()[:2])
        return sock, self.server.accept()

    def hand_over(self) -> socket.socket:
        """Send on what the guest sent so far, and adopt; the server's end."""
        sock, peer = self.dial()
        self.ours.setblocking(False)
        try:
            while early := self.ours.recv(1 << 20):
                sock.sendall(early)
        except BlockingIOError:
            pass
        self.ours.settimeout(WAIT_S)
        assert self.adopt(sock) == 0
        return peer


@pytest.fixture
def begun(guest: Guest, server: Server, ends: Ends) -> Begun:
    conn, ours = pair(guest, ends, options=WITH_SACK)
    return Begun(guest, server, conn, ours)


def test_what_came_before_and_what_comes_after(begun: Begun) -> None:
    conn = begun.conn
    conn.send(b"who are you; ")
    assert begun.ours.recv(99, socket.MSG_PEEK) == b"who are you; "
    peer = begun.hand_over()
    conn.send(b"and how")
    assert read_exactly(peer, 20) == b"who are you; and how"
    peer.sendall(b"well")
    assert conn.read(4) == b"well"
    assert begun.ours.recv(1) == b""
    (flow,) = begun.guest.flows()
    assert flow.eaddr1 == inany(ip_address("127.0.0.1"))
    assert flow.eport1 == begun.server.port


def test_numbers_go_on_after_bytes_of_the_old_socket(begun: Begun) -> None:
    conn = begun.conn
    begun.ours.sendall(b"welcome ")
    assert conn.read(8) == b"welcome "
    peer = begun.hand_over()
    peer.sendall(b"in")
    conn.expect("PA", b"in")
    conn.acknowledge()
    peer.close()
    assert until_fin(conn) == b""
    conn.fin()
    begun.guest.wait_for(lambda: not begun.guest.flows(), "the end")


def test_large_streams_both_ways_after_a_long_beginning(begun: Begun) -> None:
    """More than one socket buffer before and after; the window is kept to."""
    conn, guest, rng = begun.conn, begun.guest, random.Random(7)
    stream = rng.randbytes(900_000)
    sent, edge = 0, conn.seq + conn.peer_syn.tcp.window
    peer: socket.socket | None = None
    got = b""
    while len(got) < len(stream):
        part = stream[sent : sent + min(edge - conn.seq, 14_000)]
        if part:
            conn.send(part)
            sent += len(part)
        for frame in arrived(guest):
            edge = max(edge, frame.tcp.ack + (frame.tcp.window << 7))
        if peer is None and guest.counter("tcp_buffered"):  # the pair is full
            peer = begun.hand_over()
        if peer is not None:
            got += peer.recv(1 << 20)
    assert got == stream
    assert peer is not None
    answer = rng.randbytes(100_000)
    peer.sendall(answer)
    assert conn.read(len(answer)) == answer


def test_full_window_opens_with_the_new_socket(begun: Begun) -> None:
    conn, guest = begun.conn, begun.guest
    edge = conn.seq + conn.peer_syn.tcp.window
    while edge > conn.seq:
        conn.send(bytes(min(edge - conn.seq, 14_000)))
        for frame in arrived(guest):
            edge = max(edge, frame.tcp.ack + (frame.tcp.window << 7))
    peer = begun.hand_over()
    update = guest.recv()
    assert update.tcp.ack + (update.tcp.window << 7) > edge
    left = conn.seq - conn.peer_syn.tcp.ack
    while left:
        left -= len(peer.recv(1 << 20))
        guest.turn()


# The ends of the streams


def test_end_of_the_guest_is_passed_on_again(begun: Begun) -> None:
    conn = begun.conn
    conn.say("FA", b"all of it")
    begun.guest.expect("A", ack=conn.seq)
    peer = begun.hand_over()
    assert read_exactly(peer, 9) == b"all of it"
    assert peer.recv(1) == b""
    peer.sendall(b"thanks")
    peer.close()
    assert until_fin(conn) == b"thanks"
    begun.guest.wait_for(lambda: not begun.guest.flows(), "the end")


def test_end_behind_bytes_that_were_held(begun: Begun) -> None:
    conn, guest = begun.conn, begun.guest
    begun.ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    stream = random.Random(5).randbytes(60_000)
    for at in range(0, len(stream), 20_000):
        conn.send(stream[at : at + 20_000])
    conn.fin()
    guest.drain()
    peer = begun.hand_over()
    assert read_exactly(peer, len(stream)) == stream
    assert peer.recv(1) == b""


def test_new_socket_that_has_ended_already(begun: Begun) -> None:
    sock, peer = begun.dial()
    peer.sendall(b"short")
    peer.close()
    assert begun.adopt(sock) == 0
    assert until_fin(begun.conn) == b"short"


def test_old_socket_that_ends_at_the_last_moment_is_no_end(begun: Begun) -> None:
    sock, peer = begun.dial()
    begun.ours.close()  # the datapath has not looked yet
    assert begun.adopt(sock) == 0
    begun.guest.expect_nothing()
    peer.sendall(b"here")
    begun.conn.expect("PA", b"here")


def test_end_behind_a_closed_window_is_no_end_of_the_new_one(begun: Begun) -> None:
    begun.conn.acknowledge(window=0)
    begun.ours.close()
    begun.guest.turn()
    sock, peer = begun.dial()
    assert begun.adopt(sock) == 0
    begun.conn.acknowledge()
    peer.sendall(b"here")
    begun.conn.expect("PA", b"here")


def test_guest_that_was_told_the_end_cannot_go_on(begun: Begun) -> None:
    begun.ours.shutdown(socket.SHUT_WR)
    until_fin(begun.conn)
    sock, peer = begun.dial()
    assert begun.adopt(sock) == errno.EPIPE
    sock.close()
    assert peer.recv(1) == b""
    begun.conn.send(b"still heard")
    assert begun.ours.recv(99) == b"still heard"


# Loss


def test_bytes_for_the_guest_must_have_arrived(begun: Begun) -> None:
    conn = begun.conn
    begun.ours.sendall(b"lost")
    begun.guest.expect("PA", payload=b"lost")
    sock, peer = begun.dial()
    assert begun.adopt(sock) == errno.EAGAIN
    begun.guest.advance(0.2)
    conn.expect("PA", b"lost")
    assert begun.adopt(sock) == errno.EAGAIN
    conn.acknowledge()
    assert begun.adopt(sock) == 0
    peer.sendall(b"next")
    conn.expect("PA", b"next")


def test_bytes_that_wait_for_the_window_are_not_left_behind(begun: Begun) -> None:
    conn = begun.conn
    conn.acknowledge(window=0)
    begun.ours.sendall(b"wait")
    begun.guest.turn()
    sock, _peer = begun.dial()
    assert begun.adopt(sock) == errno.EAGAIN
    conn.acknowledge()
    conn.expect("PA", b"wait")
    conn.acknowledge()
    assert begun.adopt(sock) == 0


def test_gap_of_the_guest_is_filled_afterwards(begun: Begun) -> None:
    conn, first = begun.conn, begun.conn.seq
    conn.send(b"one ")
    conn.say("PA", b"three", seq=later_on(first, 8))
    peer = begun.hand_over()
    assert read_exactly(peer, 4) == b"one "
    conn.say("PA", b"two ", seq=later_on(first, 4))
    assert read_exactly(peer, 9) == b"two three"
    conn.seq = later_on(first, 13)
    while begun.guest.recv().tcp.ack != conn.seq:
        pass


def test_segment_sent_again_across_the_exchange_comes_once(begun: Begun) -> None:
    conn = begun.conn
    again = conn.segment("PA", b"once ")
    conn.send(b"once ")
    peer = begun.hand_over()
    begun.guest.drain()  # the guest lost our acknowledgement
    begun.guest.send(again)
    begun.guest.expect("A", ack=conn.seq)
    conn.send(b"only")
    assert read_exactly(peer, 9) == b"once only"


def test_bytes_of_the_new_socket_are_sent_again(begun: Begun) -> None:
    conn, stream = begun.conn, random.Random(9).randbytes(20_000)
    begun.ours.sendall(b"before")
    assert conn.read(6) == b"before"
    peer = begun.hand_over()
    peer.sendall(stream)
    in_flight(begun.guest, conn, len(stream))
    conn.acknowledge(ack=later_on(conn.ack, 5000))
    conn.ack = later_on(conn.ack, 5000)
    begun.guest.advance(0.2)
    assert conn.read(15_000) == stream[5000:]


def test_exchange_before_the_guest_acknowledged_the_handshake(
    guest: Guest, server: Server, ends: Ends
) -> None:
    _ours, theirs = ends()
    guest.decide = given(guest, theirs)
    guest.send(syn(seq=7))
    reply = guest.expect("SA", ack=8)
    conn = Connection(guest, {}, 8, later_on(reply.tcp.seq, 1), reply)
    begun = Begun(guest, server, conn, _ours)
    peer = begun.hand_over()
    guest.advance(0.25)
    guest.expect("SA", ack=8, seq=reply.tcp.seq)
    conn.send(b"first")
    assert peer.recv(9) == b"first"
    peer.sendall(b"answer")
    assert conn.read(6) == b"answer"


# Whose socket is exchanged for what


def test_connection_that_had_a_tcp_socket(
    guest: Guest, server: Server, ends: Ends
) -> None:
    conn, peer = established(guest, server)
    ours, theirs = ends()
    begun = Begun(guest, server, conn, ours)
    conn.send(b"before")
    assert begun.adopt(theirs) == 0
    assert read_exactly(peer, 6) == b"before"
    assert peer.recv(1) == b""
    conn.send(b"after")
    assert ours.recv(9) == b"after"
    back = begun.hand_over()
    conn.send(b"and again")
    assert back.recv(99) == b"and again"


def test_connection_of_a_client_keeps_its_addresses(
    guest: Guest, server: Server, ends: Ends
) -> None:
    client, address = inbound(guest, server)
    conn = Connection.accept(guest)
    ours, theirs = ends()
    begun = Begun(guest, server, conn, ours)
    client.sendall(b"hello")
    assert conn.read(5) == b"hello"
    assert begun.adopt(theirs) == 0
    assert client.recv(1) == b""
    ours.sendall(b"someone else")
    assert conn.read(12) == b"someone else"
    begun.hand_over().sendall(b"!")
    conn.expect("PA", b"!")
    (flow,) = guest.flows()
    assert flow.eaddr1 == inany(ip_address(GUEST4))
    assert (flow.eaddr0, flow.eport0) == (inany(ip_address(address[0])), address[1])


def test_keepalive_asks_the_new_peer(guest: Guest, server: Server, ends: Ends) -> None:
    conn, _ = established(guest, server)
    ours, _ = ends()
    begun = Begun(guest, server, conn, ours)

    def asks(sock: socket.socket) -> int:
        return sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)

    guest.advance(60)
    conn.say("A", seq=later_on(conn.seq, -1))
    sock, peer = begun.dial()
    seen = sock.dup()
    assert begun.adopt(sock) == 0
    assert not asks(seen)
    guest.advance(60)
    conn.say("A", seq=later_on(conn.seq, -1))
    assert asks(seen)
    seen.close()
    peer.close()


def test_old_socket_that_others_hold_too_leaves_epoll(
    guest: Guest, server: Server, ends: Ends
) -> None:
    ours, theirs = ends()
    with theirs.dup():
        fd = theirs.fileno()
        guest.decide = given(guest, theirs)
        begun = Begun(guest, server, guest.connect(), ours)
        assert is_watched(fd)
        begun.hand_over()
        assert not is_watched(fd)


# What cannot be adopted


def listening() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def datagrams() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


@pytest.mark.parametrize(
    ("make", "error"), [(listening, errno.ENOTCONN), (datagrams, errno.EPROTOTYPE)]
)
def test_wrong_socket_changes_nothing(
    begun: Begun, make: Callable[[], socket.socket], error: int
) -> None:
    with make() as sock:
        assert begun.adopt(sock) == error
    begun.conn.send(b"as before")
    assert begun.ours.recv(99) == b"as before"


def test_socket_of_a_flow_cannot_be_another_ones(begun: Begun, ends: Ends) -> None:
    """It is in epoll already: nothing changes, for neither."""
    other, theirs = ends()
    fd = theirs.fileno()
    begun.guest.decide = given(begun.guest, theirs)
    second = begun.guest.connect(sport=5000)
    first = min(flow.flow_id for flow in begun.guest.flows())
    with pytest.raises(FileExistsError):
        begun.guest.dp.adopt(first, fd)
    begun.conn.send(b"mine")
    second.send(b"yours")
    assert begun.ours.recv(9) == b"mine"
    assert other.recv(9) == b"yours"


def test_only_connections_over_the_tap_adopt(
    guest: Guest, udp_peer: socket.socket, ends: Ends
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"x"))
    _, theirs = ends()
    (flow,) = guest.flows()
    with pytest.raises(OSError, match="Protocol not supported"):
        guest.dp.adopt(flow.flow_id, theirs.fileno())
    with pytest.raises(OSError, match="Stale"):
        guest.dp.adopt(flow.flow_id + 1, theirs.fileno())
    with pytest.raises(ValueError, match="fd"):
        guest.dp.adopt(flow.flow_id, -1)


def test_connection_that_is_not_accepted_yet_must_wait(
    guest: Guest, ends: Ends
) -> None:
    _, theirs = ends()
    with full_server() as port:
        guest.decide = forward_to(port)
        guest.send(syn())
        (flow,) = guest.flows()
        with pytest.raises(BlockingIOError) as caught:
            guest.dp.adopt(flow.flow_id, theirs.fileno())
        assert caught.value.errno == errno.EINPROGRESS

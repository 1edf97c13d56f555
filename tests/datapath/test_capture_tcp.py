# SPDX-License-Identifier: GPL-2.0-or-later
"""What a capture shows of the beginning and the end of connections at sockets.

The kernel's own segments are seen by nobody; those that are made up have the numbers
that readers expect.
"""

import socket
from itertools import pairwise

import pytest

from passtpy.flow import FlowWhy, flows_in
from tests.datapath.captured import SOCKETS, Capture, headers, stories
from tests.datapath.conftest import Server
from tests.datapath.guest import Connection, Guest, forward_to
from tests.datapath.packets import syn, tcp
from tests.datapath.splice import World, read_all, reset, send_and_end
from tests.datapath.tcp_peer import (
    abort,
    closed_port,
    end_from_guest,
    established,
    inbound,
    later_on,
    read_exactly,
)

MIB = 1 << 20
CONNECTS = ["> S", "< SA", "> A"]
ACCEPTS = ["< S", "> SA", "< A"]
REFUSED = ["> S", "< RA"]


def test_the_guest_opens_and_both_end(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    conn, peer = established(guest, server)
    conn.send(b"question")
    assert read_exactly(peer, 8) == b"question"
    conn.expect("A")
    peer.sendall(b"answer")
    conn.expect("PA", b"answer")
    end_from_guest(guest, conn, peer)
    bytes_ = ["> PA 8", "< PA 6"]
    ends = ["> FA", "< A", "< FA", "> A"]
    assert stories(capture) == [CONNECTS + bytes_ + ends]


def test_the_peer_opens_and_ends_first(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    client, _ = inbound(guest, server)
    conn = Connection.accept(guest)
    client.sendall(b"hello")
    conn.expect("PA", b"hello")
    client.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.send(b"bye")
    assert client.recv(10) == b"bye"
    conn.fin()
    assert client.recv(1) == b""
    bytes_ = ["< PA 5", "< FA", "> A", "> PA 3"]
    assert stories(capture) == [[*ACCEPTS, *bytes_, "> FA", "< A"]]


def test_a_flow_that_was_there_has_an_end_alone(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    capture = Capture(guest)
    peer.sendall(b"hello")
    conn.expect("PA", b"hello")
    conn.fin()
    assert peer.recv(1) == b""
    assert stories(capture) == [["< PA 5", "> FA", "< A"]]


def test_who_refuses_says_so(guest: Guest) -> None:
    capture = Capture(guest)
    guest.decide = forward_to(closed_port())
    guest.send(syn())
    guest.expect("RA")
    assert stories(capture) == [REFUSED]


def test_the_peer_resets(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    conn, peer = established(guest, server)
    abort(peer)
    conn.expect("RA")
    assert stories(capture) == [[*CONNECTS, "< RA"]]


def test_the_guest_resets(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    conn, peer = established(guest, server)
    conn.say("RA")
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    assert stories(capture) == [[*CONNECTS, "> RA"]]


def test_whoever_asked_for_it_a_reset_is_seen(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    conn, peer = established(guest, server)
    (flow,) = flows_in(guest.dp.flows()[0])
    guest.dp.close_flow(flow.flow_id, FlowWhy.ASKED)
    conn.expect("RA")
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    assert stories(capture) == [[*CONNECTS, "> RA"]]


@pytest.fixture
def world(guest: Guest) -> World:
    return World(guest, socket.SOCK_STREAM)


def test_a_spliced_connection_is_two(world: World) -> None:
    try:
        capture = Capture(world.guest)
        client, server = world.pair(world.serve())
        world.work(lambda: send_and_end(client, b"hello"))
        assert world.work(lambda: read_all(server)) == b"hello"
        server.close()
        assert world.work(lambda: client.recv(1)) == b""
        world.finish()
    finally:
        world.close()
    came, went = stories(capture)
    assert came == [*ACCEPTS, "< PA 5", "< FA", "> A", "> FA", "< A"]
    assert went == [*CONNECTS, "> PA 5", "> FA", "< A", "< FA", "> A"]


def test_a_reset_is_spliced(world: World) -> None:
    try:
        capture = Capture(world.guest)
        client, server = world.pair(world.serve())
        reset(server)
        with pytest.raises(ConnectionResetError):
            world.work(lambda: client.recv(1))
        world.finish()
    finally:
        world.close()
    assert stories(capture) == [[*ACCEPTS, "> RA"], [*CONNECTS, "< RA"]]


def test_a_client_that_is_led_elsewhere_is_accepted_once(world: World) -> None:
    try:
        capture = Capture(world.guest)
        listener = world.serve()
        world.other_port, world.target_port = world.target_port, closed_port()
        world.gives_up = False
        world.pair(listener)
    finally:
        world.close()
    # One that is refused at once, within connect(), has no story
    told = [each for each in stories(capture) if each != REFUSED]
    assert told == [ACCEPTS, CONNECTS]


def test_so_is_one_that_the_guest_has_refused(guest: Guest, server: Server) -> None:
    capture = Capture(guest)
    client, _ = inbound(guest, server)
    request = guest.expect("S")
    ports = {"sport": 80, "dport": request.tcp.sport}
    guest.send(tcp("RA", ack=later_on(request.tcp.seq, 1), **ports))
    guest.wait_for(lambda: len(guest.misses) > 1, "another question")
    assert guest.misses[1].again
    Connection.accept(guest)
    client.sendall(b"hello")
    guest.expect("PA")
    assert stories(capture) == [[*ACCEPTS, "< PA 5"]]


def test_much_that_goes_one_way_is_acknowledged(world: World) -> None:
    """Or readers would say that a window is full."""
    size = 5 * MIB
    try:
        capture = Capture(world.guest)
        client, server = world.pair(world.serve())
        world.work(lambda: send_and_end(client, bytes(size)), lambda: read_all(server))
        found = [p for p in capture.take() if p.interface == SOCKETS]
    finally:
        world.close()
    for outbound in (False, True):
        acks = sorted(
            headers(p)["TCP"].ack
            for p in found
            if p.outbound != outbound and len(p.data) == 40
        )
        assert acks[-1] == size + 2
        assert max(b - a for a, b in pairwise(acks)) < 2 * MIB

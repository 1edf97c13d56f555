# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of TCP connections: FIN in every order, RST, half-close, silence."""

import socket

import pytest

from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Connection, Guest
from tests.datapath.packets import SPORT, ack, data, fin, rst, syn, tcp
from tests.datapath.tcp_peer import (
    abort,
    arrived,
    end_from_guest,
    established,
    fill,
    hold,
    in_flight,
    later_on,
    read_exactly,
    read_while_turning,
)
from tests.lab.loopback import wait_delivered

# FIN


def test_guest_ends_first(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    end_from_guest(guest, conn, peer)
    guest.expect_nothing()


def test_peer_ends_first(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.acknowledge()
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""
    assert not guest.flows()


def test_both_end_over_ipv6(guest: Guest, server6: Server) -> None:
    conn, peer = established(guest, server6, v6=True)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""


def test_both_end_at_once(guest: Guest, server: Server) -> None:
    """Neither FIN acknowledges the other (RFC 9293 figure 13)."""
    conn, peer = established(guest, server)
    peer.shutdown(socket.SHUT_WR)
    frame = guest.expect("FA", seq=conn.ack)
    conn.fin()  # its acknowledgement is before our FIN
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""
    assert guest.flows()
    conn.ack = later_on(frame.tcp.seq, 1)
    conn.acknowledge()
    assert not guest.flows()


def test_fin_with_the_last_data(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("PFA", b"last")
    guest.expect("A", ack=conn.seq)
    assert read_exactly(peer, 4) == b"last"
    assert peer.recv(1) == b""


def test_all_data_comes_before_our_fin(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    stream = bytes(range(256)) * 400
    peer.sendall(stream)
    peer.close()
    got, ended = b"", False
    while not ended:
        frame = guest.recv()
        assert frame.tcp.seq == later_on(conn.ack, len(got))
        got, ended = got + frame.payload, "F" in frame.flags
        guest.send(conn.segment("A", ack=later_on(conn.ack, len(got) + ended)))
    assert got == stream


def test_guest_ends_and_goes_on_reading(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""
    for i in range(20):
        guest.advance(60)
        arrived(guest)
        peer.sendall(b"line %d" % i)
        assert conn.read(len(b"line %d" % i)) == b"line %d" % i
    peer.close()
    conn.expect("FA")
    conn.acknowledge()
    assert not guest.flows()


def test_peer_ends_and_goes_on_reading(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.acknowledge()
    for i in range(20):
        guest.advance(60)
        conn.send(b"line %d" % i)
        assert read_exactly(peer, len(b"line %d" % i)) == b"line %d" % i
        guest.expect("A", ack=conn.seq)
    conn.fin()
    assert peer.recv(1) == b""
    guest.expect("A", ack=conn.seq)
    assert not guest.flows()


def test_fin_beyond_a_gap_waits_for_it(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    start = conn.seq
    conn.say("FA", seq=start + 5)
    guest.expect("A", ack=start)
    conn.say("PA", b"hello", seq=start)
    assert read_exactly(peer, 5) == b"hello"
    assert peer.recv(1) == b""
    guest.expect("A", ack=start + 6)


def test_fin_with_data_beyond_a_gap_waits_for_it(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    start = conn.seq
    conn.say("PFA", b"world", seq=start + 5)
    guest.expect("A", ack=start)
    conn.say("PA", b"hello", seq=start)
    assert read_exactly(peer, 10) == b"helloworld"
    assert peer.recv(1) == b""
    guest.expect("A", ack=start + 11)


def test_fin_outside_the_window_ends_nothing(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    for distance in (2**30, 2**31, 2**32 - 2**30):
        conn.say("FA", seq=later_on(conn.seq, distance))
        guest.advance(0.01)
    guest.drain()
    conn.send(b"alive")
    assert peer.recv(10) == b"alive"


def test_repeated_fin_is_acknowledged_again(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.fin()
    guest.expect("A", ack=conn.seq)
    conn.say("FA", seq=conn.seq - 1)
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""


@pytest.mark.parametrize("together", [True, False])
def test_data_after_the_fin_is_ignored(
    guest: Guest, server: Server, together: bool
) -> None:
    conn, peer = established(guest, server)
    start = conn.seq
    end = conn.segment("PFA", b"end", seq=start)
    more = [conn.segment("PA", b"no", seq=later_on(start, at)) for at in (3, 4, 5, 20)]
    if together:
        guest.send(end, *more)
    else:
        guest.send(end)
        for segment in more:
            guest.send(segment)
    assert read_exactly(peer, 3) == b"end"
    assert peer.recv(10) == b""
    frames = guest.drain()
    assert {f.tcp.ack for f in frames} == {start + 4}


def test_data_that_covers_an_announced_fin_is_cut(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    start = conn.seq
    conn.say("FA", seq=start + 5)
    conn.say("PA", b"hello, world", seq=start)
    assert read_exactly(peer, 5) == b"hello"
    assert peer.recv(10) == b""


def test_our_fin_is_sent_again_when_it_is_lost(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.close()
    first = guest.expect("FA", seq=conn.ack)
    guest.advance(0.2)
    guest.expect("FA", seq=first.tcp.seq)
    conn.ack = later_on(conn.ack, 1)
    conn.acknowledge()
    guest.advance(10)
    guest.expect_nothing()


def test_our_fin_and_data_are_sent_again_when_both_are_lost(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.sendall(b"data")
    guest.recv()
    peer.close()
    guest.expect("FA")
    guest.advance(0.2)
    assert guest.expect("PA", seq=conn.ack).payload == b"data"
    guest.expect("FA", seq=later_on(conn.ack, 4))


def test_unacknowledged_fin_is_given_up(guest: Guest, server: Server) -> None:
    _conn, peer = established(guest, server)
    peer.close()
    guest.expect("FA")
    seconds = 0
    while guest.flows():
        guest.advance(1)
        seconds += 1
    assert 100 <= seconds <= 140


def test_last_acknowledgement_is_sent_although_the_flow_ends(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.close()
    conn.expect("FA")
    conn.fin()
    guest.expect("A", seq=conn.ack, ack=conn.seq)
    assert not guest.flows()


def test_orderly_end_is_no_reset_for_the_peer(guest: Guest, server: Server) -> None:
    """Bytes acknowledged but not yet taken from the socket must not turn into RST."""
    conn, peer = established(guest, server)
    peer.sendall(b"small")
    conn.expect("PA", b"small")
    conn.acknowledge()
    conn.fin()
    guest.expect("A", ack=conn.seq)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.acknowledge()
    assert not guest.flows()
    assert peer.recv(1) == b""


def both_end(guest: Guest, conn: Connection, peer: socket.socket) -> None:
    """Both close while bytes wait for a peer that reads late.

    The guest's kernel has nothing left to do then, and forgets the connection.
    """
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert guest.flows()


@pytest.mark.parametrize("forgot", [False, True])
def test_what_waits_for_its_reader_outlives_the_guests_connection(
    guest: Guest, server: Server, forgot: bool
) -> None:
    """Its kernel may have forgotten it, and would answer the news of a window so."""
    conn, peer = established(guest, server)
    sent = fill(guest, conn)
    both_end(guest, conn, peer)
    if forgot:
        conn.say("R")
    assert read_while_turning(guest, peer, len(sent)) == sent
    guest.wait_for(lambda: not guest.flows(), "the flow's end")
    assert peer.recv(1) == b""
    guest.expect_nothing()


def test_a_slow_peer_gets_all_of_a_guest_that_is_gone(
    guest: Guest, server: Server
) -> None:
    """Its program sent and closed; a minute later its kernel forgets the connection."""
    conn, peer = established(guest, server)
    sent = fill(guest, conn)
    conn.fin()
    guest.expect("A", ack=conn.seq)
    guest.advance(60)
    guest.expect("A")  # is it there?
    conn.say("R")
    guest.advance(60)
    assert read_while_turning(guest, peer, len(sent)) == sent
    guest.wait_for(lambda: not guest.flows(), "the flow's end")
    guest.expect_nothing()
    peer.settimeout(WAIT_S)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        write_on(peer)


def test_bytes_of_a_guest_that_has_ended_wait_for_hours(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    hold(guest, conn, peer, 150_000)
    both_end(guest, conn, peer)
    guest.advance(3600)
    read_while_turning(guest, peer, 100_000)  # more than the kernel had
    guest.advance(7000)
    assert guest.flows()
    guest.advance(7201)
    assert not guest.flows()


def test_same_port_can_be_used_again_at_once(guest: Guest, server: Server) -> None:
    for i in range(5):
        conn, peer = established(guest, server, seq=1000 + i * 100_000)
        peer.close()
        conn.expect("FA")
        conn.fin()
        guest.expect("A", ack=conn.seq)


def test_guest_leaves_with_data_unread(guest: Guest, server: Server) -> None:
    """A guest that closes early resets: the peer must stop sending."""
    conn, peer = established(guest, server)
    peer.sendall(bytes(200_000))
    guest.recv()
    conn.say("R")
    arrived(guest)
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        write_on(peer)


def write_on(peer: socket.socket) -> None:
    """Write more than any buffer takes."""
    for _ in range(100):
        peer.sendall(bytes(100_000))


# RST


def test_reset_of_the_guest_reaches_the_peer(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("R")
    assert not guest.flows()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    guest.expect_nothing()


def test_reset_inside_the_window_counts(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    conn.say("RA", seq=conn.seq + 1000)
    assert not guest.flows()


@pytest.mark.parametrize("distance", [-1, 2**31, 2**31 - 1, 2**30, 5 * 2**20])
def test_reset_outside_the_window_is_ignored(
    guest: Guest, server: Server, distance: int
) -> None:
    conn, peer = established(guest, server)
    conn.say("R", seq=later_on(conn.seq, distance))
    assert guest.flows()
    assert guest.counter("tcp_drop_rst") == 1
    conn.send(b"alive")
    assert peer.recv(10) == b"alive"


def test_data_before_a_reset_in_one_batch(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    guest.send(conn.segment("PA", b"bye"), conn.segment("R", seq=later_on(conn.seq, 3)))
    assert not guest.flows()
    assert read_exactly(peer, 3) == b"bye"
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_reset_after_our_fin(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.say("R")
    assert not guest.flows()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_reset_after_the_guests_fin(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.fin()
    guest.expect("A")
    conn.say("R")
    assert not guest.flows()
    assert peer.recv(1) == b""
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        write_on(peer)


def test_peer_that_resets_while_bytes_are_held(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    for _ in range(200):
        conn.send(bytes(60_000))
        if guest.counter("tcp_buffered"):
            break
        arrived(guest)
    abort(peer)
    guest.wait_for(lambda: not guest.flows(), "the flow's end")
    assert any("R" in f.flags for f in guest.drain())


def test_peer_that_reads_no_more(guest: Guest, server: Server) -> None:
    """close() with data unread: the peer's kernel resets."""
    conn, peer = established(guest, server)
    conn.send(b"unread")
    guest.expect("A")
    wait_delivered()
    peer.close()
    guest.expect("RA", seq=conn.ack)


def test_writing_to_a_peer_that_is_gone_resets_the_guest(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.close()
    conn.expect("FA")
    conn.acknowledge()
    conn.send(b"anybody?")
    frames = guest.drain()
    assert any("R" in f.flags for f in frames)
    assert not guest.flows()


# Segments that belong to nothing


def test_stray_acknowledgement_is_reset(guest: Guest) -> None:
    guest.send(ack(seq=5, ack=777))
    guest.expect("R", seq=777, dport=SPORT)


def test_stray_data_without_ack_is_reset(guest: Guest) -> None:
    guest.send(tcp("P", b"12345", seq=100))
    guest.expect("RA", seq=0, ack=105)


def test_stray_fin_without_ack_is_reset(guest: Guest) -> None:
    guest.send(tcp("F", b"12345", seq=2**32 - 3))
    guest.expect("RA", seq=0, ack=3)


def test_stray_syn_ack_is_reset(guest: Guest) -> None:
    guest.send(tcp("SA", seq=1, ack=99))
    guest.expect("R", seq=99)


@pytest.mark.parametrize("flags", ["R", "RA", "RP", "RS", "RF"])
def test_stray_reset_is_never_answered(guest: Guest, flags: str) -> None:
    guest.send(tcp(flags, seq=1, ack=2))
    guest.expect_nothing()


def test_stray_segments_over_ipv6(guest: Guest) -> None:
    guest.send(ack(v6=True, seq=5, ack=777))
    guest.expect("R", seq=777)
    guest.send(fin(v6=True, seq=5, ack=777), rst(v6=True))
    guest.expect("R", seq=777)
    guest.expect_nothing()


def test_segment_for_a_connection_that_ended_is_reset(
    guest: Guest, server: Server
) -> None:
    conn, _ = established(guest, server)
    conn.say("R")
    guest.send(data(b"late", seq=conn.seq, ack=conn.ack))
    guest.expect("R", seq=conn.ack)


# A connection that stands is asked for again


def test_syn_on_a_standing_connection_is_challenged(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    guest.send(syn(seq=123_456))
    guest.expect("A", seq=conn.ack, ack=conn.seq)
    assert guest.counter("tcp_challenge_ack") == 1
    conn.send(b"alive")
    assert peer.recv(10) == b"alive"


def test_challenges_are_few(guest: Guest, server: Server) -> None:
    _conn, _ = established(guest, server)
    guest.send(*(syn(seq=n * 7919) for n in range(100)))
    assert len(guest.drain()) == 1


def test_rebooted_guest_gets_a_new_connection(guest: Guest, server: Server) -> None:
    """It answers our challenge with RST, and its next SYN opens (RFC 5961 4)."""
    _conn, _ = established(guest, server)
    guest.send(syn(seq=123_456))
    challenge = guest.expect("A")
    guest.send(rst(seq=challenge.tcp.ack))
    assert not guest.flows()
    again, peer = established(guest, server, seq=123_456)
    again.send(b"new")
    assert peer.recv(10) == b"new"


def test_bytes_in_flight_when_the_datapath_is_closed(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.sendall(bytes(10_000))
    in_flight(guest, conn, 10_000)
    guest.dp.close()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_many_connections_one_after_another_leave_nothing(
    guest: Guest, server: Server
) -> None:
    for i in range(200):
        conn, peer = established(guest, server, sport=20_000 + i, seq=i * 1_000_003)
        conn.send(b"q" * 100)
        assert read_exactly(peer, 100)
        peer.sendall(b"r" * 100)
        peer.close()
        finish(guest, conn)
    guest.advance(1)
    assert not guest.flows()
    counters = guest.dp.counters()
    assert counters["flows_opened"] == counters["flows_closed"] == 200


def finish(guest: Guest, conn: Connection) -> None:
    """Acknowledge everything up to the peer's FIN, and end too."""
    while True:
        frame = guest.recv()
        end = later_on(frame.tcp.seq, len(frame.payload) + ("F" in frame.flags))
        conn.ack = end
        if "F" in frame.flags:
            break
    conn.fin()
    guest.expect("A", ack=conn.seq)

# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP in ESTABLISHED, bytes of the guest: order, gaps, edges of the window."""

import random
import socket

import pytest

from tests.datapath.conftest import Server
from tests.datapath.guest import Connection, Frame, Guest
from tests.datapath.tcp_peer import (
    arrived,
    established,
    fill,
    read_exactly,
    read_while_turning,
)

NO_SACK = [("MSS", 1460), ("WScale", 7)]


def sack_blocks(frame: Frame) -> list[tuple[int, int]]:
    """SACK blocks of a segment, in their order."""
    flat = dict(frame.tcp.options).get("SAck", ())
    return list(zip(flat[::2], flat[1::2], strict=True))


def test_data_reaches_the_socket_and_is_acknowledged(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.send(b"hello")
    assert peer.recv(100) == b"hello"
    guest.expect("A", seq=conn.ack, ack=conn.seq)


def test_data_reaches_the_socket_over_ipv6(guest: Guest, server6: Server) -> None:
    conn, peer = established(guest, server6, v6=True)
    conn.send(b"hello")
    assert peer.recv(100) == b"hello"
    guest.expect("A", seq=conn.ack, ack=conn.seq)


def test_a_batch_in_order_is_acknowledged_once(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    parts = [bytes([i]) * 100 for i in range(10)]
    guest.send(*segments(conn, parts))
    assert read_exactly(peer, 1000) == b"".join(parts)
    guest.expect("A", ack=conn.seq + 1000)
    guest.expect_nothing()


def segments(conn: Connection, parts: list[bytes]) -> list[object]:
    """One segment for each part, in order, not counted by the connection."""
    made, seq = [], conn.seq
    for part in parts:
        made.append(conn.segment("PA", part, seq=seq))
        seq = (seq + len(part)) % 2**32
    return made


def test_urgent_pointer_is_ignored(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("PAU", b"abc", urgptr=2)
    conn.send(b"def")
    assert read_exactly(peer, 6) == b"abcdef"


def test_segment_without_ack_flag_is_dropped(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("P", b"no", seq=conn.seq)
    guest.expect_nothing()
    conn.send(b"yes")
    assert peer.recv(10) == b"yes"


# Gaps


def test_segment_beyond_a_gap_is_kept_and_sacked(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    start = conn.seq
    conn.say("PA", b"world", seq=start + 5)
    reply = guest.expect("A", ack=start)
    assert sack_blocks(reply) == [(start + 5, start + 10)]
    conn.send(b"hello")
    assert read_exactly(peer, 10) == b"helloworld"
    reply = guest.expect("A", ack=start + 10)
    assert sack_blocks(reply) == []


def test_first_sack_block_is_the_latest(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    start = conn.seq
    for at in (30, 10, 50):
        conn.say("PA", b"12345", seq=start + at)
        blocks = sack_blocks(guest.expect("A", ack=start))
        assert blocks[0] == (start + at, start + at + 5)
    assert set(blocks) == {(start + a, start + a + 5) for a in (10, 30, 50)}


def test_grown_sack_block_comes_first(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    start = conn.seq
    for at in (10, 30, 15):
        conn.say("PA", b"12345", seq=start + at)
        reply = guest.expect("A", ack=start)
    assert sack_blocks(reply) == [(start + 10, start + 20), (start + 30, start + 35)]


def test_at_most_four_sack_blocks_are_told(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    start = conn.seq
    for at in range(10, 100, 10):
        conn.say("PA", b"x", seq=start + at)
        reply = guest.expect("A", ack=start)
    assert len(sack_blocks(reply)) == 4
    assert sack_blocks(reply)[0] == (start + 90, start + 91)


def test_no_sack_blocks_for_a_guest_without_sack(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server, options=NO_SACK)
    conn.say("PA", b"world", seq=conn.seq + 5)
    assert sack_blocks(guest.expect("A", ack=conn.seq)) == []


@pytest.mark.taps(
    "vnet", "plain", "vhost", why="merged segments are acknowledged once, as by GRO"
)
def test_guest_without_sack_gets_an_ack_for_each_segment_beyond_a_gap(
    guest: Guest, server: Server
) -> None:
    """It counts duplicates: three bring its fast retransmit."""
    conn, _ = established(guest, server, options=NO_SACK)
    start = conn.seq
    guest.send(*(conn.segment("A", b"x", seq=start + i) for i in (1, 2, 3)))
    for _ in range(3):
        guest.expect("A", ack=start)
    guest.expect_nothing()


def test_reversed_segments_come_out_in_order(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    parts = [bytes([i]) * 50 for i in range(20)]
    guest.send(*reversed(segments(conn, parts)))
    assert read_exactly(peer, 1000) == b"".join(parts)


@pytest.mark.parametrize("seed", range(8))
def test_shuffled_overlapping_segments_come_out_in_order(
    guest: Guest, server: Server, seed: int
) -> None:
    conn, peer = established(guest, server)
    rng = random.Random(seed)
    stream = rng.randbytes(20_000)
    pieces = [(at, at + rng.randint(400, 1400)) for at in range(0, 20_000, 400)]
    pieces += rng.sample(pieces, 10)
    rng.shuffle(pieces)
    for start, end in pieces:
        conn.say("A", stream[start:end], seq=conn.seq + start)
    assert read_exactly(peer, 20_000) == stream
    guest.drain()
    conn.seq += 20_000
    conn.send(b"end")
    assert read_exactly(peer, 3) == b"end"
    guest.expect("A", ack=conn.seq)


def test_old_data_is_acknowledged_again_and_not_delivered(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.send(b"hello")
    guest.expect("A", ack=conn.seq)
    conn.say("PA", b"hello", seq=conn.seq - 5)
    guest.expect("A", ack=conn.seq)
    conn.send(b"!")
    assert read_exactly(peer, 6) == b"hello!"


def test_partly_old_segment_brings_its_new_part(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.send(b"hello")
    conn.say("PA", b"lo world", seq=conn.seq - 2)
    assert read_exactly(peer, 11) == b"hello world"


def test_segment_that_covers_what_was_kept(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("PA", b"CD", seq=conn.seq + 2)
    conn.send(b"ABCDEF")
    assert read_exactly(peer, 6) == b"ABCDEF"
    conn.send(b"GH")
    assert read_exactly(peer, 2) == b"GH"


# Edges of the window


@pytest.mark.parametrize("distance", [
    2**31 - 1, 2**31, 2**31 + 1, 2**30, 3 * 2**30, 2**32 - 2**20, 5 * 2**20,
])  # fmt: skip
@pytest.mark.parametrize("length", [1, 1400])
def test_segment_outside_the_window_never_enters_the_stream(
    guest: Guest, server: Server, distance: int, length: int
) -> None:
    conn, peer = established(guest, server)
    conn.say("PA", b"!" * length, seq=(conn.seq + distance) % 2**32)
    guest.expect("A", ack=conn.seq)
    assert guest.counter("tcp_ooo") == 0
    conn.send(b"good")
    assert peer.recv(100) == b"good"


def test_segment_across_the_right_edge_is_cut_there(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    window = conn.peer_syn.tcp.window
    conn.say("PA", b"end" + b"!" * 1000, seq=conn.seq + window - 3)
    blocks = sack_blocks(guest.expect("A", ack=conn.seq))
    assert blocks == [(conn.seq + window - 3, conn.seq + window)]
    for at in range(0, window - 3, 60_000):
        conn.say("A", b"." * min(60_000, window - 3 - at), seq=conn.seq + at)
    assert read_exactly(peer, window) == b"." * (window - 3) + b"end"


def test_many_segments_outside_the_window_bring_few_acks(
    guest: Guest, server: Server
) -> None:
    conn, _ = established(guest, server)
    for _ in range(50):
        conn.say("PA", b"x", seq=(conn.seq + 2**30) % 2**32)
    assert len(guest.drain()) == 1
    guest.advance(0.01)
    conn.say("PA", b"x", seq=(conn.seq + 2**30) % 2**32)
    assert len(guest.drain()) == 1


def test_acknowledgement_of_what_was_never_sent_is_answered_and_dropped(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.say("PA", b"bad", seq=conn.seq, ack=(conn.ack + 1000) % 2**32)
    guest.expect("A", seq=conn.ack, ack=conn.seq)
    conn.send(b"ok")
    assert peer.recv(100) == b"ok"


@pytest.mark.parametrize("isn", [2**32 - 1, 2**32 - 2, 2**32 - 3000, 2**31 - 3000])
@pytest.mark.parametrize("reverse", [False, True])
def test_sequence_numbers_of_the_guest_wrap(
    guest: Guest, server: Server, isn: int, reverse: bool
) -> None:
    conn, peer = established(guest, server, seq=isn)
    parts = [bytes([i]) * 700 for i in range(10)]
    made = segments(conn, parts)
    guest.send(*(reversed(made) if reverse else made))
    assert read_exactly(peer, 7000) == b"".join(parts)
    conn.seq = (conn.seq + 7000) % 2**32
    guest.drain()
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""


# A super-segment from a guest with TSO is one frame


def test_super_segment_of_the_guest(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    stream = random.Random(1).randbytes(40_000)
    conn.send(stream)
    assert read_exactly(peer, 40_000) == stream
    guest.expect("A", ack=conn.seq)


# A reader at the host that does not read


def test_window_closes_when_the_host_does_not_read(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    sent = fill(guest, conn)
    assert 0 < guest.counter("tcp_buffered") <= len(sent)
    assert read_while_turning(guest, peer, len(sent)) == sent


def test_window_opens_by_itself_when_the_host_reads_again(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    sent = fill(guest, conn)
    assert read_while_turning(guest, peer, len(sent)) == sent
    frames = guest.drain()
    assert frames, "no window update"
    assert frames[-1].tcp.ack == conn.seq
    assert frames[-1].tcp.window << 7 >= 2 * 1460


def test_probe_into_our_closed_window_is_answered(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    fill(guest, conn)
    guest.advance(0.2)
    conn.say("A", b"p", seq=conn.seq)
    reply = guest.expect("A", window=0)
    assert reply.tcp.ack - conn.seq in (0, 1)  # the byte may still have had room
    conn.seq = reply.tcp.ack
    guest.advance(0.2)
    conn.say("A", seq=conn.seq - 1)  # Linux probes like a keepalive
    guest.expect("A", ack=conn.seq, window=0)


def test_small_segments_do_not_creep_past_a_closing_window(
    guest: Guest, server: Server
) -> None:
    """Windows are told in units of 128 bytes: rounding must not make promises."""
    conn, _ = established(guest, server)
    scale, edge, over = 7, conn.seq + conn.peer_syn.tcp.window, 0
    while over < 2000:
        for frame in arrived(guest):
            edge = frame.tcp.ack + (frame.tcp.window << scale)
        room = edge - conn.seq
        if room <= 0:
            for frame in guest.drain():
                edge = frame.tcp.ack + (frame.tcp.window << scale)
            if edge == conn.seq:
                return
            continue
        if room < 256:
            over += 1
        conn.send(b"x" * (60_000 if room > 60_100 else max(1, min(room - 128, room))))
    raise AssertionError("the window never closes")


def test_held_bytes_reach_the_socket_before_the_fin(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    sent = fill(guest, conn)
    conn.fin()
    guest.drain()
    assert read_while_turning(guest, peer, len(sent)) == sent
    guest.wait_for(lambda: is_at_end(peer), "end of stream")


def is_at_end(peer: socket.socket) -> bool:
    """Whether the peer has seen the end of the stream."""
    try:
        return peer.recv(1) == b""
    except BlockingIOError:
        return False

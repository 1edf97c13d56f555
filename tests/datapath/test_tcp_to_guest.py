# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP in ESTABLISHED, bytes of the peer: segments, the guest's window, probes."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from passtpy._native import EVENTS
from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Frame, Guest
from tests.datapath.packets import GUEST_MAC, OUR_MAC, SYN_OPTIONS, ack
from tests.datapath.tcp_peer import (
    abort,
    arrived,
    datapaths_end,
    established,
    in_flight,
    later_on,
    random_bytes,
    read_exactly,
)
from tests.lab.loopback import wait_delivered

GSO_TCPV4, GSO_TCPV6 = 1, 4
MakeGuest = Callable[..., Guest]


def test_data_of_the_peer_reaches_the_guest(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.sendall(b"hello")
    conn.expect("PA", b"hello", ack=conn.seq)


def test_a_socket_that_gave_all_is_not_asked_again(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    guest.dp.log_level = 3
    for data in (b"hello", b"again"):  # the next bytes are told by an edge
        peer.sendall(data)
        conn.expect("PA", data, ack=conn.seq)
    names = [name for name, _level, _fields in EVENTS]
    got = [e.args[1] for e in guest.dp.events() if names[e.event] == "tcp_sock_recv"]
    assert got == [5, 5]


def test_data_of_the_peer_over_ipv6(guest: Guest, server6: Server) -> None:
    conn, peer = established(guest, server6, v6=True)
    peer.sendall(b"hello")
    conn.expect("PA", b"hello", ack=conn.seq)


def test_bulk_is_byte_exact(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    stream = random_bytes(100_000)
    sender = in_thread(peer.sendall, stream)
    assert conn.read(len(stream)) == stream
    sender()


def test_bulk_is_byte_exact_over_ipv6(guest: Guest, server6: Server) -> None:
    conn, peer = established(guest, server6, v6=True)
    stream = random_bytes(100_000)
    sender = in_thread(peer.sendall, stream)
    assert conn.read(len(stream)) == stream
    sender()


def in_thread(call: Callable[[Any], object], data: object) -> Callable[[], None]:
    """Call in a thread; returns what waits for its end."""
    thread = threading.Thread(target=call, args=(data,), daemon=True)
    thread.start()

    def ended() -> None:
        thread.join(WAIT_S)
        assert not thread.is_alive()

    return ended


@pytest.mark.parametrize(("v6", "mss", "kind"), [
    (False, 1460, GSO_TCPV4),
    (True, 1440, GSO_TCPV6),
])  # fmt: skip
def test_super_segment_names_the_guests_mss(
    guest: Guest, server: Server, server6: Server, v6: bool, mss: int, kind: int
) -> None:
    conn, peer = established(
        guest, server6 if v6 else server, v6=v6, options=[("MSS", mss)]
    )
    peer.sendall(bytes(20_000))
    frame = guest.recv()
    assert frame.vnet.gso_type == kind
    assert frame.vnet.gso_size == mss
    assert len(frame.payload) > mss
    assert frame.tcp.seq == conn.ack


def test_segments_without_offload_are_no_longer_than_the_mss(
    make_guest: MakeGuest, server: Server
) -> None:
    guest = make_guest(single=True)
    conn, peer = established(guest, server, options=[("MSS", 1000), ("SAckOK", b"")])
    conn.say("A", b"z", seq=conn.seq + 10)  # a gap: SACK blocks need room too
    guest.recv()
    peer.sendall(bytes(20_000))
    frames = in_flight(guest, conn, 20_000)
    assert max(len(f.payload) + 4 * f.tcp.dataofs - 20 for f in frames) <= 1000


def test_last_segment_of_what_is_there_is_pushed(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.sendall(bytes(50_000))
    assert "P" in in_flight(guest, conn, 50_000)[-1].flags


def test_sequence_numbers_of_ours_wrap(guest: Guest, server: Server) -> None:
    """For the same addresses, initial sequence numbers move with time (RFC 6528)."""
    conn, peer = established(guest, server)
    conn.say("R")
    guest.advance((2**32 - conn.ack - 100_000) * 64e-9)
    conn, peer = established(guest, server)
    assert conn.ack > 2**32 - 200_000
    stream = random_bytes(300_000)
    sender = in_thread(peer.sendall, stream)
    assert conn.read(len(stream)) == stream
    sender()
    assert conn.ack < 300_000


def test_urgent_byte_of_the_peer_stays_in_the_stream(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.send(b"abc")
    peer.send(b"X", socket.MSG_OOB)
    peer.send(b"def")
    got = b""
    while len(got) < 7:
        frame = guest.recv()
        assert frame.tcp.seq == conn.ack
        got += frame.payload
        conn.ack = later_on(conn.ack, len(frame.payload))
        conn.acknowledge()
    peer.sendall(bytes(40_000))
    assert got == b"abcXdef"
    assert conn.read(40_000) == bytes(40_000)


def test_urgent_byte_before_the_end_of_the_stream(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.send(b"abc")
    peer.send(b"X", socket.MSG_OOB)
    peer.send(b"def")
    peer.close()
    time.sleep(0.02)
    assert conn.read(7) == b"abcXdef"
    conn.expect("FA")


def test_data_both_ways_at_once(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    for i in range(50):
        peer.sendall(b"p%d" % i)
        conn.send(b"g%d" % i)
        assert read_exactly(peer, len(b"g%d" % i)) == b"g%d" % i
    want = b"".join(b"p%d" % i for i in range(50))
    got = b""
    while len(got) < len(want):
        frame = guest.recv()
        got += frame.payload
    assert got == want


# The guest's window


def test_guests_window_is_respected(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    conn.say("A", window=5000)
    peer.sendall(bytes(50_000))
    in_flight(guest, conn, 5000)
    guest.expect_nothing()


def test_guests_window_scale_is_used(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server, options=SYN_OPTIONS)
    conn.say("A", window=100)
    peer.sendall(bytes(50_000))
    in_flight(guest, conn, 12_800)
    guest.expect_nothing()


def test_window_scale_above_fourteen_counts_as_fourteen(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server, options=[("MSS", 1460), ("WScale", 200)])
    conn.say("A", window=1)
    peer.sendall(bytes(50_000))
    in_flight(guest, conn, 16_384)
    guest.expect_nothing()


def test_window_update_lets_more_out(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    conn.say("A", window=5000)
    peer.sendall(bytes(50_000))
    in_flight(guest, conn, 5000)
    conn.ack = later_on(conn.ack, 5000)
    conn.say("A", window=7000)
    in_flight(guest, conn, 7000)
    guest.expect_nothing()


def test_old_segment_does_not_change_the_window(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    conn.say("PA", b"x", window=0)
    old = conn.segment("A", seq=conn.seq - 1, window=60_000)
    guest.drain()
    guest.send(old)
    guest.drain()
    peer.sendall(b"data")
    guest.expect_nothing()


def test_zero_window_stops_everything(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()


def test_zero_window_is_probed_with_backoff(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()
    at, probes = 0.0, []
    while at < 14:
        guest.advance(0.1)
        at += 0.1
        for frame in arrived(guest):
            assert frame.payload == b"w"
            assert frame.tcp.seq == conn.ack
            probes.append(at)
            conn.say("A", window=0)
    gaps = [b - a for a, b in pairwise(probes)]
    assert len(probes) >= 5
    assert all(b == pytest.approx(2 * a, abs=0.11) for a, b in pairwise(gaps))


def test_transfer_goes_on_after_a_window_update(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()
    conn.say("A", window=100)
    conn.expect("PA", b"waiting")


def test_transfer_goes_on_after_a_refused_probe(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()
    guest.advance(0.3)
    assert guest.recv().payload == b"w"
    conn.say("A", window=0)
    conn.say("A", window=100)
    assert conn.read(7) == b"waiting"


def test_transfer_goes_on_after_an_accepted_probe(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()
    guest.advance(0.3)
    assert guest.recv().payload == b"w"
    conn.ack += 1
    conn.say("A", window=0)
    guest.expect_nothing()
    conn.say("A", window=100)
    conn.expect("PA", b"aiting")


def test_window_update_that_was_lost_is_found_by_a_probe(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    guest.expect_nothing()
    guest.advance(0.3)
    assert guest.recv().payload == b"w"
    conn.ack += 1
    conn.say("A", window=100)
    conn.expect("PA", b"aiting")


def test_guest_with_a_closed_window_that_answers_is_never_given_up(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    conn.say("A", window=0)
    peer.sendall(b"waiting")
    for _ in range(600):
        guest.advance(1)
        for frame in arrived(guest):
            assert "R" not in frame.flags
            conn.say("A", window=0)
    conn.say("A", window=100)
    assert conn.read(7) == b"waiting"


def test_closed_window_of_a_guest_without_work_does_no_harm(
    guest: Guest, server: Server
) -> None:
    """All was received, the guest's reader sleeps for ten minutes, nothing waits."""
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    conn.say("A", window=5000)
    peer.sendall(bytes(5000))
    in_flight(guest, conn, 5000)
    conn.ack = later_on(conn.ack, 5000)
    conn.say("A", window=0)
    for _ in range(600):
        guest.advance(1)
        assert not [f for f in arrived(guest) if "R" in f.flags]
    assert guest.flows()
    peer.sendall(b"more")
    guest.expect_nothing()
    conn.say("A", window=5000)
    assert conn.read(4) == b"more"


def test_end_of_stream_is_told_to_a_guest_with_a_closed_window(
    guest: Guest, server: Server
) -> None:
    """A FIN takes no room: the guest hears of it, and nothing is reset meanwhile."""
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    conn.say("A", window=5000)
    peer.sendall(bytes(5000))
    in_flight(guest, conn, 5000)
    conn.ack = later_on(conn.ack, 5000)
    conn.say("A", window=0)
    peer.close()
    fins = 0
    for _ in range(400):
        guest.advance(1)
        for frame in arrived(guest):
            assert "R" not in frame.flags
            fins += "F" in frame.flags
            conn.say("A", window=0)  # it takes no FIN now
    assert fins
    conn.say("A", window=5000)
    conn.expect("FA")


def test_small_window_openings_are_not_filled_while_data_is_in_flight(
    guest: Guest, server: Server
) -> None:
    """RFC 9293 3.8.6.2.1: no silly window syndrome."""
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    conn.say("A", window=2920)
    peer.sendall(bytes(50_000))
    in_flight(guest, conn, 2920)
    conn.say("A", ack=later_on(conn.ack, 100), window=2920)
    guest.expect_nothing()


@pytest.mark.parametrize("rest", [15_000, 500])
def test_peer_that_waits_for_room_is_not_forgotten(
    guest: Guest, server: Server, rest: int
) -> None:
    """A few bytes left in the socket can hold all of its memory: they must go soon,
    because nothing else will happen."""
    conn, peer = established(guest, server)
    with datapaths_end(peer) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    in_thread(send_until_reset, peer)
    at = conn.ack
    for _ in range(5):
        at = later_on(at, payload_of(guest.drain()))
        conn.say("A", ack=later_on(at, -rest))
        at = later_on(at, payload_of(guest.drain()))
        wait_for_more(guest, conn.segment("A", ack=at))
    conn.say("R")


def wait_for_more(guest: Guest, acknowledgement: Packet) -> None:
    """Acknowledge everything, and wait until more than that has come."""
    sent = guest.counter("tap_tx_bytes")
    guest.send(acknowledgement)
    guest.advance(0.005)
    guest.wait_for(lambda: guest.counter("tap_tx_bytes") > sent, "more data")


def send_until_reset(peer: socket.socket) -> None:
    """Send without end."""
    with suppress(OSError):
        while True:
            peer.sendall(bytes(1 << 20))


def payload_of(frames: list[Frame]) -> int:
    """How many bytes of data they carry."""
    return sum(len(f.payload) for f in frames)


def fill_tap(guest: Guest) -> None:
    """Provoke resets, unread by the guest, until the tap takes no more frames."""
    stray = bytes(Ether(src=GUEST_MAC, dst=OUR_MAC) / ack(sport=1))
    before = guest.counter("tap_tx_errors")
    while guest.counter("tap_tx_errors") == before:
        guest.send(*[stray] * 50)


def empty_tap(guest: Guest) -> None:
    """Throw away what waits for the guest."""
    with suppress(BlockingIOError):
        while True:
            guest.link.recv()


@pytest.mark.taps("vnet", "plain", why="a machine's tap blocks instead: test_stream.py")
def test_full_tap_is_tried_again_soon(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    fill_tap(guest)
    refused = guest.counter("tap_tx_errors")
    peer.sendall(b"data")
    guest.wait_for(lambda: guest.counter("tap_tx_errors") > refused, "a refusal")
    empty_tap(guest)
    guest.advance(0.002)
    conn.expect("PA", b"data")


@pytest.mark.taps("vnet", "plain", why="a machine's tap blocks instead: test_stream.py")
def test_refused_segment_does_not_make_others_lost(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.sendall(bytes(5000))
    in_flight(guest, conn, 5000)
    fill_tap(guest)
    refused = guest.counter("tap_tx_errors")
    peer.sendall(b"data")
    guest.wait_for(lambda: guest.counter("tap_tx_errors") > refused, "a refusal")
    empty_tap(guest)
    guest.advance(0.002)
    guest.expect("PA", payload=b"data", seq=later_on(conn.ack, 5000))
    assert guest.counter("tcp_rto") == 0


@pytest.mark.taps("vnet", "plain", why="a machine's tap blocks instead: test_stream.py")
def test_tap_that_stays_full_is_not_tried_all_the_time(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    fill_tap(guest)
    peer.sendall(b"data")
    refused = guest.counter("tap_tx_errors")
    for _ in range(5000):
        guest.advance(0.002)
    assert guest.counter("tap_tx_errors") - refused < 30
    empty_tap(guest)
    guest.advance(2)
    assert conn.read(4) == b"data"


# Errors of the socket


def test_reset_by_the_peer_reaches_the_guest(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    abort(peer)
    guest.expect("RA", seq=conn.ack, ack=conn.seq)
    assert not guest.flows()


def test_data_before_the_peers_reset_reaches_the_guest(
    guest: Guest, server: Server
) -> None:
    """A server that answers and closes before it has read all resets too."""
    conn, peer = established(guest, server)
    conn.send(b"unread")
    guest.expect("A")
    wait_delivered()
    peer.sendall(b"answer")
    peer.close()
    conn.expect("PA", b"answer")
    guest.expect("RA", seq=conn.ack)

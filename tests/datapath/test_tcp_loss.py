# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP in ESTABLISHED when frames get lost on the tap: who resends what, and when."""

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from tests.datapath.conftest import Server
from tests.datapath.guest import Connection, Frame, Guest, forward_to
from tests.datapath.packets import ISN, SYN_OPTIONS, ack, syn
from tests.datapath.tcp_peer import arrived, established, in_flight, later_on

MSS = 1000
PLAIN = [("MSS", MSS), ("WScale", 7)]
WITH_SACK = [*PLAIN, ("SAckOK", b"")]
MakeGuest = Callable[..., Guest]


@pytest.fixture
def plain(make_guest: MakeGuest) -> Guest:
    """A guest that sees one segment in each frame."""
    return make_guest(single=True)


def sent_twenty(
    guest: Guest, server: Server, options: Any = WITH_SACK
) -> tuple[Connection, bytes]:
    """Twenty segments in flight."""
    conn, peer = established(guest, server, options=options)
    stream = random.Random(3).randbytes(20 * MSS)
    peer.sendall(stream)
    in_flight(guest, conn, len(stream))
    return conn, stream


def sack(conn: Connection, *blocks: tuple[int, int], ack: int = 0) -> None:
    """Tell, in segments, what is there beyond the acknowledgement."""
    edges: list[int] = []
    for start, end in blocks:
        edges += [later_on(conn.ack, start * MSS), later_on(conn.ack, end * MSS)]
    options = [("NOP", None), ("NOP", None), ("SAck", tuple(edges))]
    conn.say("A", ack=later_on(conn.ack, ack * MSS), options=options)


def numbers(conn: Connection, frames: list[Frame]) -> list[int]:
    """Which segments these frames carry."""
    return [(f.tcp.seq - conn.ack) % 2**32 // MSS for f in frames if f.payload]


def resent(conn: Connection) -> list[int]:
    """Which segments come now."""
    return numbers(conn, conn.guest.drain())


# Retransmission time-outs


def test_unacknowledged_data_is_sent_again_soon(plain: Guest, server: Server) -> None:
    conn, _ = sent_twenty(plain, server)
    plain.advance(0.009)
    plain.expect_nothing()
    plain.advance(0.12)
    assert resent(conn) == list(range(20))


def test_time_outs_double(guest: Guest, server: Server) -> None:
    _conn, peer = established(guest, server)
    peer.sendall(b"lost")
    guest.recv()
    times = []
    for tick in range(10_000):
        guest.advance(0.002)
        times += [tick * 0.002 for f in arrived(guest) if f.payload == b"lost"]
    gaps = [b - a for a, b in pairwise(times)]
    assert 0.01 <= times[0] <= 0.2
    assert len(gaps) >= 6
    for one, two in pairwise(gaps):
        assert two == pytest.approx(2 * one, rel=0.1)


def test_silent_guest_is_given_up_after_two_minutes(
    guest: Guest, server: Server
) -> None:
    _conn, peer = established(guest, server)
    peer.sendall(b"lost")
    guest.recv()
    seconds = 0
    while not any("R" in f.flags for f in arrived(guest)):
        guest.advance(1)
        seconds += 1
    assert 100 <= seconds <= 140
    assert not guest.flows()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_acknowledgement_ends_the_backoff(guest: Guest, server: Server) -> None:
    conn, peer = established(guest, server)
    peer.sendall(b"one")
    guest.recv()
    for _ in range(50):
        guest.advance(0.1)
    guest.drain()
    conn.ack = later_on(conn.ack, 3)
    conn.acknowledge()
    peer.sendall(b"two")
    conn.expect("PA", b"two")
    guest.advance(0.2)
    assert guest.recv().payload == b"two"


def test_lost_handshake_segment_does_not_slow_the_connection(
    guest: Guest, server: Server
) -> None:
    """Karn: a handshake segment sent twice says nothing about the round trip."""
    guest.decide = forward_to(server.port)
    guest.send(syn())
    guest.recv()
    guest.advance(1.1)
    reply = guest.expect("SA")
    guest.send(ack(seq=ISN + 1, ack=reply.tcp.seq + 1))
    server.accept().sendall(b"data")
    guest.expect("PA", payload=b"data")
    guest.advance(0.2)
    guest.expect("PA", payload=b"data")


def test_tail_loss_costs_less_than_200_ms(plain: Guest, server: Server) -> None:
    conn, _ = sent_twenty(plain, server)
    conn.say("A", ack=later_on(conn.ack, 19 * MSS))
    plain.advance(0.15)
    assert resent(conn) == [19]


# SACK


def test_hole_shown_by_sack_is_sent_again_at_once(plain: Guest, server: Server) -> None:
    conn, stream = sent_twenty(plain, server)
    sack(conn, (1, 20))
    frame = plain.recv()
    assert frame.tcp.seq == conn.ack
    assert frame.payload == stream[:MSS]
    plain.expect_nothing()


def test_only_the_holes_are_sent_again(plain: Guest, server: Server) -> None:
    conn, _ = sent_twenty(plain, server)
    sack(conn, (3, 5), (8, 9), (12, 20), ack=1)
    assert resent(conn) == [1, 2, 5, 6, 7, 9, 10, 11]


def test_more_sack_blocks_for_the_same_hole_resend_nothing(
    plain: Guest, server: Server
) -> None:
    conn, _ = sent_twenty(plain, server)
    sack(conn, (1, 5))
    assert resent(conn) == [0]
    sack(conn, (1, 10))
    sack(conn, (1, 15))
    sack(conn, (1, 20))
    assert resent(conn) == []


def test_new_hole_is_sent_again_without_the_old_one(
    plain: Guest, server: Server
) -> None:
    conn, _ = sent_twenty(plain, server)
    sack(conn, (1, 5))
    assert resent(conn) == [0]
    sack(conn, (7, 12), (1, 5))
    assert resent(conn) == [5, 6]


def test_lost_retransmission_is_sent_again_when_later_data_is_sacked(
    plain: Guest, server: Server
) -> None:
    conn, peer = established(plain, server, options=WITH_SACK)
    peer.sendall(bytes(10 * MSS))
    in_flight(plain, conn, 10 * MSS)
    sack(conn, (1, 10))
    assert resent(conn) == [0]
    peer.sendall(bytes(2 * MSS))
    assert resent(conn) == [10, 11]
    sack(conn, (1, 12))
    assert resent(conn) == [0]


def test_lost_retransmission_without_new_data_is_sent_again_by_time(
    plain: Guest, server: Server
) -> None:
    conn, _ = sent_twenty(plain, server)
    sack(conn, (1, 20))
    assert resent(conn) == [0]
    plain.advance(0.2)
    assert resent(conn) == [0]


def test_sack_of_a_super_segments_part(guest: Guest, server: Server) -> None:
    """The tap loses super-segments, but a guest's kernel may drop one segment."""
    conn, _stream = sent_twenty(guest, server)
    sack(conn, (0, 4), (6, 20))
    frame = guest.recv()
    assert (frame.tcp.seq, len(frame.payload)) == (conn.ack, 6 * MSS) or (
        frame.tcp.seq == later_on(conn.ack, 4 * MSS)
    )


@pytest.mark.parametrize("block", [
    (25, 30),  # never sent
    (-5, -2),  # before the acknowledgement (duplicate SACK)
    (10, 10),  # empty
    (12, 8),  # reversed
    (-(2**31) // MSS, 5),
])  # fmt: skip
def test_nonsense_in_sack_is_ignored(
    plain: Guest, server: Server, block: tuple[int, int]
) -> None:
    conn, stream = sent_twenty(plain, server)
    sack(conn, block)
    assert resent(conn) == []
    sack(conn, (1, 20))
    assert plain.recv().payload == stream[:MSS]


@pytest.mark.parametrize("raw", [
    b"\x05\x03\x00\x00", b"\x05\x0a\x00\x00", b"\x05\x02\x00\x00", b"\x05\xff\x01\x01",
])  # fmt: skip
def test_malformed_sack_is_ignored(plain: Guest, server: Server, raw: bytes) -> None:
    conn, _ = sent_twenty(plain, server)
    plain.send(conn.segment("A", raw, dataofs=6))
    assert resent(conn) == []


def test_reneging_guest_gets_everything_after_a_time_out(
    plain: Guest, server: Server
) -> None:
    """RFC 2018 8: what was SACKed may be dropped again; only ACK is a promise."""
    conn, stream = sent_twenty(plain, server)
    sack(conn, (1, 20))
    assert resent(conn) == [0]
    conn.ack = later_on(conn.ack, MSS)
    conn.acknowledge()
    got: dict[int, bytes] = {}
    for _ in range(50):
        plain.advance(0.1)
        for frame in arrived(plain):
            if frame.payload:
                got[(frame.tcp.seq - conn.ack) % 2**32] = frame.payload
    assert b"".join(got[k] for k in sorted(got)) == stream[MSS:]


# Guests without SACK


def test_third_duplicate_ack_brings_the_hole(plain: Guest, server: Server) -> None:
    conn, _ = sent_twenty(plain, server, options=PLAIN)
    conn.acknowledge()
    conn.acknowledge()
    assert resent(conn) == []
    conn.acknowledge()
    assert resent(conn)[0] == 0


def test_partial_acknowledgement_brings_the_next_hole(
    plain: Guest, server: Server
) -> None:
    conn, _ = sent_twenty(plain, server, options=PLAIN)
    for _ in range(3):
        conn.acknowledge()
    plain.drain()
    conn.say("A", ack=later_on(conn.ack, 5 * MSS))
    assert resent(conn)[0] == 5


def test_window_updates_are_no_duplicate_acks(plain: Guest, server: Server) -> None:
    conn, _ = sent_twenty(plain, server, options=PLAIN)
    for window in range(1000, 1010):
        conn.say("A", window=window)
    assert resent(conn) == []


def test_data_segments_are_no_duplicate_acks(plain: Guest, server: Server) -> None:
    conn, _ = sent_twenty(plain, server, options=PLAIN)
    for _ in range(10):
        conn.send(b"data")
    assert resent(conn) == []


# Everything at once: a guest that loses and shuffles


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [WITH_SACK, PLAIN], ids=["sack", "plain"])
def test_stream_survives_random_loss(
    plain: Guest, server: Server, seed: int, options: Any
) -> None:
    conn, peer = established(plain, server, options=options)
    rng = random.Random(seed)
    stream = rng.randbytes(90_000)
    peer.sendall(stream)
    peer.close()
    there: dict[int, bytes] = {}
    base, ended = conn.ack, False
    for _ in range(3000):
        frames = [f for f in arrived(plain) if rng.random() > 0.1]
        if not frames:
            plain.advance(0.01)
            continue
        for frame in frames:
            at = (frame.tcp.seq - base) % 2**32
            if frame.payload:
                there[at] = max(there.get(at, b""), frame.payload, key=len)
            if "F" in frame.flags:
                ended = at + len(frame.payload) == len(stream)
            acknowledge(conn, base, there, options is WITH_SACK)
        if have(there) == len(stream) and ended:
            break
    assert assemble(there) == stream
    assert ended


def have(there: dict[int, bytes]) -> int:
    """How many bytes are there without a gap."""
    end = 0
    for at in sorted(there):
        if at > end:
            break
        end = max(end, at + len(there[at]))
    return end


def assemble(there: dict[int, bytes]) -> bytes:
    """The stream up to the first gap."""
    out = b""
    for at in sorted(there):
        if at > len(out):
            break
        out += there[at][len(out) - at :]
    return out


def acknowledge(
    conn: Connection, base: int, there: dict[int, bytes], with_sack: bool
) -> None:
    """ACK, with a SACK block for the highest run beyond the gap."""
    end = have(there)
    beyond = [(a, a + len(there[a])) for a in sorted(there) if a > end]
    options: list[tuple[str, Any]] = []
    if with_sack and beyond:
        last = beyond[-1]
        edges = (later_on(base, last[0]), later_on(base, last[1]))
        options = [("NOP", None), ("NOP", None), ("SAck", edges)]
    conn.say("A", ack=later_on(base, end), options=options)


def test_two_hundred_thousand_bytes_with_options_of_a_linux_guest(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server, options=SYN_OPTIONS)
    stream = random.Random(9).randbytes(200_000)
    peer.sendall(stream)
    assert conn.read(200_000) == stream
    assert guest.counter("tcp_retrans") == 0
    assert guest.counter("tcp_rto") == 0

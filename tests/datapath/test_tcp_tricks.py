# SPDX-License-Identifier: GPL-2.0-or-later
"""Segments that would have us read other bytes than the server gets.

What a client says first decides where its connection goes on. Each byte of a stream
may be sent twice, in another place, or with the SYN: whichever copy counts, it must be
the same for who read the beginning and for the server behind it.
"""

import pytest

from tests.datapath.conftest import Server
from tests.datapath.given import Ends, given, pair
from tests.datapath.guest import Connection, Guest
from tests.datapath.packets import ISN, syn
from tests.datapath.tcp_peer import WITH_SACK, read_exactly
from tests.datapath.test_tcp_adopt import Begun

GOOD = b"GET / HTTP/1.1\r\nHost: good.example\r\n\r\n"
EVIL = b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"


@pytest.fixture
def begun(guest: Guest, server: Server, ends: Ends) -> Begun:
    conn, ours = pair(guest, ends, options=WITH_SACK)
    return Begun(guest, server, conn, ours)


def _whole(begun: Begun) -> tuple[bytes, bytes]:
    """What was read of the beginning, and what the server got of the same bytes."""
    read = read_exactly(begun.ours, len(GOOD))
    sock, peer = begun.dial()
    sock.sendall(read)
    assert begun.adopt(sock) == 0
    begun.conn.seq += len(GOOD)
    begun.conn.send(b"end")
    return read, read_exactly(peer, len(GOOD) + 3)


@pytest.mark.parametrize("first", [GOOD, EVIL])
@pytest.mark.parametrize("cut", [1, 22, 27, len(GOOD) - 1])
def test_two_copies_that_disagree_ahead_of_a_gap_are_one_stream(
    begun: Begun, first: bytes, cut: int
) -> None:
    conn, second = begun.conn, EVIL if first is GOOD else GOOD
    start = conn.seq
    conn.say("PA", first[cut:], seq=start + cut)
    conn.say("PA", second[cut:], seq=start + cut)
    conn.say("PA", second, seq=start)
    read, got = _whole(begun)
    assert got == read + b"end"
    assert read in (GOOD, EVIL)


@pytest.mark.parametrize("overlap", [1, 12, len(GOOD)])
def test_a_copy_that_comes_after_the_decision_changes_nothing(
    begun: Begun, overlap: int
) -> None:
    conn = begun.conn
    start = conn.seq
    conn.say("PA", GOOD, seq=start)
    assert read_exactly(begun.ours, len(GOOD)) == GOOD
    sock, peer = begun.dial()
    sock.sendall(GOOD)
    assert begun.adopt(sock) == 0
    end = start + len(GOOD)
    conn.say("PA", EVIL[-overlap:] + b"!", seq=end - overlap)
    conn.say("PA", EVIL, seq=start)
    assert read_exactly(peer, len(GOOD) + 1) == GOOD + b"!"
    conn.say("PA", b"end", seq=end + 1)
    assert read_exactly(peer, 3) == b"end"


@pytest.mark.parametrize("copy", [GOOD, EVIL])
def test_data_of_a_syn_comes_once(
    guest: Guest, server: Server, ends: Ends, copy: bytes
) -> None:
    """It waits with the SYN or is sent again (RFC 9293 3.4): never both."""
    ours, theirs = ends()
    guest.decide = given(guest, theirs)
    guest.send(syn(options=WITH_SACK) / GOOD)
    reply = guest.expect("SA")
    taken = (reply.tcp.ack - ISN - 1) % 2**32
    assert taken in (0, len(GOOD))
    conn = Connection(guest, {}, ISN + 1, reply.tcp.seq + 1, reply)
    conn.say("A", seq=ISN + 1 + taken)
    begun = Begun(guest, server, conn, ours)
    conn.say("PA", copy, seq=ISN + 1)
    read, got = _whole(begun)
    assert read == (GOOD if taken else copy)
    assert got == read + b"end"

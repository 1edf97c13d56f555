# SPDX-License-Identifier: GPL-2.0-or-later
"""Connections whose guest says first where it wants to go; they have no socket then."""

import errno
import os
import socket
from contextlib import suppress
from ipaddress import ip_address

import pytest

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany
from passtpy.flow import Action, FlowWhy, Verdict
from tests.datapath.conftest import Server
from tests.datapath.given import Ends, to_itself
from tests.datapath.guest import WAIT_S, Connection, Guest, later
from tests.datapath.packets import syn, udp
from tests.datapath.tcp_peer import arrived, full_server, later_on, until_fin

HERE = inany(ip_address("127.0.0.1"))
MOST = 16384  # bytes that are shown
PLACES = 512
PER_TURN = 16  # connections of which one turn tells


def inspect(miss: _native.Miss) -> Verdict:
    """Let the guest say it."""
    return to_itself(miss)._replace(action=Action.INSPECT)


@pytest.fixture
def conn(guest: Guest) -> Connection:
    guest.decide = inspect
    return Connection.open(guest)


def last(guest: Guest) -> _native.Said:
    return guest.said[-1]


def heard(guest: Guest, peer: socket.socket, count: int) -> bytes:
    """So many bytes of a peer, while turns run."""
    got = b""
    peer.setblocking(False)

    def more() -> bool:
        nonlocal got
        with suppress(BlockingIOError):
            got += peer.recv(count - len(got))
        return len(got) == count

    guest.wait_for(more, "bytes")
    peer.settimeout(WAIT_S)
    return got


def test_what_the_guest_says_goes_where_it_is_sent(
    guest: Guest, server: Server, conn: Connection
) -> None:
    assert not guest.said
    conn.send(b"who ")
    (flow_id,) = guest.opened
    assert last(guest) == (flow_id, b"who ", False)
    conn.send(b"I am")
    assert last(guest) == (flow_id, b"who I am", False)
    guest.dp.connect(flow_id, HERE, server.port)
    peer = server.accept()
    assert heard(guest, peer, 8) == b"who I am"
    told = len(guest.said)
    conn.send(b", then")
    assert heard(guest, peer, 6) == b", then"
    assert len(guest.said) == told
    peer.sendall(b"well")
    assert conn.read(4) == b"well"
    (flow,) = guest.flows()
    assert (flow.eaddr1, flow.eport1) == (HERE, server.port)
    peer.close()
    assert until_fin(conn) == b""
    conn.fin()
    guest.wait_for(lambda: not guest.flows(), "the end")
    assert len(guest.said) == told


def test_no_more_is_shown_than_counts_and_all_of_it_goes_on(
    guest: Guest, server: Server, conn: Connection
) -> None:
    stream = bytes(range(256)) * 160  # 40960
    for at in range(0, len(stream), 10_240):
        conn.send(stream[at : at + 10_240])
        arrived(guest)
    assert last(guest).data == stream[:MOST]
    guest.dp.connect(guest.opened[0], HERE, server.port)
    assert heard(guest, server.accept(), len(stream)) == stream


def test_what_is_shown_is_what_goes_on(
    guest: Guest, server: Server, conn: Connection
) -> None:
    """A gap, what fills it, and other bytes in the place of what is there."""
    first = conn.seq
    conn.say("PA", b"good", seq=later_on(first, 4))
    guest.drain()
    assert not guest.said
    conn.say("PA", b"nameEVIL", seq=first)
    shown = last(guest).data
    assert shown is not None
    conn.say("PA", b"NAMEbad!", seq=first)
    guest.drain()
    assert last(guest).data == shown
    guest.dp.connect(guest.opened[0], HERE, server.port)
    assert heard(guest, server.accept(), 8) == shown


def test_an_end_is_told_and_passed_on(
    guest: Guest, server: Server, conn: Connection
) -> None:
    conn.say("FA", b"all")
    assert last(guest)[1:] == (b"all", True)
    guest.dp.connect(guest.opened[0], HERE, server.port)
    peer = server.accept()
    assert heard(guest, peer, 3) == b"all"
    guest.wait_for(lambda: peer.recv(1) == b"", "the end")
    peer.sendall(b"bye")
    peer.close()
    assert until_fin(conn) == b"bye"


def test_an_end_without_a_word_is_told(guest: Guest, conn: Connection) -> None:
    conn.fin()
    assert last(guest)[1:] == (b"", True)


@pytest.mark.parametrize("ended", [False, True])
def test_who_is_reset_before_it_goes_on_is_told_as_gone(
    guest: Guest, conn: Connection, ended: bool
) -> None:
    conn.send(b"some")
    if ended:
        conn.fin()
    conn.say("R")
    assert not guest.flows()
    assert last(guest) == (guest.opened[0], None, True)
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        guest.dp.connect(guest.opened[0], HERE, 80)


def test_nobody_there_is_a_reset(guest: Guest, conn: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    conn.send(b"hello")
    guest.dp.connect(guest.opened[0], HERE, port)
    guest.wait_for(lambda: not guest.flows(), "the end")
    assert any("R" in frame.flags for frame in guest.drain())


def test_a_socket_gets_what_was_said(
    guest: Guest, ends: Ends, conn: Connection
) -> None:
    ours, theirs = ends()
    conn.send(b"hello")
    guest.dp.adopt(guest.opened[0], theirs.detach())
    guest.turn()
    assert ours.recv(99) == b"hello"
    ours.sendall(b"well")
    guest.expect("A", ack=conn.seq)
    conn.expect("PA", b"well")


def test_an_answer_instead_of_it(guest: Guest, ends: Ends, conn: Connection) -> None:
    ours, theirs = ends()
    conn.send(b"hello")
    ours.sendall(b"no")
    guest.dp.adopt(guest.opened[0], theirs.detach(), forget=True)
    ours.close()
    guest.expect("A", ack=conn.seq)
    assert until_fin(conn) == b"no"
    conn.fin()
    guest.wait_for(lambda: not guest.flows(), "the end")


def test_an_end_while_it_connects_waits_for_that(
    guest: Guest, conn: Connection
) -> None:
    """As if it had said so later: shutdown() would end what connect() has begun."""
    with full_server() as port:
        guest.dp.connect(guest.opened[0], HERE, port)
        conn.fin()
        guest.expect("A", ack=conn.seq)
        guest.expect_nothing()
        assert guest.flows()


def test_it_goes_on_once(guest: Guest, server: Server, conn: Connection) -> None:
    conn.send(b"x")
    guest.dp.connect(guest.opened[0], HERE, server.port)
    with pytest.raises(OSError, match=os.strerror(errno.EISCONN)):
        guest.dp.connect(guest.opened[0], HERE, server.port)


def test_where_there_is_no_way_it_waits(
    guest: Guest, server: Server, conn: Connection
) -> None:
    conn.send(b"x")
    flow_id = guest.opened[0]
    for nowhere in (inany(ip_address("::1")), UNSPECIFIED):
        with pytest.raises(OSError, match=os.strerror(errno.EAFNOSUPPORT)):
            guest.dp.connect(flow_id, nowhere, 1)
    with pytest.raises(OSError, match=r"unreachable|denied"):  # to everybody
        guest.dp.connect(flow_id, inany(ip_address("255.255.255.255")), 1)
    guest.dp.connect(flow_id, HERE, server.port)
    assert heard(guest, server.accept(), 1) == b"x"


def test_places_are_bounded_and_come_back(guest: Guest) -> None:
    guest.decide = later

    def begun(port: int) -> int:
        guest.send(syn(sport=port))
        miss = guest.misses.pop()
        flow_id = guest.open(miss.miss_id, inspect(miss))
        guest.turn()
        arrived(guest)
        return flow_id

    ids = [begun(20_000 + n) for n in range(PLACES + 1)]
    assert ids[-1] == -errno.ENFILE
    assert min(ids[:-1]) > 0
    guest.dp.close_flow(ids[0], FlowWhy.POLICY)
    guest.turn()
    assert last(guest) == (ids[0], None, True)
    assert begun(19_999) > 0


def turn(guest: Guest) -> list[_native.Said]:
    """What one turn tells."""
    records = guest.dp.turn(now=guest.now, slice_us=10_000, spin_us=0)
    return [each for each in records if isinstance(each, _native.Said)]


def begin(guest: Guest, count: int) -> list[Connection]:
    guest.decide = inspect
    return [Connection.open(guest, sport=20_000 + n) for n in range(count)]


def put(conn: Connection, data: bytes) -> None:
    """Have the guest say something, without a turn."""
    conn.guest.put(conn.segment("PA", data))
    conn.seq += len(data)


@pytest.mark.parametrize(("count", "size"), [(3 * PER_TURN, 100), (4, MOST)])
def test_a_turn_shows_so_much_and_the_next_ones_the_rest(
    guest: Guest, count: int, size: int
) -> None:
    for conn in begin(guest, count):
        put(conn, bytes(size))
    told = [turn(guest) for _ in range(count)]
    assert max(map(len, told)) <= PER_TURN
    assert max(sum(len(each.data or b"") for each in turn) for turn in told) <= MOST
    heard = [each.flow_id for turn in told for each in turn]
    assert sorted(heard) == sorted(guest.opened)


def test_who_goes_on_saying_something_leaves_others_their_turn(guest: Guest) -> None:
    conns = begin(guest, PER_TURN + 4)
    heard = set()
    for conn in conns:
        put(conn, b"x")
    for _ in range(3):
        heard |= {each.flow_id for each in turn(guest)}
        for conn in conns[:PER_TURN]:
            put(conn, b"x")
    assert heard == set(guest.opened)


def test_only_connections_of_the_guest_are_inspected(guest: Guest) -> None:
    guest.decide = later
    guest.send(udp(b"x"))
    (miss,) = guest.misses
    assert guest.open(miss.miss_id, inspect(miss)) == -errno.EINVAL

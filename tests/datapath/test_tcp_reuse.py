# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that use their source port again at once, as over a plain wire."""

import errno
import socket
from typing import Any

import pytest

from passtpy.addr import UNSPECIFIED
from passtpy.flow import Action, Pif, Verdict
from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Connection, Guest, forward_to
from tests.datapath.packets import SPORT, ack, syn, tcp
from tests.datapath.tcp_peer import (
    LISTENER,
    established,
    hold,
    inbound,
    later_on,
    read_exactly,
    to_guest_as_remote,
)
from tests.lab.loopback import wait_delivered
from tests.lab.ready import readable

AGAIN = 900_000  # initial sequence number of the second attempt


def stands(guest: Guest, server: Server, frame_ack: int) -> None:
    """The second connection of a guest is answered, and carries bytes."""
    reply = guest.expect("SA", ack=frame_ack, dport=SPORT)
    first = later_on(reply.tcp.seq, 1)
    conn = Connection(guest, {}, frame_ack, first, reply)
    conn.say("A")
    conn.send(b"again")
    assert read_exactly(server.accept(), 5) == b"again"


def test_reset_and_the_next_syn_in_one_batch(guest: Guest, server: Server) -> None:
    conn, _ = established(guest, server)
    guest.send(conn.segment("R"), syn(seq=AGAIN))
    stands(guest, server, AGAIN + 1)


def test_last_acknowledgement_and_the_next_syn_in_one_batch(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.acknowledge()
    guest.send(conn.segment("FA"), syn(seq=AGAIN))
    guest.expect("A", ack=later_on(conn.seq, 1))
    stands(guest, server, AGAIN + 1)


def test_abandoned_attempt_and_the_next_syn_in_one_batch(
    guest: Guest, server: Server
) -> None:
    """The first attempt was given up before it stood."""
    guest.decide = forward_to(server.port)
    guest.send(syn())
    guest.expect("SA")
    server.accept()
    guest.send(tcp("R", seq=1001, ack=0), syn(seq=AGAIN))
    stands(guest, server, AGAIN + 1)


def test_attempt_abandoned_before_its_verdict(guest: Guest, server: Server) -> None:
    """The first SYN, its reset and the next SYN come while nobody has decided."""
    guest.decide = forward_to(server.port)
    guest.send(syn(), tcp("R", seq=1001, ack=0), syn(seq=AGAIN))
    stands(guest, server, AGAIN + 1)
    assert len(guest.misses) == len(guest.flows()) == 1


def test_syn_before_our_fin_was_acknowledged(guest: Guest, server: Server) -> None:
    """Both have ended, and the guest's last acknowledgement is lost."""
    conn, peer = established(guest, server)
    peer.sendall(b"bye")
    peer.shutdown(socket.SHUT_WR)
    frames = guest.drain()
    assert "F" in frames[-1].flags
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""
    assert guest.flows()
    guest.send(syn(seq=AGAIN))
    stands(guest, server, AGAIN + 1)
    assert len(guest.flows()) == 1


def test_syn_while_bytes_of_the_guest_are_on_their_way_is_challenged(
    guest: Guest, server: Server
) -> None:
    """They were acknowledged: the connection may not end before they have arrived."""
    conn, peer = established(guest, server)
    hold(guest, conn, peer, 150_000)
    peer.shutdown(socket.SHUT_WR)
    conn.expect("FA")
    conn.fin()
    guest.drain()
    guest.send(syn(seq=AGAIN))
    guest.expect("A", ack=conn.seq)
    assert len(guest.flows()) == 1
    assert read_exactly(peer, 1000) == bytes(1000)


def connect_from(server: Server, port: int = 0) -> socket.socket:
    """Connect from a port that may be used again: the first socket has to agree to it.

    0: from a free one. One that connect() chooses may have belonged to a connection to
    somebody else, whose TIME_WAIT does not agree.
    """
    wait_delivered(2)  # who had the port is free once its end was acknowledged
    client = socket.socket()
    server.accepted.append(client)
    client.settimeout(WAIT_S)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("127.0.0.1", port))
    client.connect(server.sock.getsockname()[:2])
    return client


def client_of_published(guest: Guest, server: Server) -> tuple[socket.socket, int]:
    """A client that came to a port of the guest, and its own port."""
    listener = server.sock.dup()
    listener.setblocking(False)
    guest.decide = to_guest_as_remote
    guest.dp.listen(listener.detach(), socket.IPPROTO_TCP, LISTENER)
    client = connect_from(server)
    guest.wait_for(lambda: len(guest.misses) == 1, "a miss")
    return client, client.getsockname()[1]


def ended_by_the_guest(
    guest: Guest, server: Server, **fields: Any
) -> tuple[socket.socket, int, Connection]:
    """A client, its own port, and a connection of it that the guest ended first."""
    client, port = client_of_published(guest, server)
    conn = Connection.accept(guest, **fields)
    conn.say("FA", **fields)
    guest.expect("A", ack=conn.seq)
    assert client.recv(1) == b""
    return client, port, conn


def test_client_of_a_published_port_whose_server_closed_first(
    guest: Guest, server: Server
) -> None:
    client, port, conn = ended_by_the_guest(guest, server)
    client.close()
    guest.expect("FA", seq=conn.ack)  # which it does not acknowledge yet
    assert len(guest.flows()) == 1

    client = connect_from(server, port)
    guest.wait_for(lambda: len(guest.misses) == 2, "another miss")
    again = Connection.accept(guest, isn=AGAIN)
    again.send(b"welcome back")
    assert read_exactly(client, 12) == b"welcome back"
    assert len(guest.flows()) == 1


def test_client_that_is_back_loses_no_byte_that_the_tap_lost(
    guest: Guest, server: Server
) -> None:
    """All was sent to the guest, but not all of it came there."""
    client, port, conn = ended_by_the_guest(guest, server)
    client.sendall(b"last words")
    client.close()
    lost = guest.drain()
    assert [frame.payload for frame in lost if frame.payload] == [b"last words"]
    assert "F" in lost[-1].flags

    client = connect_from(server, port)
    guest.wait_for(lambda: len(guest.misses) == 2, "another miss")
    guest.advance(0.5)
    again = guest.drain()
    assert [frame.payload for frame in again if frame.payload] == [b"last words"]
    conn.ack = later_on(conn.ack, len(b"last words") + 1)
    conn.acknowledge()
    guest.wait_for(lambda: len(guest.misses) == 3, "it is asked about again")
    back = Connection.accept(guest, isn=AGAIN)
    back.send(b"welcome back")
    assert read_exactly(client, 12) == b"welcome back"
    assert len(guest.flows()) == 1


def reconnected(
    guest: Guest, server: Server, data: bytes, window: int
) -> tuple[Connection, socket.socket]:
    """A client sends, and connects again before the guest has room for all of it."""
    client, port, conn = ended_by_the_guest(guest, server, window=window)
    client.sendall(data)
    client.close()
    client = connect_from(server, port)
    guest.wait_for(lambda: len(guest.misses) == 2, "another miss")
    return conn, client


def test_client_that_is_back_before_the_guest_has_all_bytes_waits_for_them(
    guest: Guest, server: Server
) -> None:
    """The kernel has let it connect again: neither connection may lose anything."""
    data, window = bytes(range(200)) * 20, 1000
    conn, client = reconnected(guest, server, data, window)
    got = b""
    while len(got) < len(data):
        frame = guest.recv()
        assert not set("SR") & set(frame.flags)
        got += frame.payload
        conn.ack = later_on(conn.ack, len(frame.payload))
        conn.say("A", window=window)
    assert got == data
    last = guest.recv()
    assert "F" in last.flags
    conn.ack = later_on(conn.ack, 1)
    conn.say("A")
    assert len(guest.misses) == 3  # Python is asked again: it may have changed
    again = Connection.accept(guest, isn=AGAIN)
    client.sendall(b"I am back")
    guest.expect(payload=b"I am back")
    again.send(b"welcome back")
    assert read_exactly(client, 12) == b"welcome back"
    assert len(guest.flows()) == 1


def test_client_that_is_back_waits_for_ten_seconds(
    guest: Guest, server: Server
) -> None:
    """The guest reads no more: the old connection lives on, the new one ends."""
    conn, client = reconnected(guest, server, bytes(4000), 1000)
    assert guest.opened == [guest.flows()[0].flow_id, 0]
    late = Verdict(Action.DROP, Pif.TAP, UNSPECIFIED, 0, UNSPECIFIED, 0, 1)
    assert guest.open(guest.misses[1].miss_id, late) == -errno.ESTALE
    guest.drain()
    for _ in range(9):
        guest.advance(1)
        conn.say("A", window=0)
    assert not readable([client], 0)
    guest.advance(2)
    client.settimeout(WAIT_S)
    with pytest.raises(ConnectionResetError):
        client.recv(1)
    assert len(guest.flows()) == 1


def test_guest_that_still_has_an_old_connection_is_asked_again_at_once(
    guest: Guest, server: Server
) -> None:
    """Its TIME_WAIT answers with numbers of its own, and our reset ends it."""
    inbound(guest, server)
    request = guest.expect("S")
    ports = {"sport": 80, "dport": request.tcp.sport}
    guest.send(ack(seq=5000, ack=777_777, **ports))
    guest.expect("R", seq=777_777)
    guest.expect("S", seq=request.tcp.seq)
    guest.send(ack(seq=5000, ack=777_777, **ports))  # no storm of SYNs
    guest.expect("R", seq=777_777)
    guest.expect_nothing()

# SPDX-License-Identifier: GPL-2.0-or-later
"""A server is told who its client is: the header of the PROXY protocol."""

import errno
import os
import random
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address

import pytest

from passtpy import _native
from passtpy.flow import Pif, Verdict
from tests.datapath.conftest import Server
from tests.datapath.given import Ends
from tests.datapath.guest import Connection, Guest, forward_to
from tests.datapath.packets import syn
from tests.datapath.splice import World
from tests.datapath.tcp_peer import (
    WITH_SACK,
    in_flight,
    inbound,
    later_on,
    read_exactly,
    to_guest_as_remote,
    until_fin,
)

VERSIONS = pytest.mark.parametrize("version", [1, 2])


def header(version: int, client: socket.socket) -> bytes:
    """What tells of a client, from the client's point of view."""
    source, dest = client.getsockname()[:2], client.getpeername()[:2]
    v6 = client.family == socket.AF_INET6
    if version == 1:
        family = "TCP6" if v6 else "TCP4"
        words = f"{family} {source[0]} {dest[0]} {source[1]} {dest[1]}"
        return f"PROXY {words}\r\n".encode()
    addresses = b"".join(ip_address(each[0]).packed for each in (source, dest))
    rest = addresses + struct.pack("!HH", source[1], dest[1])
    head = struct.pack("!BBH", 0x21, 0x21 if v6 else 0x11, len(rest))
    return b"\r\n\r\n\x00\r\nQUIT\n" + head + rest


class Tells:
    """A policy: to the guest, which is told of the client."""

    def __init__(self, version: int) -> None:
        self._version = version

    def __call__(self, miss: _native.Miss) -> Verdict:
        return to_guest_as_remote(miss)._replace(proxy=self._version)


@VERSIONS
@pytest.mark.parametrize("v6", [False, True])
def test_guest_hears_of_its_client_before_anything_else(
    guest: Guest, server: Server, server6: Server, version: int, v6: bool
) -> None:
    client, _ = inbound(guest, server6 if v6 else server, Tells(version))
    conn = Connection.answer(guest)
    told = header(version, client)
    conn.expect("PA", told)  # the client has not said a word
    conn.send(b"220 hello")
    assert client.recv(99) == b"220 hello"
    client.sendall(b"EHLO")
    guest.drain()
    conn.acknowledge()
    guest.advance(0.2)
    assert conn.read(4) == b"EHLO"
    client.close()
    assert until_fin(conn) == b""


@VERSIONS
def test_what_the_client_said_and_its_end_come_behind(
    guest: Guest, server: Server, version: int
) -> None:
    client, _ = inbound(guest, server, Tells(version))
    told, stream = header(version, client), random.Random(1).randbytes(100_000)
    client.sendall(stream)
    client.shutdown(socket.SHUT_WR)
    conn = Connection.answer(guest, options=WITH_SACK)
    got = b""
    while len(got) < len(told) + len(stream):
        frame = guest.recv()
        assert frame.tcp.seq == conn.ack
        got += frame.payload
        conn.ack = later_on(conn.ack, len(frame.payload))
        if "F" in frame.flags:
            break
        conn.acknowledge()
    assert got == told + stream
    if "F" not in frame.flags:
        assert until_fin(conn) == b""


@VERSIONS
def test_no_other_socket_before_the_header_has_arrived(
    guest: Guest, server: Server, ends: Ends, version: int
) -> None:
    """What is sent again is made of what the flow's socket is."""
    client, _ = inbound(guest, server, Tells(version))
    told = header(version, client)
    conn = Connection.answer(guest, options=WITH_SACK)
    in_flight(guest, conn, len(told))
    ours, theirs = ends()
    with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
        guest.dp.adopt(guest.opened[0], theirs.fileno())
    guest.advance(0.2)
    conn.expect("PA", told)
    conn.acknowledge()
    guest.dp.adopt(guest.opened[0], theirs.detach())
    ours.sendall(b"and more")
    conn.expect("PA", b"and more")


@VERSIONS
def test_lost_header_is_sent_again(guest: Guest, server: Server, version: int) -> None:
    client, _ = inbound(guest, server, Tells(version))
    told = header(version, client)
    client.sendall(b"and more")
    conn = Connection.answer(guest, options=WITH_SACK)
    in_flight(guest, conn, len(told) + 8)
    guest.advance(0.2)
    in_flight(guest, conn, len(told) + 8)
    conn.ack = later_on(conn.ack, 10)  # half of it has come
    conn.acknowledge()
    guest.advance(0.3)
    assert conn.read(len(told) - 2) == told[10:] + b"and more"
    client.sendall(b"!")
    conn.expect("PA", b"!")


def test_small_segments_carry_it_in_pieces(guest: Guest, server6: Server) -> None:
    client, _ = inbound(guest, server6, Tells(2))
    told = header(2, client)
    conn = Connection.answer(guest, options=[("MSS", 88)], window=40)
    got = b""
    while len(got) < len(told):
        frame = guest.recv()
        assert len(frame.payload) <= 40
        assert frame.tcp.seq == conn.ack
        got += frame.payload
        conn.ack = later_on(conn.ack, len(frame.payload))
        conn.acknowledge(window=40)
    assert got == told


def test_closed_window_is_probed_with_its_first_byte(
    guest: Guest, server: Server
) -> None:
    client, _ = inbound(guest, server, Tells(1))
    conn = Connection.answer(guest, window=0)
    guest.expect("A")
    guest.expect_nothing()
    guest.advance(0.3)
    conn.expect("PA", b"P")
    conn.acknowledge()
    assert conn.read(len(header(1, client)) - 1) == header(1, client)[1:]


def test_header_that_is_not_acknowledged_keeps_the_socket(
    guest: Guest, server: Server
) -> None:
    client, _ = inbound(guest, server, Tells(1))
    conn = Connection.answer(guest, window=0)
    guest.expect("A")
    one, other = socket.socketpair()
    (flow,) = guest.flows()
    with one, other:
        with pytest.raises(BlockingIOError):
            guest.dp.adopt(flow.flow_id, other.fileno())
        conn.acknowledge()
        conn.read(len(header(1, client)))
        guest.dp.adopt(flow.flow_id, other.fileno())
        other.detach()
        one.sendall(b"on")
        conn.expect("PA", b"on")


# Spliced


@pytest.fixture(
    params=[(Pif.HOST, socket.AF_INET), (Pif.SPLICE, socket.AF_INET6)],
    ids=["inward", "outward6"],
)
def world(guest: Guest, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(guest, socket.SOCK_STREAM, *request.param)
    yield made
    made.close()


@VERSIONS
def test_spliced_server_hears_of_its_client(world: World, version: int) -> None:
    world.proxy = version
    server, client = world.serve(), world.client()
    conn = world.accept(server)
    told = header(version, client)
    assert world.work(lambda: read_exactly(conn, len(told))) == told
    client.sendall(b"question")
    assert world.work(lambda: read_exactly(conn, 8)) == b"question"
    conn.sendall(b"answer")
    assert world.work(lambda: read_exactly(client, 6)) == b"answer"


def test_header_comes_before_what_waits(world: World) -> None:
    world.proxy, world.hold = 2, True
    server, client = world.serve(), world.client()
    client.sendall(b"early")
    client.shutdown(socket.SHUT_WR)
    world.guest.wait_for(lambda: bool(world.guest.misses))
    world.answer(world.guest.misses[0])
    conn = world.accept(server)
    told = header(2, client) + b"early"
    assert world.work(lambda: read_exactly(conn, len(told))) == told
    assert world.work(lambda: conn.recv(1)) == b""


# Whom nobody can tell


def test_only_accepted_connections_have_a_client(guest: Guest, server: Server) -> None:
    def decide(miss: _native.Miss) -> Verdict | None:
        verdict = forward_to(server.port)(miss)
        return verdict and verdict._replace(proxy=1)

    guest.decide = decide
    guest.send(syn(seq=7))
    assert guest.opened == [-errno.EINVAL]
    guest.expect("RA", ack=8)

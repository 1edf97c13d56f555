# SPDX-License-Identifier: GPL-2.0-or-later
"""Forwards from and to UNIX sockets of the host: spliced, and over the tap."""

import errno
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from passtpy.flow import FlowType, Pif
from tests.datapath.guest import Connection, Guest
from tests.datapath.local import ASKED, NAME, LocalWorld, connect_to, listen_at
from tests.datapath.splice import (
    LISTENER,
    read_all,
    reset,
    send_and_end,
    work_in_time,
)
from tests.datapath.tcp_peer import (
    random_bytes,
    read_exactly,
    to_guest_as_remote,
    until_fin,
)
from tests.lab.loopback import wait_delivered
from tests.lab.ready import readable

MIB = 1 << 20
MakeWorld = Callable[[Pif], LocalWorld]


@pytest.fixture
def make_world(guest: Guest, tmp_path: Path) -> Iterator[MakeWorld]:
    """Make a world, from that side."""
    worlds: list[LocalWorld] = []

    def make(source: Pif) -> LocalWorld:
        guest.dp.log_level = 1
        worlds.append(LocalWorld(guest, tmp_path / "it.sock", source))
        return worlds[-1]

    yield make
    for world in worlds:
        world.close()


@pytest.fixture(params=["inward", "outward"])
def world(request: pytest.FixtureRequest, make_world: MakeWorld) -> LocalWorld:
    """A UNIX client and a TCP server, or the reverse."""
    return make_world(Pif.HOST if request.param == "inward" else Pif.SPLICE)


@pytest.fixture
def inward(make_world: MakeWorld) -> LocalWorld:
    """A UNIX client, a TCP server in the namespace."""
    return make_world(Pif.HOST)


@pytest.fixture
def outward(make_world: MakeWorld) -> LocalWorld:
    """A TCP client in the namespace, a UNIX server."""
    return make_world(Pif.SPLICE)


def test_bytes_go_both_ways(world: LocalWorld) -> None:
    client, conn = world.pair(world.serve())
    client.sendall(b"question")
    assert world.work(lambda: conn.recv(100)) == b"question"
    conn.sendall(b"answer!")
    assert world.work(lambda: client.recv(100)) == b"answer!"
    flow = world.flow()
    assert flow.type == FlowType.TCP_SPLICE
    assert (flow.bytes0, flow.bytes1) == (8, 7)
    assert world.guest.misses[0].listener == LISTENER


def test_clients_of_a_unix_socket_get_a_name_and_ports(inward: LocalWorld) -> None:
    server = inward.serve()
    for _ in range(3):
        inward.pair(server)
    ports = [miss.eport for miss in inward.guest.misses]
    assert len(set(ports)) == 3
    assert all(1024 <= port < 32768 for port in ports)
    for miss in inward.guest.misses:
        assert (miss.eaddr, miss.oaddr, miss.oport) == (NAME, NAME, ASKED)


def test_a_half_close_leaves_the_other_half(world: LocalWorld) -> None:
    client, conn = world.pair(world.serve())
    assert world.work(lambda: send_and_end(client, b"all"), lambda: read_all(conn))[
        1
    ] == (b"all")
    got = world.work(lambda: send_and_end(conn, b"answer"), lambda: read_all(client))
    assert got[1] == b"answer"
    world.finish()
    assert world.reason() == "DONE"


def test_bulk_is_byte_exact(world: LocalWorld) -> None:
    client, conn = world.pair(world.serve())
    there, back = random_bytes(6 * MIB), random_bytes(5 * MIB)
    got = world.work(
        lambda: send_and_end(client, there),
        lambda: send_and_end(conn, back),
        lambda: read_all(conn),
        lambda: read_all(client),
    )
    assert got[2] == there
    assert got[3] == back
    world.finish()
    assert world.reason() == "DONE"


def test_who_closes_after_an_answer_ends_in_order(world: LocalWorld) -> None:
    client, conn = world.pair(world.serve())
    client.sendall(b"GET /")
    assert world.work(lambda: conn.recv(100)) == b"GET /"
    conn.sendall(b"200")
    assert world.work(lambda: client.recv(100)) == b"200"
    client.close()
    assert world.work(lambda: conn.recv(100)) == b""  # an end, and no reset
    conn.close()
    world.finish()
    assert world.reason() == "DONE"


def test_a_server_that_closes_first_ends_in_order(world: LocalWorld) -> None:
    client, conn = world.pair(world.serve())
    conn.sendall(b"220 hello")
    conn.close()
    assert world.work(lambda: read_all(client)) == b"220 hello"
    client.close()
    world.finish()
    assert world.reason() == "DONE"


def test_an_end_that_stays_wakes_nobody(inward: LocalWorld) -> None:
    client, conn = inward.pair(inward.serve())
    client.sendall(b"x")
    assert inward.work(lambda: conn.recv(100)) == b"x"
    client.close()
    assert inward.work(lambda: conn.recv(100)) == b""
    inward.guest.turn()
    inward.guest.turn()
    assert inward.guest.flows()  # the server may still have something to say
    assert not readable([inward.guest.dp.fileno()], 0)


def test_what_was_sent_before_a_close_arrives_at_a_slow_server(
    inward: LocalWorld,
) -> None:
    client, conn = inward.pair(inward.serve())
    stream = random_bytes(8 * MIB)

    def send() -> None:
        client.sendall(stream)
        client.close()

    got = inward.work(send, lambda: read_all(conn, 4096))
    assert got[1] == stream
    conn.close()
    inward.finish()
    assert inward.reason() == "DONE"


def test_a_server_that_talks_to_nobody_is_reset(inward: LocalWorld) -> None:
    client, conn = inward.pair(inward.serve())
    client.sendall(b"x")
    assert inward.work(lambda: conn.recv(100)) == b"x"
    client.close()
    assert inward.work(lambda: conn.recv(100)) == b""
    conn.sendall(b"too late")
    inward.finish()
    wait_delivered()
    assert conn.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) in (
        errno.ECONNRESET,
        errno.EPIPE,
    )


def test_a_client_that_leaves_bytes_unread_has_reset(inward: LocalWorld) -> None:
    client, conn = inward.pair(inward.serve())
    client.sendall(b"last words")
    conn.sendall(b"never read")
    inward.guest.wait_for(lambda: bool(readable([client], 0)), "bytes for the client")
    client.close()
    assert inward.work(lambda: read_exactly(conn, 10)) == b"last words"
    with pytest.raises(ConnectionResetError):
        work_in_time(inward, lambda: conn.recv(100))
    inward.finish()
    assert inward.reason() == "RST_PEER"


def test_a_reset_of_the_other_end_is_an_end_to_a_unix_socket(
    world: LocalWorld,
) -> None:
    client, conn = world.pair(world.serve())
    tcp, local = (conn, client) if world.source == Pif.HOST else (client, conn)
    tcp.sendall(b"before")
    assert world.work(lambda: local.recv(100)) == b"before"
    reset(tcp)
    assert world.work(lambda: local.recv(100)) == b""
    world.finish()
    assert world.reason() == "RST_PEER"


def test_a_server_that_refuses_ends_the_client(inward: LocalWorld) -> None:
    inward.serve().close()
    inward.sockets.clear()
    client = inward.client()
    assert inward.work(lambda: client.recv(100)) == b""
    assert not inward.guest.flows()


@pytest.mark.parametrize(
    ("version", "header"),
    [(1, b"PROXY UNKNOWN\r\n"), (2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")],
)
def test_a_client_without_an_address_is_told_as_one(
    inward: LocalWorld, version: int, header: bytes
) -> None:
    inward.proxy = version
    client, conn = inward.pair(inward.serve())
    client.sendall(b"hello")
    assert inward.work(lambda: read_exactly(conn, len(header) + 5)) == (
        header + b"hello"
    )


def test_a_client_of_the_namespace_is_told_to_a_unix_server(
    outward: LocalWorld,
) -> None:
    outward.proxy = 1
    client, conn = outward.pair(outward.serve())
    (here, port), there = client.getsockname(), client.getpeername()[1]
    header = f"PROXY TCP4 {here} 127.0.0.1 {port} {there}\r\n".encode()
    assert outward.work(lambda: read_exactly(conn, len(header))) == header


def test_another_kind_of_socket_is_no_end_on_the_host(outward: LocalWorld) -> None:
    server = outward.serve()
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
        outward.hold = True
        client = outward.client()
        outward.guest.wait_for(lambda: bool(outward.guest.misses), "a miss")
        (miss,) = outward.guest.misses
        answer = outward.guest.open(miss.miss_id, outward.verdict(), other.fileno())
        assert answer == -errno.EPROTOTYPE
    with pytest.raises(ConnectionResetError):
        outward.work(lambda: client.recv(1))
    assert server.fileno() >= 0


# Over the tap


@pytest.fixture
def inbound(guest: Guest, tmp_path: Path) -> Iterator[socket.socket]:
    """A client of a UNIX socket, whose connection is a SYN for the guest."""
    path = tmp_path / "tap.sock"
    guest.decide = to_guest_as_remote
    listen_at(guest, path)
    with connect_to(path) as client:
        guest.wait_for(lambda: bool(guest.misses), "a miss")
        yield client


def test_tap_bytes_go_both_ways_and_end(guest: Guest, inbound: socket.socket) -> None:
    conn = Connection.answer(guest)
    inbound.sendall(b"question")
    assert conn.read(8) == b"question"
    conn.send(b"answer")
    assert inbound.recv(100) == b"answer"
    inbound.close()
    assert until_fin(conn) == b""
    conn.acknowledge()
    conn.fin()
    guest.wait_for(lambda: not guest.flows(), "the end")


def test_tap_bulk_is_byte_exact(guest: Guest, inbound: socket.socket) -> None:
    conn = Connection.answer(guest)
    stream = random_bytes(100_000)
    inbound.sendall(stream[:50_000])
    assert conn.read(50_000) == stream[:50_000]
    inbound.sendall(stream[50_000:])
    inbound.close()
    assert conn.read(50_000) == stream[50_000:]
    assert until_fin(conn) == b""


def test_tap_reset_of_the_guest_is_an_end(guest: Guest, inbound: socket.socket) -> None:
    conn = Connection.answer(guest)
    conn.say("R")
    guest.wait_for(lambda: not guest.flows(), "the end")
    assert inbound.recv(100) == b""


@pytest.mark.parametrize(
    ("version", "header"),
    [(1, b"PROXY UNKNOWN\r\n"), (2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")],
)
def test_tap_client_without_an_address_is_told_as_one(
    guest: Guest, tmp_path: Path, version: int, header: bytes
) -> None:
    path = tmp_path / "tap.sock"
    guest.decide = lambda miss: to_guest_as_remote(miss)._replace(proxy=version)
    listen_at(guest, path)
    with connect_to(path) as client:
        guest.wait_for(lambda: bool(guest.misses), "a miss")
        conn = Connection.answer(guest)
        client.sendall(b"hello")
        assert conn.read(len(header) + 5) == header + b"hello"


def test_a_port_that_the_guest_knows_already_is_not_given_twice(
    guest: Guest, tmp_path: Path
) -> None:
    """Two clients of different names may have got the same port."""
    path = tmp_path / "tap.sock"
    guest.decide = lambda miss: to_guest_as_remote(miss)._replace(oport=2000)
    listen_at(guest, path)
    with connect_to(path), connect_to(path):
        guest.wait_for(lambda: len(guest.misses) == 2, "two misses")
        flows = guest.flows()
        assert len(flows) == 2
        assert len({flow.oport1 for flow in flows}) == 2


def test_only_a_unix_stream_socket_is_nameless(guest: Guest) -> None:
    for family, kind in (
        (socket.AF_INET, socket.SOCK_STREAM),
        (socket.AF_UNIX, socket.SOCK_DGRAM),
    ):
        with (
            socket.socket(family, kind) as sock,
            pytest.raises(OSError, match=r".") as caught,
        ):
            guest.dp.listen_nameless(sock.fileno(), LISTENER, NAME, ASKED)
        assert caught.value.errno == errno.EPROTOTYPE
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock,
        pytest.raises(OSError, match=r".") as caught,
    ):
        guest.dp.listen(sock.fileno(), socket.IPPROTO_TCP, LISTENER)
    assert caught.value.errno == errno.EAFNOSUPPORT

# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP from socket to socket: opening, bytes, half-closes, resets, back-pressure."""

import errno
import fcntl
import os
import random
import resource
import socket
import struct
import termios
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from passtpy._native import EVENTS
from passtpy.flow import Action, FlowType, Pif
from tests.datapath.guest import WAIT_S, Guest
from tests.datapath.splice import (
    LISTENER,
    World,
    read_all,
    reset,
    send_and_end,
    work_in_time,
)
from tests.datapath.tcp_peer import read_exactly
from tests.lab.descriptors import Opened
from tests.lab.loopback import wait_delivered
from tests.lab.ready import readable

MakeWorld = Callable[..., World]
MIB = 1 << 20


@pytest.fixture
def make_world(guest: Guest) -> Iterator[MakeWorld]:
    """Make a world: `make_world(Pif.SPLICE, socket.AF_INET6)`."""
    worlds: list[World] = []

    def make(
        source: Pif = Pif.HOST,
        family: socket.AddressFamily = socket.AF_INET,
    ) -> World:
        guest.dp.log_level = 1
        world = World(guest, socket.SOCK_STREAM, source, family)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture(params=["inward", "outward"])
def world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    """From host to namespace, and from namespace to host."""
    return make_world(Pif.HOST if request.param == "inward" else Pif.SPLICE)


@pytest.fixture
def inward(make_world: MakeWorld) -> World:
    """From host to namespace."""
    return make_world()


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("source", [Pif.HOST, Pif.SPLICE])
def test_bytes_go_both_ways(
    make_world: MakeWorld, source: Pif, family: socket.AddressFamily
) -> None:
    world = make_world(source, family)
    client, conn = world.pair(world.serve())
    client.sendall(b"question")
    assert world.work(lambda: conn.recv(100)) == b"question"
    conn.sendall(b"answer!")
    assert world.work(lambda: client.recv(100)) == b"answer!"
    flow = world.flow()
    assert flow.type == FlowType.TCP_SPLICE
    assert (flow.pif0, flow.pif1) == (source, world.target)
    assert (flow.bytes0, flow.bytes1) == (8, 7)
    assert flow.eport0 == client.getsockname()[1]
    assert flow.eport1 == world.target_port
    (miss,) = world.guest.misses
    assert (miss.pif, miss.listener) == (source, LISTENER)


def test_urgent_byte_arrives_in_line(world: World) -> None:
    client, conn = world.pair(world.serve())
    client.sendall(b"ab")
    client.send(b"!", socket.MSG_OOB)
    client.sendall(b"cd")
    assert world.work(lambda: read_exactly(conn, 5)) == b"ab!cd"
    conn.send(b"?", socket.MSG_OOB)
    conn.sendall(b"ef")
    assert world.work(lambda: read_exactly(client, 3)) == b"?ef"


def test_families_may_differ(inward: World) -> None:
    server = inward.serve()
    inward.host = "::1"
    inward.family = socket.AF_INET6
    server.close()
    server = inward.serve()
    client = socket.create_connection(("127.0.0.1", inward.port))
    inward.sockets.append(client)
    client.sendall(b"x")
    conn = inward.accept(server)
    assert inward.work(lambda: conn.recv(1)) == b"x"


def test_refused_target_resets_the_client(world: World) -> None:
    world.serve().close()
    client = world.client()
    with pytest.raises(ConnectionResetError):
        world.work(lambda: client.recv(1))
    assert world.ended()
    assert world.refusals == 1
    assert world.guest.opened[1:] == [0]


def test_refused_client_finds_another_server(world: World, opened: Opened) -> None:
    other = world.serve()
    world.gives_up, world.other_port = False, world.target_port
    world.serve().close()
    before = opened()
    client, conn = world.pair(other)
    client.sendall(b"hello")
    assert world.work(partial(conn.recv, 10)) == b"hello"
    assert world.refusals == 1
    assert opened() == before + 4  # both ends of both connections


def test_refused_twice_is_over(world: World) -> None:
    world.gives_up = False
    world.serve().close()
    world.other_port = world.target_port
    client = world.client()
    with pytest.raises(ConnectionResetError):
        world.work(lambda: client.recv(1))
    assert world.refusals == 1
    assert len(world.guest.opened) == 2
    assert world.ended()


@pytest.mark.parametrize("action", [Action.REJECT, Action.DROP])
def test_unwanted_client_is_not_kept(world: World, action: Action) -> None:
    world.hold = True
    client = world.client()
    world.guest.wait_for(lambda: bool(world.guest.misses))
    assert world.answer(world.guest.misses[0], action) == 0
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_late_verdict_opens_what_waited(inward: World) -> None:
    inward.hold = True
    server = inward.serve()
    client = inward.client()
    client.sendall(b"early")
    inward.guest.wait_for(lambda: bool(inward.guest.misses))
    inward.guest.advance(1)
    assert inward.answer(inward.guest.misses[0]) >= 0
    conn = inward.accept(server)
    assert inward.work(lambda: conn.recv(100)) == b"early"


def test_socket_of_a_miss_that_is_gone_is_closed(inward: World, opened: Opened) -> None:
    inward.hold = True
    inward.serve()
    client = inward.client()
    inward.guest.wait_for(lambda: bool(inward.guest.misses))
    inward.guest.advance(10)
    before = opened()
    assert inward.answer(inward.guest.misses[0]) == -errno.ESTALE
    assert opened() == before
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_splice_into_the_namespace_needs_a_socket_from_there(inward: World) -> None:
    inward.bring = False
    inward.serve()
    client = inward.client()
    with pytest.raises(ConnectionResetError):
        inward.work(lambda: client.recv(1))
    assert inward.guest.opened == [-errno.EBADF]


def test_splice_from_host_to_host_is_refused(inward: World, opened: Opened) -> None:
    inward.hold = True
    inward.serve()
    inward.client()
    inward.guest.wait_for(lambda: bool(inward.guest.misses))
    verdict = inward.verdict()._replace(pif=Pif.HOST)
    before = opened()
    fd = socket.socket().detach()
    miss_id = inward.guest.misses[0].miss_id
    assert inward.guest.open(miss_id, verdict, fd=fd) == -errno.EINVAL
    os.close(fd)  # still ours
    assert opened() == before - 1  # the client's, which was ours to reset


def test_nothing_of_a_flow_is_left(world: World, opened: Opened) -> None:
    server = world.serve()
    before = opened()
    for _ in range(3):
        client, conn = world.pair(server)
        send_and_end(client, b"1")
        assert world.work(partial(read_all, conn)) == b"1"
        conn.close()
        assert world.work(partial(read_all, client)) == b""
        client.close()
    world.finish()
    world.guest.advance(1)
    assert opened() == before


@pytest.mark.parametrize("size", [1, 65536, 65537, 3 * MIB, 20 * MIB])
def test_transfer_both_ways_at_once_is_exact(world: World, size: int) -> None:
    client, conn = world.pair(world.serve())
    there, back = random.randbytes(size), random.randbytes(size // 2 + 1)
    _, _, got, answer = world.work(
        lambda: send_and_end(client, there),
        lambda: send_and_end(conn, back),
        lambda: read_all(conn),
        lambda: read_all(client),
    )
    assert got == there
    assert answer == back
    world.finish()
    assert world.reason() == "DONE"


def test_small_writes_arrive_in_order(world: World) -> None:
    client, conn = world.pair(world.serve())
    data = random.randbytes(5000)

    def dribble() -> None:
        for i in range(0, len(data), 7):
            client.sendall(data[i : i + 7])
        client.shutdown(socket.SHUT_WR)

    _, got = world.work(dribble, lambda: read_all(conn))
    assert got == data


def test_slow_reader_gets_everything(world: World) -> None:
    client, conn = world.pair(world.serve())
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.settimeout(30)
    data = random.randbytes(12 * MIB)

    def slowly() -> bytes:
        got = b""
        while part := conn.recv(MIB):
            got += part
            time.sleep(0.001)
        return got

    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send_and_end, client, data)
        held = partial(world.guest.counter, "splice_buffered")
        world.guest.wait_for(lambda: held() > 0, "bytes that find no room")
        assert world.work(slowly) == data
        sent.result()


def test_reader_that_stops_stops_the_writer(world: World) -> None:
    client, conn = world.pair(world.serve())
    client.setblocking(False)
    sent = 0

    def stands_still() -> bool:
        """No more is taken, and nothing wakes us then."""
        nonlocal sent
        with suppress(BlockingIOError):
            sent += client.send(bytes(MIB))
            assert sent < 64 * MIB
            return False
        return not readable([world.guest.dp.fileno()], 0.04)

    world.guest.wait_for(stands_still, "a writer that is stopped")
    client.settimeout(WAIT_S)
    _, got = world.work(
        lambda: client.shutdown(socket.SHUT_WR), lambda: len(read_all(conn, MIB))
    )
    assert got == sent


def test_half_close_leaves_the_other_direction_open(world: World) -> None:
    client, conn = world.pair(world.serve())
    send_and_end(client, b"all I have")
    assert world.work(lambda: read_all(conn)) == b"all I have"
    conn.sendall(b"still ")
    assert world.work(lambda: client.recv(100)) == b"still "
    world.guest.advance(24 * 3600)  # no idle limit
    send_and_end(conn, b"here")
    assert world.work(lambda: read_all(client)) == b"here"
    world.finish()
    assert world.reason() == "DONE"


def test_server_may_close_first(world: World) -> None:
    client, conn = world.pair(world.serve())
    send_and_end(conn, b"bye")
    assert world.work(lambda: read_all(client)) == b"bye"
    send_and_end(client, b"thanks")
    assert world.work(lambda: read_all(conn)) == b"thanks"
    world.finish()
    assert world.reason() == "DONE"


def test_a_thousand_half_closes_lose_nothing_and_reset_nothing(world: World) -> None:
    server = world.serve()
    server.settimeout(30)
    rng = random.Random(1)
    rounds = 1000
    datas = [rng.randbytes(rng.choice((0, 1, 100, 70_000))) for _ in range(rounds)]

    def serve() -> None:
        for data in datas:
            conn, _ = server.accept()
            conn.settimeout(30)
            with conn:
                got = read_all(conn)
                assert got == data, (len(got), len(data))
                conn.sendall(got[::-1])

    def ask() -> None:
        for data in datas:
            with socket.create_connection((world.host, world.port), 30) as client:
                send_and_end(client, data)
                assert read_all(client) == data[::-1]

    world.work(serve, ask)
    world.finish()
    closed = [name for name, *_ in EVENTS].index("flow_closed")
    reasons = {e.args[0] for e in world.guest.dp.events(10_000) if e.event == closed}
    assert len(reasons) == 1


def test_reset_of_the_client_reaches_the_server(world: World) -> None:
    client, conn = world.pair(world.serve())
    reset(client)
    with pytest.raises(ConnectionResetError):
        world.work(lambda: conn.recv(1))
    world.finish()
    assert world.reason() == "RST_PEER"


def test_reset_of_the_server_reaches_the_client(world: World) -> None:
    client, conn = world.pair(world.serve())
    reset(conn)
    with pytest.raises(ConnectionResetError):
        world.work(lambda: client.recv(1))
    world.finish()


def test_reset_does_not_overtake_data(world: World) -> None:
    client, conn = world.pair(world.serve())
    data = random.randbytes(2 * MIB)
    # The survivor's window is small: data is still with us when the reset comes
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    world.work(lambda: client.sendall(data))
    world.guest.wait_for(lambda: not unacknowledged(client))
    reset(client)
    got = b""

    def read() -> None:
        nonlocal got
        while True:
            got += conn.recv(65536)

    with pytest.raises(ConnectionResetError):
        work_in_time(world, read)
    assert got == data


def test_all_that_came_before_a_reset_is_more_than_one_share(guest: Guest) -> None:
    world = World(guest, socket.SOCK_STREAM, hold=True, receive_buffer=4 * MIB)
    server = world.serve()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * MIB)
    client = world.client()
    data = random.randbytes(2 * MIB)
    world.work(lambda: client.sendall(data))
    guest.wait_for(lambda: not unacknowledged(client))
    reset(client)
    guest.wait_for(lambda: len(guest.misses) == 1)
    world.answer(guest.misses[0])
    conn = world.accept(server)
    got = b""

    def read() -> None:
        nonlocal got
        while True:
            got += conn.recv(65536)

    with pytest.raises(ConnectionResetError):
        work_in_time(world, read)
    assert got == data
    world.close()


def unacknowledged(sock: socket.socket) -> int:
    """Bytes in the send queue."""
    (left,) = struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))
    return int(left)


def test_survivor_that_reads_nothing_is_given_up(world: World) -> None:
    client, conn = world.pair(world.serve())
    conn.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    for _ in range(50):
        try:
            client.send(bytes(MIB))
        except BlockingIOError:
            time.sleep(0.001)
        world.guest.turn()
    reset(client)
    wait_delivered()
    for _ in range(200):
        world.guest.advance(0.1)
        if world.ended():
            break
    assert world.ended()
    assert world.reason() == "RST_PEER"


def test_end_before_a_reset_is_still_an_end(world: World) -> None:
    """Client closes with its data sent; the server's answer meets a reset."""
    client, conn = world.pair(world.serve())
    client.sendall(b"everything")
    client.close()
    conn.sendall(b"too late")  # the client's kernel answers with a reset
    assert world.work(lambda: read_all(conn)) == b"everything"
    world.finish()


def test_no_file_descriptor_left_resets_the_client(make_world: MakeWorld) -> None:
    world = make_world(Pif.SPLICE)
    world.serve()
    world.hold = True
    client = world.client()
    world.guest.wait_for(lambda: bool(world.guest.misses))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        assert world.answer(world.guest.misses[0]) == -errno.EMFILE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert world.guest.counter("sock_emfile") == 1
    with pytest.raises(ConnectionResetError):
        client.recv(1)


def test_without_descriptors_clients_are_reset_and_nobody_spins(
    inward: World,
) -> None:
    inward.serve()
    clients = [inward.plug() for _ in range(3)]
    for client in clients:
        client.connect((inward.host, inward.port))
    wait_delivered()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fd = os.dup(0)  # the lowest free one: nothing new fits below the limit
    os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (fd, hard))
    try:
        inward.guest.turn()
        inward.guest.turn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not readable([inward.guest.dp.fileno()], 0)
    for client in clients:
        with pytest.raises(ConnectionResetError):
            client.recv(1)
    assert inward.guest.counter("accept_errors") >= 3
    server = inward.serve()
    late, conn = inward.pair(server)
    late.sendall(b"x")
    assert inward.work(lambda: conn.recv(1)) == b"x"


def test_two_hundred_flows_at_once(world: World) -> None:
    server = world.serve()
    flows = 200
    rng = random.Random(2)
    data = [rng.randbytes(rng.randrange(1, 200_000)) for _ in range(flows)]
    pairs = [world.pair(server) for _ in range(flows)]

    def exchange(i: int) -> None:
        client, conn = pairs[i]
        conn.settimeout(30)
        client.settimeout(30)
        client.sendall(data[i][:1000])
        client.sendall(data[i][1000:])
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == data[i][::-1]

    def serve(i: int) -> None:
        conn = pairs[i][1]
        got = read_all(conn)
        assert got == data[i]
        send_and_end(conn, got[::-1])

    assert len(world.guest.flows()) == flows
    world.work(
        *[partial(exchange, i) for i in range(flows)],
        *[partial(serve, i) for i in range(flows)],
    )
    world.finish()


def test_datapath_may_be_closed_amid_flows(
    world: World, make_guest: Callable[..., Guest], opened: Opened
) -> None:
    before = opened()
    make_guest()
    own = opened() - before
    client, conn = world.pair(world.serve())
    before = opened()
    world.guest.close()
    assert opened() == before - own - 3  # two of the flow, the listener
    for end in (client, conn):
        assert end.recv(1) == b""

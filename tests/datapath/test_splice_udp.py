# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP from socket to socket: opening, batches, errors, time-outs."""

import errno
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from passtpy.flow import FlowType, Pif
from tests.datapath.guest import Guest
from tests.datapath.splice import LISTENER, RULE, WAYS, World
from tests.lab.descriptors import Opened

SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(guest: Guest) -> Iterator[MakeWorld]:
    """Make a world: `make_world(Pif.SPLICE, socket.AF_INET6)`."""
    worlds: list[World] = []

    def make(
        source: Pif = Pif.HOST,
        family: socket.AddressFamily = socket.AF_INET,
        bring: bool = True,
    ) -> World:
        world = World(guest, socket.SOCK_DGRAM, source, family, bring=bring)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        world.close()


@pytest.fixture(params=list(WAYS))
def world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    """Both directions, both families, and a flow that lives on its listener."""
    return make_world(*WAYS[request.param])


@pytest.fixture
def inward(make_world: MakeWorld) -> World:
    """From host to namespace."""
    return make_world()


def receive(world: World, sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """Wait for a datagram and its sender."""
    data, sender = world.work(lambda: sock.recvfrom(65536))
    return data, sender[:2]


def test_question_and_answer(world: World) -> None:
    server = world.serve()
    client = world.client()
    client.send(b"question")
    data, sender = receive(world, server)
    assert data == b"question"
    server.sendto(b"answer", sender)
    assert receive(world, client) == (b"answer", (world.host, world.port))
    flow = world.flow()
    assert flow.type == FlowType.UDP_SPLICE
    assert (flow.pif0, flow.pif1) == (world.source, world.target)
    assert (flow.packets0, flow.bytes0, flow.packets1, flow.bytes1) == (1, 8, 1, 6)
    assert (flow.eport0, flow.oport0) == (client.getsockname()[1], world.port)
    assert (flow.eport1, flow.oport1) == (world.target_port, sender[1])
    (miss,) = world.guest.misses
    assert (miss.pif, miss.listener) == (world.source, LISTENER)


def test_datagrams_before_the_verdict_arrive_in_order(world: World) -> None:
    world.hold = True
    server = world.serve()
    client = world.client()
    sent = [bytes([i]) * (i + 1) for i in range(20)]
    for data in sent[:10]:
        client.send(data)
    world.guest.wait_for(lambda: bool(world.guest.misses))
    for data in sent[10:]:
        client.send(data)
    assert world.answer(world.guest.misses[0]) >= 0
    client.send(b"last")
    assert [receive(world, server)[0] for _ in sent] == sent
    assert receive(world, server)[0] == b"last"
    assert len(world.guest.misses) == 1


def test_two_clients_are_two_flows(world: World) -> None:
    server = world.serve()
    clients = [world.client() for _ in range(2)]
    for i, client in enumerate(clients):
        client.send(b"from %d" % i)
        data, sender = receive(world, server)
        assert data == b"from %d" % i
        server.sendto(b"to %d" % i, sender)
    for i, client in enumerate(clients):
        assert receive(world, client)[0] == b"to %d" % i
    assert len(world.guest.flows()) == 2


@pytest.mark.parametrize("size", [0, 1, 1472, 2047, 2048, 2049, 9000, 65507])
def test_any_size_goes_both_ways(world: World, size: int) -> None:
    server = world.serve()
    client = world.client()
    data = random.randbytes(size)
    client.send(b"hello")  # the first one goes through the stage
    _, sender = receive(world, server)
    for _ in range(3):
        client.send(data)
        assert receive(world, server)[0] == data
        server.sendto(data, sender)
        assert receive(world, client)[0] == data


def test_burst_keeps_its_order_and_sizes(world: World) -> None:
    server = world.serve()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    client = world.client()
    rng = random.Random(3)
    client.send(b"hello")
    receive(world, server)
    for _ in range(8):
        usual = rng.choice((100, 1200, 1472))
        sizes = [rng.choice((usual, usual, usual, 0, 33, 5000)) for _ in range(60)]
        sent = [rng.randbytes(size) for size in sizes]
        for data in sent:
            client.send(data)
        world.guest.turn()
        got = [receive(world, server)[0] for _ in sent]
        assert got == sent


def test_segments_of_a_sender_stay_datagrams(inward: World) -> None:
    server = inward.serve()
    client = inward.client()
    client.send(b"hello")
    receive(inward, server)
    client.setsockopt(SOL_UDP, UDP_SEGMENT, 1000)
    data = random.randbytes(30_500)
    client.send(data)
    got = [receive(inward, server)[0] for _ in range(31)]
    assert [len(part) for part in got] == [1000] * 30 + [500]
    assert b"".join(got) == data


def test_a_run_crosses_as_one_message(inward: World) -> None:
    """With GRO the server sees that the datapath sent a super-segment."""
    server = inward.serve()
    server.setsockopt(SOL_UDP, UDP_GRO, 1)
    client = inward.client()
    client.send(b"hello")
    receive(inward, server)
    for _ in range(2):  # batches grow with what comes
        for _ in range(8):
            client.send(bytes(1000))
        got, want = 0, 8000
        biggest = 0
        while got < want:
            size = len(receive(inward, server)[0])
            got += size
            biggest = max(biggest, size)
    assert biggest > 1000


def test_closed_port_is_counted_and_the_flow_lives(world: World) -> None:
    server = world.serve()
    server.close()
    client = world.client()
    client.send(b"anybody?")
    world.guest.wait_for(lambda: world.guest.counter("udp_errors") > 0)
    again = world.plug()
    again.bind((world.host, world.target_port))
    client.send(b"now?")
    assert receive(world, again)[0] == b"now?"
    assert len(world.guest.misses) == 1


def test_flow_without_answer_ends_after_30_seconds(world: World) -> None:
    server = world.serve()
    world.client().send(b"x")
    receive(world, server)
    world.guest.advance(29)
    assert len(world.guest.flows()) == 1
    world.guest.advance(2)
    assert world.ended()


def test_stream_ends_after_120_seconds(world: World) -> None:
    server = world.serve()
    client = world.client()
    for _ in range(2):
        client.send(b"x")
        _, sender = receive(world, server)
        server.sendto(b"y", sender)
        receive(world, client)
    world.guest.advance(119)
    assert len(world.guest.flows()) == 1
    world.guest.advance(2)
    assert world.ended()


def test_nothing_of_a_flow_is_left(world: World, opened: Opened) -> None:
    server = world.serve()
    client = world.client()
    before = opened()
    client.send(b"x")
    receive(world, server)
    world.guest.advance(31)
    world.guest.advance(1)
    assert world.ended()
    assert opened() == before
    client.send(b"y")
    assert receive(world, server)[0] == b"y"
    assert len(world.guest.misses) == 2


def test_two_hundred_flows_at_once(world: World) -> None:
    server = world.serve()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    clients = [world.client() for _ in range(200)]
    for i, client in enumerate(clients):
        client.send(b"%d" % i)
        world.guest.turn()
    senders = dict(receive(world, server) for _ in clients)
    assert len(set(senders.values())) == 200
    for data, sender in senders.items():
        server.sendto(data[::-1], sender)
    for i, client in enumerate(clients):
        assert receive(world, client)[0] == (b"%d" % i)[::-1]


def test_socket_of_a_verdict_that_fails_is_closed(
    inward: World, opened: Opened
) -> None:
    inward.hold = True
    inward.target_port = 0
    inward.client().send(b"x")
    inward.guest.wait_for(lambda: bool(inward.guest.misses))
    before = opened()
    assert inward.answer(inward.guest.misses[0]) == -errno.EDESTADDRREQ
    assert opened() == before


def test_datagrams_beyond_a_limit_are_dropped(world: World) -> None:
    rate = 125_000  # bytes a second, of which a tenth may go at once
    server = world.serve()
    client = world.client()
    way = "rate_out" if world.source == Pif.SPLICE else "rate_in"
    world.guest.dp.limit(RULE, **{way: rate})
    for _ in range(40):
        client.send(bytes(500))
        world.guest.turn()
    moved = world.source == Pif.SPLICE
    world.guest.wait_for(
        lambda: world.guest.dp.limits()[RULE][2 + moved] == 15, "drops"
    )
    assert world.guest.dp.limits()[RULE][moved] == rate // 10
    assert all(len(receive(world, server)[0]) == 500 for _ in range(25))

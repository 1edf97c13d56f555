# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of one family and a server of the other, over the tap and spliced."""

import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from tests.lab import (
    HOST4,
    HOST6,
    Attached,
    Lab,
    Namespace,
    closing_all,
    transfer_both_ways,
    wait_until,
)
from tests.netns.test_forward import attached

SIZE = 3_000_000
ANY = {4: "0.0.0.0", 6: "::"}


@pytest.fixture(scope="module")
def world() -> Iterator[tuple[Lab, Attached]]:
    udp = ("-u", "8000-8001:9000-9001", "-U", "8100:9100")
    with attached("-t", "8000:9000", "-T", "8100:9100", *udp) as it:
        yield it


def server(where: Namespace, address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = where.new_socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    made.bind((address, port))
    made.listen()
    made.settimeout(60)
    return made


def ends(
    world: tuple[Lab, Attached], way: str
) -> tuple[Namespace, dict[int, str], int, Namespace, dict[int, str], int]:
    """Client, the addresses and the port it asks for, and the server's."""
    lab, it = world
    loopback = {4: "127.0.0.1", 6: "::1"}
    if way == "tap":
        return lab.remote, {4: HOST4, 6: HOST6}, 8000, it.guest, ANY, 9000
    if way == "in":
        return lab.host, loopback, 8000, it.guest, ANY, 9000
    return it.guest, loopback, 8100, lab.host, loopback, 9100


@pytest.mark.parametrize("way", ["tap", "in", "out"])
@pytest.mark.parametrize("asked", [4, 6])
def test_who_has_one_family_serves_both(
    world: tuple[Lab, Attached], asked: int, way: str
) -> None:
    client, to, port, place, at, served = ends(world, way)
    with server(place, at[10 - asked], served) as waiting:
        near = client.connect(to[asked], port)
        far, _ = waiting.accept()
        far.settimeout(60)
        with closing_all([near, far]):
            transfer_both_ways(near, far, SIZE)


@pytest.mark.parametrize("way", ["tap", "in", "out"])
@pytest.mark.parametrize("asked", [4, 6])
def test_who_has_both_is_asked_in_the_clients(
    world: tuple[Lab, Attached], asked: int, way: str
) -> None:
    client, to, port, place, at, served = ends(world, way)
    with ExitStack() as stack:
        waiting = stack.enter_context(server(place, at[asked], served))
        other = stack.enter_context(server(place, at[10 - asked], served))
        stack.enter_context(client.connect(to[asked], port))
        stack.enter_context(waiting.accept()[0])
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()


@pytest.mark.parametrize("way", ["tap", "in", "out"])
@pytest.mark.parametrize("asked", [4, 6])
def test_datagrams_find_the_family_of_their_server(
    world: tuple[Lab, Attached], asked: int, way: str
) -> None:
    """Each is sent once: the first one is refused, kept, and sent the other way."""
    client, to, port, place, at, served = ends(world, way)
    if way == "in":  # a port of its own: what it learns is of no use to the others
        port, served = 8001, 9001
    with ExitStack() as stack:
        waiting = stack.enter_context(place.udp(at[10 - asked], served))
        waiting.settimeout(60)
        addresses = []
        for number in range(10):  # more than a kernel refuses in a second
            near = stack.enter_context(client.udp(ANY[asked]))
            near.settimeout(60)
            near.connect((to[asked], port))
            near.send(b"question %d" % number)
            data, address = waiting.recvfrom(100)
            assert data == b"question %d" % number
            waiting.sendto(b"answer", address)
            assert near.recv(100) == b"answer"
            addresses.append(address)
        assert len(set(addresses)) == 10


def test_datagrams_reach_a_guest_that_has_the_other_family_alone() -> None:
    with attached("-u", "8000:9000") as (lab, it):
        it.guest.sysctl("net.ipv6.conf.all.disable_ipv6", "1")
        with ExitStack() as stack:
            server = stack.enter_context(it.guest.udp("0.0.0.0", 9000))
            server.settimeout(0.2)

            clients: list[socket.socket] = []

            def asked() -> bool:
                """Each asks anew: of before the daemon knew, a flow leads nowhere."""
                client = lab.remote.new_socket(socket.AF_INET6, socket.SOCK_DGRAM)
                clients.append(stack.enter_context(client))
                client.sendto(b"question", (HOST6, 8000))
                with suppress(TimeoutError):
                    while True:
                        _, address = server.recvfrom(100)
                        server.sendto(b"answer", address)
                return bool(select.select(clients, [], [], 0.2)[0])

            wait_until(asked, 60, "a datagram")


@pytest.mark.parametrize("way", ["tap", "in", "out"])
@pytest.mark.parametrize("asked", [4, 6])
def test_who_has_neither_refuses(
    world: tuple[Lab, Attached], asked: int, way: str
) -> None:
    client, to, port, *_ = ends(world, way)
    with pytest.raises(ConnectionResetError), client.connect(to[asked], port) as near:
        near.recv(1)

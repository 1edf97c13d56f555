# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams whose port is closed in their family, and open in the other one."""

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.packet import Packet

from passtpy import _native
from passtpy.addr import from_inany, inany
from passtpy.flow import Action, Pif, Verdict
from tests.datapath import splice
from tests.datapath.guest import Frame, Guest
from tests.datapath.packets import GUEST4, GUEST6, REMOTE4, REMOTE6, ip, udp
from tests.datapath.test_udp_listen import KINDS, LISTENER, SERVICE, World, listening
from tests.lab.descriptors import Opened
from tests.lab.loopback import wait_delivered


def towards(miss: _native.Miss, *, crosses: bool = True) -> Verdict:
    """To the guest, in the client's family, or in the other one if that is closed."""
    v4 = (from_inany(miss.eaddr).version == 4) == (miss.again == miss.crossed)
    guest = inany(ip_address(GUEST4 if v4 else GUEST6))
    remote = inany(ip_address(REMOTE4 if v4 else REMOTE6))
    ends = guest, SERVICE, remote, miss.eport
    return Verdict(Action.FORWARD, Pif.TAP, *ends, 3, crosses=crosses)


@pytest.fixture(params=["v4 wildcard", "v6 wildcard", "v4 on dual stack"])
def world(request: pytest.FixtureRequest, guest: Guest) -> Iterator[World]:
    """Listening sockets of one family and of both."""
    host, family, dual = KINDS[request.param]
    sock = listening(host, dual=dual)
    made = World(guest, family, sock.getsockname()[1])
    guest.decide = towards
    guest.dp.listen(sock.detach(), socket.IPPROTO_UDP, LISTENER)
    yield made
    for peer in made.peers:
        peer.close()


def layer_of(frame: Frame) -> Packet:
    """The IP layer of a frame."""
    return frame.packet[IPv6 if IPv6 in frame.packet else IP]


def is_turned(world: World, frame: Frame) -> bool:
    """Whether a frame is of the other family than its client."""
    return (IPv6 in frame.packet) != (world.family == socket.AF_INET6)


def refusal(frame: Frame) -> Packet:
    """What a guest without such a server says of a datagram."""
    layer = layer_of(frame)
    quoted = bytes(layer)[:200]
    if isinstance(layer, IPv6):
        ends = IPv6(src=layer.dst, dst=layer.src)
        return ends / ICMPv6DestUnreach(code=4) / quoted
    return IP(src=layer.dst, dst=layer.src) / ICMP(type=3, code=3) / quoted


def test_who_is_refused_is_served_in_the_other_family(world: World) -> None:
    guest, peer = world.guest, world.peer()
    peer.send(b"question")
    first = guest.expect(payload=b"question", dport=SERVICE)
    assert not is_turned(world, first)
    guest.send(refusal(first))
    second = guest.expect(payload=b"question", dport=SERVICE)
    assert is_turned(world, second)
    world.reply(second, b"answer")
    assert peer.recv(100) == b"answer"
    peer.send(b"more")
    assert is_turned(world, guest.expect(payload=b"more"))
    assert [(miss.crossed, miss.again) for miss in guest.misses] == [
        (False, False),
        (False, True),
    ]
    assert guest.counter("udp_crossed") == 1
    (flow,) = guest.flows()
    assert (flow.packets0, flow.packets1) == (2, 1)


def test_its_next_client_is_not_refused_first(world: World) -> None:
    guest, one = world.guest, world.peer()
    one.send(b"one")
    guest.send(refusal(guest.expect(payload=b"one")))
    frame = guest.expect(payload=b"one")
    two = world.peer()
    two.send(b"nobody has answered yet")
    assert not is_turned(world, guest.recv())
    world.reply(frame, b"here")
    assert one.recv(100) == b"here"
    three = world.peer()
    three.send(b"three")
    frame = guest.expect(payload=b"three")
    assert is_turned(world, frame)
    assert guest.misses[-1].crossed
    # Should that be closed by now, the client's own family has another chance
    guest.send(refusal(frame))
    frame = guest.expect(payload=b"three")
    assert not is_turned(world, frame)
    world.reply(frame, b"and here")
    assert three.recv(100) == b"and here"


def test_who_is_refused_in_both_is_asked_about_anew(world: World) -> None:
    guest, peer = world.guest, world.peer()
    peer.send(b"x")
    guest.send(refusal(guest.expect(payload=b"x")))
    guest.send(refusal(guest.expect(payload=b"x")))
    guest.expect_nothing()
    assert len(guest.misses) == 2
    peer.send(b"not yet")
    assert is_turned(world, guest.expect(payload=b"not yet"))
    guest.advance(0.5)  # what is left of the first flow goes
    guest.advance(0.6)  # and the second one must leave nothing that hears its client
    assert not guest.flows()
    peer.send(b"now")
    assert not is_turned(world, guest.expect(payload=b"now"))
    assert len(guest.misses) == 3


def test_all_that_came_before_the_refusal_goes_on(world: World) -> None:
    guest, peer = world.guest, world.peer()
    guest.decide = lambda _: None
    sent = [b"1", b"", b"3" * 1000]
    for payload in sent:
        peer.send(payload)
    wait_delivered()
    guest.turn()
    guest.decide = towards
    (miss,) = guest.misses
    guest.open(miss.miss_id, towards(miss))
    frames = [guest.recv() for _ in sent]
    later = [b"4", b"5" * 2000, b"6"]
    guest.put(refusal(frames[0]))
    for payload in later:
        peer.send(payload)
    guest.turn()
    got = guest.drain()
    turned = [frame.payload for frame in got if is_turned(world, frame)]
    lost = [frame.payload for frame in got if not is_turned(world, frame)]
    assert turned == [*sent, *later[len(lost) :]]  # of those that were not read yet
    assert lost == later[: len(lost)]


def test_an_answer_outlives_a_refusal(world: World) -> None:
    guest, peer = world.guest, world.peer()
    peer.send(b"question")
    frame = guest.expect(payload=b"question")
    world.reply(frame, b"answer")
    guest.send(refusal(frame))
    guest.advance(5)
    peer.send(b"more")
    assert not is_turned(world, guest.expect(payload=b"more"))
    assert len(guest.misses) == 1


def test_without_another_place_a_refusal_means_nothing(world: World) -> None:
    guest, peer = world.guest, world.peer()
    guest.decide = lambda miss: towards(miss, crosses=False)
    peer.send(b"x")
    guest.send(refusal(guest.expect(payload=b"x")))
    guest.advance(2)
    guest.expect_nothing()
    assert len(guest.flows()) == len(guest.misses) == 1


@pytest.mark.parametrize("cut", ["other port", "other address", "short", "TCP"])
def test_a_refusal_of_something_else_does_nothing(world: World, cut: str) -> None:
    guest, peer = world.guest, world.peer()
    peer.send(b"x")
    told = refusal(guest.expect(payload=b"x"))
    quoted = told[ICMPv6DestUnreach if IPv6 in told else ICMP]
    quote = bytearray(bytes(quoted.payload))
    v6 = IPv6 in told
    header = 40 if v6 else 20
    if cut == "other port":
        quote[header + 3] ^= 1
    elif cut == "other address":
        quote[header - 1] ^= 1
    elif cut == "short":
        quote = quote[: header + 7]
    else:
        quote[6 if v6 else 9] = 6
    ends = ip(v6, src=told.src, dst=told.dst)
    error = ICMPv6DestUnreach(code=4) if v6 else ICMP(type=3, code=3)
    guest.send(ends / error / bytes(quote))
    guest.advance(0.1)
    guest.expect_nothing()
    assert guest.counter("drop_icmp_type") == 1
    assert len(guest.misses) == 1


def test_a_flow_that_the_guest_began_is_not_refused_by_it(guest: Guest) -> None:
    """It is the one who asks: what it says of our answers is of no use."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(30)
        where = inany(ip_address("127.0.0.1"))
        port = server.getsockname()[1]
        guest.decide = lambda _: Verdict(
            Action.FORWARD, Pif.HOST, where, port, bytes(16), 0, 1, crosses=1
        )
        guest.send(udp(b"question"))
        _, address = server.recvfrom(100)
        server.sendto(b"answer", address)
        frame = guest.expect(payload=b"answer")
        guest.send(refusal(frame))
        guest.advance(2)
        assert len(guest.flows()) == len(guest.misses) == 1
        assert guest.counter("drop_icmp_type") == 1


def test_what_is_too_long_ago_is_not_sent_again(world: World) -> None:
    guest, peer = world.guest, world.peer()
    peer.send(b"long ago")
    frame = guest.expect(payload=b"long ago")
    guest.advance(3)
    guest.send(refusal(frame))
    guest.expect_nothing()
    peer.send(b"of today")
    assert is_turned(world, guest.expect(payload=b"of today"))


# Spliced


@dataclass
class Spliced(splice.World):
    """Both servers are known; the second one is of the other family."""

    turned: bool = False
    turned_port: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.guest.decide = self._ask

    def _ask(self, miss: _native.Miss) -> None:
        self.turned = miss.again != miss.crossed
        self.answer(miss)

    @property
    def there(self) -> socket.AddressFamily:
        others = {socket.AF_INET: socket.AF_INET6, socket.AF_INET6: socket.AF_INET}
        return others[self.family] if self.turned else self.family

    def verdict(self, action: Action = Action.SPLICE) -> Verdict:
        """To the server of the one or the other family."""
        where = inany(ip_address(splice.LOOPBACK[self.there]))
        port = self.turned_port if self.turned else self.target_port
        ends = where, port, bytes(16), 0
        return Verdict(action, self.target, *ends, splice.RULE, crosses=True)

    def brought(self) -> int:
        """A socket as the factory in the namespace makes it."""
        if not self.bring:
            return -1
        family = self.there if self.target == Pif.SPLICE else self.family
        return socket.socket(family, self.kind | socket.SOCK_NONBLOCK).detach()


@pytest.fixture(params=list(splice.WAYS))
def spliced(
    request: pytest.FixtureRequest, make_on: Callable[..., Guest]
) -> Iterator[Spliced]:
    """Where nobody has the port of the client's family."""
    source, family, bring = splice.WAYS[request.param]
    guest = make_on("vnet")
    made = Spliced(guest, socket.SOCK_DGRAM, source, family, bring=bring)
    made.serve().close()
    yield made
    made.close()


def other_server(spliced: Spliced) -> socket.socket:
    """Somebody who has the other family alone."""
    spliced.turned = True
    with socket.socket(spliced.there, socket.SOCK_DGRAM) as probe:
        probe.bind((splice.LOOPBACK[spliced.there], 0))
        server = probe.dup()
    server.settimeout(spliced.patience)
    spliced.sockets.append(server)
    spliced.turned_port = server.getsockname()[1]
    return server


def receive(spliced: Spliced, sock: socket.socket) -> tuple[bytes, Any]:
    """Wait for a datagram and its sender."""
    got: tuple[bytes, Any] = spliced.work(lambda: sock.recvfrom(65536))
    return got


def test_a_spliced_client_is_served_in_the_other_family(spliced: Spliced) -> None:
    server, client = other_server(spliced), spliced.client()
    client.send(b"first")
    client.send(b"second")
    wait_delivered()  # what comes between flow and refusal is lost
    data, address = receive(spliced, server)
    assert data == b"first"
    assert receive(spliced, server) == (b"second", address)
    server.sendto(b"answer", address)
    assert receive(spliced, client)[0] == b"answer"
    flow = spliced.flow()
    assert (flow.packets0, flow.packets1) == (2, 1)
    assert [miss.again for miss in spliced.guest.misses] == [False, True]
    another = spliced.client()
    another.send(b"third")
    assert receive(spliced, server)[0] == b"third"
    assert spliced.guest.misses[-1].crossed


def test_who_has_neither_is_asked_about_anew(spliced: Spliced) -> None:
    """Whoever begins to listen is found soon, by a client that goes on asking."""
    other_server(spliced).close()
    client = spliced.client()
    client.send(b"anybody?")
    guest = spliced.guest
    guest.wait_for(lambda: guest.counter("udp_errors") >= 2, "two refusals")
    guest.advance(0.5)
    guest.advance(0.6)
    assert spliced.ended()
    server = spliced.plug()
    server.bind((spliced.host, spliced.target_port))
    client.send(b"now?")
    assert receive(spliced, server)[0] == b"now?"
    assert len(guest.misses) == 3


def test_nothing_of_a_refused_flow_is_left(spliced: Spliced, opened: Opened) -> None:
    server = other_server(spliced)
    before = opened()
    client = spliced.client()
    client.send(b"x")
    receive(spliced, server)
    client.close()
    spliced.sockets.remove(client)
    spliced.guest.advance(31)
    spliced.guest.advance(1)
    assert spliced.ended()
    assert opened() == before

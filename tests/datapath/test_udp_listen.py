# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP flows that begin outside: a listening socket, its peers, and the guest."""

import os
import socket
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_address

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6

from passtpy import _native
from passtpy.addr import from_inany, inany
from passtpy.flow import Action, FlowWhy, Pif, Verdict
from tests.datapath.fragments import reassemble
from tests.datapath.guest import WAIT_S, Decide, Frame, Guest, answer, forward_to, later
from tests.datapath.packets import GUEST4, GUEST6, REMOTE4, REMOTE6, udp
from tests.lab.descriptors import Opened
from tests.lab.loopback import wait_delivered

SERVICE = 53  # port of the guest's server
IP_PKTINFO, IP_RECVTTL, IPV6_RECVPKTINFO = 8, 12, 49  # not in the socket module
LISTENER = 7
SHARERS_OUTSIDE = 256  # sockets that share a listener's port, udp.c
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}


def inward(miss: _native.Miss) -> Verdict:
    """To the guest's server; the peer appears as the remote host, same port."""
    v4 = from_inany(miss.eaddr).version == 4
    guest = inany(ip_address(GUEST4 if v4 else GUEST6))
    remote = inany(ip_address(REMOTE4 if v4 else REMOTE6))
    return Verdict(Action.FORWARD, Pif.TAP, guest, SERVICE, remote, miss.eport, 3)


def listening(host: str, port: int = 0, *, dual: bool = False) -> socket.socket:
    """A socket as the control plane makes it."""
    v6 = ":" in host
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)
    if v6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVPKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
    sock.setblocking(False)
    try:
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


@dataclass
class World:
    """A guest with a server that outside peers can reach."""

    guest: Guest
    family: socket.AddressFamily
    port: int
    peers: list[socket.socket] = field(default_factory=list)

    def peer(self) -> socket.socket:
        """A new socket of the outside, connected to the listener."""
        sock = socket.socket(self.family, socket.SOCK_DGRAM)
        sock.bind((LOOPBACK[self.family], 0))
        sock.connect((LOOPBACK[self.family], self.port))
        sock.settimeout(WAIT_S)
        self.peers.append(sock)
        return sock

    def reply(self, frame: Frame, payload: bytes) -> None:
        """The guest's server answers a datagram."""
        layer = frame.packet[IP if IP in frame.packet else IPv6]
        self.guest.send(
            udp(
                payload,
                v6=isinstance(layer, IPv6),
                src=layer.dst,
                dst=layer.src,
                sport=SERVICE,
                dport=layer[UDP].sport,
            )
        )


KINDS = {
    "v4": ("127.0.0.1", socket.AF_INET, False),
    "v6": ("::1", socket.AF_INET6, False),
    "v4 wildcard": ("0.0.0.0", socket.AF_INET, False),
    "v6 wildcard": ("::", socket.AF_INET6, False),
    "v4 on dual stack": ("::", socket.AF_INET, True),
    "v6 on dual stack": ("::", socket.AF_INET6, True),
}
MakeWorld = Callable[..., World]


@pytest.fixture
def make_world(guest: Guest) -> Iterator[MakeWorld]:
    """Make a world of one of KINDS."""
    worlds: list[World] = []

    def make(kind: str, decide: Decide = inward, port: int = 0) -> World:
        host, family, dual = KINDS[kind]
        sock = listening(host, port, dual=dual)
        world = World(guest, family, sock.getsockname()[1])
        guest.decide = decide
        guest.dp.listen(sock.detach(), socket.IPPROTO_UDP, LISTENER)
        worlds.append(world)
        return world

    yield make
    for world in worlds:
        for sock in world.peers:
            sock.close()


@pytest.fixture(params=list(KINDS))
def world(request: pytest.FixtureRequest, make_world: MakeWorld) -> World:
    """Each kind of listening socket."""
    return make_world(request.param)


def test_datagram_reaches_the_guest_and_the_answer_the_peer(world: World) -> None:
    peer = world.peer()
    peer.send(b"question")
    frame = world.guest.expect(
        payload=b"question", sport=peer.getsockname()[1], dport=SERVICE
    )
    world.reply(frame, b"answer")
    assert peer.recv(100) == b"answer"  # connected: address and port are right
    (miss,) = world.guest.misses
    assert miss.listener == LISTENER
    assert str(from_inany(miss.oaddr)) == LOOPBACK[world.family]
    assert (miss.eport, miss.oport) == (peer.getsockname()[1], world.port)


def crossing(miss: _native.Miss) -> Verdict:
    """To the guest's server of the other family, as from us."""
    v4 = from_inany(miss.eaddr).version == 4
    guest = inany(ip_address(GUEST6 if v4 else GUEST4))
    remote = inany(ip_address(REMOTE6 if v4 else REMOTE4))
    return Verdict(Action.FORWARD, Pif.TAP, guest, SERVICE, remote, miss.eport, 3)


def test_a_server_of_the_other_family_is_asked(world: World, guest: Guest) -> None:
    guest.decide = crossing
    peer = world.peer()
    for question, told in ((b"question", b"answer"), (b"more", b"y" * 3000)):
        peer.send(question)
        frame = guest.expect(payload=question, dport=SERVICE)
        assert (IPv6 in frame.packet) is (world.family == socket.AF_INET)
        world.reply(frame, told)
        assert peer.recv(9000) == told
    peer.close()  # an error of the peer's host is told in the guest's words
    world.peers.remove(peer)
    world.reply(frame, b"late")
    error = guest.recv()
    assert (IPv6 in error.packet) is (world.family == socket.AF_INET)
    assert b"late" in bytes(error.packet)


def test_later_datagrams_do_not_come_through_the_listener(world: World) -> None:
    peer = world.peer()
    peer.send(b"1")
    world.guest.expect(payload=b"1")
    world.guest.dp.unlisten(LISTENER)
    peer.send(b"2")
    frame = world.guest.expect(payload=b"2")
    world.reply(frame, b"3")
    assert peer.recv(9) == b"3"


def test_two_peers_have_a_flow_each(world: World) -> None:
    one, two = world.peer(), world.peer()
    one.send(b"one")
    two.send(b"two")
    frames = {frame.payload: frame for frame in world.guest.drain()}
    world.reply(frames[b"two"], b"to two")
    world.reply(frames[b"one"], b"to one")
    assert (one.recv(9), two.recv(9)) == (b"to one", b"to two")
    assert len(world.guest.flows()) == 2
    one.send(b"1")
    world.guest.expect(payload=b"1", sport=one.getsockname()[1])
    two.send(b"2")
    world.guest.expect(payload=b"2", sport=two.getsockname()[1])
    assert len(world.guest.misses) == 2


def test_first_datagrams_are_replayed_in_order(make_world: MakeWorld) -> None:
    world = make_world("v4", later)
    peer = world.peer()
    sent = [bytes([i]) * (i % 5) for i in range(30)]
    for payload in sent:
        peer.send(payload)
    guest = world.guest
    wait_delivered()
    guest.turn()
    (miss,) = guest.misses
    for payload in (b"while", b"pending"):
        peer.send(payload)
    guest.expect_nothing()
    assert guest.open(miss.miss_id, inward(miss)) > 0
    peer.send(b"after")
    got = [frame.payload for frame in guest.drain()]
    assert got == [*sent, b"while", b"pending", b"after"]
    assert guest.counter("miss_joined") == 31


def test_datagrams_queued_before_the_flow_is_open_are_not_lost(
    make_world: MakeWorld,
) -> None:
    """They went to the listener, and it is read after the flow has its socket."""
    world = make_world("v4", later)
    peer = world.peer()
    peer.send(b"1")
    wait_delivered()
    world.guest.turn()
    peer.send(b"2")
    wait_delivered()
    (miss,) = world.guest.misses
    world.guest.dp.open(miss.miss_id, inward(miss))
    assert [frame.payload for frame in world.guest.drain()] == [b"1", b"2"]
    assert len(world.guest.misses) == 1


def test_dropped_peer_may_ask_again(make_world: MakeWorld) -> None:
    world = make_world("v4", answer(Action.DROP))
    peer = world.peer()
    peer.send(b"no")
    world.guest.expect_nothing()
    world.guest.decide = inward
    peer.send(b"yes")
    world.guest.expect(payload=b"yes")


def test_reject_of_a_peer_is_silent(make_world: MakeWorld) -> None:
    world = make_world("v4", answer(Action.REJECT))
    world.peer().send(b"no")
    world.guest.expect_nothing()
    assert world.guest.counter("reject_verdict") == 1


def test_peer_that_left_is_told_to_the_guest(make_world: MakeWorld) -> None:
    world = make_world("v4 wildcard")
    peer = world.peer()
    peer.send(b"hi")
    frame = world.guest.expect(payload=b"hi")
    port = peer.getsockname()[1]
    peer.close()
    world.reply(frame, b"late")
    error = world.guest.recv().packet
    assert error[IP].src == REMOTE4
    quoted = bytes(error[IP].payload)[8:]
    assert struct.unpack("!HH", quoted[20:24]) == (SERVICE, port)
    assert quoted.endswith(b"late")


def test_guests_server_may_speak_first_from_its_port(
    make_world: MakeWorld, udp_peer: socket.socket
) -> None:
    """The listener has the port, but it is our own: both directions share it."""
    world = make_world("v4 wildcard")
    guest = world.guest
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"first", sport=world.port))
    data, address = udp_peer.recvfrom(9)
    assert (data, address[1]) == (b"first", world.port)
    udp_peer.sendto(b"back", address)
    guest.expect(payload=b"back", dport=world.port)
    guest.decide = inward
    world.peer().send(b"other")
    guest.expect(payload=b"other", dport=SERVICE)


def test_nobody_else_can_share_the_port(world: World) -> None:
    world.peer().send(b"x")
    world.guest.expect(payload=b"x")
    with socket.socket(world.family, socket.SOCK_DGRAM) as thief:
        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind((LOOPBACK[world.family], world.port))


def test_largest_first_datagram_passes(make_world: MakeWorld) -> None:
    world = make_world("v4")
    payload = bytes(i % 251 for i in range(65507))
    world.peer().send(payload)
    (datagram,) = reassemble(world.guest.drain(), 65520)
    assert datagram[8:] == payload


def test_full_stage_counts_what_it_loses(make_world: MakeWorld) -> None:
    world = make_world("v4", later)
    peer = world.peer()
    for _ in range(3):
        peer.send(bytes(60000))
    wait_delivered()
    world.guest.turn()
    assert world.guest.counter("drop_stage_full") == 2


def test_flow_from_outside_ends_after_30_seconds(world: World) -> None:
    peer = world.peer()
    peer.send(b"x")
    world.guest.expect(payload=b"x")
    world.guest.advance(30.1)
    assert world.guest.flows() == []
    world.guest.advance(1)
    peer.send(b"y")
    world.guest.expect(payload=b"y")
    assert len(world.guest.misses) == 2


# Flows that cannot have a socket of their own


@pytest.fixture
def unprivileged() -> Iterator[Callable[[], None]]:
    """Give up what binding to a low port needs, as the daemon does."""
    home = os.geteuid()
    yield lambda: os.seteuid(65534)
    os.seteuid(home)


@pytest.fixture(params=list(KINDS))
def low_world(
    request: pytest.FixtureRequest,
    make_world: MakeWorld,
    unprivileged: Callable[[], None],
) -> World:
    """A listener on a low port, and no privilege to bind there again."""
    for port in range(700, 1000):
        try:
            world = make_world(request.param, port=port)
        except OSError:
            continue
        unprivileged()
        return world
    raise AssertionError("no low port is free")


@pytest.mark.root
def test_without_own_socket_the_listener_carries_both_directions(
    low_world: World,
) -> None:
    guest = low_world.guest
    one, two = low_world.peer(), low_world.peer()
    for peer in (one, two):
        for i in range(3):
            peer.send(b"question")
            frame = guest.expect(payload=b"question", sport=peer.getsockname()[1])
            for payload in (b"same", b"size", b"tail!", b"", bytes(3000)):
                low_world.reply(frame, payload)
                assert peer.recv(9000) == payload, i
    assert len(guest.misses) == 2
    assert [flow.packets1 for flow in guest.flows()] == [15, 15]


@pytest.mark.root
def test_without_own_socket_runs_and_ttl_work_too(low_world: World) -> None:
    guest, peer = low_world.guest, low_world.peer()
    v6 = low_world.family == socket.AF_INET6
    if v6:
        peer.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, 1)
    else:
        peer.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    peer.send(b"go")
    guest.expect(payload=b"go")
    ends = {"src": GUEST6, "dst": REMOTE6} if v6 else {"src": GUEST4, "dst": REMOTE4}
    ports = {"sport": SERVICE, "dport": peer.getsockname()[1]}
    for i in range(20):
        packet = udp(bytes([i]) * 50, v6=v6, **ends, **ports)
        setattr(packet, "hlim" if v6 else "ttl", 33)
        guest.put(packet)
    guest.turn()
    for i in range(20):
        data, control, _, _ = peer.recvmsg(9000, 100)
        assert data == bytes([i]) * 50
        assert struct.unpack("i", control[0][2]) == (33,)


@pytest.mark.root
def test_without_listener_such_a_flow_is_mute(low_world: World) -> None:
    guest, peer = low_world.guest, low_world.peer()
    peer.send(b"x")
    frame = guest.expect(payload=b"x")
    guest.dp.unlisten(LISTENER)
    low_world.reply(frame, b"lost")
    assert guest.counter("udp_drop_sock_full") == 1
    guest.advance(31)
    assert guest.flows() == []


@pytest.mark.root
def test_such_a_flow_keeps_a_listener_that_gets_another_number(
    low_world: World,
) -> None:
    guest, peer = low_world.guest, low_world.peer()
    peer.send(b"x")
    frame = guest.expect(payload=b"x")
    guest.dp.renumber(LISTENER, 5)
    low_world.reply(frame, b"still here")
    assert peer.recv(99) == b"still here"


def ask(world: World, count: int) -> list[socket.socket]:
    """So many new peers, each of which has got an answer."""
    peers = [world.peer() for _ in range(count)]
    for number, peer in enumerate(peers):
        peer.send(b"%d" % number)
        world.reply(world.guest.expect(payload=b"%d" % number), b"to %d" % number)
        assert peer.recv(99) == b"to %d" % number
        if number % 10 == 9:
            world.guest.advance(0.2)  # one address may begin so many at a time
    return peers


def test_any_number_of_peers_costs_a_bounded_number_of_sockets(
    make_world: MakeWorld, opened: Opened
) -> None:
    """The kernel looks at all that share a port for each datagram of a new peer."""
    world = make_world("v4")
    before = opened()
    peers = ask(world, SHARERS_OUTSIDE + 40)
    sockets = opened() - before - len(peers)
    assert sockets <= SHARERS_OUTSIDE
    for peer in peers:
        peer.send(b"again")
        world.guest.expect(payload=b"again")
    assert len(world.guest.flows()) == len(peers)


@pytest.mark.taps("vnet", why="it is about sockets, which no tap sees")
def test_who_is_gone_leaves_room_for_other_sockets(
    make_world: MakeWorld, opened: Opened
) -> None:
    world = make_world("v4")
    ask(world, SHARERS_OUTSIDE)
    for flow in world.guest.flows():
        world.guest.dp.close_flow(flow.flow_id, FlowWhy.ASKED)
    world.guest.advance(0.2)
    before = opened()
    assert 2 * len(ask(world, 20)) == opened() - before


@pytest.mark.taps("vnet", why="it is about sockets, which no tap sees")
def test_who_shared_a_port_does_not_count_as_one_of_its_number_s_next_owner(
    make_world: MakeWorld, opened: Opened
) -> None:
    gone = make_world("v4")
    guest = gone.guest
    ask(gone, 20)
    old = guest.flows()
    guest.dp.unlisten(LISTENER)
    world = make_world("v4")
    ask(world, SHARERS_OUTSIDE)
    for flow in old:
        guest.dp.close_flow(flow.flow_id, FlowWhy.ASKED)
    guest.advance(0.2)
    before = opened()
    assert len(ask(world, 20)) == opened() - before

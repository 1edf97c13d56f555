# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest on vhost-user rings: front-end, transport and datapath as they really are.

What handlers do is tested on every kind of tap (`guest`); here is what only rings
can do: be enabled and stopped, move, run out of buffers, lie.
"""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import ARP, Ether

from passtpy.wire.arp import ArpOp
from passtpy.wire.dhcp import Dhcp, MessageType, Op
from passtpy.wire.vhost_user import (
    U64,
    MemoryRegion,
    MemoryTable,
    Request,
    VringFile,
    VringState,
)
from tests.datapath.conftest import Server
from tests.datapath.frontend import FrontendGuest, FrontendLink
from tests.datapath.guest import WAIT_S, Guest, Vnet, forward_to
from tests.datapath.packets import GUEST_MAC, OUR_MAC, echo, udp
from tests.datapath.tcp_peer import established
from tests.datapath.test_icmp import echo_of, payload_of, to_host
from tests.lab.descriptors import Opened
from tests.lab.namespace import Namespace
from tests.lab.vhost_frontend import (
    EVENT_IDX,
    NEXT,
    OFFLOADS,
    PAGE,
    PLAIN,
    RING_REGION,
    RX,
    TX,
    WRITE,
    Frontend,
    Ring,
)
from tests.unit.services import conversation

GSO_TCPV4 = 1
SOME = 400_000


@pytest.fixture
def vhost(opened: Opened) -> Iterator[Guest]:
    """A guest on rings with all offloads; no descriptor is left when it is gone."""
    before = opened()
    guest = FrontendGuest(backend="vhost")
    yield guest
    guest.close()
    assert opened() == before


def link(guest: Guest) -> FrontendLink:
    """The rings of a guest."""
    assert isinstance(guest.link, FrontendLink)
    return guest.link


def frontend(guest: Guest) -> Frontend:
    """The front-end that is there now."""
    return link(guest).frontend


def serve(guest: Guest) -> None:
    """Let the services answer what was lifted out for them."""
    services, _ = conversation.make()
    while guest.punts:
        for answer in services.handle(
            guest.kinds.pop(0), guest.punts.pop(0), guest.now
        ):
            guest.dp.inject(answer)
    guest.turn()


def test_arp_and_dhcp_are_answered(vhost: Guest) -> None:
    vhost.send(
        conversation.arp(ArpOp.REQUEST, conversation.GUEST4, conversation.GATEWAY4)
    )
    serve(vhost)
    assert vhost.recv().packet[ARP].psrc == str(conversation.GATEWAY4)
    discover = Dhcp(
        op=Op.REQUEST,
        xid=7,
        chaddr=conversation.GUEST_MAC,
        options={53: bytes([MessageType.DISCOVER])},
    )
    vhost.send(conversation.udp4(discover.emit()))
    serve(vhost)
    _, _, offer = conversation.read_dhcp(vhost.recv().raw)
    assert (offer.kind, offer.yiaddr) == (MessageType.OFFER, conversation.GUEST4)


@pytest.mark.root
def test_ping_is_answered(vhost: Guest, ping_namespace: Namespace) -> None:
    vhost.decide = to_host()
    with ping_namespace.entered():
        vhost.send(echo(payload=b"over rings"))
        assert payload_of(echo_of(vhost.recv().packet)) == b"over rings"


def test_datagrams_go_both_ways(vhost: Guest, udp_peer: socket.socket) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    for size in (0, 1, 1400, 60_000):
        vhost.send(udp(bytes(size)))
        data, address = udp_peer.recvfrom(1 << 16)
        assert data == bytes(size)
        udp_peer.sendto(data, address)
        if size <= 1400:
            assert vhost.recv().payload == data


def test_super_segments_reach_the_guest_whole(vhost: Guest, server: Server) -> None:
    conn, peer = established(vhost, server)
    peer.sendall(bytes(60_000))
    got = conn.guest.recv()
    while got.vnet.gso_type != GSO_TCPV4:  # the first ones may be small
        conn.ack += len(got.payload)
        conn.acknowledge()
        got = conn.guest.recv()
    assert got.vnet.gso_size
    assert len(got.raw) > frontend(vhost).rx_buffer  # in several buffers


def test_super_segments_of_the_guest_are_sent_whole(
    vhost: Guest, server: Server
) -> None:
    conn, peer = established(vhost, server)
    data = os.urandom(40_000)
    segment = conn.segment("PA", data)
    del segment[TCP].chksum
    head = Vnet(1, GSO_TCPV4, 54, 1460, 34, 16)
    vhost.send(segment, vnet=head)
    got = b""
    while len(got) < len(data):
        got += peer.recv(1 << 16)
    assert got == data
    assert vhost.recv().tcp.ack == conn.seq + len(data)


def test_a_disabled_ring_lets_nothing_pass(
    vhost: Guest, udp_peer: socket.socket
) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    there = frontend(vhost)
    there.enable(TX, False)
    there.number(Request.GET_FEATURES)
    vhost.send(udp(b"lost"))
    vhost.send(udp(b"lost"))
    assert vhost.misses == []
    there.wait(there.all_sent, "buffers to come back")
    there.enable(TX)
    there.number(Request.GET_FEATURES)
    vhost.send(udp(b"found"))
    data, address = udp_peer.recvfrom(100)
    assert data == b"found"
    there.enable(RX, False)
    there.number(Request.GET_FEATURES)
    udp_peer.sendto(b"answer", address)
    vhost.expect_nothing()
    there.enable(RX)
    there.number(Request.GET_FEATURES)
    assert vhost.recv().payload == b"answer"


def test_rings_go_on_where_they_stopped(vhost: Guest, udp_peer: socket.socket) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    exchange(vhost, udp_peer, b"before")
    there = frontend(vhost)
    bases = there.stop()
    assert bases[TX] == there.rings[TX].offered
    there.send_frame(frame(udp(b"meanwhile")))
    vhost.turn()
    udp_peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        udp_peer.recv(100)
    udp_peer.settimeout(WAIT_S)
    for ring, base in zip(there.rings, bases, strict=True):
        there.start_ring(ring, base)
    there.number(Request.GET_FEATURES)
    vhost.turn()
    assert udp_peer.recv(100) == b"meanwhile"
    exchange(vhost, udp_peer, b"after")


def exchange(guest: Guest, peer: socket.socket, data: bytes) -> tuple[str, int]:
    """Send a datagram each way; return our end of the flow."""
    guest.send(udp(data))
    got, flow = peer.recvfrom(100)
    assert got == data
    peer.sendto(data[::-1], flow)
    assert guest.recv().payload == data[::-1]
    return str(flow[0]), int(flow[1])


def frame(packet: object) -> bytes:
    """A packet of the guest as a frame."""
    return bytes(Ether(src=GUEST_MAC, dst=OUR_MAC) / packet)


def test_memory_may_be_mapped_anew_while_rings_run(
    vhost: Guest, udp_peer: socket.socket
) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    there = frontend(vhost)
    exchange(vhost, udp_peer, b"before")
    more = MemoryRegion(1 << 40, PAGE, 1 << 41, 0)
    table = MemoryTable((more, *there.regions()))
    there.say(Request.SET_MEM_TABLE, table, *[there.memfd] * 3)
    there.number(Request.GET_FEATURES)
    exchange(vhost, udp_peer, b"after")


@pytest.mark.parametrize("features", [PLAIN, OFFLOADS])
def test_what_finds_no_buffer_waits(
    vhost: Guest, server: Server, features: int
) -> None:
    """A guest that offers nothing for a while: the bytes stay in the peer's socket."""
    there = link(vhost).replace(features, ring_size=32)
    there.start()
    conn, peer = established(vhost, server)
    there.refilling = False
    sent, got, blocked = os.urandom(SOME), bytearray(), vhost.counter("tap_blocked")
    sender = threading.Thread(target=peer.sendall, args=(sent,))
    sender.start()
    vhost.wait_for(lambda: vhost.counter("tap_blocked") > blocked, "the ring's end")
    while len(got) < len(sent):
        for frame in vhost.drain():
            assert frame.tcp.seq == conn.ack  # nothing lost, nothing sent again
            got += frame.payload
            conn.ack = (conn.ack + len(frame.payload)) % 2**32
        conn.acknowledge()
        there.refill()
    sender.join()
    assert got == sent


def test_a_flow_outlives_its_front_end(vhost: Guest, server: Server) -> None:
    conn, peer = established(vhost, server)
    there = link(vhost).replace()
    peer.sendall(b"are you there?")
    vhost.turn()
    there.start()
    conn.expect("PA", b"are you there?")
    conn.acknowledge()
    conn.send(b"yes")
    assert peer.recv(100) == b"yes"
    assert link(vhost).reasons == ["connection closed"]


def test_a_driver_without_offloads_is_served(
    vhost: Guest, server: Server, udp_peer: socket.socket
) -> None:
    there = link(vhost).replace(PLAIN | EVENT_IDX, ring_size=64)
    there.start()
    conn, peer = established(vhost, server)
    sent = os.urandom(20_000)
    peer.sendall(sent)
    assert conn.read(len(sent)) == sent
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    exchange(vhost, udp_peer, b"small")


@pytest.mark.parametrize("features", [PLAIN, PLAIN | EVENT_IDX])
def test_the_guest_is_called(
    vhost: Guest, udp_peer: socket.socket, features: int
) -> None:
    there = link(vhost).replace(features)
    there.start()
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    for _ in range(3):
        exchange(vhost, udp_peer, b"hello")
        assert os.eventfd_read(there.rings[RX].call)


def test_a_guest_that_polls_is_not_called(
    vhost: Guest, udp_peer: socket.socket
) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    exchange(vhost, udp_peer, b"hello")
    ring = frontend(vhost).rings[RX]
    os.eventfd_read(ring.call)
    ring.set_word(ring.avail_at, 1)  # VIRTQ_AVAIL_F_NO_INTERRUPT
    exchange(vhost, udp_peer, b"hello")
    with pytest.raises(BlockingIOError):
        os.eventfd_read(ring.call)


# Lies


def refused(guest: Guest, request: Request, *payload_and_fds: Any) -> str:
    """The back-end refuses a request, and hangs up; return what it says of it."""
    there = frontend(guest)
    assert there.ask(request, *payload_and_fds) == U64(1)
    there.wait(there.hung_up, "the end")
    return link(guest).reasons[-1]


def works(guest: Guest, peer: socket.socket) -> None:
    """Whatever happened before, the next front-end is served."""
    link(guest).replace().start()
    guest.drain()  # what waited for the last one
    guest.decide = forward_to(peer.getsockname()[1])
    exchange(guest, peer, b"hello")


@pytest.mark.parametrize("what", ["desc", "used", "avail"])
@pytest.mark.parametrize("where", [0, 1 << 20, 2**64 - 16, "last page", "odd"])
def test_rings_outside_memory_are_refused(
    vhost: Guest, udp_peer: socket.socket, what: str, where: int | str
) -> None:
    there = link(vhost).replace()
    there.negotiate()
    there.say(Request.SET_FEATURES, U64(there.features))
    there.share_memory()
    good = there.address(there.rings[TX])
    place = {"last page": there.user(PAGE + RING_REGION - 16), "odd": good.desc + 1}
    at = where if isinstance(where, int) else place[where]
    there.say(Request.SET_VRING_NUM, VringState(TX, 256))
    there.say(Request.SET_VRING_ADDR, replace(good, **{what: at}))
    reason = refused(vhost, Request.SET_VRING_KICK, VringFile(TX), there.rings[TX].kick)
    assert "SET_VRING_KICK" in reason
    works(vhost, udp_peer)


@pytest.mark.parametrize("lie", ["short file", "no file", "read-only"])
def test_memory_that_is_none_is_refused(
    vhost: Guest, udp_peer: socket.socket, lie: str
) -> None:
    there = link(vhost).replace()
    there.negotiate()
    size, fd = PAGE, there.memfd
    if lie == "short file":
        size = there.size + PAGE
    if lie == "no file":
        fd = there.rings[TX].kick
    if lie == "read-only":
        fd = os.open(f"/proc/self/fd/{there.memfd}", os.O_RDONLY)
    table = MemoryTable((MemoryRegion(0, size, 0, 0),))
    assert "SET_MEM_TABLE" in refused(vhost, Request.SET_MEM_TABLE, table, fd)
    if lie == "read-only":
        os.close(fd)
    works(vhost, udp_peer)


def far_away(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, 1 << 60, 100, 0)


def half_outside(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.size - 8), 100, 0)


def wraps(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, 2**64 - 8, 100, 0)


def bites_its_tail(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.tx_at), 12, NEXT, 0)


def leads_out(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.tx_at), 12, NEXT, ring.size)


def is_writable(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.tx_at), 100, WRITE)


def is_huge(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.buffers_at), 2**32 - 1, 0)


def is_empty(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.tx_at), 0, 0)


def is_no_frame(ring: Ring, there: Frontend) -> None:
    ring.set_desc(0, there.guest(there.tx_at), 13, 0)


LIES = [
    far_away,
    half_outside,
    wraps,
    bites_its_tail,
    leads_out,
    is_writable,
    is_huge,
    is_empty,
    is_no_frame,
]


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_chain_harms_nobody(
    vhost: Guest, udp_peer: socket.socket, lie: Callable[[Ring, Frontend], None]
) -> None:
    there = frontend(vhost)
    ring = there.rings[TX]
    lie(ring, there)
    ring.offer(0)
    ring.notify()
    vhost.turn()
    assert vhost.misses == []
    noticed = ("vhost_broken", "drop_vhost_length", "drop_short")
    assert sum(map(vhost.counter, noticed)) == 1
    works(vhost, udp_peer)


@pytest.mark.parametrize("ahead", [257, 30_000, 65_000])
@pytest.mark.parametrize("index", [RX, TX])
def test_an_index_far_ahead_harms_nobody(
    vhost: Guest, udp_peer: socket.socket, index: int, ahead: int
) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    flow = exchange(vhost, udp_peer, b"before")
    there = frontend(vhost)
    there.refilling = False
    ring = there.rings[index]
    ring.set_word(ring.avail_at + 2, ring.offered + ahead)
    ring.notify()
    for _ in range(there.ring_size):  # more than the buffers that are known already
        udp_peer.sendto(b"for a guest that lies", flow)
    vhost.drain()
    assert vhost.counter("vhost_broken") == 1
    works(vhost, udp_peer)


@pytest.mark.parametrize("lie", [far_away, half_outside, wraps, leads_out])
def test_a_lying_buffer_harms_nobody(
    vhost: Guest, udp_peer: socket.socket, lie: Callable[[Ring, Frontend], None]
) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    there = frontend(vhost)
    for number in range(there.ring_size):  # those that are offered already
        there.rings[RX].set_desc(number, 1 << 60, 100, WRITE)
    lie(there.rings[RX], there)
    vhost.send(udp(b"hello"))
    data, flow = udp_peer.recvfrom(100)
    udp_peer.sendto(data, flow)
    vhost.wait_for(lambda: vhost.counter("vhost_broken") == 1, "a look at the ring")
    works(vhost, udp_peer)


def test_memory_that_goes_away_harms_nobody(
    vhost: Guest, udp_peer: socket.socket
) -> None:
    vhost.decide = forward_to(udp_peer.getsockname()[1])
    exchange(vhost, udp_peer, b"before")
    there = frontend(vhost)
    os.ftruncate(there.memfd, 0)
    os.eventfd_write(there.rings[TX].kick, 1)
    os.eventfd_write(there.rings[RX].kick, 1)
    vhost.turn()
    works(vhost, udp_peer)

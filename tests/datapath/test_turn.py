# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody keeps the others waiting: work is counted, shared out, and bounded.

Counted work does not depend on the machine: `turn_work_max` is what the longest turn
did, in nominal nanoseconds (native/base/budget.h).
"""

import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any

import pytest
from scapy.layers.l2 import ARP, Ether

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany
from passtpy.flow import Action, FlowWhy, Pif, PuntKind, Verdict
from tests.datapath.conftest import Server
from tests.datapath.guest import (
    NEEDS_CSUM,
    Connection,
    Guest,
    Vnet,
    forward_to,
    later,
    to_guest,
)
from tests.datapath.packets import (
    GUEST4,
    GUEST6,
    GUEST_MAC,
    OUR_MAC,
    REMOTE4,
    syn,
    udp,
)
from tests.datapath.tcp_peer import established, inbound, wait_unread
from tests.datapath.test_udp_listen import SERVICE, inward, listening
from tests.lab.loopback import wait_delivered

WORK_TURN = 2_000_000  # budget.h
WORK_ROUND = 500_000
KINDS = 5  # of sources that a round serves, each within WORK_ROUND
WORK_MAX = WORK_TURN + KINDS * WORK_ROUND  # the round that used up the turn

super_segments = pytest.mark.taps("vnet", "vhost", why="others carry no such frame")
SCALED = [("MSS", 1460), ("WScale", 10)]
GSO_TCPV4, GSO_UDP_L4 = 1, 5


def super_segment(payload: bytes, size: int, **fields: Any) -> tuple[bytes, Vnet]:
    """A frame of many datagrams, as a guest with UDP segmentation offload sends it."""
    packet = udp(payload, **fields)
    start = 14 + len(packet) - len(payload) - 8
    framed = bytes(Ether(src=GUEST_MAC, dst=OUR_MAC) / packet)
    return framed, Vnet(NEEDS_CSUM, GSO_UDP_L4, start + 8, size, start, 6)


def test_a_bulk_flow_waits_for_the_others(guest: Guest, server: Server) -> None:
    server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    bulk_peer, _ = inbound(guest, server)
    bulk = Connection.accept(guest, options=SCALED)
    small, small_peer = established(guest, server, sport=40001, options=SCALED)
    bulk.say("A", window=4096)  # 4 MiB
    bulk_peer.setblocking(False)
    sent = bulk_peer.send(bytes(3 << 20))
    small_peer.send(b"hello")
    before = 0
    while (frame := guest.recv()).payload != b"hello":
        before += len(frame.payload)
    assert before < sent
    assert before <= 640 << 10
    assert small.guest.counter("turn_work_max") <= WORK_MAX


def order(guest: Guest, event: str) -> list[tuple[int, int]]:
    """Flow and first argument of each log event of that name, in order."""
    names = [name for name, *_ in _native.EVENTS]
    return [
        (happened.flow_id, happened.args[0])
        for happened in guest.dp.events(4096)
        if names[happened.event] == event
    ]


@super_segments
def test_tiny_datagrams_of_large_frames_wait_for_the_others(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"first", sport=1111), udp(b"first", sport=2222))
    many, few = (flow.flow_id for flow in guest.flows())
    guest.dp.log_level = 3
    for _ in range(100):
        guest.put(*super_segment(bytes(128), 1, sport=1111))
    guest.send(udp(b"hello", sport=2222))
    guest.expect_nothing()
    told = order(guest, "udp_from_tap")
    assert sum(count for flow, count in told if flow == many) == 12_800
    before = told.index((few, 1))
    assert sum(count for flow, count in told[:before] if flow == many) <= 2000


@super_segments
@pytest.mark.parametrize(("size", "dropped"), [(1, 30), (508, 30), (512, 0)])
def test_super_segment_of_too_many_datagrams_is_dropped(
    guest: Guest, udp_peer: socket.socket, size: int, dropped: int
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"first"))
    packet, vnet = super_segment(bytes(128 * 508 + 1), size)
    for _ in range(30):
        guest.send(packet, vnet=vnet)
    assert guest.counter("drop_segments") == dropped
    assert guest.counter("turn_work_max") <= WORK_MAX


@super_segments
def test_what_waits_for_a_verdict_is_bounded(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = later
    for _ in range(60):
        guest.put(*super_segment(bytes(128), 1))
    guest.turn()
    guest.dp.log_level = 3
    decide = forward_to(udp_peer.getsockname()[1])
    verdict = decide(guest.misses[0])
    assert verdict
    guest.open(guest.misses[0].miss_id, verdict)
    (flow,) = guest.flows()
    assert 128 <= flow.packets0 <= 512
    assert guest.counter("drop_stage_full") >= 56


@super_segments
def test_super_segment_of_tcp_names_a_possible_size(
    guest: Guest, server: Server
) -> None:
    conn, _ = established(guest, server)
    payload = bytes(60_000)
    for size, dropped in ((7, 1), (8, 1), (1460, 1)):
        packet = conn.segment("PA", payload)
        guest.send(packet, vnet=Vnet(NEEDS_CSUM, GSO_TCPV4, 54, size, 34, 16))
        assert guest.counter("drop_segments") == dropped, size


def test_a_listener_waits_for_the_others(guest: Guest, server: Server) -> None:
    guest.decide = later
    server.sock.listen(512)
    listener = server.sock.dup()
    listener.setblocking(False)
    clients = [socket.create_connection(server.sock.getsockname()) for _ in range(400)]
    guest.dp.listen(listener.detach(), socket.IPPROTO_TCP, 1)
    guest.dp.turn(now=guest.now)
    assert 0 < guest.counter("miss") <= 250
    assert guest.counter("turn_work_max") <= 2 * WORK_ROUND
    guest.wait_for(lambda: guest.counter("miss") == 400)
    for client in clients:
        client.close()


def test_flows_that_end_at_once_do_not_end_in_one_turn(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    for first in range(1000, 2000, 100):
        guest.send(*(udp(b"x", sport=first + i) for i in range(100)))
    assert len(guest.flows()) == 1000
    guest.now += 31_000_000_000
    guest.dp.turn(now=guest.now)
    assert 0 < len(guest.flows()) < 1000
    assert guest.counter("turn_work_max") <= WORK_MAX
    guest.wait_for(lambda: not guest.flows())


def listener_of(guest: Guest, number: int = 7) -> tuple[str, int]:
    """A UDP listener whose peers keep their addresses toward the guest; where it is."""
    sock = listening("127.0.0.1")
    where: tuple[str, int] = sock.getsockname()
    guest.decide = to_guest(SERVICE, GUEST4, GUEST6)
    guest.dp.listen(sock.detach(), socket.IPPROTO_UDP, number)
    return where


def flood(where: tuple[str, int], count: int, guest: Guest) -> None:
    """Datagrams, each from an address of its own."""
    for i in range(count):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind((f"127.{1 + i // 250}.1.{1 + i % 250}", 0))
            peer.sendto(b"flood", where)
        wait_delivered()
        guest.turn()


def test_a_listener_has_a_rate_and_then_a_rest(guest: Guest) -> None:
    where = listener_of(guest)
    flood(where, 700, guest)
    assert guest.counter("miss") <= 512
    guest.drain()
    assert guest.counter("miss") <= 512
    before = guest.counter("miss")
    guest.advance(1)  # the bucket fills, the listener is heard again
    flood(where, 5, guest)
    guest.wait_for(lambda: guest.counter("miss") > before, "a miss")


def test_a_listener_that_rests_is_not_read(guest: Guest) -> None:
    where = listener_of(guest)
    flood(where, 700, guest)
    dropped = guest.counter("drop_rate_outside")
    flood(where, 100, guest)  # stay in its queue, and cost nothing
    assert guest.counter("drop_rate_outside") == dropped
    guest.advance(0.006)
    assert guest.counter("drop_rate_outside") > dropped


def test_what_nobody_answers_ends_soon(guest: Guest) -> None:
    where = listener_of(guest)
    guest.decide = inward
    flood(where, 2, guest)
    answered, _ = guest.flows()
    guest.advance(1)
    guest.send(udp(b"yes", sport=SERVICE, dport=answered.eport0))
    guest.advance(10)
    assert [flow.flow_id for flow in guest.flows()] == [answered.flow_id]


def test_python_is_told_some_misses_at_a_time(guest: Guest) -> None:
    guest.decide = later
    for sport in range(1000, 1100):
        guest.put(syn(sport=sport))
    told = [len(guest.dp.turn(now=guest.now)) for _ in range(9)]
    assert max(told) == 16
    assert sum(told) == 100


def test_open_flows_come_before_python(guest: Guest, server: Server) -> None:
    server.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    peer, _ = inbound(guest, server)
    bulk = Connection.accept(guest, options=SCALED)
    bulk.say("A", window=4096)
    guest.decide = later
    peer.setblocking(False)
    sent = peer.send(bytes(2 << 20))
    wait_unread(peer, 700 << 10)
    guest.put(syn(sport=4444))
    before = guest.counter("tap_tx_bytes")
    assert len(guest.dp.turn(now=guest.now)) == 1
    share = guest.counter("tap_tx_bytes") - before
    assert 640 << 10 < share < sent


def test_one_remote_leaves_room_for_others(guest: Guest) -> None:
    where = listener_of(guest)
    for _ in range(400):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.9.9", 0))
            peer.sendto(b"flood", where)
        wait_delivered()
        guest.turn()
    assert guest.counter("miss") <= 256
    assert guest.counter("drop_rate_outside") > 100
    opened = guest.counter("miss")
    flood(where, 3, guest)
    assert guest.counter("miss") == opened + 3


def test_the_outside_has_half_of_the_table(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    guest = make_guest(options={"max_flows": 64})
    where = listener_of(guest)
    flood(where, 60, guest)
    assert len(guest.flows()) == 32
    assert guest.counter("drop_outside") == 28
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(*(udp(b"own", sport=2000 + i) for i in range(20)))
    assert len(guest.flows()) == 52  # its own are let in
    guest.decide = to_guest(SERVICE, GUEST4, GUEST6)
    guest.advance(3)  # the first from outside are idle: they go for new ones
    flood(where, 10, guest)
    assert guest.counter("flows_evicted") >= 8
    assert sum(flow.pif0 == Pif.TAP for flow in guest.flows()) == 20


def test_an_active_flow_is_not_evicted(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    guest = make_guest(options={"max_flows": 32})
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(*(udp(b"old", sport=2000 + i) for i in range(31)))
    guest.advance(3)
    guest.send(udp(b"used", sport=2000))
    for i in range(25):
        guest.send(udp(b"new", sport=3000 + i))
        guest.advance(0.02)  # closed entries are free again
    ports = {flow.eport0 for flow in guest.flows()}
    assert guest.counter("flows_evicted") >= 24
    assert {2000, 3024} <= ports


def by_last_octets(miss: _native.Miss) -> Verdict:
    """198.51.A.B is 127.0.A.B, of the same port."""
    where = inany(ip_address(f"127.0.{miss.oaddr[-2]}.{miss.oaddr[-1]}"))
    return Verdict(Action.FORWARD, Pif.HOST, where, miss.oport, UNSPECIFIED, 0, 1)


@contextmanager
def few_descriptors(most: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_flows_that_share_a_socket_are_not_bounded_by_descriptors(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    """600 of them, of which 256 are kept; one flow is each other socket's own."""
    port, remotes, alone = udp_peer.getsockname()[1], 1500, 340
    with few_descriptors(600):
        guest = make_guest()
        guest.decide = by_last_octets
        for n in range(remotes):
            guest.send(udp(dst=f"198.51.{n // 250}.{n % 250}", sport=999, dport=port))
        guest.advance(3)
        guest.send(udp(dst="198.51.99.1", sport=999, dport=port))
        assert len(guest.flows()) == remotes + 1
        assert guest.counter("flows_evicted") == 0

        for n in range(alone):  # a socket each: the first of these are idle and go
            guest.send(udp(dst="198.51.99.2", sport=2000 + n, dport=port))
            guest.advance(0.02)
        evicted = guest.counter("flows_evicted")
        ports = [flow.eport0 for flow in guest.flows()]
        assert ports.count(999) == remotes + 1
        assert evicted == alone - (len(ports) - remotes - 1) > 10
        assert guest.counter("sock_emfile") == 0


def test_the_last_flow_of_a_shared_socket_gives_it_back(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    port = udp_peer.getsockname()[1]
    with few_descriptors(600):
        guest = make_guest()
        guest.decide = by_last_octets
        for n in range(3):
            guest.send(udp(dst=f"198.51.99.{n}", sport=999, dport=port))
        first, second, third = (flow.flow_id for flow in guest.flows())
        for flow_id in (first, third):
            guest.dp.close_flow(flow_id, FlowWhy.ASKED)
        guest.advance(1)
        for n in range(322):  # as many as there are before room is made
            guest.send(udp(dst="198.51.99.9", sport=2000 + n, dport=port))
        guest.advance(3)
        guest.send(udp(dst="198.51.99.9", sport=9999, dport=port))
    assert guest.counter("flows_evicted") == 1
    assert second not in {flow.flow_id for flow in guest.flows()}


def test_services_are_asked_within_a_rate_of_each_kind(guest: Guest) -> None:
    request = Ether(src=GUEST_MAC) / ARP(psrc=GUEST4, pdst=REMOTE4)
    for _ in range(20):
        guest.send(*(request for _ in range(50)))
    assert len(guest.punts) <= 128
    guest.send(udp(b"lease", sport=68, dport=67))  # another kind has its own
    assert guest.kinds[-1] == PuntKind.DHCP4
    assert guest.counter("punt") + guest.counter("drop_punt_limit") == 1001


def test_no_descriptor_for_tcp_is_told(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    with few_descriptors(3):
        guest.send(syn())
    names = [name for name, *_ in _native.EVENTS]
    assert "sock_limit" in {names[told.event] for told in guest.dp.events(100)}


def test_processor_time_of_turns_is_told_besides_their_length() -> None:
    """The clock also counts while others have the processor, this does not."""
    guest, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    tap.setblocking(False)
    dp = _native.Datapath(tap.detach(), mtu=1500, our_mac=bytes(6))
    stopped = threading.Event()

    def keep_busy() -> None:
        with suppress(OSError):  # the datapath has ended
            while not stopped.is_set():
                guest.send(bytes(72))

    feeder = threading.Thread(target=keep_busy)
    feeder.start()
    begun = time.thread_time_ns()
    try:
        while not (told := dp.counters())["turn_cpu_ns_max"]:
            dp.turn()
        assert told["turn_cpu_ns_max"] <= time.thread_time_ns() - begun
    finally:
        stopped.set()
        dp.close()
        feeder.join()
        guest.close()

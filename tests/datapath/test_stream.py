# SPDX-License-Identifier: GPL-2.0-or-later
"""A guest on a stream socket: slow, hostile, leaving and coming back."""

import errno
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from passtpy import _native
from tests.datapath.conftest import Server
from tests.datapath.guest import QUIET_S, Guest, forward_to
from tests.datapath.link import StreamLink
from tests.datapath.packets import syn, tcp, udp
from tests.datapath.tcp_peer import (
    arrived,
    established,
    full_server,
    inbound,
    read_exactly,
)
from tests.lab.ready import readable

MakeGuest = Callable[..., Guest]


@pytest.fixture
def vm(make_on: MakeGuest) -> Guest:
    """A guest on a stream socket, MTU as a virtual machine has it."""
    return make_on("stream", mtu=1500)


@contextmanager
def refused(number: int) -> Iterator[None]:
    """What is done fails with this errno."""
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        yield
    assert caught.value.errno == number


def come_back(guest: Guest) -> None:
    """Connect anew: a socket pair in the place of the one that ended."""
    guest.sock.close()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    guest.dp.attach(theirs.detach())
    guest.sock = ours
    guest.link = StreamLink(ours)


def leave(guest: Guest) -> None:
    """Close the guest's end, and let the datapath see it."""
    guest.sock.close()
    seen = len(guest.gone)
    guest.wait_for(lambda: len(guest.gone) > seen, "the end of the guest")


def test_super_segments_come_and_go_at_mtu_1500(vm: Guest, server: Server) -> None:
    conn, peer = established(vm, server)
    stream = random.Random(1).randbytes(7 * 1460)  # within the first window
    for start in range(0, len(stream), 1460):
        vm.put(conn.segment("A", stream[start : start + 1460]))
        conn.seq += 1460
    packets = vm.flows()[0].packets0
    vm.turn()
    assert read_exactly(peer, len(stream)) == stream
    assert vm.flows()[0].packets0 == packets + 1  # one super-segment
    vm.drain()
    peer.sendall(stream)
    assert conn.read(len(stream)) == stream


def test_slow_guest_loses_no_datagram(vm: Guest, udp_peer: socket.socket) -> None:
    """The socket of the guest is full: datagrams wait in the host's socket."""
    vm.decide = forward_to(udp_peer.getsockname()[1])
    vm.send(udp(b"open"))
    _, address = udp_peer.recvfrom(100)
    sent = 0
    while not vm.counter("tap_blocked"):
        for _ in range(20):
            udp_peer.sendto(struct.pack("!I", sent) + bytes(1400), address)
            sent += 1
            vm.turn()
    for _ in range(50):  # these are not even read now
        udp_peer.sendto(struct.pack("!I", sent) + bytes(1400), address)
        sent += 1
    vm.turn()
    numbers = [struct.unpack("!I", f.payload[:4])[0] for f in vm.drain()]
    assert numbers == list(range(sent))
    assert vm.counter("udp_drop_tap") == 0


def test_slow_guest_gets_every_byte(vm: Guest, server: Server) -> None:
    conn, peer = established(vm, server)
    conn.acknowledge(window=65535)
    stream = random.Random(2).randbytes(300_000)
    peer.setblocking(False)
    got = b""
    pending = memoryview(stream)
    while len(got) < len(stream):
        if pending:
            with suppress(BlockingIOError):
                pending = pending[peer.send(pending) :]
        vm.turn()
        for frame in vm.drain():
            if frame.tcp.seq == conn.ack:
                got += frame.payload
                conn.ack = (conn.ack + len(frame.payload)) % 2**32
        conn.acknowledge(window=65535)
    assert got == stream


def test_blocked_daemon_sleeps(vm: Guest, udp_peer: socket.socket) -> None:
    """A full guest and a host socket full of datagrams: nothing to be done."""
    vm.decide = forward_to(udp_peer.getsockname()[1])
    vm.send(udp(b"open"))
    _, address = udp_peer.recvfrom(100)
    while not vm.counter("tap_blocked"):
        udp_peer.sendto(bytes(1400), address)
        vm.turn()
    udp_peer.sendto(bytes(1400), address)
    vm.turn()
    assert readable([vm.dp.fileno()], QUIET_S) == []
    vm.drain()


@pytest.mark.parametrize("length", [0, 13, 65536, 0xFFFFFFFF])
def test_hostile_length_costs_only_the_connection(
    vm: Guest, server: Server, length: int
) -> None:
    conn, peer = established(vm, server)
    vm.sock.send(struct.pack("!I", length))
    vm.turn()
    assert vm.gone == [errno.EPROTO]
    assert len(vm.flows()) == 1
    come_back(vm)
    conn.send(b"still here")
    assert read_exactly(peer, 10) == b"still here"


def test_flow_survives_while_its_guest_is_away(vm: Guest, server: Server) -> None:
    conn, peer = established(vm, server)
    leave(vm)
    assert vm.gone == [errno.ENOTCONN]
    peer.sendall(b"into the void")
    vm.advance(300)  # nobody is there to time out
    assert len(vm.flows()) == 1
    come_back(vm)
    conn.expect("PA", b"into the void")
    conn.send(b"back")
    assert read_exactly(peer, 4) == b"back"


def test_what_was_lost_with_the_connection_is_sent_again(
    vm: Guest, server: Server
) -> None:
    conn, peer = established(vm, server)
    peer.sendall(b"lost")
    vm.wait_for(lambda: vm.flows()[0].bytes1 == 4, "the segment")
    leave(vm)
    come_back(vm)
    vm.advance(1)
    conn.expect("PA", b"lost")


def test_guest_that_was_away_for_long_is_served_at_once(
    vm: Guest, server: Server
) -> None:
    """A full window was under way; time-outs meanwhile teach nothing of the guest."""
    conn, peer = established(vm, server)
    conn.acknowledge(window=20_000)
    stream = random.Random(3).randbytes(20_000)
    peer.sendall(stream)
    vm.wait_for(lambda: vm.flows()[0].bytes1 == len(stream), "a full window")
    leave(vm)
    for _ in range(430):
        vm.advance(0.1)
    come_back(vm)
    vm.drain()  # nothing was told to be lost yet
    vm.advance(0.06)
    assert conn.read(len(stream)) == stream


def test_flows_come_back_a_few_at_a_time(vm: Guest, server: Server) -> None:
    count, batch = 200, 64
    peers = [established(vm, server, sport=20_000 + n)[1] for n in range(count)]
    for peer in peers:
        peer.sendall(b"lost")
    vm.wait_for(lambda: all(f.bytes1 == 4 for f in vm.flows()), "the segments")
    leave(vm)
    for _ in range(100):
        vm.advance(0.1)
    come_back(vm)
    came: list[int] = []
    for _ in range(80):
        vm.advance(0.001)
        came.append(len(arrived(vm)))
    assert sum(came) == count
    assert max(came) <= batch


def test_guest_that_was_started_anew_resets_old_flows(
    vm: Guest, server: Server
) -> None:
    conn, peer = established(vm, server)
    leave(vm)
    peer.sendall(b"hello?")
    come_back(vm)
    frame = vm.expect("PA", payload=b"hello?")
    vm.send(tcp("R", seq=frame.tcp.ack, ack=0))
    with pytest.raises(ConnectionResetError):
        peer.recv(1)
    assert conn.guest is vm


def test_guest_that_leaves_amid_handshakes_is_not_awaited(
    vm: Guest, server: Server
) -> None:
    """Nobody would come back to finish them; what stands is kept for that."""
    established(vm, server)
    inbound(vm, server)
    vm.expect("S")
    with full_server() as port:
        for sport, to in ((50001, server.port), (50002, port)):
            vm.decide = forward_to(to)
            vm.send(syn(sport=sport))
        vm.expect("SA", dport=50001)
        leave(vm)
        assert len(vm.flows()) == 4
        for _ in range(30):
            vm.advance(5)
        assert len(vm.flows()) == 1
        for _ in range(30):
            vm.advance(300)
        assert len(vm.flows()) == 1


def test_inbound_connection_waits_for_a_guest(vm: Guest, server: Server) -> None:
    leave(vm)
    listener = server.sock.dup()
    listener.setblocking(False)
    vm.dp.listen(listener.detach(), socket.IPPROTO_TCP, 3)
    client = socket.create_connection(server.sock.getsockname()[:2])
    server.accepted.append(client)
    vm.turn()
    assert vm.misses == []
    come_back(vm)
    vm.wait_for(lambda: len(vm.misses) == 1, "the miss")


def test_inbound_connection_over_a_stream(vm: Guest, server: Server) -> None:
    inbound(vm, server)
    vm.expect("S", dport=80)


def test_second_guest_is_refused(vm: Guest) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    with ours, theirs, refused(errno.EBUSY):
        vm.dp.attach(theirs.fileno())


def test_no_stream_socket_is_refused(vm: Guest) -> None:
    vm.dp.detach()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs, refused(errno.EPROTOTYPE):
        vm.dp.attach(theirs.fileno())


def test_detached_guest_is_not_told_as_gone(vm: Guest) -> None:
    vm.dp.detach()
    vm.dp.detach()
    vm.turn()
    assert vm.gone == []
    vm.dp.inject(bytes(60))
    come_back(vm)
    vm.expect_nothing()


def test_mtu_whose_frames_have_no_length_there() -> None:
    with refused(errno.ERANGE):
        _native.Datapath(-1, backend="stream", mtu=65522, our_mac=bytes(6))


def test_a_tun_device_is_not_attached(make_on: MakeGuest) -> None:
    guest = make_on("vnet")
    with refused(errno.EOPNOTSUPP):
        guest.dp.attach(0)

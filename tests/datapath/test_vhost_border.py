# SPDX-License-Identifier: GPL-2.0-or-later
"""Rings of a virtual machine: what the border takes, and what becomes of flows."""

import errno
import os
import random
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from passtpy import _native
from tests.datapath.conftest import Server
from tests.datapath.guest import QUIET_S, Guest, forward_to
from tests.datapath.packets import udp
from tests.datapath.tcp_peer import established, read_exactly
from tests.datapath.vring import (
    EVENT_IDX,
    FROM_GUEST,
    GUEST_BASE,
    HEADER,
    TO_GUEST,
    USER_BASE,
    Ram,
    Vring,
    VringLink,
    heard,
)
from tests.lab.descriptors import Opened
from tests.lab.ready import readable

MakeGuest = Callable[..., Guest]
MRG_RXBUF, VERSION_1 = 1 << 15, 1 << 32
GUEST_USO = 3 << 54


@pytest.fixture
def vm(make_on: MakeGuest) -> Guest:
    """A guest whose driver has started its rings, MTU as a virtual machine has it."""
    return make_on("vhost", mtu=1500)


@pytest.fixture
def ram() -> Iterator[Ram]:
    """Memory of a guest, not mapped by anybody else yet."""
    ram = Ram(1 << 20)
    yield ram
    ram.close()


@contextmanager
def refused(number: int) -> Iterator[None]:
    """What is done fails with this errno."""
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        yield
    assert caught.value.errno == number


def card(guest: Guest) -> VringLink:
    """The guest's network card."""
    assert isinstance(guest.link, VringLink)
    return guest.link


def restart(guest: Guest, **options: Any) -> VringLink:
    """Plug in another card, as a machine that was started anew."""
    guest.dp.detach()
    card(guest).close()
    guest.link = VringLink(**options)
    guest.link.start(guest.dp)
    return guest.link


# What is refused


def test_offers_what_the_guest_may_negotiate() -> None:
    bits = {0, 1, 7, 8, 9, 11, 12, 13, 15, 28, 29, 32, 54, 55, 56}
    assert sum(1 << bit for bit in bits) == _native.VHOST_FEATURES


@pytest.mark.taps("vnet", "plain", "stream", why="the one that has them")
def test_other_taps_have_no_rings(guest: Guest, ram: Ram) -> None:
    ring = Vring(ram, 64)
    for attempt in (
        lambda: guest.dp.vhost_features(0),
        lambda: guest.dp.vhost_memory([]),
        lambda: guest.dp.vhost_enable(0, True),
        lambda: guest.dp.vhost_call(0, -1),
        lambda: guest.dp.vhost_stop(0),
        lambda: ring.start(guest.dp, 0),
    ):
        with refused(errno.EOPNOTSUPP):
            attempt()
    ring.close()


def test_rings_are_no_socket(vm: Guest) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, refused(errno.EOPNOTSUPP):
        vm.dp.attach(theirs.fileno())


def test_features_that_were_not_offered(vm: Guest) -> None:
    vm.dp.detach()
    for bit in (2, 5, 14, 30, 34, 63):
        with refused(errno.EINVAL):
            vm.dp.vhost_features(1 << bit)
    with pytest.raises(ValueError, match="features"):
        vm.dp.vhost_features(1 << 64)


def test_features_of_a_running_ring_stay(vm: Guest) -> None:
    with refused(errno.EBUSY):
        vm.dp.vhost_features(0)


@pytest.mark.parametrize(
    ("change", "number"),
    [
        ({"size": 0}, errno.EINVAL),
        ({"guest": 2**64 - 4096}, errno.EINVAL),
        ({"user": 2**64 - 4096}, errno.EINVAL),
        ({"offset": 4096}, errno.ENXIO),
        ({"size": 2**64 - 1}, errno.EINVAL),
        ({"fd": -1}, errno.EBADF),
        ({"fd": 0}, errno.EBADF),
    ],
)
def test_memory_that_is_none(
    vm: Guest, ram: Ram, change: dict[str, int], number: int
) -> None:
    names = ("guest", "size", "user", "offset", "fd")
    region = {**dict(zip(names, ram.region(), strict=True)), **change}
    if region["fd"] == 0:
        region["fd"] = vm.dp.fileno()
    values = (*(region[n] for n in names),)
    with refused(number):
        vm.dp.vhost_memory([values])  # type: ignore[list-item]
    vm.send(udp(b"the old memory is still there"))
    assert vm.counter("miss") == 1


def test_memory_in_too_many_pieces(vm: Guest, ram: Ram) -> None:
    def pieces(n: int) -> list[tuple[int, int, int, int, int]]:
        return [(i << 20, 4096, i << 20, i * 4096, ram.fd) for i in range(n)]

    with refused(errno.E2BIG):
        vm.dp.vhost_memory(pieces(33))
    vm.dp.vhost_memory(pieces(32))
    with refused(errno.EINVAL):
        vm.dp.vhost_memory([ram.region(), ram.region()])


@pytest.mark.parametrize("region", [(), (1, 2, 3, 4), [1, 2, 3, 4, 5], "1", None])
def test_region_that_is_no_tuple_of_five(vm: Guest, region: Any) -> None:
    with pytest.raises(TypeError):
        vm.dp.vhost_memory([region])
    with pytest.raises(TypeError):
        vm.dp.vhost_memory(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"kick_fd": -1}, ValueError),
        ({"base": 65536}, ValueError),
        ({"base": -1}, ValueError),
        ({"size": 2**32}, ValueError),
        ({"desc": 2**64}, ValueError),
        ({"call_fd": -2}, ValueError),
        ({"size": 0}, errno.EINVAL),
        ({"size": 48}, errno.EINVAL),
        ({"size": 65536}, errno.EINVAL),
        ({"desc": USER_BASE + 8}, errno.EINVAL),
        ({"desc": GUEST_BASE}, errno.EFAULT),
        ({"avail": USER_BASE + (1 << 20) - 4}, errno.EFAULT),
        ({"used": USER_BASE - 4}, errno.EFAULT),
        ({"index": 2}, errno.EINVAL),
        ({"kick_fd": 0}, errno.EPERM),
    ],
)
def test_ring_that_is_none(
    vm: Guest, ram: Ram, change: dict[str, int], expected: type[Exception] | int
) -> None:
    vm.dp.detach()
    vm.dp.vhost_memory([ram.region()])
    ring = Vring(ram, 64)
    values = {
        "index": 0,
        "size": 64,
        "desc": USER_BASE + ring.desc,
        "used": USER_BASE + ring.used,
        "avail": USER_BASE + ring.avail,
        "base": 0,
        "kick_fd": ring.kick_fd,
        "call_fd": ring.call_fd,
        **change,
    }
    if values["kick_fd"] == 0:
        values["kick_fd"] = ram.fd  # nothing that can be waited for
    if isinstance(expected, int):
        with refused(expected):
            vm.dp.vhost_ring(values.pop("index"), **values)
    else:
        with pytest.raises(expected):
            vm.dp.vhost_ring(values.pop("index"), **values)
    assert heard(ring.kick_fd) == 0  # still ours, and open
    ring.close()


def test_ring_that_runs_is_not_started_again(vm: Guest) -> None:
    with refused(errno.EBUSY):
        card(vm).rx.start(vm.dp, TO_GUEST)
    vm.dp.vhost_stop(TO_GUEST)
    with refused(errno.ENOTCONN):
        vm.dp.vhost_enable(TO_GUEST, True)
    with refused(errno.ENOTCONN):
        vm.dp.vhost_call(TO_GUEST, -1)
    with refused(errno.EINVAL):
        vm.dp.vhost_stop(2)


# Descriptors


def test_descriptors_are_taken_over_and_closed(opened: Opened) -> None:
    before = opened.all()
    guest = Guest(backend="vhost")
    link = card(guest)
    guest.dp.vhost_call(0, os.dup(link.rx.call_fd))
    guest.dp.vhost_stop(0)
    guest.dp.vhost_stop(0)
    link.rx.reset()
    link.rx.start(guest.dp, 0)
    guest.dp.detach()
    guest.dp.detach()
    link.start(guest.dp)
    guest.close()
    assert opened.all() == before


def test_call_goes_where_it_was_said_last(vm: Guest, udp_peer: socket.socket) -> None:
    vm.decide = forward_to(udp_peer.getsockname()[1])
    vm.send(udp(b"open"))
    _, address = udp_peer.recvfrom(100)
    fresh = os.eventfd(0, os.EFD_NONBLOCK)
    vm.dp.vhost_call(TO_GUEST, os.dup(fresh))
    heard(fresh)
    heard(card(vm).rx.call_fd)
    udp_peer.sendto(b"answer", address)
    vm.wait_for(lambda: vm.counter("tap_tx_frames") == 1, "the answer")
    assert heard(fresh) == 1
    assert heard(card(vm).rx.call_fd) == 0
    vm.dp.vhost_call(TO_GUEST, -1)
    udp_peer.sendto(b"another", address)
    vm.wait_for(lambda: vm.counter("tap_tx_frames") == 2, "another")
    assert heard(fresh) == 0
    os.close(fresh)


# Frames


@pytest.mark.parametrize(
    "features",
    [
        _native.VHOST_FEATURES,
        _native.VHOST_FEATURES & ~EVENT_IDX,
        VERSION_1 | MRG_RXBUF,
        VERSION_1 | EVENT_IDX | MRG_RXBUF,
    ],
    ids=["all", "flags", "plain", "plain-events"],
)
def test_streams_are_byte_exact_both_ways(
    vm: Guest, server: Server, features: int
) -> None:
    restart(vm, features=features)
    conn, peer = established(vm, server)
    stream = random.Random(3).randbytes(7 * 1460)  # within the first window
    for start in range(0, len(stream), 1460):
        vm.put(conn.segment("A", stream[start : start + 1460]))
        conn.seq += 1460
    vm.turn()
    assert read_exactly(peer, len(stream)) == stream
    vm.drain()
    peer.sendall(stream)
    assert conn.read(len(stream)) == stream


def test_single_segments_of_a_plain_guest_are_merged(vm: Guest, server: Server) -> None:
    restart(vm, features=VERSION_1 | MRG_RXBUF)
    conn, peer = established(vm, server)
    packets = vm.flows()[0].packets0
    for _ in range(5):
        vm.put(conn.segment("A", bytes(1460)))
        conn.seq += 1460
    vm.turn()
    assert len(read_exactly(peer, 5 * 1460)) == 5 * 1460
    assert vm.flows()[0].packets0 == packets + 1


def test_one_call_for_a_batch(vm: Guest, udp_peer: socket.socket) -> None:
    restart(vm, features=_native.VHOST_FEATURES & ~GUEST_USO & ~EVENT_IDX)
    vm.decide = forward_to(udp_peer.getsockname()[1])
    vm.send(udp(b"open"))
    _, address = udp_peer.recvfrom(100)
    heard(card(vm).rx.call_fd)
    for _ in range(20):
        udp_peer.sendto(b"answer", address)
    vm.wait_for(lambda: vm.counter("tap_tx_frames") >= 20, "the answers")
    assert 1 <= heard(card(vm).rx.call_fd) < 10


# Back-pressure


def tight(guest: Guest, **options: Any) -> VringLink:
    """A card with few buffers, which its driver does not give again by itself."""
    return restart(guest, rx_buffers=8, rx_bytes=2048, **options)


def test_datagrams_wait_in_sockets_when_buffers_run_out(
    vm: Guest, udp_peer: socket.socket
) -> None:
    tight(vm, features=_native.VHOST_FEATURES & ~GUEST_USO)
    vm.decide = forward_to(udp_peer.getsockname()[1])
    vm.send(udp(b"open"))
    _, address = udp_peer.recvfrom(100)
    sent = 0
    while not vm.counter("tap_blocked"):
        udp_peer.sendto(struct.pack("!I", sent) + bytes(1000), address)
        sent += 1
        vm.turn()
    for _ in range(20):  # these are not even read now
        udp_peer.sendto(struct.pack("!I", sent) + bytes(1000), address)
        sent += 1
    vm.turn()
    assert readable([vm.dp.fileno()], QUIET_S) == []
    numbers = [struct.unpack("!I", f.payload[:4])[0] for f in vm.drain()]
    assert numbers == list(range(sent))
    assert vm.counter("udp_drop_tap") == vm.counter("tap_tx_errors") == 0


@pytest.mark.parametrize("features", [_native.VHOST_FEATURES, VERSION_1 | MRG_RXBUF])
def test_stream_through_few_buffers_is_byte_exact(
    vm: Guest, server: Server, features: int
) -> None:
    """Super-segments of 64 KiB for a guest that has 16 KiB of buffers."""
    tight(vm, features=features)
    conn, peer = established(vm, server)
    conn.acknowledge(window=65535)
    stream = random.Random(4).randbytes(400_000)
    peer.setblocking(False)
    got, pending = b"", memoryview(stream)
    while len(got) < len(stream):
        if pending:
            pending = pending[peer.send(pending[:60000]) :]
        for frame in vm.drain():
            if frame.tcp.seq == conn.ack:
                got += frame.payload
                conn.ack = (conn.ack + len(frame.payload)) % 2**32
        conn.acknowledge(window=65535)
    assert got == stream
    assert vm.counter("tcp_rto") == vm.counter("tcp_retrans") == 0
    assert vm.counter("tap_blocked") > 0


# Coming, going, lying


def test_stopped_ring_tells_where_it_was_and_goes_on(vm: Guest) -> None:
    for i in range(3):
        vm.send(udp(b"x", sport=1000 + i))
    assert vm.dp.vhost_stop(FROM_GUEST) == 3
    vm.put(udp(b"x", sport=2000))
    vm.turn()
    assert vm.counter("miss") == 3
    card(vm).tx.start(vm.dp, FROM_GUEST, base=3)
    vm.turn()
    assert vm.counter("miss") == 4


def test_frames_of_a_disabled_ring_are_thrown_away(vm: Guest) -> None:
    vm.dp.vhost_enable(FROM_GUEST, False)
    vm.send(udp())
    assert vm.counter("drop_vhost_disabled") == 1
    vm.dp.vhost_enable(FROM_GUEST, True)
    vm.send(udp())
    assert vm.counter("miss") == 1


def test_flow_survives_another_card(vm: Guest, server: Server) -> None:
    conn, peer = established(vm, server)
    vm.dp.detach()
    peer.sendall(b"into the void")
    vm.advance(300)
    assert len(vm.flows()) == 1
    restart(vm)
    conn.expect("PA", b"into the void")
    conn.send(b"back")
    assert read_exactly(peer, 4) == b"back"


def test_host_is_not_read_while_the_ring_is_disabled(vm: Guest, server: Server) -> None:
    conn, peer = established(vm, server)
    vm.dp.vhost_enable(TO_GUEST, False)
    peer.sendall(b"patience")
    vm.expect_nothing()
    vm.dp.vhost_enable(TO_GUEST, True)
    conn.expect("PA", b"patience")


def test_lying_ring_is_told_and_can_be_started_again(vm: Guest) -> None:
    link = card(vm)
    vm.dp.events()
    link.tx.offer(9999)
    link.tx.kick(link.tx.next_avail - 1)
    vm.turn()
    assert vm.counter("vhost_broken") == 1
    assert vm.gone == []
    told = [e for e in vm.dp.events() if _native.EVENTS[e.event][0] == "vhost_broken"]
    assert [e.args[:2] for e in told] == [(FROM_GUEST, 2)]
    vm.dp.vhost_stop(FROM_GUEST)
    link.tx.reset()
    link.tx.start(vm.dp, FROM_GUEST)
    vm.send(udp())
    assert vm.counter("miss") == 1


@pytest.mark.parametrize("way", ["from", "to"])
def test_memory_that_vanishes_ends_the_session_and_nothing_else(
    vm: Guest, server: Server, way: str
) -> None:
    conn, peer = established(vm, server)
    os.ftruncate(card(vm).ram.fd, 0)
    if way == "to":
        peer.sendall(b"into the void")
        vm.wait_for(lambda: bool(vm.gone), "the end")
    else:
        os.write(card(vm).tx.kick_fd, struct.pack("=Q", 1))
        vm.turn()
    assert vm.gone == [errno.EFAULT]
    assert vm.counter("vhost_memory_lost") == 1
    os.ftruncate(card(vm).ram.fd, card(vm).ram.size)  # for our own mapping
    restart(vm)
    if way == "to":  # sent into the void
        vm.advance(1)
        conn.expect("PA", b"into the void")
    conn.send(b"still here")
    assert read_exactly(peer, 10) == b"still here"


def test_memory_can_be_mapped_anew_while_rings_run(vm: Guest, server: Server) -> None:
    conn, peer = established(vm, server)
    vm.dp.vhost_memory([card(vm).ram.region()])
    conn.send(b"there")
    assert read_exactly(peer, 5) == b"there"
    vm.drain()
    peer.sendall(b"back")
    conn.expect("PA", b"back")


def test_header_alone_is_no_frame(vm: Guest) -> None:
    tx = card(vm).tx
    tx.add(tx.ram.take(64), HEADER)
    tx.add(tx.ram.take(64), HEADER - 1)
    tx.kick(tx.next_avail - 2)
    vm.turn()
    assert vm.counter("drop_short") == 1
    assert vm.counter("drop_vhost_length") == 1

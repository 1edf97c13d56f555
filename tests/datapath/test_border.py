# SPDX-License-Identifier: GPL-2.0-or-later
"""The border itself: what Datapath takes, refuses, tells, and does not leak."""

import errno
import gc
import os
import socket
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.l2 import Ether
from scapy.utils import RawPcapReader

from passtpy import _native
from passtpy.addr import UNSPECIFIED
from passtpy.flow import Action, FlowState, FlowType, FlowWhy, Pif, Verdict, flows_in
from tests.datapath.conftest import Server
from tests.datapath.guest import Guest, answer, forward_to, later
from tests.datapath.packets import OUR_MAC, syn, udp
from tests.lab.alone import alone
from tests.lab.descriptors import Opened
from tests.lab.ready import readable

MAC = bytes.fromhex(OUR_MAC.replace(":", ""))
GOOD = Verdict(Action.DROP, Pif.HOST, bytes(16), 1, bytes(16), 0, 1, 0, 0)


def make(**options: Any) -> _native.Datapath:
    ours, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.close()
    base = {"mtu": 1500, "our_mac": MAC, "virtual_time": True}
    try:
        return _native.Datapath(tap.fileno(), **{**base, **options})
    except BaseException:
        tap.close()
        raise
    finally:
        tap.detach()


# Arguments


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"mtu": 67}, ValueError),
        ({"mtu": 65536}, ValueError),
        ({"our_mac": b"12345"}, ValueError),
        ({"our_mac": "9a:55:9a:55:9a:55"}, TypeError),
        ({"guest_mac": b"1234567"}, ValueError),
        ({"max_flows": 0}, ValueError),
        ({"max_flows": 1 << 40}, ValueError),
        ({"queue_frames": 0}, ValueError),
        ({"secret": b"short"}, ValueError),
        ({"mtu": "1500"}, TypeError),
        ({"no_such": 1}, TypeError),
    ],
)
def test_bad_option_is_refused(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        make(**options)


def test_bad_fd_is_an_os_error() -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        _native.Datapath(99999, mtu=1500, our_mac=MAC)


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (None, TypeError),
        (list(GOOD), TypeError),
        (GOOD[:9], TypeError),
        ((5, *GOOD[1:]), ValueError),
        ((-1, *GOOD[1:]), ValueError),
        (("0", *GOOD[1:]), TypeError),
        ((0, 4, *GOOD[2:]), ValueError),
        ((0, 1, b"four", *GOOD[3:]), ValueError),
        ((0, 1, "::1", *GOOD[3:]), TypeError),
        ((*GOOD[:3], 65536, *GOOD[4:]), ValueError),
        ((*GOOD[:5], 1 << 70, 1, 0, 0, 0), ValueError),
        ((*GOOD[:6], 1 << 32, 0, 0, 0), ValueError),
        ((*GOOD[:7], 1 << 32, 0, 0), ValueError),
        ((*GOOD[:8], 3, 0), ValueError),
        ((*GOOD[:9], 2), ValueError),
    ],
)
def test_bad_verdict_is_refused_and_the_miss_waits(
    guest: Guest, verdict: Any, error: type[Exception]
) -> None:
    guest.decide = later
    guest.send(syn())
    with pytest.raises(error):
        guest.dp.open(guest.misses[0].miss_id, verdict)
    guest.dp.open(guest.misses[0].miss_id, GOOD)
    assert guest.counter("drop_verdict") == 1


@pytest.mark.parametrize("miss_id", [0, 1023, 1024, 1 << 32, (1 << 64) - 1])
def test_invented_miss_id_hits_nothing(guest: Guest, miss_id: int) -> None:
    assert guest.open(miss_id, GOOD) == -errno.ESTALE
    assert guest.counter("miss_late") == 1


def test_turn_takes_names_and_refuses_others(guest: Guest) -> None:
    assert guest.dp.turn(guest.now, 10, spin_us=0) == ()
    with pytest.raises(TypeError):
        guest.dp.turn(when=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        guest.dp.turn(guest.now, now=guest.now)  # type: ignore[misc]
    with pytest.raises(ValueError, match="now"):
        guest.dp.turn(now=-1)
    with pytest.raises(ValueError, match="virtual"):
        guest.dp.turn()


def test_closed_datapath_refuses_everything(guest: Guest) -> None:
    guest.dp.close()
    guest.dp.close()
    assert guest.dp.closed
    for call in (guest.dp.fileno, guest.dp.counters, guest.dp.flows, guest.dp.events):
        with pytest.raises(ValueError, match="closed"):
            call()
    with pytest.raises(ValueError, match="closed"):
        guest.dp.turn(now=1)


@pytest.mark.parametrize("frame", [b"", b"x" * 13, bytes(70_000)])
def test_injected_frame_must_be_a_frame(guest: Guest, frame: bytes) -> None:
    with pytest.raises(ValueError, match="frame"):
        guest.dp.inject(frame)


def test_attributes(guest: Guest) -> None:
    guest.dp.guest_mac = b"\2\0\0\0\0\1"
    guest.dp.scope_id = 7
    guest.dp.log_level = 3
    assert (guest.dp.guest_mac, guest.dp.scope_id) == (b"\2\0\0\0\0\1", 7)
    with pytest.raises(ValueError, match="log_level"):
        guest.dp.log_level = 4
    with pytest.raises(ValueError, match="interface"):
        guest.dp.outbound_if("lo", "x" * 16)
    with pytest.raises(AttributeError):
        del guest.dp.scope_id


# Listening


def test_listener_takes_the_socket_over(guest: Guest) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    address = sock.getsockname()
    guest.decide = later
    guest.dp.listen(sock.detach(), socket.IPPROTO_TCP, 5)
    with socket.create_connection(address) as peer:
        guest.wait_for(lambda: bool(guest.misses))
        (miss,) = guest.misses
        assert (miss.pif, miss.listener) == (Pif.HOST, 5)
        assert miss.eport == peer.getsockname()[1]
        assert miss.oport == address[1]
    guest.dp.unlisten(5)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)


def test_a_listener_may_have_another_number_and_loses_nothing(guest: Guest) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    address = sock.getsockname()
    guest.decide = later
    guest.dp.listen(sock.detach(), socket.IPPROTO_TCP, 5)
    with socket.create_connection(address):
        guest.dp.renumber(5, 70_000)
        guest.wait_for(lambda: bool(guest.misses))
        assert guest.misses[0].listener == 70_000
    for old, new in ((5, 6), (70_000, 70_000)):
        with pytest.raises(OSError, match=r"."):
            guest.dp.renumber(old, new)
    with pytest.raises(ValueError, match="new"):
        guest.dp.renumber(70_000, _native.LISTEN_MAX)
    guest.dp.unlisten(70_000)


def test_bad_listeners_are_refused(guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        for number in (-1, _native.LISTEN_MAX):
            with pytest.raises(ValueError, match="listener"):
                guest.dp.listen(sock.fileno(), socket.IPPROTO_TCP, number)
        with pytest.raises(ValueError, match="proto"):
            guest.dp.listen(sock.fileno(), 132, 1)
        with pytest.raises(OSError, match=r"."):
            guest.dp.listen(99999, socket.IPPROTO_TCP, 1)
        assert sock.fileno() >= 0
    with pytest.raises(OSError, match=r"."):
        guest.dp.unlisten(3)


# What it tells


def test_flow_listing_tells_everything(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    conn = guest.connect()
    conn.send(b"12345")
    (flow,) = guest.flows()
    assert flow.flow_id == guest.opened[0]
    assert (flow.type, flow.state) == (FlowType.TCP, FlowState.ACTIVE)
    assert (flow.pif0, flow.pif1) == (Pif.TAP, Pif.HOST)
    assert flow.eaddr0 == guest.misses[0].eaddr
    assert flow.eport1 == server.port
    assert (flow.packets0, flow.bytes0, flow.rule) == (3, 5, 1)
    assert flow.created_ns == guest.now
    assert flow.tcp_flags0 == 0x02 | 0x10 | 0x08


def test_flow_listing_goes_on_from_its_cursor(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(*[udp(b"x", sport=1000 + n) for n in range(25)])
    seen: list[int] = []
    cursor = 0
    while True:
        page, cursor = guest.dp.flows(cursor, limit=10)
        assert len(page) <= 10 * _native.FLOW_RECORD_SIZE
        seen += [flow.eport0 for flow in flows_in(page)]
        if not cursor:
            break
    assert sorted(seen) == list(range(1000, 1025))
    with pytest.raises(ValueError, match="limit"):
        guest.dp.flows(0, 0)
    assert guest.dp.flows(cursor=1 << 31) == (b"", 0)


def test_log_ring_tells_the_life_of_a_flow(guest: Guest, server: Server) -> None:
    guest.dp.log_level = 1
    guest.decide = forward_to(server.port)
    guest.connect()
    names = [name for name, _level, _fields in _native.EVENTS]
    steps = []
    for event in guest.dp.events():
        assert len(event.args) == len(_native.EVENTS[event.event][2])
        if names[event.event] == "flow_state":
            steps.append(event.args)
            assert event.flow is not None
            assert event.flow_id == guest.opened[0]
            assert event.time_ns == guest.now
    assert steps == [(n, n + 1) for n in range(5)]
    assert guest.dp.events() == []


def test_who_watches_sees_flows_begin_and_end_and_no_step_between(
    guest: Guest, server: Server
) -> None:
    guest.dp.watched = True
    guest.decide = forward_to(server.port)
    guest.connect()
    guest.dp.close_flow(guest.opened[0], FlowWhy.ASKED)
    names = [name for name, _level, _fields in _native.EVENTS]
    told = [(names[event.event], event.flow_id) for event in guest.dp.events()]
    assert told == [(name, guest.opened[0]) for name in ("flow_opened", "flow_closed")]


def test_log_ring_is_off_by_default_and_bounded(guest: Guest) -> None:
    guest.send(syn())
    assert guest.dp.events() == []
    guest.dp.log_level = 3
    guest.decide = answer(Action.REJECT)
    guest.decide = forward_to(1)
    for port in range(1, 2001):
        guest.put(udp(b"x", sport=port))
        if port % 100 == 0:
            guest.turn()
    assert guest.counter("log_lost") > 0
    events = guest.dp.events(100_000)
    assert len(events) == 4096 + 1
    assert _native.EVENTS[events[-1].event][0] == "events_lost"
    assert events[-1].args[0] == guest.counter("log_lost")


def test_counters_have_a_name_and_a_meaning(guest: Guest) -> None:
    assert tuple(guest.dp.counters()) == _native.COUNTERS
    assert len(_native.COUNTER_MEANINGS) == len(_native.COUNTERS)
    guest.send(syn())
    assert guest.counter("tap_rx_frames") == 1
    assert guest.counter("tap_rx_bytes") == 14 + 20 + 20 + 12


def test_capture_holds_both_directions(guest: Guest, tmp_path: Path) -> None:
    guest.decide = answer(Action.REJECT)
    path = tmp_path / "tap.pcap"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    guest.dp.pcap(fd)
    guest.send(syn(sport=4444))
    guest.expect("RA")
    guest.dp.pcap(-1)
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(fd)
    guest.send(syn(sport=5555))
    with RawPcapReader(str(path)) as reader:
        frames = [Ether(raw) for raw, _meta in reader]
    assert [str(frame["TCP"].flags) for frame in frames] == ["S", "RA"]
    assert [frame["TCP"].sport for frame in frames] == [4444, 80]


def test_failing_capture_ends_and_is_told(guest: Guest) -> None:
    assert guest.dp.pcap_error == 0
    with pytest.raises(OSError, match="No space"):
        guest.dp.pcap(os.open("/dev/full", os.O_WRONLY))
    assert guest.dp.pcap_error > 0
    guest.send(syn())
    assert guest.counter("tap_rx_frames") == 1


# Real time: the epoll fd says when there is work


def test_fileno_becomes_readable_and_timers_wake(udp_peer: socket.socket) -> None:
    ours, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    dp = _native.Datapath(tap.detach(), mtu=1500, our_mac=MAC, vnet_hdr=False)
    try:
        assert readable([dp.fileno()], 0) == []
        ours.send(bytes(Ether(src=OUR_MAC, dst=OUR_MAC) / syn()))
        assert readable([dp.fileno()], 30)
        records = list(dp.turn())
        assert [type(record) for record in records] == [_native.Miss]
        assert dp.turn() == ()
        # Nothing happens, but the pending miss has a deadline
        deadline = time.monotonic() + 30
        while dp.counters()["miss_expired"] == 0:
            assert time.monotonic() < deadline
            readable([dp.fileno()], 1)
            dp.turn()
    finally:
        dp.close()
        ours.close()


# Nothing leaks


@alone  # memory of other threads would count as well
def test_turns_misses_and_listings_leak_nothing(guest: Guest) -> None:
    guest.dp.log_level = 3
    guest.decide = answer(Action.DROP)
    guest.options.clear()

    def work(rounds: int) -> None:
        for n in range(rounds):
            guest.put(udp(b"x", sport=1 + n))
            guest.turn()
            guest.now += 1_000_000
            guest.dp.counters()
            guest.flows()
            guest.dp.events()
            with pytest.raises(ValueError, match="eaddr"):
                guest.dp.open(0, (0, 1, b"", 0, UNSPECIFIED, 0, 0, 0, 0, 0))
            guest.misses.clear()
            guest.opened.clear()
            guest.oracle.forget()

    work(50)
    gc.collect()
    tracemalloc.start()
    try:
        work(20)
        gc.collect()
        before = tracemalloc.get_traced_memory()[0]
        work(300)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert after - before < 3000


def test_datapaths_come_and_go_without_fds_left(server: Server, opened: Opened) -> None:
    before = opened()
    for _ in range(20):
        guest = Guest(decide=forward_to(server.port))
        guest.send(syn())
        guest.expect("SA")
        guest.connect(sport=5)
        guest.decide = later
        guest.send(syn(sport=6))
        guest.close()
        server.accept().close()
        server.accept().close()
    gc.collect()
    assert opened() == before


# Injected faults, in builds that have them


def test_faults_lose_and_delay_frames(guest: Guest) -> None:
    if not hasattr(guest.dp, "faults"):
        pytest.skip("this build has no faults")
    guest.decide = later
    guest.dp.faults(drop_ppm=100_000, reorder_ppm=100_000, seed=7)
    for port in range(1, 501):
        guest.put(udp(b"x", sport=port))
        if port % 25 == 0:
            guest.turn()
    lost = guest.counter("fault_dropped")
    assert 20 < lost < 90
    assert guest.counter("fault_reordered") > 10
    ports = [miss.eport for miss in guest.misses]
    assert len(ports) == 500 - lost
    assert ports != sorted(ports)
    guest.dp.faults()
    guest.send(udp(b"x", sport=501))
    assert guest.misses[-1].eport == 501


def test_faults_come_from_the_environment(
    make_guest: Callable[..., Guest], monkeypatch: pytest.MonkeyPatch
) -> None:
    if not hasattr(_native.Datapath, "faults"):
        pytest.skip("this build has no faults")
    monkeypatch.setenv("PASSTPY_FAULTS", "drop_ppm=1000000")
    guest = make_guest(decide=later)
    guest.send(syn())
    assert not guest.misses
    monkeypatch.setenv("PASSTPY_FAULTS", "drop_ppm=many")
    with pytest.raises(OSError, match="Invalid"):
        make_guest()

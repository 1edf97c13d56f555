# SPDX-License-Identifier: GPL-2.0-or-later
"""Verbs on open flows: ended from outside, or put under another rule."""

import errno
import os
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from passtpy import _native
from passtpy.addr import inany
from passtpy.flow import FlowWhy, Verdict, flows_in, pages_of
from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Connection, Guest, forward_to, to_guest
from tests.datapath.packets import GUEST4, GUEST6, echo, syn, udp
from tests.datapath.splice import World
from tests.datapath.tcp_peer import full_server
from tests.lab.descriptors import Opened
from tests.lab.namespace import Namespace

ASKED, POLICY = int(FlowWhy.ASKED), int(FlowWhy.POLICY)


def only_flow(guest: Guest) -> int:
    (flow,) = guest.flows()
    return flow.flow_id


def is_stale(guest: Guest, flow_id: int) -> bool:
    """Both verbs say that the flow is gone."""

    def failed(call: Callable[[], None]) -> int | None:
        with pytest.raises(OSError, match="Stale") as caught:
            call()
        return caught.value.errno

    closed = failed(lambda: guest.dp.close_flow(flow_id, ASKED))
    changed = failed(lambda: guest.dp.verdict(flow_id, rule=1, generation=1))
    return closed == changed == errno.ESTALE


def why_closed(guest: Guest) -> list[str]:
    """The reasons in the log, with level 1."""
    table = _native.EVENTS
    events = guest.dp.events(4096)
    whys = [e.args[0] for e in events if table[e.event][0] == "flow_closed"]
    return [_native.FLOW_WHYS[why] for why in whys]


# Close


def test_closing_a_connection_resets_both_ends(guest: Guest, server: Server) -> None:
    guest.dp.log_level = 1
    guest.decide = forward_to(server.port)
    conn = guest.connect()
    peer = server.accept()
    conn.send(b"x")
    assert peer.recv(9) == b"x"
    guest.drain()
    guest.dp.close_flow(only_flow(guest), ASKED)
    guest.turn()
    guest.expect("RA", seq=conn.ack, ack=conn.seq)
    peer.settimeout(WAIT_S)
    with pytest.raises(ConnectionResetError):
        peer.recv(99)
    assert not guest.flows()
    assert why_closed(guest) == ["ASKED"]


def test_closing_one_that_the_peer_has_not_accepted_resets_the_guest(
    guest: Guest,
) -> None:
    with full_server() as port:
        guest.decide = forward_to(port)
        guest.send(syn(seq=700))
        guest.dp.close_flow(only_flow(guest), POLICY)
        guest.turn()
        guest.expect("RA", ack=701)
        assert not guest.flows()


def test_closing_an_inbound_connection_resets_its_client(guest: Guest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        sock.setblocking(False)
        address = sock.getsockname()
        guest.dp.listen(os.dup(sock.fileno()), socket.IPPROTO_TCP, 3)
    inward = to_guest(80, GUEST4, GUEST6)
    source = inany(ip_address("198.51.100.1"))

    def decide(miss: _native.Miss) -> Verdict | None:
        verdict = inward(miss)
        return verdict and verdict._replace(oaddr=source)

    guest.decide = decide
    with socket.create_connection(address) as client:
        conn = Connection.accept(guest)
        (flow,) = guest.flows()
        assert flow.listener == 3
        guest.dp.close_flow(flow.flow_id, ASKED)
        guest.turn()
        guest.expect("RA", ack=conn.seq)
        client.settimeout(WAIT_S)
        with pytest.raises(ConnectionResetError):
            client.recv(1)


def ends_in_silence(guest: Guest, opened: Opened) -> None:
    before = opened()
    guest.dp.close_flow(only_flow(guest), POLICY)
    assert not guest.flows()
    guest.advance(0.02)
    guest.expect_nothing()
    assert opened() == before - 1
    assert why_closed(guest) == ["POLICY"]


def test_closing_a_udp_flow_just_ends_it(
    guest: Guest, udp_peer: socket.socket, opened: Opened
) -> None:
    guest.dp.log_level = 1
    guest.decide = forward_to(udp_peer.getsockname()[1])
    guest.send(udp(b"x"))
    ends_in_silence(guest, opened)
    guest.send(udp(b"y"))  # is a question again
    assert len(guest.misses) == 2


@pytest.mark.root
def test_closing_a_series_of_pings_just_ends_it(
    guest: Guest, ping_namespace: Namespace, opened: Opened
) -> None:
    guest.dp.log_level = 1
    guest.decide = forward_to(0)
    with ping_namespace.entered():
        guest.send(echo())
        guest.recv()
        ends_in_silence(guest, opened)


@pytest.fixture
def world(guest: Guest) -> Iterator[World]:
    made = World(guest, socket.SOCK_STREAM)
    yield made
    made.close()


def test_closing_a_splice_resets_both_ends(world: World) -> None:
    server, client = world.serve(), world.client()
    conn = world.accept(server)
    world.guest.dp.close_flow(world.flow().flow_id, ASKED)
    world.guest.turn()
    for end in (client, conn):
        with pytest.raises(ConnectionResetError):
            end.recv(1)
    assert world.ended()


def test_a_flow_that_is_gone_is_stale(guest: Guest, server: Server) -> None:
    guest.decide = forward_to(server.port)
    guest.connect()
    flow = only_flow(guest)
    guest.dp.close_flow(flow, ASKED)
    assert is_stale(guest, flow)
    guest.advance(0.02)
    assert is_stale(guest, flow)
    guest.drain()
    guest.connect(sport=5)  # takes the entry of the first one
    (other,) = guest.flows()
    assert other.slot == flow & 0xFFFFFFFF
    assert is_stale(guest, flow)
    for invented in (0, 1, 1 << 32, (1 << 64) - 1):
        assert is_stale(guest, invented)
    assert guest.flows() == [other]


@pytest.mark.parametrize("why", [-1, 0, int(FlowWhy.IDLE), len(FlowWhy)])
def test_a_flow_is_closed_for_reasons_that_are_the_callers(
    guest: Guest, server: Server, why: int
) -> None:
    guest.decide = forward_to(server.port)
    guest.connect()
    with pytest.raises(ValueError, match="why"):
        guest.dp.close_flow(only_flow(guest), why)
    assert guest.flows()


# Verdict


def test_a_flow_carries_its_rule_and_takes_another(
    guest: Guest, server: Server
) -> None:
    first = forward_to(server.port)

    def decide(miss: _native.Miss) -> Verdict | None:
        verdict = first(miss)
        return verdict and verdict._replace(rule=7, generation=4_000_000_000)

    guest.decide = decide
    conn = guest.connect()
    (flow,) = guest.flows()
    assert (flow.rule, flow.generation, flow.listener) == (7, 4_000_000_000, -1)
    guest.dp.verdict(flow.flow_id, rule=8, generation=5)
    (flow,) = guest.flows()
    assert (flow.rule, flow.generation) == (8, 5)
    peer = server.accept()
    conn.send(b"on it goes")
    peer.settimeout(WAIT_S)
    assert peer.recv(99) == b"on it goes"
    with pytest.raises(ValueError, match="rule"):
        guest.dp.verdict(flow.flow_id, rule=1 << 32, generation=0)
    with pytest.raises(TypeError):
        guest.dp.verdict(flow.flow_id, 1, 2)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        guest.dp.verdict(flow.flow_id, rule=1)  # type: ignore[call-arg]


# Pages


def test_pages_are_bounded_and_hold_every_flow_once(
    guest: Guest, udp_peer: socket.socket
) -> None:
    guest.decide = forward_to(udp_peer.getsockname()[1])
    for first in range(1000, 1400, 50):
        guest.send(*[udp(b"x", sport=first + n) for n in range(50)])
    kept = {flow.flow_id for flow in guest.flows()}
    assert len(kept) == 400
    for flow in sorted(kept)[::3]:
        guest.dp.close_flow(flow, ASKED)
        kept.remove(flow)
    guest.advance(0.02)  # holes in the table
    seen: list[int] = []
    for page in pages_of(guest.dp.flows, 7):
        part = [flow.flow_id for flow in flows_in(page)]
        assert len(part) <= 7
        assert len(page) == len(part) * _native.FLOW_RECORD_SIZE
        seen += part
    assert len(seen) == len(kept)
    assert set(seen) == kept
    with pytest.raises(ValueError, match="limit"):
        guest.dp.flows(0, 4097)

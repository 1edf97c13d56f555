# SPDX-License-Identifier: GPL-2.0-or-later
"""Open flows under another policy: what was asked, and what becomes of them."""

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address
from typing import cast

import pytest

from passtpy import _native
from passtpy.addr import inany
from passtpy.config.host import HostInfo
from passtpy.config.model import Config
from passtpy.config.view import View
from passtpy.engine import Engine
from passtpy.flow import FlowMiss, Pif, Verdict
from passtpy.log import Log
from passtpy.policy.decide import Decider
from passtpy.policy.rules import Drop, Match, Rule, ToHost
from passtpy.services.registry import Services
from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Guest, forward_to, to_guest
from tests.datapath.packets import GUEST4, GUEST6, REMOTE4, udp
from tests.datapath.splice import World
from tests.unit.test_engine import FakeLoop
from tests.unit.test_engine_splice import NoServices

TCP, UDP = 6, 17
IP_PKTINFO = 8
Sockets = list[socket.socket]


def asked(miss: _native.Miss) -> FlowMiss:
    return FlowMiss(*miss[1:])


Begin = Callable[[Guest, Server, socket.socket], Sockets]


def begin_outbound(guest: Guest, server: Server, peer: socket.socket) -> Sockets:
    guest.decide = forward_to(server.port)
    guest.connect()
    guest.decide = forward_to(peer.getsockname()[1])
    guest.send(udp(b"x"))
    return []


def begin_inbound(guest: Guest, _server: Server, _peer: socket.socket) -> Sockets:
    guest.decide = from_outside
    clients = []
    for kind, proto in ((socket.SOCK_STREAM, TCP), (socket.SOCK_DGRAM, UDP)):
        listener = socket.socket(socket.AF_INET, kind)
        listener.bind(("0.0.0.0", 0))
        if proto == TCP:
            listener.listen()
        else:
            listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        listener.setblocking(False)
        port = listener.getsockname()[1]
        guest.dp.listen(listener.detach(), proto, proto)
        client = socket.socket(socket.AF_INET, kind)
        client.connect(("127.0.0.1", port))
        client.send(b"x")
        clients.append(client)
    guest.wait_for(lambda: len(guest.misses) == 2)
    return clients


def from_outside(miss: _native.Miss) -> Verdict | None:
    verdict = to_guest(80, GUEST4, GUEST6)(miss)
    return verdict and verdict._replace(oaddr=inany(ip_address(REMOTE4)))


def begin_spliced(guest: Guest, _server: Server, _peer: socket.socket) -> Sockets:
    world = World(guest, socket.SOCK_STREAM)
    listener = world.serve()
    world.client()
    return [*world.sockets, world.accept(listener)]


@pytest.mark.parametrize("begin", [begin_outbound, begin_inbound, begin_spliced])
def test_a_flow_remembers_what_was_asked(
    guest: Guest, server: Server, udp_peer: socket.socket, begin: Begin
) -> None:
    """It can be decided about as if it were new: nothing of its miss is lost."""
    held = begin(guest, server, udp_peer)
    flows = [flow.miss for flow in guest.flows()]
    assert flows
    assert sorted(flows) == sorted(asked(miss) for miss in guest.misses)
    for sock in held:
        sock.close()


def policy(*refused: int) -> list[Rule]:
    tcp_only = frozenset((TCP,))
    no = [Rule(Match(Pif.TAP, tcp_only, port=each), Drop(), "no") for each in refused]
    return [*no, Rule(Match(Pif.TAP), ToHost(), "yes")]


def test_only_what_is_refused_today_ends(guest: Guest, server: Server) -> None:
    decider = Decider(policy())
    view = View.of(Config(), HostInfo())
    made = Engine(guest.dp, decider, cast(Services, NoServices()), view, Log())
    made.start(cast(asyncio.AbstractEventLoop, FakeLoop()), lambda errno: None)

    def decide(miss: _native.Miss) -> Verdict:
        verdict = decider.by_rules(miss)
        return verdict._replace(eaddr=inany(ip_address("127.0.0.1")), eport=server.port)

    guest.decide = decide
    kept = guest.connect(dport=80)
    lost = guest.connect(sport=7, dport=25)
    ends = [server.accept(), server.accept()]
    decider.replace(policy(25))
    made.recheck()
    guest.turn()
    guest.expect("RA", seq=lost.ack, sport=25, dport=7)
    guest.expect_nothing()
    (flow,) = guest.flows()
    assert (flow.oport0, flow.generation) == (80, 2)
    assert flow.rule == decider.rules[-1].id
    assert made.statistics()["closed_by_policy"] == 1
    kept.send(b"on")
    got = []
    for end in ends:
        end.settimeout(WAIT_S)
        try:
            got.append(end.recv(9))
        except ConnectionResetError:
            got.append(b"reset")
        end.close()
    assert sorted(got) == [b"on", b"reset"]

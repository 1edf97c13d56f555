# SPDX-License-Identifier: GPL-2.0-or-later
"""Parts of the scenario that a policy asks for: who is heard first, and proxies."""

import socket
from ipaddress import IPv4Address, ip_address

from passtpy import _native
from passtpy.addr import inany
from passtpy.flow import Action
from passtpy.wire.proxy import unwrap_datagram, wrap_datagram
from tests.datapath.given import to_itself
from tests.datapath.packets import DPORT, REMOTE4, udp
from tests.faults.scenario import Part, Stage

HERE = inany(ip_address("127.0.0.1"))


def tcp_said(stage: Stage) -> None:
    """The guest says where it wants to go, and is led there."""
    guest = stage.guest()
    server = stage.server()
    guest.decide = lambda miss: to_itself(miss)._replace(action=Action.INSPECT)
    conn = guest.connect()
    conn.send(b"who I am")
    (flow_id,) = guest.opened
    guest.dp.connect(flow_id, HERE, server.port)
    peer = stage.accept(server)
    guest.turn()
    assert peer.recv(8) == b"who I am"
    conn.say("R")


def udp_relayed(stage: Stage) -> None:
    """Datagrams leave through a SOCKS5 proxy, which goes when they are sent."""
    guest = stage.guest()
    relay = stage.peer()
    control, theirs = map(stage.keep, socket.socketpair())

    def decide(miss: _native.Miss) -> None:
        sock = stage.keep(socket.socket(relay.family, socket.SOCK_DGRAM))
        sock.connect(relay.getsockname())
        head = wrap_datagram(IPv4Address(REMOTE4), DPORT, b"")
        guest.dp.open_relayed(
            miss.miss_id,
            to_itself(miss),
            fd=sock.fileno(),
            control=theirs.fileno(),
            head=head,
        )
        sock.detach()
        theirs.detach()

    guest.decide = decide
    guest.send(udp(b"open"))
    assert unwrap_datagram(relay.recv(99))[2] == b"open"
    control.close()
    guest.wait_for(lambda: not guest.flows(), "the end")


POLICED = [Part(tcp_said), Part(udp_relayed)]

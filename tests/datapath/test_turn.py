# SPDX-License-Identifier: GPL-2.0-or-later
"""Nobody keeps the others waiting: work is counted, shared out, and bounded.

Counted work does not depend on the machine: `turn_work_max` is what the longest turn
did, in nominal nanoseconds (native/base/budget.h).
"""

import socket

from tests.datapath.conftest import Server
from tests.datapath.guest import Connection, Guest
from tests.datapath.tcp_peer import established, inbound

WORK_TURN = 4_000_000  # budget.h
WORK_ROUND = 500_000
KINDS = 5  # of sources that a round serves, each within WORK_ROUND
WORK_MAX = WORK_TURN + KINDS * WORK_ROUND  # the round that used up the turn

SCALED = [("MSS", 1460), ("WScale", 10)]


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

# SPDX-License-Identifier: GPL-2.0-or-later
"""The receive window: what is promised to one guest's connections, and to all."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.datapath.conftest import Server
from tests.datapath.guest import Connection, Frame, Guest
from tests.datapath.tcp_peer import arrived, established

MakeGuest = Callable[..., Guest]
MTU = 1500
QUEUE = 500  # frames that the tap holds, by default
BUDGET = QUEUE * (MTU - 40)


@dataclass
class Sender:
    """A connection that keeps to the window it was told."""

    conn: Connection
    edge: int

    @property
    def room(self) -> int:
        """Bytes that may be sent."""
        return self.edge - self.conn.seq

    def learn(self, frames: list[Frame]) -> None:
        """Read acknowledgements, whoever they are for."""
        for frame in frames:
            if frame.tcp.dport == self.conn.fields["sport"]:
                edge = frame.tcp.ack + (frame.tcp.window << 7)
                assert edge + 127 >= self.edge, "the window was taken back"
                self.edge = max(edge, self.edge)


def opened(guest: Guest, server: Server, count: int) -> list[Sender]:
    """Many connections, each knowing its first window."""
    made = []
    for number in range(count):
        conn, _ = established(guest, server, sport=20_000 + number)
        made.append(Sender(conn, conn.seq + conn.peer_syn.tcp.window))
    return made


def test_first_windows_of_many_flows_fit_the_queue(
    make_guest: MakeGuest, server: Server
) -> None:
    guest = make_guest(mtu=MTU)
    senders = opened(guest, server, 100)
    assert sum(s.room for s in senders) <= BUDGET
    assert all(s.room >= 1460 for s in senders)


@pytest.mark.parametrize("count", [1, 8, 20])
def test_windows_of_busy_flows_fit_the_queue(
    make_guest: MakeGuest, server: Server, count: int
) -> None:
    guest = make_guest(mtu=MTU)
    senders = opened(guest, server, count)
    rng = random.Random(count)
    for _ in range(15 * count):
        sender = rng.choice(senders)
        while sender.room > 0:
            sender.conn.send(bytes(min(sender.room, 14_600)))
            frames = arrived(guest)
            for other in senders:
                other.learn(frames)
            assert sum(s.room for s in senders) <= BUDGET + 127 * count
            if rng.random() < 0.3:
                break
        for peer in server.accepted:
            peer.setblocking(False)
            try:
                peer.recv(1 << 20)
            except BlockingIOError:
                continue


def test_window_grows_with_use(guest: Guest, server: Server) -> None:
    [sender] = opened(guest, server, 1)
    peer = server.accepted[0]
    first, largest = sender.room, 0
    for _ in range(100):
        size = min(sender.room, 60_000)
        sender.conn.send(bytes(size))
        got = 0
        while got < size:
            got += len(peer.recv(1 << 20))
        sender.learn(guest.drain()[-1:])
        largest = max(largest, sender.room)
    assert largest >= 8 * first
    assert largest <= 4 << 20


def test_closed_flows_give_their_windows_back(
    make_guest: MakeGuest, server: Server
) -> None:
    guest = make_guest(mtu=MTU)
    first = opened(guest, server, 1)[0]
    windows = [first.room]
    first.conn.say("R")
    for _ in range(20):
        for sender in opened(guest, server, 10):
            sender.conn.say("R")
        again = opened(guest, server, 1)[0]
        windows.append(again.room)
        again.conn.say("R")
    assert set(windows) == {windows[0]}


def test_held_bytes_of_many_flows_are_bounded(
    make_guest: MakeGuest, server: Server
) -> None:
    """Nobody reads at the host: windows close, or shrink to the one segment that a
    flow always gets, long before what is held exceeds the queue."""
    guest = make_guest()
    senders = opened(guest, server, 12)
    for _ in range(4000):
        sender = max(senders, key=lambda s: s.room)
        if sender.room <= 2048:
            break
        sender.conn.send(bytes(min(sender.room, 60_000)))
        frames = arrived(guest)
        for each in senders:
            each.learn(frames)
    assert sender.room <= 2048
    assert guest.counter("tcp_buffered") <= QUEUE * (65520 - 40)
    assert guest.counter("pool_empty") == 0


def test_guest_without_window_scale_gets_at_most_64_kib(
    guest: Guest, server: Server
) -> None:
    conn, peer = established(guest, server, options=[("MSS", 1460)])
    for _ in range(50):
        conn.send(bytes(30_000))
        got = 0
        while got < 30_000:
            got += len(peer.recv(1 << 20))
        frames = guest.drain()
        assert frames[-1].tcp.ack == conn.seq
        assert 30_000 <= frames[-1].tcp.window <= 65_535

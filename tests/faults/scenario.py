# SPDX-License-Identifier: GPL-2.0-or-later
"""What guests do, so that every system call of the datapath is made: parts to run.

A part is a function of a `Stage`, which makes guests, servers and sockets, and lets go
of them. It expects everything to go well; whoever makes calls fail catches what it
raises then (`Stage.FAILURES`), and looks at what the datapath has left (`settle()`).
"""

import os
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from errno import EAGAIN, EIO, EMFILE, EMSGSIZE, ENOPROTOOPT, EPERM
from functools import partial
from ipaddress import ip_address
from typing import Any

from scapy.layers.l2 import Ether

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany, is_v4
from passtpy.control.filter import Context, compile_program
from passtpy.flow import Action, Pif, Verdict
from passtpy.net.kernel.ping import lend_raw_sockets
from tests.datapath.conftest import TAPS, Server
from tests.datapath.given import given
from tests.datapath.guest import Connection, Decide, Frame, Guest, answer, forward_to
from tests.datapath.packets import (
    GUEST4,
    GUEST_MAC,
    OUR_MAC,
    REMOTE4,
    echo,
    syn,
    udp,
)
from tests.datapath.splice import World, reset
from tests.datapath.tcp_peer import closed_port, read_exactly, to_guest_as_remote
from tests.datapath.test_udp_listen import inward, listening
from tests.lab.ready import readable

LISTENER = 7
# For what must come; for what may fail; for what surely has failed; for the kernel
PATIENT_S, WARY_S, HURRIED_S, SETTLE_S = 30.0, 2.0, 0.02, 30.0
BULK = 100_000


class ScenarioGuest(Guest):
    """A guest that waits as long for anything as its stage says."""

    patience = PATIENT_S

    def recv(self, timeout: float = 0) -> Frame:
        """Return the next frame for the guest."""
        return super().recv(timeout or self.patience)

    def wait_for(
        self, condition: Callable[[], bool], what: str = "", timeout: float = 0
    ) -> None:
        """Run turns until something in the real world has happened."""
        super().wait_for(condition, what, min(timeout or PATIENT_S, self.patience))


def _from_second_address(port: int, action: Action = Action.FORWARD) -> Verdict:
    first, second = (inany(ip_address(f"127.0.0.{i}")) for i in (1, 2))
    return Verdict(action, Pif.HOST, first, port, second, 0, 1)


class SourceWorld(World):
    """A world whose targets are reached from another address of loopback."""

    def verdict(self, action: Action = Action.SPLICE) -> Verdict:
        """To the server, from that address."""
        return _from_second_address(self.target_port, action)


@dataclass
class Stage:
    """Everything that a part uses; `tap` is the kind of its guests."""

    tap: str
    patience: float = PATIENT_S
    guests: list[ScenarioGuest] = field(default_factory=list)
    open: list[Any] = field(default_factory=list)

    # What goes wrong for a guest whose datapath cannot do what is asked
    FAILURES = (AssertionError, OSError)

    def guest(self, **options: Any) -> ScenarioGuest:
        """A guest of this stage's kind."""
        guest = ScenarioGuest(**{**TAPS[self.tap], **options})
        self.guests.append(guest)
        guest.patience = self.patience
        return guest

    def server(self, host: str = "127.0.0.1") -> Server:
        """A TCP server on loopback."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        server = Server(socket.create_server((host, 0), family=family))
        self.open.append(server)
        return server

    def accept(self, server: Server) -> socket.socket:
        """The next connection of a server."""
        server.sock.settimeout(self.patience)
        conn, _ = server.sock.accept()
        return self.keep(conn)

    def keep(self, sock: socket.socket) -> socket.socket:
        """A socket that waits no longer than this stage, closed with it."""
        sock.settimeout(self.patience)
        self.open.append(sock)
        return sock

    def peer(self, host: str = "127.0.0.1") -> socket.socket:
        """A UDP socket on loopback."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = self.keep(socket.socket(family, socket.SOCK_DGRAM))
        sock.bind((host, 0))
        return sock

    def world(
        self,
        kind: socket.SocketKind,
        source: Pif,
        make: type[World] = World,
        **options: Any,
    ) -> World:
        """A listener whose flows are spliced."""
        world = make(self.guest(), kind, source, patience=self.patience, **options)
        self.open.append(world)
        return world

    def leave(self) -> None:
        """Close all but the guests."""
        for it in self.open:
            it.close()
        self.open.clear()

    def close(self) -> None:
        """Close everything."""
        self.leave()
        for guest in self.guests:
            guest.close()
        self.guests.clear()


def settle(guest: Guest) -> None:
    """Let as much time pass as any flow takes that nobody serves."""
    guest.decide = answer(Action.DROP)
    for seconds in (0.01,) * 5 + (1,) * 30 + (60,) * 20 + (7200,) * 12:
        _swallow(guest)
        guest.advance(seconds)
    # What the kernel alone can end: a connection that it is still trying
    deadline = time.monotonic() + SETTLE_S
    while guest.flows() and time.monotonic() < deadline:
        readable([guest.dp.fileno()], 0.1)
        guest.advance(1)
        _swallow(guest)


def _swallow(guest: Guest) -> None:
    with suppress(BlockingIOError, ConnectionResetError):
        while True:
            guest.link.recv()


def _same(sent: bytes, got: bytes) -> None:
    assert sent == got


# TCP


def _talk(conn: Connection, peer: socket.socket) -> None:
    conn.send(b"x" * 1000)
    _same(b"x" * 1000, read_exactly(peer, 1000))
    peer.sendall(b"y" * BULK)
    _same(b"y" * BULK, conn.read(BULK))


def tcp_out(stage: Stage) -> None:
    """Connections of the guest, closed by it, by the peer, and reset."""
    guest = stage.guest()
    for v6, host in ((False, "127.0.0.1"), (True, "::1")):
        server = stage.server(host)
        guest.decide = forward_to(server.port)
        conn = guest.connect(v6=v6, sport=40001)
        peer = stage.accept(server)
        _talk(conn, peer)
        conn.say("A", seq=conn.seq - 1)  # is anybody there?
        guest.expect("A", ack=conn.seq)
        conn.fin()
        assert peer.recv(1) == b""
        guest.expect("A", ack=conn.seq)
        peer.close()
        conn.expect("FA")
        conn.acknowledge()
        conn = guest.connect(v6=v6, sport=40002)
        stage.accept(server).close()
        conn.expect("FA")
        conn.say("R")
    assert not guest.flows()


def tcp_given(stage: Stage) -> None:
    """The host's socket is one of a pair, and another one when the guest has ended."""
    guest = stage.guest()
    ours, theirs = map(stage.keep, socket.socketpair())
    guest.decide = given(guest, theirs)
    conn = guest.connect()
    ours.sendall(b"w" * 2000)
    _same(b"w" * 2000, conn.read(2000))
    conn.fin()
    assert ours.recv(1) == b""
    guest.expect("A", ack=conn.seq)
    server = stage.server()
    sock = stage.keep(socket.create_connection(server.sock.getsockname()))
    peer = stage.accept(server)
    guest.dp.adopt(guest.opened[0], sock.fileno())
    sock.detach()
    assert peer.recv(1) == b""
    peer.sendall(b"late")
    conn.expect("PA", b"late")
    conn.acknowledge()
    peer.close()
    conn.expect("FA")
    conn.acknowledge()


def tcp_lost(stage: Stage) -> None:
    """What the guest does not acknowledge is read again, and sent again."""
    guest = stage.guest()
    server = stage.server()
    guest.decide = forward_to(server.port)
    conn = guest.connect()
    peer = stage.accept(server)
    peer.sendall(b"a" * 500)
    conn.expect("PA", b"a" * 500)
    peer.sendall(b"b" * 500)
    conn.expect("PA", b"b" * 500)
    guest.advance(1)
    guest.expect("PA")
    conn.acknowledge()


def tcp_refused(stage: Stage) -> None:
    """Nobody listens."""
    guest = stage.guest()
    guest.decide = forward_to(closed_port())
    guest.send(syn())
    guest.expect("RA")


def tcp_bound(stage: Stage) -> None:
    """From an address and an interface that were asked for."""
    guest = stage.guest()
    server = stage.server()
    guest.dp.outbound_if("lo", "lo")
    guest.decide = lambda _miss: _from_second_address(server.port)
    conn = guest.connect()
    assert stage.accept(server).getpeername()[0] == "127.0.0.2"
    conn.say("R")


def _listen(guest: Guest, listener: socket.socket) -> tuple[str, int]:
    """Give a TCP listener to the datapath; return where a client finds it."""
    with listener:
        address = ("127.0.0.1", listener.getsockname()[1])
        listener.setblocking(False)
        guest.dp.listen(listener.fileno(), socket.IPPROTO_TCP, LISTENER)
        listener.detach()
    return address


def _forwarded(stage: Stage, decide: Decide) -> tuple[ScenarioGuest, socket.socket]:
    """A guest with a forwarded port, and a client of it."""
    guest = stage.guest()
    guest.decide = decide
    address = _listen(guest, socket.create_server(("0.0.0.0", 0)))
    client = stage.keep(socket.create_connection(address, timeout=stage.patience))
    guest.wait_for(lambda: bool(guest.misses), "a miss")
    return guest, client


def tcp_in(stage: Stage) -> None:
    """A client of a forwarded port."""
    guest, client = _forwarded(stage, to_guest_as_remote)
    conn = Connection.accept(guest)
    _talk(conn, client)
    client.close()
    conn.expect("FA")
    conn.acknowledge()
    conn.fin()
    guest.dp.unlisten(LISTENER)


def tcp_in_full(stage: Stage) -> None:
    """There is no descriptor left for a client: it is told so, the next one served."""
    guest = stage.guest()
    guest.decide = to_guest_as_remote
    address = _listen(guest, socket.create_server(("127.0.0.1", 0)))
    first = stage.keep(socket.create_connection(address, timeout=stage.patience))
    guest.wait_for(lambda: bool(guest.counter("accept_errors")), "a failure")
    with suppress(ConnectionResetError):
        assert first.recv(1) == b""
    stage.keep(socket.create_connection(address, timeout=stage.patience))
    guest.wait_for(lambda: bool(guest.misses), "a miss")


def tcp_in_rejected(stage: Stage) -> None:
    """A client that nobody wants."""
    _, client = _forwarded(stage, answer(Action.REJECT))
    with suppress(ConnectionResetError):
        assert client.recv(1) == b""


# UDP and ping


def udp_out(stage: Stage) -> None:
    """Questions and answers, runs of datagrams, and one that nobody wants."""
    guest = stage.guest()
    for v6, host in ((False, "127.0.0.1"), (True, "::1")):
        peer = stage.peer(host)
        guest.decide = forward_to(peer.getsockname()[1])
        for i in range(20):
            packet = udp(bytes([i]) * 50, v6=v6, sport=41000)
            setattr(packet, "hlim" if v6 else "ttl", 9 + i % 2 * (i > 9))
            guest.put(packet)
        guest.turn()
        for i in range(20):
            data, source = peer.recvfrom(99)
            assert data[0] == i
        peer.sendto(b"answer", source)
        guest.expect(payload=b"answer")
        peer.close()
        guest.send(udp(b"gone", v6=v6, sport=41000))
        guest.drain()
        guest.send(udp(b"gone", v6=v6, sport=41000))
        guest.drain()
        guest.send(udp(bytes(60000), v6=v6, sport=41001))
        guest.drain()


def udp_bound(stage: Stage) -> None:
    """Through an interface that was asked for."""
    guest = stage.guest()
    guest.dp.outbound_if("lo", "lo")
    peer = stage.peer()
    guest.decide = forward_to(peer.getsockname()[1])
    guest.send(udp(b"bound"))
    assert peer.recv(99) == b"bound"


def udp_in(stage: Stage) -> None:
    """A client of a forwarded port, and an answer."""
    guest = stage.guest()
    for host in ("127.0.0.1", "::"):
        guest.decide = inward
        with listening(host, dual=":" in host) as sock:
            port = sock.getsockname()[1]
            guest.dp.listen(sock.fileno(), socket.IPPROTO_UDP, LISTENER)
            sock.detach()
        for _ in range(2):
            peer = stage.peer()
            peer.connect(("127.0.0.1", port))
            peer.send(b"question")
            frame = guest.expect(payload=b"question")
            back = partial(
                udp, src=GUEST4, dst=REMOTE4, sport=53, dport=frame.packet.sport
            )
            guest.send(back(b"answer"))
            assert peer.recv(99) == b"answer"
            guest.send(back(bytes(3000)))
        guest.dp.unlisten(LISTENER)


def _ping(guest: ScenarioGuest) -> None:
    def decide(miss: _native.Miss) -> Verdict:
        host = inany(ip_address("127.0.0.1" if is_v4(miss.oaddr) else "::1"))
        return Verdict(Action.FORWARD, Pif.HOST, host, miss.oport, UNSPECIFIED, 0, 1)

    guest.decide = decide
    for v6 in (False, True):
        for seq in (1, 2):
            guest.send(echo(77, seq, b"payload", v6=v6))
            guest.recv()
    guest.advance(61)
    assert not guest.flows()


def ping(stage: Stage) -> None:
    """Through ping sockets."""
    _ping(stage.guest())


def ping_raw(stage: Stage) -> None:
    """Through raw sockets that are lent, as ping sockets are refused."""
    guest = stage.guest()
    lend_raw_sockets(guest.dp, 2)
    _ping(guest)


def ping_bound(stage: Stage) -> None:
    """Through raw sockets and an interface that was asked for."""
    guest = stage.guest()
    guest.dp.outbound_if("lo", "lo")
    lend_raw_sockets(guest.dp, 2)
    _ping(guest)


# Splicing


def splice_tcp(stage: Stage) -> None:
    """From host to namespace and back, and to a port that is closed."""
    for source in (Pif.HOST, Pif.SPLICE):
        _splice_tcp(stage.world(socket.SOCK_STREAM, source))


def _splice_tcp(world: World) -> None:
    server = world.serve()
    client, conn = world.pair(server)
    for one, two in ((client, conn), (conn, client)):
        one.sendall(b"s" * 3000)
        _same(b"s" * 3000, world.work(partial(read_exactly, two, 3000)))
    client.shutdown(socket.SHUT_WR)
    assert world.work(partial(conn.recv, 1)) == b""
    conn.close()
    assert world.work(partial(client.recv, 1)) == b""
    _reset_while_blocked(world, server)
    world.target_port = closed_port()
    late = world.client()
    with suppress(ConnectionError):
        world.work(partial(late.recv, 1))


def _reset_while_blocked(world: World, server: socket.socket) -> None:
    """The client goes, and what it sent is still in our socket: nobody reads."""
    client, conn = world.pair(server)
    client.setblocking(False)
    with suppress(BlockingIOError):
        for _ in range(200):
            client.send(b"b" * (1 << 16))
            world.guest.turn()
    for leave in (partial(reset, client), conn.close):
        leave()
        world.guest.advance(1)


def splice_waiting(stage: Stage) -> None:
    """The server takes its time: the kernel tries again after a second."""
    world = stage.world(socket.SOCK_STREAM, Pif.SPLICE)
    patience = max(stage.patience, WARY_S)
    with socket.create_server(("127.0.0.1", 0), backlog=0) as server:
        world.target_port = server.getsockname()[1]
        with socket.create_connection(server.getsockname()):
            world.client()
            Guest.wait_for(world.guest, lambda: bool(world.guest.misses), "", patience)
            server.accept()[0].close()
        server.settimeout(patience)
        stage.keep(server.accept()[0])
        world.guest.turn()


def splice_bound(stage: Stage) -> None:
    """The source was asked for."""
    world = stage.world(socket.SOCK_STREAM, Pif.SPLICE, SourceWorld)
    world.pair(world.serve())


def splice_udp(stage: Stage) -> None:
    """A question and its answer, both directions, and through the listener."""
    for source, bring in ((Pif.HOST, True), (Pif.SPLICE, True), (Pif.SPLICE, False)):
        world = stage.world(socket.SOCK_DGRAM, source, bring=bring)
        server = world.serve()
        client = world.client()
        client.send(b"question")
        data, where = world.work(partial(server.recvfrom, 99))
        assert data == b"question"
        server.sendto(b"answer", where)
        assert world.work(partial(client.recv, 99)) == b"answer"


# Captures, and what a daemon has besides


def captures(stage: Stage) -> None:
    """A file of everything, and one of a client of the control socket."""
    guest = stage.guest()
    peer = stage.peer()
    guest.decide = forward_to(peer.getsockname()[1])
    with tempfile.TemporaryFile() as file:
        guest.dp.pcap(os.dup(file.fileno()))
    number = guest.dp.capture_start(compile_program("", Context({})), 3, 100)
    guest.send(udp(b"seen"))
    assert peer.recv(99) == b"seen"
    guest.decide = forward_to(stage.server().port)
    conn = guest.connect()
    conn.send(b"seen too")
    conn.say("R")
    guest.dp.capture_take(number, 1 << 16, 100)
    guest.dp.capture_stop(number)
    guest.dp.pcap(-1)


def real_time(stage: Stage) -> None:
    """A datapath with a clock of its own."""
    ours, tap = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stage.keep(ours)
    try:
        dp = _native.Datapath(
            tap.fileno(),
            mtu=1500,
            our_mac=bytes.fromhex(OUR_MAC.replace(":", "")),
            vnet_hdr=False,
        )
    except OSError:
        tap.close()
        raise
    tap.detach()
    try:
        ours.send(bytes(Ether(src=GUEST_MAC, dst=OUR_MAC) / udp(b"timed")))
        assert dp.turn(spin_us=0)
        # Nobody answers; when that has taken too long the timer tells
        assert readable([dp.fileno()], 2 * stage.patience)
        dp.turn(spin_us=0)
    finally:
        dp.close()


def vhost_call(stage: Stage) -> None:
    """A front-end changes how it wants to be called."""
    guest = stage.guest()
    if stage.tap == "vhost":
        call = os.eventfd(0)
        try:
            guest.dp.vhost_call(0, call)
        except OSError:
            os.close(call)
            raise


@dataclass(frozen=True)
class Part:
    """A function of a stage, and what has to fail for the calls that it is about.

    `first` names such a failure: a file, a call, which of that call in the file, the
    error, and how often.
    """

    run: Callable[[Stage], None]
    first: tuple[str, str, int, int, int] | None = None

    def __str__(self) -> str:
        return self.run.__name__ + (f" after {self.first[1:]}" if self.first else "")


PARTS = [
    *map(
        Part,
        (
            tcp_out,
            tcp_given,
            tcp_lost,
            tcp_refused,
            tcp_bound,
            tcp_in,
            tcp_in_rejected,
            udp_out,
            udp_in,
            udp_bound,
            ping,
            ping_raw,
            ping_bound,
            splice_tcp,
            splice_bound,
            splice_waiting,
            splice_udp,
            captures,
            real_time,
            vhost_call,
        ),
    ),
    # A kernel without SO_PEEK_OFF for TCP
    Part(tcp_lost, ("proto/tcp.c", "setsockopt", 0, ENOPROTOOPT, 1)),
    Part(tcp_in_full, ("proto/tcp_listen.c", "accept4", 1, EMFILE, 1)),
    # A device that takes no segments, datagrams too long for the path
    Part(udp_out, ("proto/udp_tx.c", "sendmmsg", 0, EIO, 1)),
    Part(udp_out, ("proto/udp_tx.c", "sendmmsg", 0, EMSGSIZE, 4)),
    Part(udp_in, ("proto/udp_tx.c", "sendmmsg", 0, EMSGSIZE, 4)),
    # Without privileges a socket stays where it was bound first
    Part(ping_bound, ("proto/dgram.c", "setsockopt", 1, EPERM, 1)),
    Part(captures, ("link/pcap.c", "write", 0, EAGAIN, 1)),
]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Real sockets opposite the guest: what the TCP tests need besides a server."""

import os
import random
import socket
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

from passtpy import _native
from passtpy.addr import inany, is_v4
from passtpy.flow import Action, Pif, Verdict
from tests.datapath.conftest import Server
from tests.datapath.guest import WAIT_S, Connection, Decide, Frame, Guest, forward_to
from tests.datapath.packets import GUEST4, GUEST6, REMOTE4, REMOTE6
from tests.lab.namespace import wait_until
from tests.lab.ready import queued

LISTENER = 5
WITH_SACK = [("MSS", 1000), ("WScale", 7), ("SAckOK", b"")]  # of a guest


def random_bytes(size: int) -> bytes:
    """Reproducible bytes without a period."""
    return random.Random(size).randbytes(size)


def end_from_guest(guest: Guest, conn: Connection, peer: socket.socket) -> None:
    """End a connection in order, the guest first."""
    conn.fin()
    guest.expect("A", ack=conn.seq)
    assert peer.recv(1) == b""
    peer.close()
    conn.expect("FA", ack=conn.seq)
    conn.acknowledge()
    guest.wait_for(lambda: not guest.flows(), "the flow's end")


def closed_port() -> int:
    """A port on loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@contextmanager
def listen_on(backlog: int) -> Iterator[tuple[socket.socket, int]]:
    """A listening socket whose backlog matters, and its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=backlog) as sock:
        yield sock, int(sock.getsockname()[1])


@contextmanager
def full_server() -> Iterator[int]:
    """The port of a server whose backlog is full: it neither accepts nor refuses."""
    with (
        listen_on(backlog=0) as (_, port),
        socket.create_connection(("127.0.0.1", port)),
    ):
        yield port


def to_guest_as_remote(miss: _native.Miss) -> Verdict:
    """A client on loopback appears to the guest as the remote host.

    As in the real policy: a guest must never see a loopback address on its link.
    """
    guest, remote = (GUEST4, REMOTE4) if is_v4(miss.eaddr) else (GUEST6, REMOTE6)
    ends = inany(ip_address(guest)), 80, inany(ip_address(remote)), miss.eport
    return Verdict(Action.FORWARD, Pif.TAP, *ends, 1)


def inbound(
    guest: Guest, server: Server, decide: Decide | None = None
) -> tuple[socket.socket, tuple[str, int]]:
    """Connect to a port forwarded to the guest's port 80; the client, its address.

    The server stands for the forwarded port: the datapath listens on its socket.
    """
    listener = server.sock.dup()
    listener.setblocking(False)
    guest.decide = decide or to_guest_as_remote
    guest.dp.listen(listener.detach(), socket.IPPROTO_TCP, LISTENER)
    client = socket.create_connection(server.sock.getsockname()[:2], timeout=WAIT_S)
    server.accepted.append(client)
    misses = len(guest.misses)
    guest.wait_for(lambda: len(guest.misses) > misses, "a miss")
    guest.dp.unlisten(LISTENER)
    return client, client.getsockname()[:2]


def established(
    guest: Guest, server: Server, **fields: object
) -> tuple[Connection, socket.socket]:
    """A connection that the guest opened, and the socket that accepted it."""
    guest.decide = forward_to(server.port)
    conn = guest.connect(**fields)
    return conn, server.accept()


def abort(sock: socket.socket) -> None:
    """Close with a RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """Read that many bytes from a blocking socket."""
    got = b""
    while len(got) < size:
        piece = sock.recv(size - len(got))
        assert piece, f"end of stream after {len(got)} bytes"
        got += piece
    return got


def arrived(guest: Guest) -> list[Frame]:
    """Frames that are there already: no waiting in real time."""
    frames = []
    while (frame := guest._next(0)) is not None:
        frames.append(frame)
    return frames


def in_flight(guest: Guest, conn: Connection, size: int) -> list[Frame]:
    """Receive exactly `size` bytes of data without acknowledging any."""
    frames, got = [], 0
    while got < size:
        frame = guest.recv()
        assert frame.tcp.seq == (conn.ack + got) % 2**32, frame.packet.summary()
        got += len(frame.payload)
        frames.append(frame)
    assert got == size
    return frames


def until_fin(conn: Connection) -> bytes:
    """Receive up to the peer's FIN, which is acknowledged."""
    got = b""
    while True:
        frame = conn.guest.recv()
        assert frame.tcp.seq == conn.ack
        got += frame.payload
        conn.ack = later_on(conn.ack, len(frame.payload) + ("F" in frame.flags))
        if "F" in frame.flags:
            conn.acknowledge()
            return got


def later_on(seq: int, distance: int) -> int:
    """A sequence number further on, modulo 2^32."""
    return (seq + distance) % 2**32


def datapaths_end(peer: socket.socket) -> socket.socket:
    """The datapath's socket that is connected to this one: it lives in this process."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            sock = socket.socket(fileno=os.dup(int(name)))
            try:
                ends = sock.getpeername(), sock.getsockname()
                if ends == (peer.getsockname(), peer.getpeername()):
                    return sock
            except OSError:
                pass
            sock.close()
    raise AssertionError("the datapath has no such socket")


def wait_unread(peer: socket.socket, size: int) -> None:
    """Wait until so much of what the peer sent is there to be read by the datapath.

    The kernel sends it at a pace that follows from how fast it went before.
    """
    with datapaths_end(peer) as sock:
        wait_until(lambda: queued(sock) >= size, WAIT_S, f"{size} bytes")


def fill(guest: Guest, conn: Connection, limit: int = 64 << 20) -> bytes:
    """Send until the window is closed; what was sent."""
    sent = bytearray()
    scale = dict(conn.peer_syn.tcp.options).get("WScale", 0)
    rng = random.Random(5)
    edge = conn.seq + conn.peer_syn.tcp.window
    while len(sent) < limit:
        for frame in guest.drain() if conn.seq == edge else arrived(guest):
            edge = frame.tcp.ack + (frame.tcp.window << scale)
        room = edge - conn.seq
        if not room:
            return bytes(sent)
        piece = rng.randbytes(min(60_000, room))
        conn.send(piece)
        sent += piece
    raise AssertionError("the window never closes")


def hold(guest: Guest, conn: Connection, peer: socket.socket, size: int) -> None:
    """Send zeros until so many are held, for the kernel has hardly any room."""
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    with datapaths_end(peer) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    window = 1000
    while guest.counter("tcp_buffered") < size:
        conn.send(bytes(min(window, 60_000)))
        frames = arrived(guest)
        edge = max(later_on(f.tcp.ack, f.tcp.window << 7) for f in frames)
        window = edge - conn.seq


def read_while_turning(guest: Guest, peer: socket.socket, size: int) -> bytes:
    """Read from a peer whose data the datapath still holds."""
    got = bytearray()
    peer.setblocking(False)

    def more() -> bool:
        with suppress(BlockingIOError):
            got.extend(peer.recv(1 << 20))
        return len(got) >= size

    guest.wait_for(more, f"{size} bytes")
    return bytes(got)

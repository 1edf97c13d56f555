# SPDX-License-Identifier: GPL-2.0-or-later
"""A world for spliced flows: client, datapath and server, all on loopback.

The namespace is played by the host's own loopback: what matters to the datapath is on
which pif a listening socket was registered, and whose socket a verdict brings.
"""

import errno
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany
from passtpy.flow import Action, FlowRecord, Pif, Verdict
from tests.datapath.guest import WAIT_S, Guest

LISTENER = 7
RULE = 4
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}

# Of datagrams: where the listener is, the family, and whether the target's socket is
# brought
WAYS = {
    "inward": (Pif.HOST, socket.AF_INET, True),
    "inward v6": (Pif.HOST, socket.AF_INET6, True),
    "outward": (Pif.SPLICE, socket.AF_INET, True),
    "outward v6": (Pif.SPLICE, socket.AF_INET6, True),
    "outward, through the listener": (Pif.SPLICE, socket.AF_INET, False),
}


@dataclass
class World:
    """A listener of the datapath on `port`, whose flows go to `target`.

    `source` is the pif of the listener; the target is on the other one. A target in the
    namespace gets a socket from here, as the daemon gets it from its socket factory.
    """

    guest: Guest
    kind: socket.SocketKind
    source: Pif = Pif.HOST
    family: socket.AddressFamily = socket.AF_INET
    target_port: int = 0
    hold: bool = False  # leave misses pending
    receive_buffer: int = 0  # of accepted sockets; 0: as the kernel likes
    bring: bool = True  # bring a socket where the verdict needs one
    gives_up: bool = True  # at the first refusal, or go to another place then
    other_port: int = 0
    refusals: int = 0  # clients whose first target has refused
    proxy: int = 0  # tell the server of its client by this version
    patience: float = WAIT_S  # of every socket
    sockets: list[socket.socket] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.host = LOOPBACK[self.family]
        listener = socket.socket(self.family, self.kind)
        listener.setblocking(False)
        if self.receive_buffer:
            listener.setsockopt(
                socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer
            )
        listener.bind((self.host, 0))
        if self.kind == socket.SOCK_STREAM:
            listener.listen(1024)
        self.port = int(listener.getsockname()[1])
        proto = {socket.SOCK_STREAM: 6, socket.SOCK_DGRAM: 17}[self.kind]
        with listener:
            self.guest.dp.listen(listener.fileno(), proto, LISTENER, pif=self.source)
            listener.detach()
        self.guest.decide = self._decide

    @property
    def target(self) -> Pif:
        return Pif.HOST if self.source == Pif.SPLICE else Pif.SPLICE

    def verdict(self, action: Action = Action.SPLICE) -> Verdict:
        """To the server, from an address of the kernel's choice."""
        where = inany(ip_address(self.host))
        port = self.target_port
        by = RULE, 0, self.proxy
        return Verdict(action, self.target, where, port, UNSPECIFIED, 0, *by)

    def brought(self) -> int:
        """A socket as the factory in the namespace makes it."""
        if not self.bring:
            return -1
        if self.target == Pif.HOST and self.kind == socket.SOCK_STREAM:
            return -1
        kind = self.kind | socket.SOCK_NONBLOCK
        return socket.socket(self.family, kind).detach()

    def _decide(self, miss: _native.Miss) -> None:
        """Answer. That nobody listens there is told at once, or by another miss."""
        if self.hold:
            return
        if miss.again or self.answer(miss) == -errno.ECONNREFUSED:
            self._refused(miss)

    def _refused(self, miss: _native.Miss) -> None:
        self.refusals += 1
        if self.gives_up:
            self.answer(miss, Action.REJECT)
        else:
            self.target_port = self.other_port
            self.answer(miss)

    def answer(self, miss: _native.Miss, action: Action = Action.SPLICE) -> int:
        """Open, or whatever the action says."""
        fd = self.brought() if action == Action.SPLICE else -1
        flow_id = self.guest.open(miss.miss_id, self.verdict(action), fd)
        if flow_id < 0 <= fd:
            os.close(fd)
        self.guest.opened.append(flow_id)
        return flow_id

    def plug(self) -> socket.socket:
        """A socket of the world outside, closed with the test."""
        sock = socket.socket(self.family, self.kind)
        sock.settimeout(self.patience)
        self.sockets.append(sock)
        return sock

    def serve(self) -> socket.socket:
        """A server that the flows go to; listening, if it is a TCP one."""
        sock = self.plug()
        sock.bind((self.host, 0))
        if self.kind == socket.SOCK_STREAM:
            sock.listen(1024)
        self.target_port = int(sock.getsockname()[1])
        return sock

    def client(self) -> socket.socket:
        """A client connected to the datapath's listener."""
        sock = self.plug()
        sock.connect((self.host, self.port))
        return sock

    def accept(self, server: socket.socket) -> socket.socket:
        """The server's end of the next connection."""

        def job() -> socket.socket:  # may come to its end when nobody waits any more
            conn, _ = server.accept()
            self.sockets.append(conn)
            return conn

        conn: socket.socket = self.work(job)
        conn.settimeout(self.patience)
        return conn

    def pair(self, server: socket.socket) -> tuple[socket.socket, socket.socket]:
        """A TCP client and the server's end of its connection."""
        client = self.client()
        return client, self.accept(server)

    def work(self, *jobs: Callable[[], Any]) -> Any:
        """Run blocking jobs in threads while the datapath runs; their results."""
        with ThreadPoolExecutor(len(jobs)) as pool:
            futures: list[Future[Any]] = [pool.submit(job) for job in jobs]
            self.guest.wait_for(
                lambda: all(future.done() for future in futures), "jobs", timeout=60
            )
            results = [future.result() for future in futures]
        return results[0] if len(results) == 1 else results

    def flow(self) -> FlowRecord:
        """The only flow."""
        (flow,) = self.guest.flows()
        return flow

    def finish(self, seconds: float = WAIT_S) -> None:
        """Let every flow end, while virtual time goes with the real one."""
        deadline = time.monotonic() + seconds
        while not self.ended():
            assert time.monotonic() < deadline, "flows did not end"
            self.guest.advance(0.002)
            time.sleep(0.002)

    def ended(self) -> bool:
        """No flow is left."""
        return not self.guest.flows()

    def reason(self) -> str:
        """Why the last flow ended, from the log (level 1)."""
        names = [name for name, *_ in _native.EVENTS]
        closed = names.index("flow_closed")
        events = [e for e in self.guest.dp.events(4096) if e.event == closed]
        return _native.FLOW_WHYS[events[-1].args[0]]

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


def read_all(sock: socket.socket, chunk: int = 65536) -> bytes:
    """Read to the end."""
    parts = []
    while part := sock.recv(chunk):
        parts.append(part)
    return b"".join(parts)


def send_and_end(sock: socket.socket, data: bytes) -> None:
    """Send everything, then half-close."""
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


def reset(sock: socket.socket) -> None:
    """Close with a RST."""
    linger = (1).to_bytes(4, "little") + (0).to_bytes(4, "little")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    sock.close()


def work_in_time(world: World, job: Callable[[], object]) -> None:
    """Run a blocking job while virtual time goes with the real one."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(job)
        while not future.done():
            world.guest.advance(0.001)
            time.sleep(0.001)
        future.result()


__all__ = [
    "LISTENER",
    "World",
    "read_all",
    "reset",
    "send_and_end",
    "work_in_time",
]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the datapath tests: a guest, and real peers on loopback.

    def test_connection_is_opened(guest, server):
        guest.decide = forward_to(server.port)
        guest.send(syn())
        guest.expect("SA", ack=1001)
        server.accept()

`guest` has a virtio-net header with all offloads; `any_guest` runs the test four times,
the second time on a tap without the header, then on the stream socket and on the rings
of a virtual machine; `make_guest(mtu=1280)` makes odd ones. The packet language is in
packets.py, Guest and Connection in guest.py.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from tests.datapath.guest import WAIT_S, Guest
from tests.lab.namespace import Namespace


@dataclass
class Server:
    """A listening TCP socket on loopback (`v6` too, on the same port number)."""

    sock: socket.socket

    @property
    def port(self) -> int:
        """The port flows are to be forwarded to."""
        return int(self.sock.getsockname()[1])

    def accept(self) -> socket.socket:
        """Return the next connection (blocking with a time-out)."""
        self.sock.settimeout(WAIT_S)
        conn, _ = self.sock.accept()
        conn.settimeout(WAIT_S)
        self.accepted.append(conn)
        return conn

    def __post_init__(self) -> None:
        self.accepted: list[socket.socket] = []

    def close(self) -> None:
        """Close the listener and everything accepted."""
        for conn in self.accepted:
            conn.close()
        self.sock.close()


@pytest.fixture
def make_guest() -> Iterator[Callable[..., Guest]]:
    """Make guests with other options: `make_guest(vnet=False, mtu=1500)`."""
    made: list[Guest] = []

    def make(**options: Any) -> Guest:
        guest = Guest(**options)
        made.append(guest)
        return guest

    yield make
    for guest in made:
        guest.close()


@pytest.fixture
def guest(make_guest: Callable[..., Guest]) -> Guest:
    """A guest on a tap with virtio-net header and all offloads."""
    return make_guest()


@pytest.fixture(params=["vnet", "plain", "stream", "vhost"])
def any_guest(
    request: pytest.FixtureRequest, make_guest: Callable[..., Guest]
) -> Guest:
    """A guest on a tap with a virtio-net header, without, on a stream, on rings."""
    if request.param == "vnet":
        return make_guest()
    if request.param == "vhost":
        return make_guest(backend="vhost")
    backend = "stream" if request.param == "stream" else "tun"
    return make_guest(vnet=False, offloads=0, backend=backend)


@pytest.fixture
def server() -> Iterator[Server]:
    """A TCP server on 127.0.0.1."""
    server = Server(socket.create_server(("127.0.0.1", 0), backlog=128))
    yield server
    server.close()


@pytest.fixture
def server6() -> Iterator[Server]:
    """A TCP server on ::1."""
    server = Server(socket.create_server(("::1", 0), family=socket.AF_INET6))
    yield server
    server.close()


def _udp_peer(family: socket.AddressFamily, host: str) -> Iterator[socket.socket]:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(WAIT_S)
    yield sock
    sock.close()


@pytest.fixture
def udp_peer() -> Iterator[socket.socket]:
    """A UDP socket on 127.0.0.1: `forward_to(udp_peer.getsockname()[1])`."""
    yield from _udp_peer(socket.AF_INET, "127.0.0.1")


@pytest.fixture
def udp_peer6() -> Iterator[socket.socket]:
    """A UDP socket on ::1."""
    yield from _udp_peer(socket.AF_INET6, "::1")


@pytest.fixture(scope="module")
def ping_namespace() -> Iterator[Namespace]:
    """A namespace in which ping sockets are allowed."""
    made = Namespace.create(f"passtpy-icmp-{os.getpid()}")
    made.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    yield made
    made.delete()

# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures of the datapath tests: a guest, and real peers on loopback.

    def test_connection_is_opened(guest, server):
        guest.decide = forward_to(server.port)
        guest.send(syn())
        guest.expect("SA", ack=1001)
        server.accept()

Each test that has a guest runs on every kind of tap (TAPS); `make_guest(mtu=1280)`
makes odd guests on each. A test that only some kinds can have says so, and why:

    @pytest.mark.taps("vnet", "vhost", why="only there the guest has offload")

`make_on` makes guests of one named kind, for tests that are about that kind. The packet
language is in packets.py, Guest and Connection in guest.py; each frame that a guest
gets is checked by oracle.py.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from tests.datapath.given import Ends
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


# Kinds of tap: a device with a virtio-net header and all offloads, one without, the
# stream socket and the rings of a virtual machine.
TAPS: dict[str, dict[str, Any]] = {
    "vnet": {},
    "plain": {"vnet": False, "offloads": 0},
    "stream": {"vnet": False, "offloads": 0, "backend": "stream"},
    "vhost": {"backend": "vhost"},
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what has a guest on each kind of tap that it can have."""
    if "tap" not in metafunc.fixturenames:
        return
    kinds = list(TAPS)
    for mark in metafunc.definition.iter_markers("taps"):
        assert mark.args, f"{metafunc.definition.nodeid}: on no tap"
        assert mark.kwargs["why"]
        kinds = [kind for kind in kinds if kind in mark.args]
    metafunc.parametrize("tap", kinds)


@pytest.fixture
def make_on() -> Iterator[Callable[..., Guest]]:
    """Make guests of a named kind: `make_on("stream", mtu=1500)`."""
    made: list[Guest] = []

    def make(tap: str, **options: Any) -> Guest:
        guest = Guest(**{**TAPS[tap], **options})
        made.append(guest)
        return guest

    yield make
    for guest in made:
        guest.close()


@pytest.fixture
def make_guest(make_on: Callable[..., Guest], tap: str) -> Callable[..., Guest]:
    """Make guests with other options, on each kind of tap: `make_guest(mtu=1500)`."""
    return partial(make_on, tap)


@pytest.fixture
def guest(make_guest: Callable[..., Guest]) -> Guest:
    """A guest, on each kind of tap."""
    return make_guest()


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


@pytest.fixture
def ends() -> Iterator[Ends]:
    """Makes pairs of UNIX sockets."""
    made = Ends()
    yield made
    made.close()


@pytest.fixture(scope="module")
def ping_namespace() -> Iterator[Namespace]:
    """A namespace in which ping sockets are allowed."""
    made = Namespace.create(f"passtpy-icmp-{os.getpid()}")
    made.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    yield made
    made.delete()

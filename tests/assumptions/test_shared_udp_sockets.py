# SPDX-License-Identifier: GPL-2.0-or-later
"""What a UDP port believes about the kernel: one unconnected socket, many remotes."""

import ctypes
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.assumptions.test_datagram_sockets import refused
from tests.lab.namespace import Namespace

UDP_SEGMENT, UDP_GRO = 103, 104  # not in the socket module
IP_RECVERR, IPV6_RECVERR = 11, 25
AF_UNSPEC_ADDRESS = struct.pack("=H14x", socket.AF_UNSPEC)
FAMILIES = {"v4": (socket.AF_INET, "127.0.0.1"), "v6": (socket.AF_INET6, "::1")}


@pytest.fixture(params=list(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Both families."""
    return str(request.param)


def bound(family: str, port: int = 0, host: str = "") -> socket.socket:
    """A UDP socket on loopback that keeps errors."""
    af, loopback = FAMILIES[family]
    sock = socket.socket(af, socket.SOCK_DGRAM)
    if af == socket.AF_INET:
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
    try:
        sock.bind((host or loopback, port))
    except OSError:
        sock.close()
        raise
    sock.settimeout(30)
    return sock


@pytest.fixture
def shared(family: str) -> Iterator[socket.socket]:
    """The unconnected socket."""
    with bound(family) as sock:
        yield sock


@pytest.fixture
def remotes(family: str) -> Iterator[list[socket.socket]]:
    """Two remotes."""
    socks = [bound(family) for _ in range(2)]
    yield socks
    for sock in socks:
        sock.close()


def disconnect(sock: socket.socket) -> None:
    """connect() to AF_UNSPEC, for which Python has no words."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.connect(sock.fileno(), AF_UNSPEC_ADDRESS, 16) == 0


def test_error_queue_tells_whom_the_datagram_was_for(
    shared: socket.socket, remotes: list[socket.socket]
) -> None:
    """So an error finds its flow although the socket is not connected."""
    dead, alive = remotes[0].getsockname()[:2], remotes[1].getsockname()[:2]
    remotes[0].close()
    shared.sendto(b"lost", dead)
    refused(shared)
    with pytest.raises(ConnectionRefusedError):
        shared.sendto(b"blamed for the other", alive)
    data, control, _, to = shared.recvmsg(99, 500, socket.MSG_ERRQUEUE)
    assert (data, to[:2]) == (b"lost", dead)
    number, origin = struct.unpack("=IB", control[0][2][:5])
    assert (number, origin) == (errno.ECONNREFUSED, 2 if ":" not in dead[0] else 3)
    shared.sendto(b"sent", alive)
    assert remotes[1].recv(9) == b"sent"


def test_segments_and_gro_work_without_connecting(
    shared: socket.socket, remotes: list[socket.socket]
) -> None:
    """UDP_SEGMENT to a named peer; UDP_GRO joins what came from one peer only."""
    shared.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    option = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 100))]
    to = remotes[0].getsockname()
    assert shared.sendmsg([bytes(250)], option, 0, to) == 250
    assert [len(remotes[0].recv(999)) for _ in range(3)] == [100, 100, 50]
    for remote in remotes:
        remote.sendmsg([bytes(300)], option, 0, shared.getsockname())
    for remote in remotes:
        data, control, _, sender = shared.recvmsg(9999, 100)
        assert (len(data), sender) == (300, remote.getsockname())
        assert struct.unpack("i", control[0][2]) == (100,)


def test_a_disconnected_socket_is_as_new(family: str) -> None:
    """Which source address a remote is reached from, asked again and again."""
    af, loopback = FAMILIES[family]
    with socket.socket(af, socket.SOCK_DGRAM) as probe, bound(family) as remote:
        for _ in range(3):
            probe.connect(remote.getsockname())
            assert probe.getsockname()[0] == loopback
            disconnect(probe)
            assert probe.getsockname()[1] == 0
        probe.bind((loopback, 0))  # and may still be bound


def test_both_families_have_the_same_port_on_their_addresses() -> None:
    with bound("v4") as four, bound("v6", four.getsockname()[1]) as six:
        assert four.getsockname()[1] == six.getsockname()[1]


def test_a_dual_stack_wildcard_takes_the_port_of_both_families() -> None:
    """Unless it is IPv6 only, which a socket that binds is to say."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as six:
        six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        with bound("v4", 0, "0.0.0.0") as four:
            with pytest.raises(OSError, match="in use"):
                six.bind(("::", four.getsockname()[1]))
            six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            six.bind(("::", four.getsockname()[1]))


def test_a_port_of_one_address_leaves_the_others_alone() -> None:
    """Others keep their loopback; a wildcard finds the port in use."""
    with bound("v4", 0, "127.0.0.9") as ours:
        port = ours.getsockname()[1]
        bound("v4", port).close()
        with pytest.raises(OSError, match="in use"):
            bound("v4", port, "0.0.0.0")


@pytest.mark.root
def test_a_source_address_that_is_gone_fails_every_send() -> None:
    """The socket stays bound to it: only a new one gets the new address."""
    made = Namespace.create(f"passtpy-source-{os.getpid()}")
    try:
        made.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        with made.entered(), bound("v4", 0, "192.0.2.1") as sock:
            sock.sendto(b"x", ("192.0.2.1", 9))
            made.ip("addr", "del", "192.0.2.1/32", "dev", "lo")
            made.ip("addr", "add", "192.0.2.2/32", "dev", "lo")
            refused(sock)
            sock.recvmsg(99, 500, socket.MSG_ERRQUEUE)
            with pytest.raises(OSError, match=r"Invalid argument|unreachable"):
                sock.sendto(b"x", ("192.0.2.2", 9))
    finally:
        made.delete()

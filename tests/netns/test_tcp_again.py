# SPDX-License-Identifier: GPL-2.0-or-later
"""TCP through the whole daemon: ports used again at once, and peers that are gone."""

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.lab import (
    HOST4,
    REMOTE4,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    Namespace,
    tcp_pair,
)
from tests.lab.namespace import wait_until

FORWARDED = 7080
CLIENT = 41_000  # ports that the kernel gives nobody
TIMES = 40
LATE = 4  # of them: a busy machine may let a second pass before it answers a SYN
PASSTPY = TRANSLATORS["passtpy"]
TOTAL_RETRANS = 100  # offset of tcpi_total_retrans in struct tcp_info


@pytest.fixture(scope="module")
def attached(lab: Lab) -> Iterator[Attached]:
    """A guest, with one port forwarded to it."""
    with lab.attach(PASSTPY, Attachment(tcp_ports=(FORWARDED,))) as made:
        for where in (lab.remote, made.guest):
            where.sysctl("net.ipv4.ip_local_port_range", "45000 60999")
        yield made
        made.check_alive()


def from_port(where: Namespace, port: int, address: str, to: int) -> socket.socket:
    """Connect from that source port."""
    client = where.new_socket(socket.AF_INET, socket.SOCK_STREAM)
    client.settimeout(60)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    client.bind(("0.0.0.0", port))
    client.connect((address, to))
    return client


def resent(sock: socket.socket) -> int:
    """Segments that its kernel sent again; a SYN that nobody answered is one."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
    return int(struct.unpack_from("=I", info, TOTAL_RETRANS)[0])


def test_port_is_used_again_after_a_reset(lab: Lab, attached: Attached) -> None:
    with lab.remote.listen(REMOTE4) as listener:
        port, again = listener.getsockname()[1], 0
        for number in range(TIMES):
            client = from_port(attached.guest, CLIENT, REMOTE4, port)
            again += resent(client) > 0
            client.sendall(b"%d" % number)
            server, _ = listener.accept()
            with server:
                assert server.recv(10) == b"%d" % number
                linger = struct.pack("ii", 1, 0)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.close()
        assert again <= LATE


def test_port_is_used_again_when_the_published_server_closed_first(
    lab: Lab, attached: Attached
) -> None:
    with attached.guest.listen("0.0.0.0", FORWARDED) as listener:
        again = 0
        for number in range(TIMES):
            with from_port(lab.remote, CLIENT, HOST4, FORWARDED) as client:
                server, _ = listener.accept()
                server.sendall(b"%d" % number)
                server.close()
                assert client.recv(10) == b"%d" % number
                assert client.recv(10) == b""
                again += resent(client) > 0
        assert again <= LATE


def test_keepalive_of_the_guest_finds_that_its_peer_is_gone(
    lab: Lab, attached: Attached
) -> None:
    """Nothing comes back from the remote any more."""
    near, far = tcp_pair(attached.guest, lab.remote, REMOTE4)
    with near, far:
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        near.settimeout(60)
        lab.remote.ip("route", "add", "blackhole", HOST4)
        try:
            with pytest.raises((ConnectionResetError, TimeoutError)) as failure:
                near.recv(1)
            assert failure.type is ConnectionResetError
        finally:
            lab.remote.ip("route", "del", "blackhole", HOST4)


def test_socket_of_a_guest_that_was_killed_goes(lab: Lab, attached: Attached) -> None:
    """Its kernel forgets a connection that was half closed; the server never ends."""
    attached.guest.sysctl("net.ipv4.tcp_fin_timeout", "1")
    near, far = tcp_pair(attached.guest, lab.remote, REMOTE4)
    with far:
        near.close()
        assert far.recv(1) == b""
        address = far.getpeername()[1]

        def is_gone() -> bool:
            hexport = f":{address:04X} "
            return hexport not in lab.host.read("tcp")

        assert not is_gone()
        wait_until(is_gone, timeout=90, what="the end of the socket")

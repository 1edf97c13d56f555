# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams above the guest's MTU, both ways, through the whole daemon."""

import re
import socket
from collections.abc import Iterator

import pytest

from tests.lab import (
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    UdpEcho,
)
from tests.lab.namespace import family_of

SERVICE = 7054
MAX4, MAX6 = 65507, 65527
BOTH = pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])


@pytest.fixture(scope="module", params=[1280, 1500])
def attached(lab: Lab, request: pytest.FixtureRequest) -> Iterator[Attached]:
    """A guest whose kernel has to fragment what it sends."""
    options = Attachment(mtu=request.param, udp_ports=(SERVICE,))
    with lab.attach(TRANSLATORS["passtpy"], options) as made:
        yield made
        made.check_alive()


def sizes(remote: str) -> list[int]:
    """Around each limit, and the largest of all."""
    return [1232, 1252, 1253, 1472, 1473, 9000, MAX6 if ":" in remote else MAX4]


def pattern(size: int) -> bytes:
    """Bytes of which no two blocks are alike."""
    return b"".join(i.to_bytes(4, "big") for i in range(size // 4 + 1))[:size]


@BOTH
def test_datagrams_of_any_size_are_echoed(
    lab: Lab, attached: Attached, remote: str
) -> None:
    with (
        UdpEcho(lab.remote, remote) as server,
        attached.guest.new_socket(family_of(remote), socket.SOCK_DGRAM) as client,
    ):
        client.connect((remote, server.port))
        for size in sizes(remote):
            client.send(pattern(size))
            assert client.recv(70000) == pattern(size)


@BOTH
def test_many_in_a_row_arrive_whole(lab: Lab, attached: Attached, remote: str) -> None:
    sent = [bytes([i]) * 2000 + pattern(3000) for i in range(10)]
    with (
        UdpEcho(lab.remote, remote) as server,
        attached.guest.new_socket(family_of(remote), socket.SOCK_DGRAM) as client,
    ):
        client.connect((remote, server.port))
        for payload in sent:
            client.send(payload)
        assert [client.recv(70000) for _ in sent] == sent


@pytest.mark.parametrize("host", [HOST4, HOST6], ids=["v4", "v6"])
def test_server_in_the_guest_gets_them_too(
    lab: Lab, attached: Attached, host: str
) -> None:
    wildcard = "::" if ":" in host else "0.0.0.0"
    with (
        UdpEcho(attached.guest, wildcard, SERVICE),
        lab.remote.new_socket(family_of(host), socket.SOCK_DGRAM) as client,
    ):
        client.connect((host, SERVICE))
        for size in sizes(host):
            client.send(pattern(size))
            assert client.recv(70000) == pattern(size)


@BOTH
@pytest.mark.parametrize("size", ["1400", "60000"])
def test_large_ping_is_answered(attached: Attached, remote: str, size: str) -> None:
    words = ["ping", "-n", "-c", "2", "-i", "0.1", "-w", "30", "-s", size, remote]
    said = attached.guest.run(*words, check=False, timeout=60).stdout
    assert re.findall(r"icmp_seq=(\d+) ttl", said)[:2] == ["1", "2"], said

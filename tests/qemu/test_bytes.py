# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes between a guest and the world, exact in both directions of opening."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import (
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    Digest,
    Lab,
    UdpEcho,
    exchange,
    receive_all,
    send_random,
)
from tests.qemu.machine import Machine

SIZE = 20_000_000
PORT = 5000
REMOTES = pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["IPv4", "IPv6"])
HOSTS = pytest.mark.parametrize("host", [HOST4, HOST6], ids=["IPv4", "IPv6"])


@pytest.fixture(params=[1500, 65520], ids=lambda mtu: f"mtu{mtu}")
def sized(request: pytest.FixtureRequest, guest: Machine) -> Iterator[Machine]:
    """The guest, its interface with an MTU of these bytes."""
    guest.run(f"ip link set eth0 mtu {request.param}")
    yield guest
    guest.run("ip link set eth0 mtu 65520")


def digest_of(guest: Machine, path: str) -> Digest:
    size = int(guest.run(f"wc -c <{path}"))
    return Digest(size, guest.run(f"sha256sum <{path}").split()[0])


def check_download(lab: Lab, guest: Machine, remote: str, size: int) -> Digest:
    """The guest stores in /tmp/down what the remote sends, byte for byte."""
    with lab.remote.listen(remote) as listener, ThreadPoolExecutor(1) as pool:
        port = listener.getsockname()[1]
        fetched = pool.submit(guest.run, f"nc {remote} {port} </dev/null >/tmp/down")
        sock, _ = listener.accept()
        with sock:
            sent = send_random(sock, size)
        fetched.result()
    assert digest_of(guest, "/tmp/down") == sent
    return sent


@REMOTES
def test_download_is_exact(lab: Lab, sized: Machine, remote: str) -> None:
    check_download(lab, sized, remote, SIZE)


@REMOTES
def test_upload_is_exact(lab: Lab, sized: Machine, remote: str) -> None:
    sized.run(f"[ -e /tmp/up ] || head -c {SIZE} /dev/urandom >/tmp/up")
    with lab.remote.listen(remote) as listener, ThreadPoolExecutor(1) as pool:
        port = listener.getsockname()[1]
        stored = pool.submit(sized.run, f"nc {remote} {port} </tmp/up")
        sock, _ = listener.accept()
        with sock:
            received = receive_all(sock)
        stored.result()
    assert digest_of(sized, "/tmp/up") == received


@HOSTS
def test_service_of_the_guest_is_reached(lab: Lab, guest: Machine, host: str) -> None:
    guest.background(f"nc -l -p {PORT} -e cat")
    guest.wait_bound("tcp", PORT)
    data = bytes(range(256)) * 4000
    with lab.remote.connect(host, PORT) as sock:
        assert exchange(sock, data) == data


@pytest.mark.parametrize("size", [1, 1400, 20_000])
@REMOTES
def test_datagrams_of_the_guest_are_answered(
    lab: Lab, guest: Machine, remote: str, size: int
) -> None:
    with UdpEcho(lab.remote, remote) as server:
        guest.run(f"datagram ask {remote} {server.port} 50 {size}")
    assert len(server.peers) == 50


@HOSTS
def test_datagrams_to_the_guest_are_answered(
    lab: Lab, guest: Machine, host: str
) -> None:
    guest.background(f"datagram echo {PORT}")
    guest.wait_bound("udp", PORT)
    with lab.remote.udp("::" if ":" in host else "0.0.0.0") as sock:
        sock.connect((host, PORT))
        for size in (1, 1400, 20_000) * 10:
            sock.send(bytes(size))
            assert sock.recv(65535) == bytes(size)
    guest.run("killall datagram")

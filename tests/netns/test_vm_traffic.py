# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes to and from a guest behind passt's socket, whose kernel is a real one."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.lab import (
    GATEWAY4,
    GATEWAY6,
    HOST4,
    HOST6,
    REMOTE4,
    REMOTE6,
    Lab,
    Namespace,
    UdpEcho,
    exchange,
    tcp_echo,
    tcp_pair,
    transfer,
    transfer_both_ways,
    wait_until,
)
from tests.netns.machine import IFNAME, PATIENCE, Cable, Daemon, passt

OUR_LINK_LOCAL = "fe80::9855:9aff:fe55:9a55"
OTHER4, OTHER6 = "198.51.100.77", "2001:db8:2::77"
MEGABYTE = 1_000_000
PORTS = ["-t", "8080:80", "-u", "5353-5354:53-54"]
LEASE = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip link set dev "$interface" mtu "$mtu"
ip addr add "$ip/$mask" dev "$interface"
ip route add default via "$router"
"""


@pytest.fixture(scope="module", params=[[], ["--vhost-user"]], ids=["stream", "rings"])
def mode(request: pytest.FixtureRequest) -> list[str]:
    """The way in which frames reach passt."""
    words: list[str] = request.param
    return words


@pytest.fixture(scope="module")
def daemon(lab: Lab, mode: list[str]) -> Iterator[Daemon]:
    with passt(lab, *PORTS, *mode) as made:
        yield made


@contextmanager
def inwards(
    cable: Cable, own: str, client: Namespace, host: str, port: int, to: int = 80
) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a connection to a port of the host that leads to the guest."""
    with cable.guest.listen(own, to) as listener, client.connect(host, port) as near:
        far, _ = listener.accept()
        with far:
            far.settimeout(PATIENCE)
            yield near, far


@contextmanager
def configured(daemon: Daemon, v4: str = HOST4, v6: str = HOST6) -> Iterator[Cable]:
    """A guest with these addresses, which its kernel made known as it does."""
    with daemon.cable() as cable:
        cable.configure4(f"{v4}/24", GATEWAY4)
        cable.configure6(f"{v6}/64", OUR_LINK_LOCAL)
        yield cable


@pytest.fixture(scope="module")
def cable(daemon: Daemon) -> Iterator[Cable]:
    with configured(daemon) as made:
        yield made


def test_udhcpc_and_slaac_configure_a_guest(
    lab: Lab, mode: list[str], tmp_path: Path
) -> None:
    script = tmp_path / "script"
    script.write_text(LEASE)
    script.chmod(0o755)
    with passt(lab, "-m", "1400", *mode) as daemon, daemon.cable() as cable:
        udhcpc = ["busybox", "udhcpc", "-f", "-q", "-n", "-i", IFNAME, "-O", "mtu"]
        cable.guest.run(*udhcpc, "-s", str(script))
        shown = cable.guest.ip("addr", "show", "dev", IFNAME)
        assert f"inet {HOST4}/24" in shown
        assert "mtu 1400" in shown
        wait_until(cable.guest.has_route6, PATIENCE, "a prefix and a router")
        assert "2001:db8:2::ff:fe00:2/64" in cable.guest.ip("-6", "addr")
        for remote in (REMOTE4, REMOTE6):
            with (
                tcp_echo(lab.remote, remote) as server,
                cable.guest.connect(remote, server.port) as sock,
            ):
                assert exchange(sock, b"hello") == b"hello"


@pytest.mark.parametrize("remote", [REMOTE4, REMOTE6])
def test_tcp_out(lab: Lab, cable: Cable, remote: str) -> None:
    near, far = tcp_pair(cable.guest, lab.remote, remote)
    with near, far:
        transfer_both_ways(near, far, 3 * MEGABYTE)


@pytest.mark.parametrize("host", [HOST4, HOST6])
def test_tcp_in_through_a_forwarded_port(lab: Lab, cable: Cable, host: str) -> None:
    with inwards(cable, host, lab.remote, host, 8080) as (near, far):
        assert far.getpeername()[0] == near.getsockname()[0]  # no translation
        transfer_both_ways(near, far, 3 * MEGABYTE)


@pytest.mark.parametrize(
    ("loopback", "seen", "own"),
    [("127.0.0.1", GATEWAY4, HOST4), ("::1", GATEWAY6, HOST6)],
)
def test_the_hosts_loopback_is_the_gateway(
    lab: Lab, cable: Cable, loopback: str, seen: str, own: str
) -> None:
    """Nothing is spliced: there is no other loopback that we could reach."""
    with inwards(cable, own, lab.host, loopback, 8080) as (near, far):
        assert far.getpeername()[0] == seen
        transfer_both_ways(near, far, MEGABYTE)
    with (
        tcp_echo(lab.host, loopback) as server,
        cable.guest.connect(seen, server.port) as sock,
    ):
        assert exchange(sock, b"host") == b"host"


@pytest.mark.parametrize(
    ("remote", "host", "guest"), [(REMOTE4, HOST4, HOST4), (REMOTE6, HOST6, HOST6)]
)
def test_udp_both_ways(
    lab: Lab, cable: Cable, remote: str, host: str, guest: str
) -> None:
    with UdpEcho(lab.remote, remote) as echo, cable.guest.udp(guest) as sock:
        sock.connect((remote, echo.port))
        for size in (1, 1400, 20000):
            sock.send(bytes(size))
            assert sock.recv(65535) == bytes(size)
    with UdpEcho(cable.guest, guest, 53), lab.remote.udp(remote) as sock:
        sock.connect((host, 5353))
        sock.send(b"in")
        assert sock.recv(100) == b"in"


@pytest.mark.parametrize(
    ("loopback", "guest"), [("::1", HOST4), ("127.0.0.1", HOST6)], ids=["v6", "v4"]
)
def test_a_datagram_finds_the_family_of_its_server(
    lab: Lab, cable: Cable, loopback: str, guest: str
) -> None:
    """The guest's kernel says that nobody has the port; then it is sent once more."""

    def settled() -> bool:
        return "tentative" not in cable.guest.ip("-6", "addr")

    wait_until(settled, PATIENCE, "an address that refuses")
    with UdpEcho(cable.guest, guest, 54), lab.host.udp(loopback) as sock:
        sock.connect((loopback, 5354))
        for _ in range(2):
            sock.send(b"in")
            assert sock.recv(100) == b"in"


def test_pings(lab: Lab, cable: Cable) -> None:
    for remote in (REMOTE4, REMOTE6, GATEWAY4):
        cable.guest.run("ping", "-c1", "-W30", remote, timeout=60)


def test_all_ports_lead_to_the_guest(lab: Lab, mode: list[str]) -> None:
    lab.host.sysctl("net.ipv4.ip_local_port_range", "2000 65535")
    with (
        passt(lab, "-t", "all", "-u", "all", *mode) as daemon,
        configured(daemon) as cable,
    ):
        for port in (22, 80, 1999):
            with inwards(cable, HOST4, lab.remote, HOST4, port, port) as (near, far):
                transfer(near, far, 1000)
        with UdpEcho(cable.guest, HOST4, 123), lab.remote.udp(REMOTE4) as sock:
            sock.connect((HOST4, 123))
            sock.send(b"time")
            assert sock.recv(100) == b"time"
        assert not lab.host.is_bound("tcp", 2000)


def test_a_guest_with_addresses_of_its_own_is_found(lab: Lab, mode: list[str]) -> None:
    """Nobody told the guest these; inbound connections follow what it uses."""
    with (
        passt(lab, "-t", "8081:80", *mode) as daemon,
        configured(daemon, OTHER4, OTHER6) as cable,
    ):
        for remote, host, own in (
            (REMOTE4, HOST4, OTHER4),
            (REMOTE6, HOST6, OTHER6),
        ):
            with (
                tcp_echo(lab.remote, remote) as server,
                cable.guest.connect(remote, server.port) as sock,
            ):
                assert exchange(sock, b"out") == b"out"
            with inwards(cable, own, lab.remote, host, 8081) as (near, far):
                transfer(near, far, 1000)


def test_a_connection_waits_for_the_guest(lab: Lab, mode: list[str]) -> None:
    """Who connects before there is a guest gets through when it comes."""
    with passt(lab, "-t", "8082:80", *mode) as daemon, ExitStack() as stack:
        near = stack.enter_context(lab.remote.connect(HOST4, 8082))
        near.sendall(b"early")
        cable = stack.enter_context(daemon.cable())
        # Before it is known: it is asked as soon as it is
        listener = stack.enter_context(cable.guest.listen("0.0.0.0", 80))
        cable.configure4(f"{HOST4}/24", GATEWAY4)
        far = stack.enter_context(listener.accept()[0])
        assert far.recv(5) == b"early"


def test_a_flow_lives_on_behind_a_new_connection(lab: Lab, mode: list[str]) -> None:
    with passt(lab, "-t", "8083:80", *mode) as daemon, configured(daemon) as cable:
        near, far = tcp_pair(cable.guest, lab.remote, REMOTE4)
        with near, far:
            near.sendall(b"before")
            assert far.recv(100) == b"before"
            cable.unplug()
            far.sendall(b"meanwhile")
            near.sendall(b"lost at first")
            cable.plug(daemon.channel())
            assert near.recv(100) == b"meanwhile"
            assert far.recv(100) == b"lost at first"
            transfer(near, far, MEGABYTE)


def test_a_guest_that_was_started_anew_resets_what_it_does_not_know(
    lab: Lab, mode: list[str]
) -> None:
    with passt(lab, *mode) as daemon:
        with configured(daemon) as cable:
            near, far = tcp_pair(cable.guest, lab.remote, REMOTE4)
            near.sendall(b"before")
            assert far.recv(100) == b"before"
            cable.unplug()
            near.close()
        with far, configured(daemon), pytest.raises(ConnectionResetError):
            say(far, b"are you there?")


def say(sock: socket.socket, data: bytes) -> bytes:
    """Send something, and return what is answered."""
    sock.sendall(data)
    return sock.recv(100)

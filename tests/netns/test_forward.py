# SPDX-License-Identifier: GPL-2.0-or-later
"""Forwarded ports: over the tap and between loopbacks, listed and automatic."""

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

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
    Namespace,
    UdpEcho,
    closing_all,
    exchange,
    in_parallel,
    tcp_echo,
    transfer_both_ways,
    wait_until,
)
from tests.netns.program import pasta, run

PASSTPY = TRANSLATORS["passtpy"]
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
WILDCARD = {4: "0.0.0.0", 6: "::"}
HOST = {4: HOST4, 6: HOST6}
REMOTE = {4: REMOTE4, 6: REMOTE6}
SIZE = 3_000_000
EPHEMERAL = "32768 60999"  # these are not followed; the laboratory has far more
SOON = 30.0  # automatic ports are looked up once a second
SETTLED = 2.2  # long enough for two looks
NO_TAP = Attachment(tcp_ports=(8080,), ipv4=False, ipv6=False, extra=("--splice-only",))


@contextmanager
def attached(*extra: str) -> Iterator[tuple[Lab, Attached]]:
    with Lab() as lab:
        lab.host.sysctl("net.ipv4.ip_local_port_range", EPHEMERAL)
        pid = lab.dir / "pid"
        options = Attachment(extra=(*extra, "--pid", str(pid)))
        with lab.attach(PASSTPY, options) as it:
            # Written once every port is open.
            wait_until(lambda: pid.exists() and pid.read_text(), SOON, "daemon ready")
            yield lab, it


def listening(
    server: Namespace, address: str, port: int, only: bool = False
) -> socket.socket:
    made = server.new_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if ":" in address:
        made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, only)
    made.bind((address, port))
    made.listen()
    return made


def answers(client: Namespace, address: str, port: int) -> bool:
    try:
        with client.connect(address, port, timeout=SOON) as sock:
            return exchange(sock, b"hello") == b"hello"
    except OSError:
        return False


def peer_of(
    client: socket.socket, to: tuple[str, int], server: Namespace, at: tuple[str, int]
) -> str:
    """Connect, and return the client's address as the server sees it."""
    with listening(server, *at) as waiting, client:
        client.connect(to)
        far, peer = waiting.accept()
        far.close()
    return str(peer[0])


def places(
    lab: Lab, it: Attached, way: str, inbound: bool, version: int
) -> tuple[Namespace, str, Namespace, str]:
    """Client, the address it asks for, server, and where that listens."""
    if inbound and way == "tap":
        return lab.remote, HOST[version], it.guest, WILDCARD[version]
    if inbound:
        return lab.host, LOOPBACK[version], it.guest, WILDCARD[version]
    if way == "tap":
        return it.guest, REMOTE[version], lab.remote, REMOTE[version]
    return it.guest, LOOPBACK[version], lab.host, LOOPBACK[version]


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Lab, Attached]]:
    """A guest with the same ports forwarded in both directions, to others."""
    ports = ("-t", "8000:9000", "-u", "8000:9000", "-T", "8100:9100", "-U", "8100:9100")
    with attached(*ports) as it:
        yield it


def ports_of(way: str, inbound: bool) -> tuple[int, int]:
    """The port the client asks for, and the one the server has."""
    if inbound:
        return 8000, 9000
    return (9100, 9100) if way == "tap" else (8100, 9100)


@pytest.mark.parametrize("inbound", [True, False], ids=["in", "out"])
@pytest.mark.parametrize("way", ["tap", "loopback"])
@pytest.mark.parametrize("version", [4, 6])
def test_tcp_arrives_byte_by_byte(
    both: tuple[Lab, Attached], version: int, way: str, inbound: bool
) -> None:
    client, to, server, at = places(*both, way, inbound, version)
    asked, served = ports_of(way, inbound)
    with listening(server, at, served, only=True) as waiting:
        near = client.connect(to, asked)
        far, _ = waiting.accept()
        far.settimeout(60)
        with closing_all([near, far]):
            transfer_both_ways(near, far, SIZE)


@pytest.mark.parametrize("inbound", [True, False], ids=["in", "out"])
@pytest.mark.parametrize("way", ["tap", "loopback"])
@pytest.mark.parametrize("version", [4, 6])
def test_udp_arrives_byte_by_byte(
    both: tuple[Lab, Attached], version: int, way: str, inbound: bool
) -> None:
    client, to, server, at = places(*both, way, inbound, version)
    asked, served = ports_of(way, inbound)
    source = random.Random(1)
    with UdpEcho(server, at, served), client.udp(WILDCARD[version]) as sock:
        sock.connect((to, asked))
        for size in (0, 1, 100, 1400, 1472, 9000, 30000, *range(1, 500, 10)):
            data = source.randbytes(size)
            sock.send(data)
            assert sock.recv(65535) == data


def test_many_connections_at_once_find_sockets(both: tuple[Lab, Attached]) -> None:
    lab, it = both

    def once(number: int) -> bytes:
        with lab.host.connect("127.0.0.1", 8000) as sock:
            return exchange(sock, str(number).encode())

    with tcp_echo(it.guest, "0.0.0.0", 9000):
        assert in_parallel(200, once) == [str(n).encode() for n in range(200)]


def test_nobody_listening_refuses(both: tuple[Lab, Attached]) -> None:
    lab, it = both
    for client, port in ((lab.host, 8000), (it.guest, 8100)):
        # Accepted by our listener before the other side can be asked.
        assert not answers(client, "127.0.0.1", port)


@pytest.mark.parametrize("version", [4, 6])
def test_one_socket_serves_both_families(version: int) -> None:
    with attached("-t", "8000") as (lab, it), tcp_echo(it.guest, "::", 8000):
        assert answers(lab.remote, HOST[version], 8000)
        assert answers(lab.host, LOOPBACK[version], 8000)


def test_a_port_bound_to_an_interface_is_only_there() -> None:
    with attached("-t", "%eth0/8000") as (lab, it), tcp_echo(it.guest, "::", 8000):
        assert answers(lab.remote, HOST4, 8000)
        assert not answers(lab.host, "127.0.0.1", 8000)


def test_a_port_bound_to_an_address_is_only_there() -> None:
    spec = "127.0.0.1/8000"
    with attached("-t", spec) as (lab, it), tcp_echo(it.guest, "::", 8000):
        assert answers(lab.host, "127.0.0.1", 8000)
        assert not answers(lab.host, "::1", 8000)
        assert not answers(lab.remote, HOST4, 8000)


def test_an_address_that_is_not_there_yet() -> None:
    with attached("-t", "203.0.113.7/8000", "--freebind") as (lab, it):
        lab.host.ip("addr", "add", "203.0.113.7/32", "dev", "lo")
        with tcp_echo(it.guest, "0.0.0.0", 8000):
            assert answers(lab.host, "203.0.113.7", 8000)


def test_ranges_are_shifted_and_holes_stay_closed() -> None:
    with attached("-t", "8000-8003:9000-9003,8010-8012,~8011") as (lab, it):
        guest = it.guest
        with tcp_echo(guest, "::", 9003), tcp_echo(guest, "::", 8012):
            assert answers(lab.host, "127.0.0.1", 8003)
            assert answers(lab.host, "127.0.0.1", 8012)
        bound = [p for p in range(7999, 8014) if lab.host.is_bound("tcp", p)]
        assert bound == [8000, 8001, 8002, 8003, 8010, 8012]


def test_a_taken_port_that_must_be_had_is_an_error() -> None:
    options = Attachment(extra=("-t", "8000"))
    with Lab() as lab, lab.host.listen("0.0.0.0", 8000):
        argv = PASSTPY.attach_command(lab.guest(), options)
        done = lab.host.run(*argv, check=False)
    assert done.returncode == 1
    assert "Listen failed for HOST TCP port */8000: Address already" in done.stderr


def test_a_taken_port_among_all_others_is_a_warning() -> None:
    with Lab() as lab, lab.host.listen("0.0.0.0", 20):
        # Leaves a handful of ports besides the ephemeral ones.
        lab.host.sysctl("net.ipv4.ip_unprivileged_port_start", "0")
        lab.host.sysctl("net.ipv4.ip_local_port_range", "50 65535")
        with lab.attach(PASSTPY, Attachment(extra=("-t", "~30-40"))) as it:
            lab.host.wait_bound("tcp", 49)
            process = it.process
            assert process is not None
            wait_until(lambda: "ports=20" in process.stderr(), SOON, "warning")
            assert lab.host.is_bound("tcp", 21)
            assert not lab.host.is_bound("tcp", 35)


def test_a_taken_port_of_the_namespace_is_an_error() -> None:
    with Lab() as lab:
        guest = lab.guest()
        options = Attachment(extra=("-T", "8000"))
        with guest.listen("0.0.0.0", 8000):
            argv = PASSTPY.attach_command(guest, options)
            done = lab.host.run(*argv, check=False)
        assert done.returncode == 1
        assert "Listen failed for SPLICE TCP port *%lo/8000" in done.stderr


def test_what_a_spliced_server_sees() -> None:
    to, at = ("127.0.0.1", 8000), ("0.0.0.0", 8000)
    with attached("-t", "8000") as (lab, it):
        assert peer_of(lab.host.new_socket(), to, it.guest, at) == HOST4
    with attached("-t", "8000", "--no-splice", "--map-host-loopback", "192.0.2.7") as (
        lab,
        it,
    ):
        assert peer_of(lab.host.new_socket(), to, it.guest, at) == "192.0.2.7"
    with attached("-t", "8000", "--host-lo-to-ns-lo") as (lab, it):
        at = ("127.0.0.1", 8000)
        assert peer_of(lab.host.new_socket(), to, it.guest, at) == "127.0.0.1"


def test_the_source_is_kept_when_asked() -> None:
    options = ("-t", "8000", "-T", "8100", "--preserve-source")
    with attached(*options) as (lab, it):
        client = lab.host.new_socket()
        client.bind(("127.0.0.9", 0))
        to, at = ("127.0.0.1", 8000), ("0.0.0.0", 8000)
        assert peer_of(client, to, it.guest, at) == "127.0.0.9"
        # The guest has this address too, so the tap could not carry it.
        client = lab.host.new_socket()
        assert peer_of(client, (HOST4, 8000), it.guest, at) == HOST4
        client = it.guest.new_socket()
        client.bind(("127.0.0.8", 0))
        to, at = ("127.0.0.1", 8100), ("127.0.0.1", 8100)
        assert peer_of(client, to, lab.host, at) == "127.0.0.8"


def test_every_loopback_address_stays_what_it_is() -> None:
    with attached("-t", "8000", "-T", "8100", "--host-lo-to-ns-lo") as (lab, it):
        to = ("127.0.0.5", 8000)
        assert peer_of(lab.host.new_socket(), to, it.guest, to) == "127.0.0.1"
        client = it.guest.new_socket()
        client.bind(("127.0.0.8", 0))
        to = ("127.0.0.9", 8100)
        assert peer_of(client, to, lab.host, to) == "127.0.0.8"


def test_an_address_that_was_said_is_where_the_guest_is_reached() -> None:
    said, other = "198.51.100.77", "198.51.100.78"
    with attached("-t", "8000", "-a", f"{said}/24") as (lab, it):
        it.guest.ip("addr", "add", f"{other}/24", "dev", "eth0")
        time.sleep(SETTLED)  # until the daemon knows that the guest has both
        with tcp_echo(lab.remote, REMOTE4, 7000):
            client = it.guest.new_socket()
            client.bind((other, 0))
            with client:
                client.connect((REMOTE4, 7000))
                assert exchange(client, b"hello") == b"hello"
        with (
            listening(it.guest, "0.0.0.0", 8000) as waiting,
            lab.remote.connect(HOST4, 8000),
        ):
            far, _ = waiting.accept()
            with far:
                assert far.getsockname() == (said, 8000)


def test_without_a_tap_loopbacks_are_joined() -> None:
    with Lab() as lab, lab.attach(PASSTPY, NO_TAP) as it:
        assert [line.split()[0] for line in it.guest.read("dev").splitlines()[2:]] == [
            "lo:"
        ]
        with tcp_echo(it.guest, "127.0.0.1", 8080):
            assert answers(lab.host, "127.0.0.1", 8080)
            assert not answers(lab.remote, HOST4, 8080)


# Automatic forwarding

AUTO = ("-t", "auto", "-u", "auto", "-T", "auto", "-U", "auto")


def wait_answers(client: Namespace, address: str, port: int) -> None:
    what = f"{address} port {port} answers"
    wait_until(lambda: answers(client, address, port), SOON, what)


def wait_unbound(where: Namespace, kind: str, port: int) -> None:
    what = f"{kind} port {port} is free again"
    wait_until(lambda: not where.is_bound(kind, port), SOON, what)


def sockets_on(where: Namespace, port: int) -> int:
    tables = (where.read("tcp") + where.read("tcp6")).splitlines()
    rows = [line.split() for line in tables if f":{port:04X} " in line]
    return sum(row[1].endswith(f":{port:04X}") and row[3] == "0A" for row in rows)


def waiting_on(where: Namespace, port: int) -> bool:
    """Whether a UDP socket there waits for anybody."""
    tables = (where.read("udp") + where.read("udp6")).splitlines()
    rows = [line.split() for line in tables]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "07" for row in rows)


def test_services_of_the_guest_come_and_go() -> None:
    with attached(*AUTO) as (lab, it):
        for _ in range(2):
            with tcp_echo(it.guest, "0.0.0.0", 7000):
                wait_answers(lab.host, "127.0.0.1", 7000)
                assert answers(lab.remote, HOST4, 7000)
            wait_unbound(lab.host, "tcp", 7000)


def test_services_of_the_host_come_and_go() -> None:
    with attached(*AUTO) as (lab, it):
        for _ in range(2):
            with tcp_echo(lab.host, "127.0.0.1", 7000):
                wait_answers(it.guest, "127.0.0.1", 7000)
            wait_unbound(it.guest, "tcp", 7000)


def test_services_come_and_go_around_a_command() -> None:
    """Its first process makes sockets there, and is behind a door of its own."""
    with Lab() as lab:
        lab.host.sysctl("net.ipv4.ip_local_port_range", EPHEMERAL)
        with lab.spawn(PASSTPY, "sleep", "1000", extra=AUTO) as it:
            for _ in range(2):  # the first may be there before that door is shut
                with tcp_echo(lab.host, "127.0.0.1", 7000):
                    wait_answers(it.guest, "127.0.0.1", 7000)
                wait_unbound(it.guest, "tcp", 7000)
            with tcp_echo(it.guest, "0.0.0.0", 7001):
                wait_answers(lab.host, "127.0.0.1", 7001)


def test_udp_services_are_followed_and_follow_tcp() -> None:
    with attached(*AUTO) as (lab, it):
        for _ in range(2):  # flows of the first round still have the port
            with UdpEcho(it.guest, "0.0.0.0", 7000), lab.host.udp("127.0.0.1") as sock:
                wait_until(lambda: waiting_on(lab.host, 7000), SOON, "UDP port 7000")
                sock.sendto(b"ping", ("127.0.0.1", 7000))
                assert sock.recv(100) == b"ping"
            wait_until(lambda: not waiting_on(lab.host, 7000), SOON, "port 7000 free")
        with tcp_echo(it.guest, "0.0.0.0", 7001):
            lab.host.wait_bound("udp", 7001, SOON)


def test_the_two_directions_do_not_chase_each_other() -> None:
    with attached(*AUTO) as (lab, it):
        with tcp_echo(it.guest, "0.0.0.0", 7000), tcp_echo(lab.host, "0.0.0.0", 7001):
            wait_answers(lab.host, "127.0.0.1", 7000)
            wait_answers(it.guest, "127.0.0.1", 7001)
            time.sleep(SETTLED)
            for where in (lab.host, it.guest):
                assert [sockets_on(where, port) for port in (7000, 7001)] == [1, 1]
        for where in (lab.host, it.guest):
            wait_unbound(where, "tcp", 7000)
            wait_unbound(where, "tcp", 7001)


def test_services_that_were_there_first_are_forwarded_at_once() -> None:
    with Lab() as lab, ExitStack() as stack:
        lab.host.sysctl("net.ipv4.ip_local_port_range", EPHEMERAL)
        guest = lab.guest()
        stack.enter_context(tcp_echo(guest, "0.0.0.0", 7000))
        stack.enter_context(tcp_echo(lab.host, "0.0.0.0", 7001))
        argv = PASSTPY.attach_command(guest, Attachment(extra=AUTO))
        argv.remove("--foreground")
        pid_file = str(lab.dir / "pid")
        # The program returns when it is ready: nothing is to be waited for.
        lab.host.run(*argv, "--pid", pid_file)
        stack.callback(lab.host.run, "sh", "-c", f"kill $(cat {pid_file})")
        assert answers(lab.host, "127.0.0.1", 7000)
        assert answers(guest, "127.0.0.1", 7001)


def test_a_service_for_ipv6_only_is_offered_for_ipv6_only() -> None:
    with attached(*AUTO) as (lab, it), listening(it.guest, "::", 7000, only=True):
        lab.host.wait_bound("tcp", 7000, SOON)
        with lab.host.connect("::1", 7000):
            pass
        with pytest.raises(ConnectionRefusedError):
            lab.host.connect("127.0.0.1", 7000)


def test_a_service_nobody_can_reach_is_not_offered() -> None:
    with attached(*AUTO) as (lab, it), ExitStack() as stack:
        stack.enter_context(listening(it.guest, "127.0.0.1", 7000))
        stack.enter_context(listening(lab.host, HOST4, 7001))
        time.sleep(SETTLED)
        assert not lab.host.is_bound("tcp", 7000)
        assert not it.guest.is_bound("tcp", 7001)


def test_a_service_at_any_loopback_address_is_offered_there() -> None:
    with (
        attached(*AUTO) as (lab, it),
        tcp_echo(lab.host, "127.0.0.53", 7000),
    ):
        wait_answers(it.guest, "127.0.0.53", 7000)


def test_a_port_that_cannot_be_had_hides_no_other() -> None:
    with attached(*AUTO) as (lab, it), tcp_echo(it.guest, "0.0.0.0", 7001):
        assert it.process is not None
        taken = listening(lab.host, HOST4, 7000)  # before the daemon wants it
        with tcp_echo(it.guest, "0.0.0.0", 7000):
            with taken:
                wait_answers(lab.host, "127.0.0.1", 7001)
                said = lambda: "ports=7000" in it.process.stderr()  # noqa: E731
                wait_until(said, SOON, "ports=7000")
                time.sleep(SETTLED)
                assert it.process.stderr().count("ports=7000") == 1
                assert not answers(lab.host, "127.0.0.1", 7000)
            wait_answers(lab.host, "127.0.0.1", 7000)


def bound_below_ephemeral() -> socket.socket:
    """Return a listening socket on a port that is followed."""
    for port in range(7000, 7999):
        with suppress(OSError):
            return socket.create_server(("127.0.0.1", port))
    raise AssertionError("no free port")


@pytest.mark.parametrize("who", ["root", "user"])
def test_a_command_finds_the_services_of_the_host(who: str) -> None:
    ask = "import socket; s = socket.create_connection(('127.0.0.1', {})); s.send(b'x')"
    with bound_below_ephemeral() as waiting:
        port = waiting.getsockname()[1]
        argv = pasta(who, "-t", "none", "--", sys.executable, "-c", ask.format(port))
        assert run(argv).returncode == 0
        waiting.settimeout(30)
        far, _ = waiting.accept()
        with far:
            assert far.recv(1) == b"x"


def test_flows_over_the_tap_outlive_the_factory() -> None:
    with attached("-t", "8000") as (lab, it), tcp_echo(it.guest, "0.0.0.0", 8000):
        assert answers(lab.host, "127.0.0.1", 8000)
        process = it.process
        assert process is not None
        _, *children = process.tree()
        for child in children:
            os.kill(child, signal.SIGKILL)
        wait_until(lambda: "factory.gone" in process.stderr(), SOON, "told")
        assert answers(lab.remote, HOST4, 8000)


def test_what_needs_no_sockets_has_no_factory() -> None:
    options = Attachment(extra=("-t", "8000", "--no-splice"), ipv4=False, ipv6=False)
    with Lab() as lab:
        argv = PASSTPY.attach_command(lab.guest(), options)
        argv.remove("--config-net")  # what was configured is changed from there too
        process = lab.start(lab.host, *argv)
        lab.host.wait_bound("tcp", 8000)
        wait_until(lambda: len(list(process.tree())) == 1, SOON, "the child ended")

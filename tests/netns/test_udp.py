# SPDX-License-Identifier: GPL-2.0-or-later
"""UDP through the whole daemon: a guest, a host, and a remote that also routes.

Behind the remote lies a network with a small MTU, so that its router's word ("time
exceeded", "fragmentation needed") has something to be about.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress

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
    wait_until,
)
from tests.lab.namespace import family_of

FAR4, FAR6, FAR_MTU = "203.0.113.1", "2001:db8:3::1", 1280
BEHIND4, BEHIND6 = "203.0.113.9", "2001:db8:3::9"
SERVICE = 7053
UDP_SEGMENT, UDP_GRO = 103, 104  # not in the socket module
IP_MTU, IPV6_MTU = 14, 24
IP_RECVERR, IPV6_RECVERR = 11, 25
PMTUDISC_DO = 2
BOTH = pytest.mark.parametrize("remote", [REMOTE4, REMOTE6], ids=["v4", "v6"])
BEHIND = pytest.mark.parametrize("behind", [BEHIND4, BEHIND6], ids=["v4", "v6"])


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """The lab, with a network of small MTU behind the remote."""
    with Lab() as made:
        made.remote.sysctl("net.ipv4.ip_forward", "1")
        made.remote.sysctl("net.ipv6.conf.all.forwarding", "1")
        batch = f"""\
link add far0 mtu {FAR_MTU} type veth peer name far1
addr add {FAR4}/24 dev far0
addr add {FAR6}/64 dev far0 nodad
link set far0 up
link set far1 up
"""
        made.remote.ip("-batch", "-", batch=batch)
        yield made


@pytest.fixture(scope="module")
def attached(lab: Lab) -> Iterator[Attached]:
    """A guest, with one UDP port forwarded to it."""
    with lab.attach(TRANSLATORS["passtpy"], Attachment(udp_ports=(SERVICE,))) as made:
        yield made
        made.check_alive()


@pytest.fixture
def guest(attached: Attached) -> Namespace:
    """The guest's namespace."""
    return attached.guest


@contextmanager
def client(
    where: Namespace, address: str, port: int, *, errors: bool = False, source: str = ""
) -> Iterator[socket.socket]:
    """A connected UDP socket; `errors` are kept in its queue on request."""
    family = family_of(address)
    with where.new_socket(family, socket.SOCK_DGRAM) as sock:
        if errors and family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_RECVERR, 1)
        elif errors:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVERR, 1)
        sock.settimeout(30)
        sock.bind((source, 0))
        sock.connect((address, port))
        yield sock


def next_error(sock: socket.socket) -> tuple[int, int, int, int, bytes]:
    """errno, ICMP type, code, info and offender of the next queued error."""
    with pytest.raises(OSError):  # noqa: PT011 - waits for any of them
        sock.recv(9)
    _, control, _, _ = sock.recvmsg(2000, 500, socket.MSG_ERRQUEUE)
    ((_, _, raw),) = control
    number, _, kind, code, _, info, _ = struct.unpack("=IBBBBII", raw[:16])
    sockaddr = raw[16:]
    v6 = struct.unpack("=H", sockaddr[:2])[0] == socket.AF_INET6
    return number, kind, code, info, sockaddr[8:24] if v6 else sockaddr[4:8]


@contextmanager
def unconnected(where: Namespace, remote: str) -> Iterator[socket.socket]:
    """A UDP socket that speaks to whom it likes, as a STUN client's does."""
    with where.new_socket(family_of(remote), socket.SOCK_DGRAM) as sock:
        sock.settimeout(30)
        sock.bind(("", 0))
        yield sock


@BOTH
def test_all_remotes_see_one_port(lab: Lab, guest: Namespace, remote: str) -> None:
    with (
        UdpEcho(lab.remote, remote) as one,
        UdpEcho(lab.remote, remote) as two,
        unconnected(guest, remote) as sock,
    ):
        for server in (one, two):
            sock.sendto(b"who am I?", (remote, server.port))
            assert sock.recv(99) == b"who am I?"
        assert one.peers == two.peers


@BOTH
def test_a_server_may_answer_from_another_port(
    lab: Lab, guest: Namespace, remote: str
) -> None:
    """As TFTP does: 20 blocks, each acknowledged to the port that it came from."""
    with (
        lab.remote.udp(remote) as server,
        lab.remote.udp(remote) as transfer,
        unconnected(guest, remote) as sock,
    ):
        sock.sendto(b"read", server.getsockname()[:2])
        _, ours = server.recvfrom(99)
        for block in range(20):
            transfer.sendto(b"%d" % block, ours)
            data, sender = sock.recvfrom(99)
            assert (data, sender[1]) == (b"%d" % block, transfer.getsockname()[1])
            sock.sendto(data, sender)
            assert transfer.recvfrom(99) == (data, ours)


def test_only_the_port_that_was_asked_answers_if_so_wanted(lab: Lab) -> None:
    strict = Attachment(extra=("--udp-filter", "endpoint"))
    with (
        lab.attach(TRANSLATORS["passtpy"], strict) as made,
        lab.remote.udp(REMOTE4) as server,
        lab.remote.udp(REMOTE4) as transfer,
        unconnected(made.guest, REMOTE4) as sock,
    ):
        sock.sendto(b"read", server.getsockname())
        _, ours = server.recvfrom(99)
        transfer.sendto(b"block", ours)
        server.sendto(b"answer", ours)
        assert sock.recv(99) == b"answer"


@BOTH
@pytest.mark.parametrize("size", [0, 1, 1472, 9000, 60000])
def test_datagram_is_echoed(lab: Lab, guest: Namespace, remote: str, size: int) -> None:
    payload = bytes(i % 251 for i in range(size))
    with (
        UdpEcho(lab.remote, remote) as server,
        client(guest, remote, server.port) as sock,
    ):
        sock.send(payload)
        assert sock.recv(70000) == payload
        # The port is kept, the address is the host's
        assert server.peers == [
            (HOST6 if ":" in remote else HOST4, sock.getsockname()[1])
        ]


@BOTH
def test_burst_arrives_complete_and_in_order(
    lab: Lab, guest: Namespace, remote: str
) -> None:
    sent = [struct.pack("!I", i) * (50 if i % 7 else 9) for i in range(150)]
    with (
        lab.remote.udp(remote) as peer,
        client(guest, remote, peer.getsockname()[1]) as sock,
    ):
        for payload in sent:
            sock.send(payload)
        got = [peer.recvfrom(9000) for _ in sent]
        assert [data for data, _ in got] == sent
        for payload in sent:
            peer.sendto(payload, got[0][1])
        assert [sock.recv(9000) for _ in sent] == sent


@BOTH
def test_super_segments_both_ways(lab: Lab, guest: Namespace, remote: str) -> None:
    payload = bytes(i % 251 for i in range(40 * 1400 + 99))
    cut = [payload[i : i + 1400] for i in range(0, len(payload), 1400)]
    option = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 1400))]
    with (
        lab.remote.udp(remote) as peer,
        client(guest, remote, peer.getsockname()[1]) as sock,
    ):
        sock.sendmsg([payload], option)
        got = [peer.recvfrom(9000) for _ in cut]
        assert [data for data, _ in got] == cut
        peer.sendmsg([payload], option, 0, got[0][1])
        assert [sock.recv(9000) for _ in cut] == cut


@BOTH
def test_super_segment_that_needs_fragments_is_split(
    lab: Lab, guest: Namespace, remote: str
) -> None:
    """The guest's MTU is 65520, the host's 1500: each datagram is fragmented."""
    payload = bytes(i % 251 for i in range(10 * 5000))
    option = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", 5000))]
    for where, name in ((lab.host, "eth0"), (lab.remote, "wire0")):
        where.ip("link", "set", name, "mtu", "1500")
    try:
        with (
            lab.remote.udp(remote) as peer,
            client(guest, remote, peer.getsockname()[1]) as sock,
        ):
            for _ in range(2):  # found out, then remembered
                sock.sendmsg([payload], option)
                assert b"".join(peer.recv(9000) for _ in range(10)) == payload
            sock.send(payload)
            assert peer.recv(70000) == payload
    finally:
        for where, name in ((lab.host, "eth0"), (lab.remote, "wire0")):
            where.ip("link", "set", name, "mtu", "65520")


@BOTH
def test_refused_datagram_is_an_error_in_the_guest(
    guest: Namespace, remote: str
) -> None:
    with client(guest, remote, 9) as sock:
        sock.send(b"anybody?")
        with pytest.raises(ConnectionRefusedError):
            sock.recv(9)


@pytest.mark.parametrize("silent", ["198.51.100.77", "2001:db8:2::77"])
def test_host_that_does_not_exist_is_unreachable(guest: Namespace, silent: str) -> None:
    with client(guest, silent, 9, errors=True) as sock:
        sock.send(b"anybody?")
        number, kind, code, _, _ = next_error(sock)
    assert number == errno.EHOSTUNREACH
    assert (kind, code) == ((1, 3) if ":" in silent else (3, 1))


@BEHIND
def test_ttl_that_runs_out_names_the_router(guest: Namespace, behind: str) -> None:
    """What traceroute does: one hop further each time."""
    v6 = ":" in behind
    with client(guest, behind, 33434, errors=True) as sock:
        option = (41, 16) if v6 else (socket.IPPROTO_IP, socket.IP_TTL)
        sock.setsockopt(*option, 1)
        sock.send(b"probe")
        number, kind, code, _, offender = next_error(sock)
    assert number == errno.EHOSTUNREACH
    assert (kind, code) == ((3, 0) if v6 else (11, 0))
    routers = {REMOTE6, "2001:db8:2::fe"} if v6 else {REMOTE4, "198.51.100.254"}
    family = socket.AF_INET6 if v6 else socket.AF_INET
    assert socket.inet_ntop(family, offender) in routers


@BEHIND
def test_path_mtu_is_learned(guest: Namespace, behind: str) -> None:
    v6 = ":" in behind
    with client(guest, behind, 9, errors=True) as sock:
        level, option = (41, 23) if v6 else (socket.IPPROTO_IP, 10)  # MTU_DISCOVER
        sock.setsockopt(level, option, PMTUDISC_DO)
        sock.send(bytes(1400))
        number, _, _, info, _ = next_error(sock)
        assert (number, info) == (errno.EMSGSIZE, FAR_MTU)
        assert sock.getsockopt(level, IPV6_MTU if v6 else IP_MTU) == FAR_MTU
        with pytest.raises(OSError, match="too long"):
            sock.send(bytes(1400))


@pytest.mark.parametrize("host", [HOST4, HOST6], ids=["v4", "v6"])
def test_peers_outside_reach_the_guests_server(
    lab: Lab, guest: Namespace, host: str
) -> None:
    wildcard, remote = ("::", REMOTE6) if ":" in host else ("0.0.0.0", REMOTE4)
    with (
        UdpEcho(guest, wildcard, SERVICE) as server,
        client(lab.remote, host, SERVICE, source=remote) as one,
        client(lab.remote, host, SERVICE, source=remote) as two,
    ):
        sent = [bytes([i]) * i for i in range(20)]
        for payload in sent:
            one.send(payload)
        two.send(b"two")
        assert [one.recv(9000) for _ in sent] == sent
        assert two.recv(9000) == b"two"
        assert set(server.peers) == {
            (remote, one.getsockname()[1]),
            (remote, two.getsockname()[1]),
        }


def test_server_in_the_guest_that_is_not_there(lab: Lab, guest: Namespace) -> None:
    """The guest's refusal ends nothing: a server that starts later is reached."""
    with client(lab.remote, HOST4, SERVICE) as sock:
        sock.send(b"nobody")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(9)

        def is_answered() -> bool:
            sock.send(b"hello")
            with suppress(TimeoutError):
                return sock.recv(9) == b"hello"
            return False

        with UdpEcho(guest, "0.0.0.0", SERVICE):
            # What is refused in both families is forgotten after a second
            wait_until(is_answered, 30, "an answer")

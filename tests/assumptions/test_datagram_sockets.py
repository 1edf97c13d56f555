# SPDX-License-Identifier: GPL-2.0-or-later
"""What the UDP and echo handlers believe about the kernel, each as a runnable fact."""

import ctypes
import errno
import os
import select
import socket
import struct
from collections.abc import Iterator

import pytest

from tests.lab.loopback import wait_delivered
from tests.lab.namespace import Namespace
from tests.lab.ready import readable

UDP_SEGMENT, UDP_GRO = 103, 104  # not in the socket module
IP_RECVERR, IPV6_RECVERR = 11, 25
SO_ATTACH_FILTER = 26
FAMILIES = {"v4": (socket.AF_INET, "127.0.0.1"), "v6": (socket.AF_INET6, "::1")}
Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=list(FAMILIES))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A sender connected to a receiver, on loopback."""
    family, host = FAMILIES[request.param]
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((host, 0))
        receiver.settimeout(30)
        sender.bind((host, 0))
        sender.connect(receiver.getsockname())
        yield sender, receiver


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """A network namespace of its own, entered."""
    made = Namespace.create(f"passtpy-facts-{os.getpid()}")
    with made.entered():
        yield made
    made.delete()


def refused(sock: socket.socket) -> None:
    """Wait until a refusal has come back; it stays where it is."""
    poll = select.poll()
    poll.register(sock, 0)  # errors are always told
    assert poll.poll(30_000)


def send_segments(sock: socket.socket, payload: bytes, size: int) -> int:
    """One message that the kernel cuts into datagrams."""
    option = (socket.SOL_UDP, UDP_SEGMENT, struct.pack("H", size))
    return sock.sendmsg([payload], [option])


def test_udp_segment_makes_datagrams(pair: Pair) -> None:
    sender, receiver = pair
    send_segments(sender, b"a" * 100 + b"b" * 100 + b"c", 100)
    got = [receiver.recv(999) for _ in range(3)]
    assert got == [b"a" * 100, b"b" * 100, b"c"]


def test_nobody_tells_whether_a_datagram_was_wanted(pair: Pair) -> None:
    """Why only a refusal counts: a server that only listens looks like none."""
    sender, receiver = pair
    with select.epoll() as poll:
        poll.register(sender, select.EPOLLIN)
        sender.send(b"taken")
        assert receiver.recv(99) == b"taken"
        taken = poll.poll(0.05), sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        drop_all(receiver)
        receiver.setblocking(False)
        sender.send(b"dropped, as by a firewall")
        dropped = poll.poll(0.05), sender.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        with pytest.raises(BlockingIOError):
            receiver.recv(99)
    assert taken == dropped == ([], 0)


def test_who_is_refused_has_lost_its_datagrams_already(pair: Pair) -> None:
    """So what begins a flow is kept, until it is answered or refused."""
    sender, receiver = pair
    receiver.close()
    assert sender.send(b"first") == 5  # as if it had arrived
    refused(sender)
    with pytest.raises(ConnectionRefusedError):
        sender.send(b"second")  # the error is about the first, and this one is lost too


def drop_all(sock: socket.socket) -> None:
    """Let a filter of the kernel take every datagram away."""
    program = struct.pack("HBBI", 0x06, 0, 0, 0)  # return 0 bytes
    buffer = ctypes.create_string_buffer(program)
    fprog = struct.pack("HL", 1, ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, fprog)


def test_udp_segment_takes_64_datagrams(pair: Pair) -> None:
    assert send_segments(pair[0], bytes(64), 1) == 64


def test_udp_segment_refuses_200_datagrams(pair: Pair) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        send_segments(pair[0], bytes(200), 1)


def test_udp_gro_joins_what_udp_segment_sent(pair: Pair) -> None:
    sender, receiver = pair
    receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    send_segments(sender, bytes(6410), 100)
    data, control, _, _ = receiver.recvmsg(70000, 100)
    assert len(data) == 6410
    assert control == [(socket.SOL_UDP, UDP_GRO, struct.pack("i", 100))]


def test_udp_gro_leaves_single_datagrams_alone(pair: Pair) -> None:
    sender, receiver = pair
    receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    sender.send(b"x")
    data, control, _, _ = receiver.recvmsg(70000, 100)
    assert (data, control) == (b"x", [])


def test_without_udp_gro_joined_datagrams_come_apart(pair: Pair) -> None:
    sender, receiver = pair
    send_segments(sender, bytes(300), 100)
    assert readable([receiver], 30)
    receiver.setsockopt(socket.SOL_UDP, UDP_GRO, 1)  # after they were queued
    assert [len(receiver.recv(999)) for _ in range(3)] == [100, 100, 100]


@pytest.mark.root
def test_udp_segment_refuses_what_needs_fragments(
    namespace: Namespace, pair: Pair
) -> None:
    """EMSGSIZE, or EINVAL before Linux 6.9; the same datagram alone is fragmented."""
    namespace.ip("link", "set", "lo", "mtu", "1500")
    family = pair[0].family
    host = FAMILIES["v4" if family == socket.AF_INET else "v6"][1]
    with (
        socket.socket(family, socket.SOCK_DGRAM) as sender,
        socket.socket(family, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind((host, 0))
        receiver.settimeout(30)
        sender.connect(receiver.getsockname())
        with pytest.raises(OSError, match=r"Message too long|Invalid argument"):
            send_segments(sender, bytes(6000), 3000)
        sender.send(bytes(3000))
        assert len(receiver.recv(9000)) == 3000


def test_pending_error_stops_a_send_once(pair: Pair) -> None:
    """Reading the error queue clears it too."""
    sender, receiver = pair
    v4 = sender.family == socket.AF_INET
    sender.setsockopt(
        socket.IPPROTO_IP if v4 else socket.IPPROTO_IPV6,
        IP_RECVERR if v4 else IPV6_RECVERR,
        1,
    )
    receiver.close()
    sender.send(b"1")
    refused(sender)
    with pytest.raises(ConnectionRefusedError):
        sender.send(b"2")
    data, ((_, _, raw),), _, _ = sender.recvmsg(99, 500, socket.MSG_ERRQUEUE)
    assert data == b"1"  # payload above the UDP header, and nothing of the header
    number, origin, kind, code = struct.unpack("=IBBB", raw[:7])
    assert number == errno.ECONNREFUSED
    assert (origin, kind, code) == ((2, 3, 3) if v4 else (3, 1, 4))
    sender.send(b"3")
    refused(sender)
    sender.recvmsg(99, 500, socket.MSG_ERRQUEUE)
    sender.send(b"4")


@pytest.mark.parametrize("wildcard", ["0.0.0.0", "::"], ids=["v4", "dual stack"])
def test_connected_socket_takes_its_peer_from_a_wildcard_socket(wildcard: str) -> None:
    """Sharing needs SO_REUSEADDR on both, but only while the second one binds."""
    family = socket.AF_INET6 if ":" in wildcard else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_DGRAM) as listener,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as thief,
    ):
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((wildcard, 0))
        ours = ("127.0.0.1", listener.getsockname()[1])
        peer.bind(("127.0.0.1", 0))

        with pytest.raises(OSError, match="in use"):
            flow.bind(ours)
        for sock in (flow, listener):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        flow.bind(ours)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        flow.connect(peer.getsockname())

        thief.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with pytest.raises(OSError, match="in use"):
            thief.bind(ours)
        for sock in (flow, listener):
            sock.settimeout(30)
        peer.sendto(b"peer", ours)
        assert flow.recv(9) == b"peer"
        other.sendto(b"other", ours)
        assert listener.recv(9) == b"other"


def test_socket_keeps_what_came_before_it_was_connected() -> None:
    """From anybody, and for ever: it has to be emptied by hand."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as flow,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger,
    ):
        for sock in (flow, peer, stranger):
            sock.bind(("127.0.0.1", 0))
        flow.settimeout(30)
        stranger.sendto(b"early", flow.getsockname())
        assert readable([flow], 30)
        flow.connect(peer.getsockname())
        stranger.sendto(b"late", flow.getsockname())
        peer.sendto(b"mine", flow.getsockname())
        assert flow.recvfrom(9) == (b"early", stranger.getsockname())
        assert flow.recv(9) == b"mine"


def ping_socket(v6: bool = False) -> socket.socket:
    """A ping socket of either family."""
    if v6:
        return socket.socket(
            socket.AF_INET6, socket.SOCK_DGRAM, socket.getprotobyname("ipv6-icmp")
        )
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)


@pytest.mark.root
def test_a_new_namespace_allows_no_ping_socket(namespace: Namespace) -> None:
    """Not even to root; the sysctl is the namespace's own, for both families."""
    for v6 in (False, True):
        with pytest.raises(PermissionError):
            ping_socket(v6).close()
    namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    for v6 in (False, True):
        ping_socket(v6).close()


@pytest.mark.root
def test_ping_socket_writes_its_identifier(namespace: Namespace) -> None:
    namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    with ping_socket() as sock:
        sock.settimeout(30)
        sock.bind(("0.0.0.0", 4321))  # the port is the identifier
        sock.connect(("127.0.0.1", 0))
        sock.send(struct.pack("!BBHHH", 8, 0, 0xDEAD, 7, 1) + b"data")
        reply = sock.recv(99)  # no IP header
    kind, code, _, ident, seq = struct.unpack("!BBHHH", reply[:8])
    assert (kind, code, ident, seq, reply[8:]) == (0, 0, 4321, 1, b"data")


@pytest.mark.root
def test_ping_sockets_share_an_identifier_unless_told_not_to(
    namespace: Namespace,
) -> None:
    namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    with ping_socket() as one, ping_socket() as two, ping_socket() as three:
        one.bind(("127.0.0.1", 99))
        two.bind(("127.0.0.1", 99))
        assert three.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) == 1
        three.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        with pytest.raises(OSError, match="in use"):
            three.bind(("127.0.0.1", 99))


@pytest.mark.root
def test_ping_socket_is_deaf_to_nobody(namespace: Namespace) -> None:
    """connect() chooses where to send, not whom to hear."""
    namespace.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    with (
        ping_socket() as sock,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as raw,
    ):
        sock.settimeout(30)
        sock.bind(("127.0.0.1", 55))
        sock.connect(("127.0.0.1", 0))
        raw.bind(("127.0.0.9", 0))
        echo = struct.pack("!BBHHH", 0, 0, 0xFFFF - 55 - 2, 55, 2)
        raw.sendto(echo, ("127.0.0.1", 0))
        assert sock.recvfrom(99)[1][0] == "127.0.0.9"


@pytest.mark.parametrize("how", ["shutdown", "close"])
def test_a_peer_hears_of_a_dead_port_only_when_the_last_socket_is_gone(
    pair: Pair, how: str
) -> None:
    """So an error of a spliced flow cannot be told: others use the listener's port.

    Neither a connected socket that receives no more nor one that is closed makes the
    kernel refuse what its peer sends.
    """
    client, listener = pair
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with socket.socket(listener.family, socket.SOCK_DGRAM) as flow:
        flow.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        flow.bind(listener.getsockname())
        flow.connect(client.getsockname())
        client.send(b"to the flow")
        assert flow.recv(99) == b"to the flow"
        if how == "shutdown":
            flow.shutdown(socket.SHUT_RD)
            client.send(b"still to the flow")
            client.send(b"without an error")
            wait_delivered()
    client.send(b"to the listener")
    assert listener.recv(99) == b"to the listener"
    listener.close()
    client.send(b"to nobody")
    refused(client)
    with pytest.raises(ConnectionRefusedError):
        client.send(b"told at last")

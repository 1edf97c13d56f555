# SPDX-License-Identifier: GPL-2.0-or-later
"""One port of the host for a socket of the guest, whomever that speaks to."""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP, UDP

from passtpy import _native
from passtpy.addr import UNSPECIFIED, from_inany, inany
from passtpy.flow import Action, Pif, Verdict
from tests.datapath.guest import WAIT_S, Guest
from tests.datapath.packets import SPORT, udp
from tests.lab.descriptors import Opened
from tests.lab.namespace import Namespace

KEPT = 1024  # ports that may have the guest's own number, udp_port.h
UNASKED = 64  # ports of a remote that may answer unasked, udp_port.h
NEW_FLOWS = 500  # within the burst of the limit of new flows
SHARERS = 64  # sockets that share a listener's port, udp.c
RULE = 5
IP_PKTINFO, IP_RECVTTL = 8, 12  # not in the socket module
Address = tuple[str, int]


@dataclass
class Remote:
    """A socket on 127.0.0.`host`, which the guest knows as 198.51.100.`host`."""

    host: int
    sock: socket.socket

    @property
    def name(self) -> str:
        """Its address as the guest knows it."""
        return f"198.51.100.{self.host}"

    @property
    def port(self) -> int:
        """Its port."""
        return int(self.sock.getsockname()[1])

    def hears(self) -> tuple[bytes, Address]:
        """The next datagram, and who sent it."""
        data, sender = self.sock.recvfrom(2000)
        return data, sender

    def says(self, data: bytes, to: Address) -> None:
        """Send a datagram."""
        self.sock.sendto(data, to)


def by_name(miss: _native.Miss) -> Verdict:
    """198.51.100.N is 127.0.0.N, of the same port; in IPv6 everything is ::1."""
    host = from_inany(miss.oaddr)
    number = host.packed[-1]
    target = "::1" if host.version == 6 else f"127.0.0.{number}"
    where = inany(ip_address(target))
    return Verdict(Action.FORWARD, Pif.HOST, where, miss.oport, UNSPECIFIED, 0, RULE)


Plug = Callable[..., Remote]


@pytest.fixture
def plug(guest: Guest) -> Iterator[Plug]:
    """Make remotes: `plug(2)` is at 198.51.100.2, on a port of its own."""
    guest.decide = by_name
    made: list[socket.socket] = []

    def make(host: int, port: int = 0, v6: bool = False) -> Remote:
        sock = socket.socket(
            socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        made.append(sock)
        sock.bind(("::1" if v6 else f"127.0.0.{host}", port))
        sock.settimeout(WAIT_S)
        return Remote(host, sock)

    yield make
    for sock in made:
        sock.close()


def ask(guest: Guest, remote: Remote, data: bytes, sport: int = SPORT) -> None:
    """The guest sends a datagram to a remote."""
    guest.send(udp(data, dst=remote.name, dport=remote.port, sport=sport))


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((host, 0))
        return int(sock.getsockname()[1])


def sender_of(packet: IP) -> tuple[str, int, int]:
    """Who sends a frame to which port of the guest."""
    return packet[IP].src, packet[UDP].sport, packet[UDP].dport


def test_all_remotes_see_one_port(guest: Guest, plug: Plug) -> None:
    remotes = [plug(host) for host in (2, 3, 4)] + [plug(2)]
    sport = free_port()
    for remote in remotes:
        ask(guest, remote, b"who am I?", sport)
    seen = {remote.hears()[1] for remote in remotes}
    assert seen == {("127.0.0.1", sport)}
    assert len(guest.flows()) == len(remotes)
    assert {flow.rule for flow in guest.flows()} == {RULE}


def test_a_port_that_is_not_the_guests_own_is_one_for_all_too(
    guest: Guest, plug: Plug
) -> None:
    remotes = [plug(host) for host in (2, 3, 4)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        busy = other.getsockname()[1]
        for remote in remotes:
            ask(guest, remote, b"x", busy)
        (seen,) = {remote.hears()[1] for remote in remotes}
    assert seen[1] != busy


def test_answers_find_their_flows(guest: Guest, plug: Plug) -> None:
    remotes = [plug(host) for host in (2, 3)]
    for remote in remotes:
        ask(guest, remote, b"?")
    (ours,) = {remote.hears()[1] for remote in remotes}
    for i in range(20):
        remotes[i % 3 == 0].says(bytes([i]), ours)
    frames = guest.drain()
    got = {remote.name: b"" for remote in remotes}
    for frame in frames:
        src, sport, dport = sender_of(frame.packet)
        assert (sport, dport) == (remotes[src == remotes[1].name].port, SPORT)
        size = frame.vnet.gso_size or len(frame.payload)
        assert size == 1
        got[src] += frame.payload
    assert got[remotes[1].name] == bytes(range(0, 20, 3))
    assert got[remotes[0].name] == bytes(i for i in range(20) if i % 3)
    counts = {flow.eport1: flow.packets1 for flow in guest.flows()}
    assert counts == {remotes[0].port: 13, remotes[1].port: 7}


def test_an_error_is_told_of_the_remote_it_is_about(guest: Guest, plug: Plug) -> None:
    dead, alive = plug(2), plug(3)
    ask(guest, alive, b"hello")
    ours = alive.hears()[1]
    port = dead.port
    dead.sock.close()
    guest.send(udp(b"anybody?", dst=dead.name, dport=port))
    guest.send(udp(b"not lost", dst=alive.name, dport=alive.port))
    assert alive.hears() == (b"not lost", ours)
    error = guest.recv().packet
    assert error[IP].src == dead.name
    assert (error[ICMP].type, error[ICMP].code) == (3, 3)
    quoted = error[ICMP].payload
    assert (quoted.dst, quoted.payload.dport) == (dead.name, port)
    assert bytes(quoted.payload.payload) == b"anybody?"
    guest.expect_nothing()


def test_a_port_lasts_as_long_as_one_of_its_flows(guest: Guest, plug: Plug) -> None:
    first, second = plug(2), plug(3)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.1", 0))
        busy = other.getsockname()[1]
        ask(guest, first, b"x", busy)
        ours = first.hears()[1]
        guest.advance(20)
        ask(guest, second, b"x", busy)
        guest.advance(15)
        assert len(guest.flows()) == 1
        ask(guest, first, b"again", busy)
        assert first.hears() == (b"again", ours)


def test_a_socket_of_the_guest_costs_one_descriptor(
    guest: Guest, plug: Plug, opened: Opened
) -> None:
    remotes = [plug(host) for host in range(2, 30)]
    ask(guest, remotes[0], b"x", 40002)  # what is made once, is
    before = opened()
    for remote in remotes:
        ask(guest, remote, b"x", 40001)
    assert opened() == before + 1
    guest.advance(31)
    guest.advance(1)
    assert guest.flows() == []
    assert opened() == before - 1


def test_ttl_is_that_of_each_flow(guest: Guest, plug: Plug) -> None:
    remotes = [plug(host) for host in (2, 3)]
    for remote in remotes:
        remote.sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    wanted = {0: [64, 64, 3, 64], 1: [7, 7, 64, 7]}
    for i in range(4):
        for j, remote in enumerate(remotes):
            packet = udp(b"x", dst=remote.name, dport=remote.port)
            packet.ttl = wanted[j][i]
            guest.send(packet)
    for j, remote in enumerate(remotes):
        got = []
        for _ in range(4):
            _, ((_, _, raw),), _, _ = remote.sock.recvmsg(9, 100)
            got.append(int.from_bytes(raw, "little"))
        assert got == wanted[j]


def test_two_names_of_one_remote_stay_apart(guest: Guest, plug: Plug) -> None:
    """Each answer comes from the name that was asked."""
    remote = plug(2)
    guest.decide = lambda miss: by_name(miss)._replace(
        eaddr=inany(ip_address("127.0.0.2"))
    )
    names = ("198.51.100.2", "198.51.100.77")
    for name in names:
        guest.send(udp(name.encode(), dst=name, dport=remote.port))
    for _ in names:
        data, sender = remote.hears()
        remote.says(data, sender)
        frame = guest.recv()
        assert frame.packet[IP].src.encode() == frame.payload == data


def test_the_same_port_is_kept_in_both_families(guest: Guest, plug: Plug) -> None:
    four, six = plug(2), plug(0, v6=True)
    sport = free_port()
    guest.send(udp(b"4", dst=four.name, dport=four.port, sport=sport))
    guest.send(udp(b"6", v6=True, dport=six.port, sport=sport))
    assert four.hears()[1][1] == sport
    assert six.hears()[1][1] == sport


def test_a_forwarded_port_serves_any_number_of_remotes(
    guest: Guest, plug: Plug, opened: Opened
) -> None:
    """From its own number, and without a descriptor for each of them."""
    remotes = [plug(2) for _ in range(SHARERS + 20)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        listener.setblocking(False)
        listener.bind(("0.0.0.0", 0))
        sport = listener.getsockname()[1]
        guest.dp.listen(listener.detach(), socket.IPPROTO_UDP, 7)
    before = opened()
    for remote in remotes:
        ask(guest, remote, b"x", sport)
    assert {remote.hears()[1] for remote in remotes} == {("127.0.0.1", sport)}
    assert opened() <= before + SHARERS + 1
    for remote in remotes:
        remote.says(b"%d" % remote.port, ("127.0.0.1", sport))
        frame = guest.expect(payload=b"%d" % remote.port)
        assert sender_of(frame.packet) == (remote.name, remote.port, sport)
    assert len(guest.misses) == len(remotes)
    guest.advance(200)
    guest.advance(1)
    assert opened() <= before + 1
    for remote in remotes:
        ask(guest, remote, b"again", sport)
    assert opened() == before + 1 + SHARERS


# Who is let in


def test_another_port_of_a_remote_is_let_in(guest: Guest, plug: Plug) -> None:
    """TFTP: the server answers from a port of its own for each transfer."""
    server, transfer = plug(2), plug(2)
    ask(guest, server, b"read file")
    ours = server.hears()[1]
    for block in range(20):
        transfer.says(b"block %d" % block, ours)
        frame = guest.expect(payload=b"block %d" % block)
        assert sender_of(frame.packet) == (server.name, transfer.port, SPORT)
        ask(guest, transfer, b"ack %d" % block)
        assert transfer.hears() == (b"ack %d" % block, ours)
    first, second = guest.flows()
    assert (second.pif0, second.pif1, second.rule) == (Pif.HOST, Pif.TAP, first.rule)
    assert (second.packets0, second.packets1) == (20, 20)
    assert len(guest.misses) == 1


def test_what_begins_unasked_is_under_the_rule_of_now(guest: Guest, plug: Plug) -> None:
    """The policy changed since the guest asked, and the flow is under another rule."""
    server = plug(2)
    ask(guest, server, b"x")
    ours = server.hears()[1]
    (asked,) = guest.flows()
    guest.dp.verdict(asked.flow_id, rule=RULE + 1, generation=9)
    plug(2).says(b"y", ours)
    guest.expect(payload=b"y")
    assert {(f.rule, f.generation) for f in guest.flows()} == {(RULE + 1, 9)}


def test_another_address_is_not(guest: Guest, plug: Plug) -> None:
    server, stranger = plug(2), plug(9)
    ask(guest, server, b"x")
    ours = server.hears()[1]
    for _ in range(3):
        stranger.says(b"spoof", ours)
    guest.expect_nothing()
    assert guest.counter("udp_filtered") == 3
    assert len(guest.flows()) == 1


def test_another_port_is_not_once_the_guest_has_forgotten_the_remote(
    guest: Guest, plug: Plug
) -> None:
    server, other, friend = plug(2), plug(2), plug(3)
    ask(guest, server, b"x")
    ours = server.hears()[1]
    guest.advance(20)
    ask(guest, friend, b"x")  # keeps the port
    guest.advance(15)
    guest.advance(1)  # flows that ended are cleared away
    other.says(b"late", ours)
    guest.expect_nothing()
    friend.says(b"in time", ours)
    guest.expect(payload=b"in time")


def test_a_remote_begins_a_bounded_number_of_flows(guest: Guest, plug: Plug) -> None:
    server = plug(2)
    ask(guest, server, b"x")
    ours = server.hears()[1]
    for _ in range(UNASKED + 10):
        plug(2).says(b"flood", ours)
        guest.turn()
    assert len(guest.drain()) == UNASKED
    assert guest.counter("udp_filtered") == 10
    guest.advance(31)
    assert guest.flows() == []


def test_strict_filtering_lets_in_only_who_was_asked(guest: Guest, plug: Plug) -> None:
    guest.dp.udp_strict = True
    server, transfer = plug(2), plug(2)
    ask(guest, server, b"read file")
    ours = server.hears()[1]
    transfer.says(b"block", ours)
    guest.expect_nothing()
    assert guest.counter("udp_filtered") == 1
    server.says(b"asked", ours)
    guest.expect(payload=b"asked")


# What is left to the host's other programs


def test_other_addresses_keep_the_port(guest: Guest, plug: Plug) -> None:
    remote = plug(2)
    sport = free_port()
    ask(guest, remote, b"x", sport)
    assert remote.hears()[1] == ("127.0.0.1", sport)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.9", sport))


def test_numbers_that_are_kept_are_a_bounded_share(
    make_guest: Callable[..., Guest], plug: Plug
) -> None:
    """A guest with thousands of ports leaves other programs theirs."""
    guest = make_guest(options={"max_flows": 8192})
    guest.decide = by_name
    remote = plug(2)
    first, count = 10_000, 2_000
    for sport in range(first, first + count):
        if sport % NEW_FLOWS == 0:
            guest.advance(1)
        ask(guest, remote, b"x", sport)
        remote.hears()
    flows = guest.flows()
    assert len(flows) == count
    kept = sum(flow.oport1 == flow.eport0 for flow in flows)
    assert KEPT * 0.9 < kept <= KEPT
    failed = 0
    for port in range(first, first + count, 5):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
            try:
                other.bind(("0.0.0.0", port))
            except OSError:
                failed += 1
    assert failed <= KEPT / 5 + 5


# The host changes


@pytest.mark.root
def test_what_follows_the_loss_of_an_address_leaves_from_the_new_one() -> None:
    made = Namespace.create(f"passtpy-udp-{os.getpid()}")
    guest = Guest(decide=by_name)
    try:
        made.ip("addr", "add", "192.0.2.1/32", "dev", "lo")
        route = ("local", "127.0.0.2", "dev", "lo", "table", "local")
        made.ip("route", "add", *route, "src", "192.0.2.1")
        with made.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
            peer.bind(("127.0.0.2", 0))
            peer.settimeout(WAIT_S)
            remote = Remote(2, peer)
            ask(guest, remote, b"before")
            assert remote.hears() == (b"before", ("192.0.2.1", SPORT))
            made.ip("route", "del", *route)
            made.ip("addr", "del", "192.0.2.1/32", "dev", "lo")
            ask(guest, remote, b"lost")
            ask(guest, remote, b"after")
            assert remote.hears() == (b"after", ("127.0.0.1", SPORT))
    finally:
        guest.close()
        made.delete()

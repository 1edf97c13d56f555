# SPDX-License-Identifier: GPL-2.0-or-later
"""Datagrams of the guest that leave through a SOCKS5 proxy, whose relay the test is."""

import errno
import random
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import ICMP

from passtpy import _native
from passtpy.addr import UNSPECIFIED, Address
from passtpy.errors import WireError
from passtpy.flow import Action, Pif, Verdict
from passtpy.wire.proxy import unwrap_datagram, wrap_datagram
from tests.datapath.given import Ends, to_itself
from tests.datapath.guest import Guest
from tests.datapath.packets import DPORT, REMOTE4, REMOTE6, SPORT, udp
from tests.datapath.test_udp_from_tap import uso
from tests.datapath.test_udp_to_tap import cut
from tests.lab.loopback import wait_delivered

RELAYS_MAX = 1024  # UDP_RELAYS_MAX
NAME = "a.example"
TARGET = IPv4Address(REMOTE4)
BAD, FILTERED = "udp_relay_bad", "udp_filtered"


class Proxy:
    """A proxy: its relay, and its end of the connection that keeps that."""

    def __init__(self, guest: Guest, relay: socket.socket, ends: Ends) -> None:
        self.guest = guest
        self.relay = relay
        self.ends = ends
        self.control: socket.socket | None = None

    def open(self, head: bytes, verdict: Verdict | None = None) -> None:
        """Have the next flow leave here."""

        def decide(miss: _native.Miss) -> None:
            self.guest.opened.append(self.try_to_open(miss, head, verdict))

        self.guest.decide = decide

    def try_to_open(
        self, miss: _native.Miss, head: bytes, verdict: Verdict | None = None
    ) -> int:
        self.control, theirs = self.ends()
        sock = socket.socket(self.relay.family, socket.SOCK_DGRAM)
        sock.connect(self.relay.getsockname())
        try:
            flow = self.guest.dp.open_relayed(
                miss.miss_id,
                verdict or to_itself(miss),
                fd=sock.fileno(),
                control=theirs.fileno(),
                head=head,
            )
        except OSError as error:
            sock.close()  # both have stayed ours
            theirs.close()
            return -(error.errno or 0)
        sock.detach()
        theirs.detach()
        return flow or 0

    def hear(self) -> tuple[Address | str, int, bytes]:
        """The next datagram, and whom it is for."""
        data, sender = self.relay.recvfrom(70000)
        with suppress(OSError):
            self.relay.connect(sender)
        return unwrap_datagram(data)

    def say(
        self, data: bytes, sender: Address | str = TARGET, port: int = DPORT
    ) -> None:
        self.relay.send(wrap_datagram(sender, port, data))

    def is_let_go(self) -> bool:
        """Whether the connection that keeps the relay has ended."""
        assert self.control is not None
        return self.control.recv(1) == b""


@pytest.fixture
def proxy(guest: Guest, udp_peer: socket.socket, ends: Ends) -> Proxy:
    return Proxy(guest, udp_peer, ends)


@pytest.fixture(params=["address", "name", "from6"])
def spoken(request: pytest.FixtureRequest, proxy: Proxy) -> Proxy:
    """A flow that has begun: to an address, a name, or an address of IPv6."""
    v6 = request.param == "from6"
    to: Address | str = IPv6Address(REMOTE6) if v6 else TARGET
    if request.param == "name":
        to = NAME
    proxy.open(wrap_datagram(to, DPORT, b""))
    proxy.guest.send(udp(b"open", v6=v6))
    assert proxy.hear() == (to, DPORT, b"open")
    return proxy


def first(proxy: Proxy, to: Address | str = TARGET) -> Guest:
    proxy.open(wrap_datagram(to, DPORT, b""))
    proxy.guest.send(udp(b"open"))
    assert proxy.hear()[2] == b"open"
    return proxy.guest


def test_datagrams_go_both_ways_behind_heads(spoken: Proxy) -> None:
    guest = spoken.guest
    v6 = len(guest.flows()) == 1 and guest.flows()[0].eaddr1[:1] != b"\0"
    sender: Address = IPv6Address(REMOTE6) if v6 else TARGET
    sizes = [0, 1, 1400, 8000, 3] * 3
    for i, size in enumerate(sizes):
        guest.put(udp(bytes([i]) * size, v6=v6))
    guest.turn()
    assert [spoken.hear()[2] for _ in sizes] == [
        bytes([i]) * size for i, size in enumerate(sizes)
    ]
    for i in range(40):
        spoken.say(bytes([i]) * 30, sender)
    got: list[bytes] = []
    while len(got) < 40:
        got += cut([guest.recv()])
    assert got == [bytes([i]) * 30 for i in range(40)]
    (flow,) = guest.flows()
    assert (flow.packets0, flow.packets1) == (1 + len(sizes), 40)
    assert (flow.bytes0, flow.bytes1) == (4 + sum(sizes), 40 * 30)


@pytest.mark.taps("vnet", "vhost", why="only there the guest has offload")
def test_a_super_segment_is_cut_and_each_has_a_head(proxy: Proxy) -> None:
    guest = first(proxy)
    payload = bytes(range(250)) * 40
    packet, vnet = uso(payload, 999)
    guest.send(packet, vnet=vnet)
    got = [proxy.hear() for _ in range(11)]
    assert b"".join(data for _, _, data in got) == payload
    assert {each[:2] for each in got} == {(TARGET, DPORT)}
    assert [len(data) for _, _, data in got] == [999] * 10 + [10]


@pytest.mark.taps("vnet", "vhost", why="only there the guest has offload")
def test_a_super_segment_that_may_not_be_sent_is_quoted_by_its_head(
    proxy: Proxy,
) -> None:
    """Before the other parts lie bytes of the guest, not a header."""
    guest = first(proxy)
    ends = [(file, call) for file, _, call, *_ in _native.fault_sites()]
    site = ends.index(("native/proto/udp_tx.c", "sendmmsg"))
    packet, vnet = uso(bytes(range(250)) * 40, 999)
    _native.fault(site, errno.EPERM, times=100)
    try:
        guest.send(packet, vnet=vnet)
    finally:
        _native.fault(site, 0, times=0)
    (told,) = guest.drain()  # and the oracle knows what it quotes
    assert (told.packet[ICMP].type, told.packet[ICMP].code) == (3, 13)
    assert guest.counter("udp_errors") == 11


def test_large_answers_arrive(proxy: Proxy) -> None:
    guest = first(proxy)
    for size in (2040, 2048, 2060, 1472):
        proxy.say(b"x" * size)
        got = b""
        while len(got) < size:  # whole, or in fragments
            packet = guest.recv().packet
            got += bytes(packet.payload.payload)
        assert got.endswith(b"x" * size)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0",
        b"\0\0\0\1\1\2\3\4\0",
        b"\0\0\0\2" + bytes(20),
        b"\0\0\0\3\xffshort",
        b"\0\0\0\4" + bytes(17),
        b"\0\0\1" + wrap_datagram(TARGET, DPORT, b"a fragment")[3:],
        b"\0\1\0" + wrap_datagram(TARGET, DPORT, b"reserved")[3:],
        b"\1\0\0" + wrap_datagram(TARGET, DPORT, b"reserved")[3:],
    ],
)
def test_what_has_no_good_head_is_dropped(proxy: Proxy, data: bytes) -> None:
    guest = first(proxy)
    proxy.relay.send(data)
    proxy.say(b"good")
    guest.expect(payload=b"good", sport=DPORT, dport=SPORT)
    assert guest.counter(BAD) == 1
    guest.expect_nothing()


def test_strangers_behind_the_proxy_are_not_heard(proxy: Proxy) -> None:
    guest = first(proxy)
    proxy.say(b"another address", IPv4Address("198.51.100.77"))
    proxy.say(b"another port", TARGET, DPORT + 1)
    proxy.say(b"another family", IPv6Address(REMOTE6))
    proxy.say(b"a name", NAME)
    proxy.say(b"good")
    guest.expect(payload=b"good")
    guest.expect_nothing()
    assert guest.counter(FILTERED) == 4


def test_a_name_has_the_address_that_answers_first(proxy: Proxy) -> None:
    guest = first(proxy, NAME)
    proxy.say(b"another port", IPv4Address("198.51.100.8"), DPORT + 1)
    proxy.say(b"another name", "b.example")
    proxy.say(b"first", IPv6Address(REMOTE6))
    proxy.say(b"by name", NAME)
    proxy.say(b"another", IPv4Address("198.51.100.8"))
    proxy.say(b"last", IPv6Address(REMOTE6))
    got: list[bytes] = []
    while len(got) < 3:
        got += cut([guest.recv()])
    assert got == [b"first", b"by name", b"last"]
    guest.expect_nothing()
    assert guest.counter(FILTERED) == 3


def test_the_flow_ends_with_the_connection(proxy: Proxy) -> None:
    guest = first(proxy)
    assert proxy.control is not None
    proxy.control.send(b"what a proxy never says")
    guest.turn()
    assert len(guest.flows()) == 1
    proxy.control.close()
    guest.wait_for(lambda: not guest.flows())
    guest.send(udp(b"again"))  # begins a new one
    assert len(guest.misses) == 2


def test_the_connection_ends_with_the_flow(proxy: Proxy) -> None:
    guest = first(proxy)
    guest.advance(200)
    assert not guest.flows()
    guest.advance(1)
    assert proxy.is_let_go()


def test_what_was_refused_stays_the_callers(proxy: Proxy) -> None:
    guest = proxy.guest
    head = wrap_datagram(TARGET, DPORT, b"")
    for bad in (b"", head[:-1], head + b"x", b"\0\0\0\7" + head[4:]):
        proxy.open(bad)
        guest.send(udp(b"x"))
        assert guest.opened.pop() == -errno.EINVAL
        guest.drain()
    wrong = Verdict(Action.FORWARD, Pif.TAP, b"\0" * 16, 1, UNSPECIFIED, 0, 1)
    proxy.open(head, wrong)
    guest.send(udp(b"x"))
    assert guest.opened.pop() == -errno.EINVAL
    assert not guest.flows()


@pytest.mark.parametrize("action", [Action.DROP, Action.REJECT])
def test_a_refusal_closes_what_came_with_it(proxy: Proxy, action: Action) -> None:
    to = Pif.NONE, UNSPECIFIED, 0, UNSPECIFIED, 0, 1
    proxy.open(wrap_datagram(TARGET, DPORT, b""), Verdict(action, *to))
    proxy.guest.send(udp(b"x"))
    assert proxy.guest.opened == [0]
    assert proxy.is_let_go()


@pytest.mark.taps("vnet", why="it is about the table of flows")
def test_relays_are_bounded(
    make_guest: Callable[..., Guest], udp_peer: socket.socket
) -> None:
    guest = make_guest()
    head = wrap_datagram(TARGET, DPORT, b"")
    left: list[int] = []
    control, keep = socket.socketpair()

    def decide(miss: _native.Miss) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(udp_peer.getsockname())
            fds = sock.detach(), control.dup().detach()
        try:
            made = guest.dp.open_relayed(
                miss.miss_id, to_itself(miss), fd=fds[0], control=fds[1], head=head
            )
        except OSError as error:
            left.extend(fds)
            made = -(error.errno or 0)
        guest.opened.append(made or 0)

    guest.decide = decide
    for port in range(RELAYS_MAX + 1):
        guest.send(udp(b"x", sport=10000 + port))
        if port % 100 == 0:
            guest.advance(0.1)  # new flows come no faster
    assert guest.opened.count(-errno.ENFILE) == len(left) // 2 > 0
    assert guest.counter("udp_relays_full") == len(left) // 2
    assert len(guest.flows()) == RELAYS_MAX
    for fd in left:
        socket.close(fd)
    control.close()
    keep.close()


def _mutated(rng: random.Random) -> Iterator[bytes]:
    for _ in range(600):
        data = bytearray(wrap_datagram(TARGET, DPORT, b"x" * rng.choice((0, 7, 300))))
        for _ in range(rng.choice((0, 1, 1, 2))):
            data[rng.randrange(10)] = rng.choice((0, 1, 3, 4, rng.randrange(256)))
        yield bytes(data[: rng.choice((len(data), rng.randrange(len(data))))])


@pytest.mark.taps("vnet", why="it is about what comes from the proxy")
def test_heads_are_read_as_the_oracle_reads_them(proxy: Proxy) -> None:
    guest = first(proxy)
    counts = {"payload": 0, BAD: 0, FILTERED: 0}
    for sent in _mutated(random.Random(1)):
        proxy.relay.send(sent)
        guest.turn()
        try:
            sender, port, _ = unwrap_datagram(sent)
        except WireError:
            counts[BAD] += 1
        else:
            known = (sender, port) == (TARGET, DPORT)
            counts["payload" if known else FILTERED] += 1
    assert min(counts.values()) > 50
    guest.wait_for(lambda: guest.flows()[0].packets1 == counts["payload"])
    wait_delivered()
    guest.turn()
    assert {name: guest.counter(name) for name in (BAD, FILTERED)} == {
        BAD: counts[BAD],
        FILTERED: counts[FILTERED],
    }

# SPDX-License-Identifier: GPL-2.0-or-later
"""ICMP errors from routers on the way: the guest gets the same ones.

Flows lead out of an interface behind which nobody is: packets are caught there, and a
router that does not exist answers them.
"""

import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address

import pytest
from scapy.layers.inet import ICMP, IP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.packet import Packet

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany, is_v4
from passtpy.flow import Action, Pif, Verdict
from tests.datapath.guest import WAIT_S, Guest, forward_to
from tests.datapath.packets import (
    DPORT,
    GUEST4,
    GUEST6,
    ISN,
    REMOTE4,
    REMOTE6,
    SPORT,
    echo,
    syn,
    udp,
)
from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root
HOST4, HOST6 = "203.0.113.1", "2001:db8:9::1"
ROUTER4, ROUTER6 = "203.0.113.254", "2001:db8:9::fe"
TARGET4, TARGET6 = (
    "203.0.113.9",
    "2001:db8:9::9",
)  # of the verdict
ETH_P_ALL = 3

SENT: dict[str, Callable[..., Packet]] = {
    "udp": lambda v6: udp(b"question", v6=v6),
    "tcp": lambda v6: syn(v6=v6),
    "echo": lambda v6: echo(77, 5, b"question", v6=v6),
}
BOTH = pytest.mark.parametrize("v6", [False, True], ids=["v4", "v6"])
PROTOCOLS = pytest.mark.parametrize("what", SENT)

# Type and code; Linux tells nobody of 11, 1
ERRORS4 = [(3, code) for code in range(16) if code != 4] + [(11, 0), (12, 0)]
ERRORS6 = [(1, code) for code in range(7)] + [(3, 0), (3, 1), (4, 0), (4, 1), (4, 2)]


@dataclass(frozen=True, slots=True)
class Wire:
    """What leaves the host, and a way to answer it."""

    sniffer: socket.socket
    raw4: socket.socket
    raw6: socket.socket

    def next(self, v6: bool) -> bytes:
        """The next IP packet to the target."""
        kind = 0x86DD if v6 else 0x0800
        target = socket.inet_pton(
            socket.AF_INET6 if v6 else socket.AF_INET, TARGET6 if v6 else TARGET4
        )
        while True:
            frame, address = self.sniffer.recvfrom(70000)
            if address[1] == kind and target in frame[14:54]:
                return frame[14:]

    def answer(self, kind: int, code: int, packet: bytes, info: int = 0) -> None:
        """A router's ICMP error about a packet."""
        if packet[0] >> 4 == 4:
            error = ICMP(type=kind, code=code) / packet[:548]
            if (kind, code) == (3, 4):
                error[ICMP].nexthopmtu = info
            whole = IP(src=ROUTER4, dst=HOST4) / error
            self.raw4.sendto(bytes(whole), (HOST4, 0))
            return
        made = {
            1: ICMPv6DestUnreach(code=code),
            2: ICMPv6PacketTooBig(mtu=info),
            3: ICMPv6TimeExceeded(code=code),
            4: ICMPv6ParamProblem(code=code, ptr=info),
        }[kind]
        whole = IPv6(src=ROUTER6, dst=HOST6) / made / packet[:1232]
        self.raw6.sendto(bytes(whole), (HOST6, 0))


@pytest.fixture(scope="module")
def nowhere() -> Iterator[Namespace]:
    """A namespace whose only way out ends at once."""
    made = Namespace.create(f"passtpy-errors-{os.getpid()}")
    made.sysctl("net.ipv4.ping_group_range", "0 2147483647")
    batch = f"""\
link add out0 type veth peer name sink0
addr add {HOST4}/24 dev out0
addr add {HOST6}/64 dev out0 nodad
link set out0 up
link set sink0 up
neigh add {TARGET4} lladdr 02:00:00:00:00:09 dev out0
neigh add {TARGET6} lladdr 02:00:00:00:00:09 dev out0
"""
    try:
        made.ip("-batch", "-", batch=batch)
        yield made
    finally:
        made.delete()


@pytest.fixture
def wire(nowhere: Namespace) -> Iterator[Wire]:
    """The sockets of that namespace."""
    with nowhere.entered():
        sniffer = socket.socket(
            socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL)
        )
        sniffer.bind(("out0", 0))
        raw4 = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        raw6 = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
    sniffer.settimeout(WAIT_S)
    yield Wire(sniffer, raw4, raw6)
    for sock in (sniffer, raw4, raw6):
        sock.close()


def decide(miss: _native.Miss) -> Verdict:
    """Send everything to the target, under another address than the guest's."""
    target = TARGET4 if is_v4(miss.oaddr) else TARGET6
    port = miss.oport + 1 if miss.proto in (6, 17) else miss.oport
    eaddr = inany(ip_address(target))
    return Verdict(Action.FORWARD, Pif.HOST, eaddr, port, UNSPECIFIED, 0, 1)


@pytest.fixture
def lost(guest: Guest, nowhere: Namespace) -> Iterator[Guest]:
    """A guest in that namespace."""
    guest.decide = decide
    with nowhere.entered():
        yield guest


def quoted(packet: Packet, v6: bool, source: str) -> bytes:
    """What an error quotes, from the L4 header on; its addresses are the guest's."""
    raw = bytes(packet)[14:]
    if v6:
        assert (packet[IPv6].src, packet[IPv6].dst) == (source, GUEST6)
        inner = IPv6(raw[48:])
        assert (inner.src, inner.dst) == (GUEST6, REMOTE6)
        return raw[88:]
    assert (packet[IP].src, packet[IP].dst) == (source, GUEST4)
    inner = IP(raw[28:48])
    assert (inner.src, inner.dst) == (GUEST4, REMOTE4)
    return raw[48:]


def check_quote(what: str, l4: bytes, v6: bool) -> None:
    """The guest must recognise its own packet: ports, sequence number, identifier."""
    if what == "echo":
        assert l4[:2] == (b"\x80\0" if v6 else b"\x08\0")
        assert l4[4:8] == bytes([0, 77, 0, 5])
        return
    assert l4[:4] == SPORT.to_bytes(2, "big") + DPORT.to_bytes(2, "big")
    if what == "tcp":
        assert l4[4:8] == ISN.to_bytes(4, "big")
    else:
        assert l4[8:] == b"question"


@PROTOCOLS
@pytest.mark.parametrize(("kind", "code"), ERRORS4)
def test_error_reaches_the_guest_over_ip4(
    lost: Guest, wire: Wire, what: str, kind: int, code: int
) -> None:
    lost.send(SENT[what](False))
    wire.answer(kind, code, wire.next(False))
    packet = lost.recv().packet
    assert (packet[ICMP].type, packet[ICMP].code) == (kind, code)
    check_quote(what, quoted(packet, False, ROUTER4), False)
    assert lost.counter("icmp_errors_to_tap") == 1
    assert len(lost.flows()) == (what != "tcp")


@PROTOCOLS
@pytest.mark.parametrize(("kind", "code"), ERRORS6)
def test_error_reaches_the_guest_over_ip6(
    lost: Guest, wire: Wire, what: str, kind: int, code: int
) -> None:
    lost.send(SENT[what](True))
    wire.answer(kind, code, wire.next(True), info=6 if kind == 4 else 0)
    frame = lost.recv()
    assert tuple(frame.raw[54:56]) == (kind, code)
    assert int.from_bytes(frame.raw[58:62], "big") == (6 if kind == 4 else 0)
    check_quote(what, quoted(frame.packet, True, ROUTER6), True)
    assert len(lost.flows()) == (what != "tcp")


# Flows that end in the other family: what comes back, and what the guest is told
TRANSLATED6 = [
    ((1, 0), (3, 0)),
    ((1, 1), (3, 13)),
    ((1, 3), (3, 1)),
    ((1, 4), (3, 3)),
    ((3, 0), (11, 0)),
]
TRANSLATED4 = [
    ((3, 0), (1, 0)),
    ((3, 1), (1, 3)),
    ((3, 3), (1, 4)),
    ((11, 0), (3, 0)),
]


def decide_otherwise(miss: _native.Miss) -> Verdict:
    """Send everything to the target of the other family."""
    target = TARGET6 if is_v4(miss.oaddr) else TARGET4
    eaddr = inany(ip_address(target))
    return Verdict(Action.FORWARD, Pif.HOST, eaddr, miss.oport, UNSPECIFIED, 0, 1)


def test_errors_amid_a_burst_quote_what_was_sent(lost: Guest, wire: Wire) -> None:
    """traceroute by ping, beside a download: both wait for the same flush."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind((HOST4, 0))
        heard = forward_to(peer.getsockname()[1], HOST4)
        lost.decide = lambda miss: heard(miss) if miss.oport == 9 else decide(miss)
        lost.send(udp(b"open", dport=9))
        peer.connect(peer.recvfrom(9)[1])
        for number in range(40):
            lost.put(echo(200 + number, 7, b"ping %d " % number * 9))
        lost.turn()
        for number in range(40):
            wire.answer(11, 0, wire.next(False))
            peer.send(b"burst %d " % number * 100)
        frames = lost.drain()
    errors = [frame for frame in frames if ICMP in frame.packet]
    assert len(errors) == 40  # what they quote is the oracle's to tell
    assert sum(len(frame.payload) for frame in frames if frame not in errors) > 40 * 800


@pytest.mark.parametrize("what", ["udp", "tcp"])
@pytest.mark.parametrize(
    ("v6", "told", "expected"),
    [(False, *pair) for pair in TRANSLATED6] + [(True, *pair) for pair in TRANSLATED4],
)
def test_error_of_the_other_family_is_translated(
    lost: Guest,
    wire: Wire,
    what: str,
    v6: bool,
    told: tuple[int, int],
    expected: tuple[int, int],
) -> None:
    lost.decide = decide_otherwise
    lost.send(SENT[what](v6))
    wire.answer(*told, wire.next(not v6))
    frame = lost.recv()
    l4 = 54 if v6 else 34
    assert tuple(frame.raw[l4 : l4 + 2]) == expected
    source = REMOTE6 if v6 else REMOTE4
    check_quote(what, quoted(frame.packet, v6, source), v6)


@BOTH
def test_mtu_of_the_other_family_is_translated(
    lost: Guest, wire: Wire, v6: bool
) -> None:
    """RFC 7915: headers of IPv6 are 20 bytes longer."""
    lost.decide = decide_otherwise
    lost.send(SENT["udp"](v6))
    kind, code = (3, 4) if v6 else (2, 0)
    wire.answer(kind, code, wire.next(not v6), info=1400)
    raw = lost.recv().raw
    l4 = 54 if v6 else 34
    assert tuple(raw[l4 : l4 + 2]) == ((2, 0) if v6 else (3, 4))
    assert int.from_bytes(raw[l4 + 4 : l4 + 8], "big") == (1420 if v6 else 1380)


@BOTH
def test_parameter_problem_of_the_other_family_is_none(
    lost: Guest, wire: Wire, v6: bool
) -> None:
    lost.decide = decide_otherwise
    lost.send(SENT["udp"](v6))
    wire.answer(12 if v6 else 4, 0, wire.next(not v6))
    lost.turn()
    assert lost.counter("udp_errors") == 1
    assert lost.counter("icmp_errors_to_tap") == 0


@pytest.mark.parametrize("what", ["udp", "echo"])
@BOTH
def test_small_mtu_reaches_the_guest(
    lost: Guest, wire: Wire, what: str, v6: bool
) -> None:
    lost.send(SENT[what](v6))
    wire.answer(2 if v6 else 3, 0 if v6 else 4, wire.next(v6), info=1300)
    frame = lost.recv()
    l4 = 54 if v6 else 34
    assert tuple(frame.raw[l4 : l4 + 2]) == ((2, 0) if v6 else (3, 4))
    assert int.from_bytes(frame.raw[l4 + 4 : l4 + 8], "big") == 1300
    check_quote(what, quoted(frame.packet, v6, ROUTER6 if v6 else ROUTER4), v6)


@pytest.mark.parametrize("what", ["udp", "tcp"])
@BOTH
def test_ttl_is_carried_into_the_other_family(
    lost: Guest, wire: Wire, what: str, v6: bool
) -> None:
    lost.decide = decide_otherwise
    packet = SENT[what](v6)
    packet.ttl = 7
    if v6:
        packet.hlim = 7
    lost.send(packet)
    assert wire.next(not v6)[8 if v6 else 7] == 7


@PROTOCOLS
@BOTH
@pytest.mark.parametrize("ttl", [1, 2, 63, 64, 255])
def test_ttl_is_carried(lost: Guest, wire: Wire, what: str, v6: bool, ttl: int) -> None:
    """We are no hop: not one less than the guest's."""
    packet = SENT[what](v6)
    packet.ttl = ttl  # scapy knows it as hlim too
    if v6:
        packet.hlim = ttl
    lost.send(packet)
    left = wire.next(v6)
    assert left[7 if v6 else 8] == ttl


@BOTH
def test_error_after_the_connection_stands_is_no_end(
    guest: Guest, server: object, server6: object, v6: bool
) -> None:
    """RFC 5927: what was reachable a moment ago deserves another try."""
    port = (server6 if v6 else server).port  # type: ignore[attr-defined]
    loopback = "::1" if v6 else "127.0.0.1"

    def to_loopback(_miss: _native.Miss) -> Verdict:
        eaddr = inany(ip_address(loopback))
        return Verdict(Action.FORWARD, Pif.HOST, eaddr, port, UNSPECIFIED, 0, 1)

    guest.decide = to_loopback
    conn = guest.connect(v6=v6)
    accepted = (server6 if v6 else server).accept()  # type: ignore[attr-defined]
    ours = accepted.getpeername()[1]
    header = ours.to_bytes(2, "big") + port.to_bytes(2, "big") + bytes(16)
    family = socket.AF_INET6 if v6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        if v6:
            inner = IPv6(src=loopback, dst=loopback, nh=6) / header
            error = IPv6(src=loopback, dst=loopback) / ICMPv6DestUnreach(code=3) / inner
        else:
            inner4 = IP(src=loopback, dst=loopback, proto=6) / header
            error = IP(src=loopback, dst=loopback) / ICMP(type=3, code=1) / inner4
        raw.sendto(bytes(error), (loopback, 0))
    guest.expect_nothing()
    conn.send(b"still there")
    assert accepted.recv(99) == b"still there"

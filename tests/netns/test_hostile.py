# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames that no decent guest sends, put on the real tap; the daemon must live on.

They are written to the guest's end of the tap device with AF_PACKET, so they arrive
as a guest's kernel would have sent them, with a virtio-net header made by the kernel.
"""

import os
import random
import socket
import struct
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.lab import (
    REMOTE4,
    REMOTE6,
    TRANSLATORS,
    Attached,
    Attachment,
    Lab,
    exchange,
    tcp_echo,
    tcp_pair,
    transfer,
)

GUEST4, GUEST6 = "198.51.100.2", "2001:db8:2::2"  # the host's own, as copied
SPOOFED4, SPOOFED6 = "192.0.2.99", "2001:db8:99::1"
ETH_P_ALL = 3
PORT = 7080


@pytest.fixture(scope="module", params=["product", "checked"])
def attached(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Attached]:
    """A guest; once with the build that checks its invariants after each step."""
    env = {}
    if request.param == "checked":
        env = request.getfixturevalue("checked")
    with lab.attach(TRANSLATORS["passtpy"], Attachment(env=env)) as made:
        yield made
        made.check_alive()


@pytest.fixture(scope="module")
def checked() -> dict[str, str]:
    """The checked build's environment, for fixtures that live as long as a module."""
    from tests.conftest import CHECKED, HAVE_CHECKED

    if not HAVE_CHECKED:
        pytest.skip("needs make native-debug")
    return {"PYTHONPATH": str(CHECKED), "PYTHONSAFEPATH": "1"}


class Wire:
    """A raw socket on the guest's interface."""

    def __init__(self, attached: Attached) -> None:
        with attached.guest.entered():
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
            self._sock.bind(("eth0", 0))
            self.mac = self._sock.getsockname()[4]
        self._sock.setblocking(False)

    def close(self) -> None:
        self._sock.close()

    def send(self, frame: bytes | Packet) -> None:
        """Send a frame; what the device itself refuses does not count."""
        raw = bytes(frame)
        if len(raw) < 14:
            raw = raw.ljust(14, b"\0")
        try:
            self._sock.send(raw)
        except (BlockingIOError, OSError):
            return

    def ether(self, packet: Packet) -> Packet:
        """An Ethernet header of the guest, to anybody."""
        mac = ":".join(f"{b:02x}" for b in self.mac)
        return Ether(src=mac, dst="9a:55:9a:55:9a:55") / packet


@pytest.fixture
def wire(lab: Lab, attached: Attached) -> Iterator[Wire]:
    """A raw socket; afterwards the daemon must serve as before."""
    made = Wire(attached)
    yield made
    made.close()
    attached.check_alive()
    still_serves(lab, attached)


def still_serves(lab: Lab, attached: Attached) -> None:
    """A TCP exchange over both families, and UDP."""
    data = os.urandom(50_000)
    for remote in (REMOTE4, REMOTE6):
        with (
            tcp_echo(lab.remote, remote) as server,
            attached.guest.connect(remote, server.port) as sock,
        ):
            assert exchange(sock, data) == data


def good_frames(wire: Wire) -> list[Packet]:
    """One decent frame of each kind."""
    payload = Raw(b"payload" * 20)
    v4, v6 = IP(src=GUEST4, dst=REMOTE4), IPv6(src=GUEST6, dst=REMOTE6)
    syn = TCP(sport=50000, dport=9, flags="S", options=[("MSS", 1460), ("WScale", 7)])
    packets = [
        v4 / syn,
        v6 / syn,
        v4 / TCP(sport=50001, dport=9, flags="PA", seq=5, ack=9) / payload,
        v4 / UDP(sport=50000, dport=9) / payload,
        v6 / UDP(sport=50000, dport=9) / payload,
        v4 / ICMP(id=7) / payload,
        v6 / ICMPv6EchoRequest(id=7),
        v6 / ICMPv6ND_NS(tgt=REMOTE6),
        v4 / UDP(sport=68, dport=67) / payload,
        v6 / UDP(sport=546, dport=547) / payload,
        ARP(psrc=GUEST4, pdst=REMOTE4),
    ]
    return [wire.ether(p) for p in packets]


def test_truncated_frames(wire: Wire) -> None:
    for frame in good_frames(wire):
        raw = bytes(frame)
        for length in range(len(raw)):
            wire.send(raw[:length])


def test_lengths_that_lie(wire: Wire) -> None:
    for lie in (0, 1, 19, 20, 21, 39, 40, 60, 65535):
        wire.send(wire.ether(IP(src=GUEST4, dst=REMOTE4, len=lie) / TCP(flags="S")))
        wire.send(wire.ether(IP(src=GUEST4, dst=REMOTE4) / UDP(len=lie) / b"x"))
        wire.send(wire.ether(IPv6(src=GUEST6, dst=REMOTE6, plen=lie) / TCP(flags="S")))
        wire.send(wire.ether(IPv6(src=GUEST6, dst=REMOTE6) / UDP(len=lie) / b"x"))
    for words in range(16):
        head = IP(src=GUEST4, dst=REMOTE4)
        wire.send(wire.ether(head / TCP(flags="S", dataofs=words) / b"1234"))
        wire.send(wire.ether(IP(src=GUEST4, dst=REMOTE4, ihl=words) / TCP(flags="S")))


def test_options_that_lie(wire: Wire) -> None:
    rng = random.Random(1)
    for _ in range(500):
        raw = rng.randbytes(4 * rng.randrange(1, 10))
        segment = TCP(
            sport=rng.randrange(1024, 65536),
            dport=9,
            flags="S",
            dataofs=5 + len(raw) // 4,
        )
        wire.send(wire.ether(IP(src=GUEST4, dst=REMOTE4) / segment / raw))


def test_fragments(wire: Wire) -> None:
    v4 = {"src": GUEST4, "dst": REMOTE4}
    for offset in (0, 1, 185, 8191):
        for flags in (0, "MF"):
            if offset or flags:
                packet = IP(**v4, frag=offset, flags=flags) / UDP(dport=9) / (b"x" * 64)
                wire.send(wire.ether(packet))
        head = IPv6(src=GUEST6, dst=REMOTE6)
        part = IPv6ExtHdrFragment(offset=offset, m=1, id=offset)
        wire.send(wire.ether(head / part / UDP(dport=9) / (b"x" * 64)))


def test_extension_headers(wire: Wire) -> None:
    head = IPv6(src=GUEST6, dst=REMOTE6)
    for extension in (
        IPv6ExtHdrHopByHop(),
        IPv6ExtHdrDestOpt(),
        IPv6ExtHdrRouting(addresses=[REMOTE6]),
    ):
        wire.send(wire.ether(head / extension / TCP(flags="S", dport=9)))
    chain: Packet = head
    for _ in range(100):
        chain = chain / IPv6ExtHdrDestOpt()
    wire.send(wire.ether(chain / TCP(flags="S", dport=9)))


@pytest.mark.parametrize("source", [
    SPOOFED4, "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1",
])  # fmt: skip
def test_spoofed_sources(wire: Wire, source: str) -> None:
    for flags in ("S", "A", "R", "FA", "SA"):
        wire.send(wire.ether(IP(src=source, dst=REMOTE4) / TCP(flags=flags, dport=9)))
    wire.send(wire.ether(IP(src=source, dst=REMOTE4) / UDP(dport=9) / b"x"))
    wire.send(wire.ether(IP(src=source, dst=REMOTE4) / ICMP()))


@pytest.mark.parametrize("source", [
    SPOOFED6, "::", "::1", "ff02::1", "::ffff:192.0.2.1", "::192.0.2.1",
])  # fmt: skip
def test_spoofed_sources_over_ipv6(wire: Wire, source: str) -> None:
    for flags in ("S", "A", "R", "FA", "SA"):
        packet = IPv6(src=source, dst=REMOTE6) / TCP(flags=flags, dport=9)
        wire.send(wire.ether(packet))
    wire.send(wire.ether(IPv6(src=source, dst=REMOTE6) / UDP(dport=9) / b"x"))
    wire.send(wire.ether(IPv6(src=source, dst=REMOTE6) / ICMPv6EchoRequest()))


@pytest.mark.parametrize("target", [
    "0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255", GUEST4,
])  # fmt: skip
def test_senseless_destinations(wire: Wire, target: str) -> None:
    for l4 in (TCP(flags="S", dport=9), TCP(flags="S", dport=0), UDP(dport=0), ICMP()):
        wire.send(wire.ether(IP(src=GUEST4, dst=target) / l4))


@pytest.mark.parametrize("target", [
    "::", "::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:198.51.100.1", GUEST6,
])  # fmt: skip
def test_senseless_destinations_over_ipv6(wire: Wire, target: str) -> None:
    for l4 in (TCP(flags="S", dport=9), UDP(dport=9), ICMPv6EchoRequest()):
        wire.send(wire.ether(IPv6(src=GUEST6, dst=target) / l4))


def test_other_ethernet(wire: Wire) -> None:
    inner = IP(src=GUEST4, dst=REMOTE4) / TCP(flags="S", dport=9)
    wire.send(Ether(src="ff:ff:ff:ff:ff:ff", dst="ff:ff:ff:ff:ff:ff") / inner)
    wire.send(wire.ether(Dot1Q(vlan=5) / inner))
    for kind in (0, 0x05DC, 0x8847, 0x88CC, 0xFFFF):
        wire.send(bytes(wire.ether(inner))[:12] + struct.pack("!H", kind) + b"x" * 50)


def test_flags_in_every_combination(wire: Wire) -> None:
    for flags in range(256):
        segment = TCP(sport=51000, dport=9, flags=flags, seq=flags * 1000)
        wire.send(wire.ether(IP(src=GUEST4, dst=REMOTE4) / segment / b"x"))
        wire.send(wire.ether(IPv6(src=GUEST6, dst=REMOTE6) / segment))


@pytest.mark.parametrize("seed", range(4))
def test_random_mutations(wire: Wire, seed: int) -> None:
    rng = random.Random(seed)
    good = [bytes(f) for f in good_frames(wire)]
    for _ in range(3000):
        frame = bytearray(rng.choice(good))
        for _ in range(rng.randrange(1, 6)):
            frame[rng.randrange(12, len(frame))] = rng.randrange(256)
        wire.send(bytes(frame[: rng.randrange(14, len(frame) + 1)]))


def test_random_bytes(wire: Wire) -> None:
    rng = random.Random(9)
    head = bytes(wire.ether(IP()))[:12]
    for _ in range(2000):
        kind = rng.choice((b"\x08\x00", b"\x86\xdd", b"\x08\x06"))
        wire.send(head + kind + rng.randbytes(rng.randrange(0, 1500)))


def test_flood_of_connections(wire: Wire) -> None:
    """More than is allowed in a second, from every port, to nobody."""
    for port in range(1024, 9024):
        segment = TCP(sport=port, dport=9, flags="S")
        wire.send(wire.ether(IP(src=GUEST4, dst=REMOTE4) / segment))


def test_transfers_go_on_among_hostile_frames(
    lab: Lab, attached: Attached, wire: Wire
) -> None:
    """Segments with the right addresses and wrong numbers (without payload or FIN:
    by chance, one of thousands would be inside the window, and right)."""
    near, far = tcp_pair(attached.guest, lab.remote, REMOTE4)
    rng = random.Random(4)
    with near, far:
        ports = {"sport": near.getsockname()[1], "dport": near.getpeername()[1]}
        for _ in range(500):
            far_off = {"seq": rng.randrange(2**32), "ack": rng.randrange(2**32)}
            flags = rng.choice(("PA", "A", "S", "P", "", "SA", "UA"))
            head = IP(src=near.getsockname()[0], dst=REMOTE4)
            segment = TCP(**ports, **far_off, flags=flags, window=rng.randrange(65536))
            wire.send(wire.ether(head / segment))
        transfer(near, far, 1_000_000)

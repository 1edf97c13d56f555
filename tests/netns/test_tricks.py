# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest with root tries in order to get around its policy, with a raw socket.

One guest may reach one name, at one port. Whoever listens on the wire of the remote
host sees whatever leaves; of that nothing may be for another place.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dns.message
import dns.name
import dns.query
import dns.rcode
import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption
from scapy.packet import Packet, Raw

from tests.lab import (
    GATEWAY4,
    HOST4,
    REMOTE4,
    REMOTE6,
    Lab,
    Namespace,
    UdpEcho,
    exchange,
    tcp_echo,
    wait_until,
)
from tests.netns.nameserver import NameServer, ask, told
from tests.netns.policed import ANYBODY, Policed, policed, tcp_to, udp_to

MARK = b"all of before has passed"
MASQUERADE = """\
table ip hide {
	chain out {
		type nat hook postrouting priority 100;
		oifname "eth0" masquerade
	}
}
"""
OPEN, CLOSED = 7001, 7002  # ports of the remote host
PATIENCE = 30.0
REFUSED = "ConnectionRefusedError"
ETH_ALL, ETH_IP = 3, 0x0800
SO_RCVBUFFORCE = 33  # not in the socket module
INNER, ROUTER = "10.77.0.2", "10.77.0.1"
ZONE = (
    f"allowed.example. 300 A {REMOTE4}",
    f"allowed.example. 300 AAAA {REMOTE6}",
    "inside.example. 300 CNAME host.inside.example.",
    "host.inside.example. 300 A 10.0.0.1",
    "host.inside.example. 300 A 127.0.0.1",
    "mapped.example. 300 AAAA ::ffff:10.0.0.1",
    "mapped.example. 300 AAAA 64:ff9b::a00:1",
    f"hidden.example. 300 A {REMOTE4}",
    f"ALLOWED.example.hidden.example. 300 A {REMOTE4}",
)
ALLOW = (
    *("--allow", f"allowed.example:{OPEN}"),
    *("--allow", f"inside.example:{OPEN}"),
    *("--allow", f"mapped.example:{OPEN}"),
)


class Tricked(Policed):
    """The guest, the name server that it may not ask itself, and the wire."""

    def __init__(self, it: Policed, names: NameServer, wire: socket.socket) -> None:
        super().__init__(it.it, Path(it.control), it.log, it.audit)
        self.names, self.wire = names, wire

    def left(self) -> set[tuple[int, str, int]]:
        """What left the host by now but for the allowed: protocol, target, port.

        What was tried before is decided before a connection that is allowed is.
        """
        assert tcp_to(self.guest, REMOTE4, OPEN, PATIENCE) == "open"
        with self.lab.host.new_socket(kind=socket.SOCK_DGRAM) as last:
            last.sendto(MARK, (REMOTE4, 9))
        found = set()
        while not (frame := self.wire.recv(1 << 16)).endswith(MARK):
            packet = IP(frame[14:]) if frame[12:14] == b"\x08\0" else None
            if packet is None or packet.src == REMOTE4:
                continue
            port = getattr(packet.payload, "dport", 0)
            found.add((int(packet.proto), str(packet.dst), int(port)))
        return {each for each in found if each[2] not in (OPEN, 53)}

    def say_raw(self, *packets: Packet) -> None:
        """Send packets that the guest made itself, whole with their IP header."""
        line = next(each for each in self.guest.read("arp").splitlines()[1:] if each)
        gateway = bytes.fromhex(line.split()[3].replace(":", ""))
        with self.guest.new_socket(socket.AF_PACKET, socket.SOCK_DGRAM) as raw:
            for packet in packets:
                raw.sendto(bytes(packet), ("eth0", ETH_IP, 0, 0, gateway))

    def query(self, *labels: bytes, tcp: bool = False) -> dns.message.Message:
        """Ask for a name that may have any bytes in its labels."""
        query = dns.message.make_query(dns.name.Name([*labels, b""]), "A")
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        with self.guest.new_socket(kind=kind) as sock:
            sock.settimeout(PATIENCE)
            sock.connect((ANYBODY, 53))
            if tcp:
                dns.query.send_tcp(sock, query)
                return dns.query.receive_tcp(sock)[0]
            sock.send(query.to_wire())
            return dns.message.from_wire(sock.recv(4096))


@pytest.fixture(scope="module")
def tricked() -> Iterator[Tricked]:
    with (
        Lab() as lab,
        NameServer(*ZONE).serving(lab.remote, REMOTE4) as names,
        tcp_echo(lab.remote, REMOTE4, OPEN),
        tcp_echo(lab.remote, REMOTE4, CLOSED),
        UdpEcho(lab.remote, REMOTE4, OPEN),
        UdpEcho(lab.remote, REMOTE4, CLOSED),
        tcp_echo(lab.host, "127.0.0.1", OPEN),
        policed(lab, *ALLOW, resolv=(REMOTE4,)) as it,
        lab.remote.new_socket(socket.AF_PACKET, socket.SOCK_RAW) as wire,
    ):
        wire.bind(("wire0", ETH_ALL))
        wire.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)  # none is lost
        wire.settimeout(PATIENCE)
        assert told(ask(it.guest, ANYBODY, "allowed.example")) == {REMOTE4}
        yield Tricked(it, names, wire)


def _pieces(packet: Packet, size: int) -> list[Packet]:
    """An IPv4 packet in fragments of this size; its ports may come in the second."""
    data = bytes(packet.__class__(bytes(packet)).payload)
    cuts = range(0, len(data), size)
    return [
        IP(src=HOST4, dst=REMOTE4, id=77, proto=packet.proto, flags=more, frag=at // 8)
        / Raw(data[at : at + size])
        for at in cuts
        for more in ["MF" if at != cuts[-1] else 0]
    ]


def _to(port: int, layer: Packet, payload: bytes = b"") -> Packet:
    layer.dport, layer.sport = port, 34567
    return IP(bytes(IP(src=HOST4, dst=REMOTE4) / layer / Raw(payload)))


def test_fragments_are_judged_whole(tricked: Tricked) -> None:
    """Also where two datagrams are mixed, so that ports are those of another."""
    for port in (CLOSED, OPEN):
        before = tricked.counters()
        tricked.say_raw(*_pieces(_to(port, UDP(), b"x" * 64), 8))
        tricked.say_raw(*_pieces(_to(port, TCP(flags="S", seq=7), b"x" * 64), 24))
        which = "policy_refused" if port == CLOSED else "policy_allowed"
        wanted = before[which] + 2

        def counted(which: str = which, wanted: int = wanted) -> bool:
            return tricked.counters()[which] >= wanted

        wait_until(counted, PATIENCE, f"two of {which}")
    good, bad = (_to(port, UDP(), b"x" * 64) for port in (OPEN, CLOSED))
    mixed = _pieces(good, 16)
    tricked.say_raw(mixed[0], *_pieces(bad, 16)[:1], *mixed[1:])
    tricked.say_raw(*_pieces(bad, 16)[1:], *_pieces(good, 24)[:1])
    assert tricked.left() == set()


def test_other_protocols_lead_nowhere(tricked: Tricked) -> None:
    """IPv4 and IPv6 in IP, GRE, ESP, SCTP, UDP-Lite; also source routes."""
    inner = bytes(_to(CLOSED, UDP(), b"x"))
    for proto in (4, 41, 47, 50, 132, 136, 255):
        tricked.say_raw(IP(src=HOST4, dst=REMOTE4, proto=proto) / Raw(inner))
    route = IPOption(b"\x83\x07\x04" + socket.inet_aton(GATEWAY4) + b"\0")
    tricked.say_raw(IP(src=HOST4, dst=REMOTE4, options=[route]) / UDP(dport=CLOSED))
    for kind in (8, 13, 15, 17):
        tricked.say_raw(IP(src=HOST4, dst=REMOTE4) / ICMP(type=kind) / b"data")
    assert tricked.left() == set()


def test_addresses_for_everybody_are_nobody(tricked: Tricked) -> None:
    """Broadcast, of the network too, groups, and what stands for the host."""
    for to in ("255.255.255.255", "198.51.100.255", "224.0.0.251", "239.1.2.3"):
        tricked.say_raw(IP(src=HOST4, dst=to) / UDP(dport=OPEN) / b"x")
    for to in ("0.0.0.0", "127.0.0.1", "127.1.2.3"):
        tricked.say_raw(IP(src=HOST4, dst=to) / TCP(dport=OPEN, flags="S"))
    assert tcp_to(tricked.guest, GATEWAY4, OPEN, PATIENCE) == REFUSED
    assert tricked.left() == set()


def test_a_socket_that_may_send_there_may_not_send_elsewhere(
    tricked: Tricked,
) -> None:
    with tricked.guest.udp("0.0.0.0", 34999) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(b"a", (REMOTE4, OPEN))
        assert sock.recv(9) == b"a"
        sock.sendto(b"b", (REMOTE4, CLOSED))
        with pytest.raises(ConnectionRefusedError):
            _until_error(sock)
    assert tricked.left() == set()


def _until_error(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_IP, 11, 1)  # IP_RECVERR
    sock.sendto(b"b", (REMOTE4, CLOSED))
    sock.recv(9)


def test_no_other_port_of_an_address_lets_itself_be_answered(tricked: Tricked) -> None:
    """Who may be sent to has accomplices: what they say begins nothing."""
    accomplice = tricked.lab.remote.new_socket(socket.AF_INET, socket.SOCK_DGRAM)
    with accomplice, tricked.guest.udp("0.0.0.0", 34998) as sock:
        accomplice.bind((REMOTE4, 7999))
        sock.settimeout(PATIENCE)
        sock.sendto(b"a", (REMOTE4, OPEN))
        assert sock.recv(9) == b"a"
        accomplice.sendto(b"say it to me", (HOST4, 34998))
        sock.sendto(b"b", (REMOTE4, OPEN))
        assert sock.recv(99) == b"b"
        sock.sendto(b"a secret", (REMOTE4, 7999))
    assert tricked.left() == set()


@contextmanager
def _behind(guest: Namespace, lab: Lab) -> Iterator[Namespace]:
    """A namespace behind the guest, for which it is the router."""
    inner = lab.guest()
    setup = "link add in0 type veth peer name eth0 netns {}\naddr add {}/24 dev in0\n"
    guest.ip("-batch", "-", batch=setup.format(inner.name, ROUTER))
    guest.ip("link", "set", "in0", "up")
    guest.sysctl("net.ipv4.ip_forward", "1")
    inner.ip("addr", "add", f"{INNER}/24", "dev", "eth0")
    inner.ip("link", "set", "eth0", "up")
    inner.ip("route", "add", "default", "via", ROUTER)
    try:
        yield inner
    finally:
        guest.ip("link", "del", "in0")


def test_who_is_behind_the_guest_is_the_guest(tricked: Tricked) -> None:
    """With an address of its own, and behind one that the guest gives it."""
    with _behind(tricked.guest, tricked.lab) as inner:
        for translated in (False, True):
            if translated:
                tricked.guest.run("nft", "-f", "-", stdin=MASQUERADE)
            assert tcp_to(inner, REMOTE4, CLOSED, PATIENCE) == REFUSED
            assert udp_to(inner, REMOTE4, CLOSED, PATIENCE) == REFUSED
            answer = ask(inner, ANYBODY, "hidden.example")
            assert answer.rcode() == dns.rcode.NXDOMAIN
            with inner.connect(REMOTE4, OPEN) as sock:
                assert exchange(sock, b"hello") == b"hello"
    assert tricked.left() == set()


def test_dns_over_anything_else_is_refused(tricked: Tricked) -> None:
    """DoT, DoH, DoQ and QUIC to raw addresses, also of the host's own resolver."""
    for to in (REMOTE4, GATEWAY4, REMOTE6, "203.0.113.8"):
        for port in (443, 853, 5353, 80):
            assert tcp_to(tricked.guest, to, port, PATIENCE) == REFUSED
            assert udp_to(tricked.guest, to, port, PATIENCE) == REFUSED
    assert tricked.left() == set()


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_no_spelling_of_a_name_is_another_one(tricked: Tricked, tcp: bool) -> None:
    before = list(tricked.names.asked)
    for labels in (
        [b"hidden", b"example"],
        [b"HIDDEN", b"EXAMPLE"],
        [b"allowed.example", b"hidden", b"example"],
        [b"hidden\0.allowed", b"example"],
        [b"hidden.example\0", b"allowed", b"example"],
        [b"allowed\0", b"example"],
        [b"allowed.example"],
        [b"xn--llowed-cua", b"example"],
        ["\u0430llowed".encode(), b"example"],  # a Cyrillic letter
        [b"*", b"example"],
        [b"a" * 63] * 3 + [b"a" * 61],
        [b"allowed", b"example", b"hidden", b"example"],
    ):
        answer = tricked.query(*labels, tcp=tcp)
        assert answer.rcode() == dns.rcode.NXDOMAIN
        assert not answer.answer
    assert tricked.names.asked == before
    assert tricked.query(b"ALLOWED", b"Example", tcp=tcp).answer


def test_a_name_does_not_lead_into_a_closed_network(tricked: Tricked) -> None:
    assert told(ask(tricked.guest, ANYBODY, "inside.example")) <= {
        "host.inside.example."
    }
    assert told(ask(tricked.guest, ANYBODY, "mapped.example", "AAAA")) == set()
    for to in ("10.0.0.1", "64:ff9b::a00:1", GATEWAY4):
        assert tcp_to(tricked.guest, to, OPEN, PATIENCE) == REFUSED
    assert tricked.left() == set()

# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's end of a socketpair whose other end is the tap of a real Datapath.

Time is virtual: it moves only by `advance()`. Peers are real sockets on loopback, whose
packets arrive when the kernel gets to it: `recv()` waits for them in real time, without
the datapath's clock moving, and silence is believed once all have arrived.
"""

import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Literal

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import checksum as internet_checksum

from passtpy import _native
from passtpy.addr import UNSPECIFIED, inany, is_v4
from passtpy.flow import Action, FlowRecord, Pif, PuntKind, Verdict, flows_in, pages_of
from tests.datapath.link import Link, MessageLink, StreamLink
from tests.datapath.oracle import Oracle
from tests.datapath.packets import DPORT, GUEST_MAC, ISN, OUR_MAC, SPORT, syn, tcp
from tests.datapath.receive import TCPV4, TCPV6, Receiver, Segment, segments
from tests.datapath.vring import VringLink
from tests.lab.loopback import wait_delivered
from tests.lab.ready import readable

ALL_OFFLOADS = (
    _native.OFFLOAD_CSUM
    | _native.OFFLOAD_TSO4
    | _native.OFFLOAD_TSO6
    | _native.OFFLOAD_USO4
    | _native.OFFLOAD_USO6
)
VHOST_BITS = {  # which feature of a driver says the same
    _native.OFFLOAD_CSUM: 1,
    _native.OFFLOAD_TSO4: 7,
    _native.OFFLOAD_TSO6: 8,
    _native.OFFLOAD_USO4: 54,
    _native.OFFLOAD_USO6: 55,
}
SECRET = bytes(range(32))
START_NS = 1_000_000_000_000
WAIT_S = 30.0  # real time for a loopback event; reached only by a failing test
QUIET_S = 0.01  # real time after which silence is believed
HOPS = 3  # an answer to what was answered may be on its way

NEEDS_CSUM = 1
ENDS = frozenset(("v6", "sport", "dport", "src", "dst"))
Decide = Callable[[_native.Miss], Verdict | None]


@dataclass(frozen=True, slots=True)
class Vnet:
    """The virtio-net header (struct virtio_net_hdr, host order)."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0

    def __bytes__(self) -> bytes:
        return struct.pack(
            "=BBHHHH",
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
        )

    @classmethod
    def parse(cls, raw: bytes) -> "Vnet":
        """Read the first ten bytes."""
        return cls(*struct.unpack("=BBHHHH", raw[:10]))


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that the guest received, its partial checksum completed."""

    packet: Packet
    vnet: Vnet
    raw: bytes

    @property
    def payload(self) -> bytes:
        """Bytes above TCP or UDP (Ethernet padding is never sent)."""
        layer = self.packet.getlayer(TCP) or self.packet.getlayer(UDP)
        assert layer is not None, self.packet.summary()
        return bytes(layer.payload)

    @property
    def tcp(self) -> Any:
        """The TCP header, as scapy knows it."""
        assert TCP in self.packet, self.packet.summary()
        return self.packet[TCP]

    @property
    def flags(self) -> str:
        """TCP flags as scapy writes them: `SA`, `PA`, `RA`, …"""
        return str(self.tcp.flags)


def forward_to(port: int, host4: str = "127.0.0.1", host6: str = "::1") -> Decide:
    """A policy: every flow goes to that port on loopback, of the family it had."""

    def decide(miss: _native.Miss) -> Verdict:
        host = host4 if is_v4(miss.oaddr) else host6
        eaddr = inany(ip_address(host))
        return Verdict(Action.FORWARD, Pif.HOST, eaddr, port, UNSPECIFIED, 0, 1)

    return decide


def to_guest(port: int, guest4: str, guest6: str) -> Decide:
    """A policy for misses from the host: to the guest, source address kept."""

    def decide(miss: _native.Miss) -> Verdict:
        guest = inany(ip_address(guest4 if is_v4(miss.eaddr) else guest6))
        return Verdict(Action.FORWARD, Pif.TAP, guest, port, miss.eaddr, miss.eport, 1)

    return decide


def answer(action: Action) -> Decide:
    """A policy: drop or reject everything."""
    zero = UNSPECIFIED
    return lambda _miss: Verdict(action, Pif.HOST, zero, 0, zero, 0, 9)


def later(_miss: _native.Miss) -> Verdict | None:
    """A policy that leaves every miss pending; the test opens it itself."""
    return None


@dataclass
class Guest:
    """A guest, the datapath it is on, and the control plane that answers.

    `decide` is asked for each miss (None: left pending); `misses`, `punts`, `said`,
    `gone` and `opened` keep what turns returned and open() made of it. `send()` and
    `advance()` run a turn themselves. Segments that continue each other are received as
    one, or as `single` ones.
    """

    vnet: bool = True
    offloads: int = ALL_OFFLOADS
    backend: Literal["tun", "stream", "vhost"] = "tun"
    mtu: int = 65520
    single: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    decide: Decide = field(default_factory=lambda: answer(Action.DROP))

    def __post_init__(self) -> None:
        self.now = START_NS
        self.misses: list[_native.Miss] = []
        self.punts: list[bytes] = []
        self.kinds: list[PuntKind] = []  # of these
        self.said: list[_native.Said] = []
        self.gone: list[int] = []
        self.opened: list[int] = []
        self.frames: deque[Frame] = deque()
        self.oracle = Oracle()
        self._ahead: bytes | None = None
        self.link: Link
        self.sock: socket.socket  # the guest's end, where it is one
        if self.backend == "vhost":
            self.dp = self._make_datapath(-1)
            self.link = self._plug_in()
        else:
            self._connect(StreamLink if self.backend == "stream" else MessageLink)

    def _connect(self, link: type[StreamLink] | type[MessageLink]) -> None:
        """Make the datapath at the other end of a pair of sockets."""
        ours, tap = socket.socketpair(socket.AF_UNIX, link.kind)
        for end in (ours, tap):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self.sock = ours
        self.link = link(ours)
        try:
            self.dp = self._make_datapath(tap.fileno())
        except BaseException:
            ours.close()
            tap.close()
            raise
        tap.detach()

    def _plug_in(self) -> Link:
        """Give a datapath of rings something to serve."""
        missing = [bit for flag, bit in VHOST_BITS.items() if not self.offloads & flag]
        link = VringLink(_native.VHOST_FEATURES & ~sum(1 << bit for bit in missing))
        try:
            link.start(self.dp)
        except BaseException:
            link.close()
            raise
        return link

    def _make_datapath(self, tap_fd: int) -> _native.Datapath:
        return _native.Datapath(
            tap_fd,
            backend=self.backend,
            mtu=self.mtu,
            our_mac=bytes.fromhex(OUR_MAC.replace(":", "")),
            vnet_hdr=self.vnet,
            offloads=self.offloads,
            virtual_time=True,
            secret=SECRET,
            **self.options,
        )

    def close(self) -> None:
        """Destroy the datapath and our end of the tap."""
        self.dp.close()
        self.link.close()

    # Driving the datapath

    def turn(self) -> int:
        """Run turns until one has no record; return how many records came."""
        total = 0
        while records := self.dp.turn(now=self.now, slice_us=10_000, spin_us=0):
            total += len(records)
            for record in records:
                self._take(record)
        return total

    def advance(self, seconds: float) -> None:
        """Let virtual time pass, then run a turn."""
        self.now += round(seconds * 1e9)
        self.turn()

    def open(self, miss_id: int, verdict: Verdict, fd: int = -1) -> int:
        """Answer a miss; return its flow, 0 if the verdict said no, or -errno."""
        try:
            return self.dp.open(miss_id, verdict, fd) or 0
        except OSError as error:
            return -(error.errno or 0)

    def _take(self, record: object) -> None:
        match record:
            case _native.Miss():
                self.misses.append(record)
                verdict = self.decide(record)
                if verdict is not None:
                    self.opened.append(self.open(record.miss_id, verdict))
            case _native.Punt():
                self.punts.append(record.frame)
                self.kinds.append(PuntKind(record.kind))
            case _native.Said():
                self.said.append(record)
            case _native.Gone():
                self.gone.append(record.errno)
            case _:
                raise AssertionError(record)

    # Talking

    def send(self, *packets: Packet | bytes, vnet: Vnet | None = None) -> None:
        """Send frames in one batch, then run a turn.

        A packet without Ethernet header gets the guest's; bytes go out as they are.
        """
        for packet in packets:
            self.put(packet, vnet)
        self.turn()

    def put(self, packet: Packet | bytes, vnet: Vnet | None = None) -> None:
        """Send one frame without running a turn."""
        if isinstance(packet, Packet) and not isinstance(packet, Ether):
            packet = Ether(src=GUEST_MAC, dst=OUR_MAC) / packet
        assert self.vnet or vnet is None, "this tap has no virtio-net header"
        head = bytes(vnet or Vnet()) if self.vnet else b""
        frame = bytes(packet)
        self.oracle.sent(frame)
        self.link.send(head + frame)

    def recv(self, timeout: float = WAIT_S) -> Frame:
        """Return the next frame for the guest, running turns until it is there."""
        frame = self._next(timeout)
        assert frame is not None, "the datapath sent nothing"
        return frame

    def expect(self, flags: str | None = None, **fields: Any) -> Frame:
        """Receive one frame and check it: TCP flags, and fields of its L4 header.

        `expect("SA", ack=1001, dport=40000)`, `expect(payload=b"hello")`.
        """
        frame = self.recv()
        summary = frame.packet.summary()
        if flags is not None:
            assert TCP in frame.packet, f"wanted TCP {flags}, got {summary}"
            assert set(frame.flags) == set(flags), f"wanted {flags}, got {summary}"
        if "payload" in fields:
            assert frame.payload == fields.pop("payload"), summary
        if fields:
            l4 = frame.packet.getlayer(TCP) or frame.packet.getlayer(UDP)
            assert l4 is not None, summary
            got = {name: getattr(l4, name) for name in fields}
            assert got == fields, summary
        return frame

    def expect_nothing(self) -> None:
        """Check that the datapath has nothing to say at this time."""
        frame = self._last()
        if frame is not None:
            raise AssertionError(f"unexpected: {frame.packet.summary()}")

    def drain(self) -> list[Frame]:
        """Return everything that is there now, on its way, or milliseconds later."""
        frames = []
        while (frame := self._last()) is not None:
            frames.append(frame)
        return frames

    def wait_for(
        self,
        condition: Callable[[], bool],
        what: str = "condition",
        timeout: float = WAIT_S,
    ) -> None:
        """Run turns until something in the real world has happened."""
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, f"timed out: {what}"
            readable([self.dp.fileno()], 0.002)
            self.turn()

    def _next(self, timeout: float) -> Frame | None:
        deadline = time.monotonic() + timeout
        while True:
            self.turn()
            if self.frames:
                return self.frames.popleft()
            if (raw := self._receive()) is not None:
                return self._parse(raw)
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            ready = [self.dp.fileno(), self.link.fileno()]
            readable(ready, min(left, 0.005))

    def _last(self) -> Frame | None:
        """Return the next frame, if there is one even when everything has arrived."""
        frame = self._next(QUIET_S)
        for _ in range(HOPS):
            if frame is not None:
                break
            wait_delivered()
            frame = self._next(0)
        return frame

    def _receive(self) -> bytes | None:
        """Take the next frame from the link, or one that was looked at before."""
        if self._ahead is not None:
            raw, self._ahead = self._ahead, None
            return raw
        try:
            return self.link.recv()
        except BlockingIOError:
            return None

    def _parse(self, raw: bytes) -> Frame:
        vnet = Vnet()
        if self.vnet:
            vnet, raw = Vnet.parse(raw), raw[10:]
        if vnet.flags & NEEDS_CSUM:
            raw = complete_checksum(raw, vnet)
        self.oracle.received(raw)
        if self.single:
            if vnet.gso_type in (TCPV4, TCPV6):
                first, *rest = segments(raw, vnet.gso_size)
                self.frames += [Frame(Ether(part), Vnet(), part) for part in rest]
                vnet, raw = Vnet(), first
        elif not self.vnet and (segment := Segment.of(raw)):
            raw, kind, size = self._merge(Receiver(segment)).frame()
            vnet = Vnet(gso_type=kind, gso_size=size)
        return Frame(Ether(raw), vnet, raw)

    def _merge(self, receiver: Receiver) -> Receiver:
        """Add what continues a segment, as far as it is there."""
        while (raw := self._receive()) is not None:
            segment = Segment.of(raw)
            if segment is None or not receiver.takes(segment):
                self._ahead = raw
                break
            self.oracle.received(raw)
        return receiver

    # What the datapath says about itself

    def counter(self, name: str) -> int:
        """Return one counter."""
        return self.dp.counters()[name]

    def flows(self) -> list[FlowRecord]:
        """Return every open flow."""
        return [flow for page in pages_of(self.dp.flows) for flow in flows_in(page)]

    def connect(self, **fields: Any) -> "Connection":
        """Open a TCP connection to the remote host, whatever `decide` makes of it."""
        return Connection.open(self, **fields)


def complete_checksum(raw: bytes, vnet: Vnet) -> bytes:
    """Do what a NIC does with a frame whose checksum is left to it."""
    at = vnet.csum_start + vnet.csum_offset
    value = internet_checksum(raw[vnet.csum_start :])
    return raw[:at] + struct.pack("!H", value or 0xFFFF) + raw[at + 2 :]


@dataclass
class Connection:
    """The guest's end of one TCP connection: knows what to send next.

    A small, obedient TCP: it acknowledges only when told to. `seq` is the next byte we
    send, `ack` the next byte we expect.
    """

    guest: Guest
    fields: dict[str, Any]
    seq: int
    ack: int
    peer_syn: Frame

    @classmethod
    def open(cls, guest: Guest, **fields: Any) -> "Connection":
        """SYN, SYN,ACK, ACK."""
        guest.send(syn(**fields))
        sport = fields.get("sport", SPORT)
        isn = fields.get("seq", ISN)
        first = (isn + 1) % 2**32
        reply = guest.expect("SA", ack=first, dport=sport)
        kept = {k: v for k, v in fields.items() if k in ENDS}
        conn = cls(guest, kept, first, (reply.tcp.seq + 1) % 2**32, reply)
        conn.say("A")
        return conn

    @classmethod
    def accept(cls, guest: Guest, isn: int = ISN, **fields: Any) -> "Connection":
        """Answer a SYN that the datapath sent to the guest, and be acknowledged."""
        conn = cls.answer(guest, isn, **fields)
        guest.expect("A", ack=conn.seq)
        return conn

    @classmethod
    def answer(cls, guest: Guest, isn: int = ISN, **fields: Any) -> "Connection":
        """Answer a SYN; what comes next acknowledges it, and may be data."""
        request = guest.expect("S")
        ip_layer = request.packet.getlayer(IP) or request.packet.getlayer(IPv6)
        assert ip_layer is not None
        kept = {
            "v6": isinstance(ip_layer, IPv6),
            "sport": request.tcp.dport,
            "dport": request.tcp.sport,
            "src": ip_layer.dst,
            "dst": ip_layer.src,
        }
        expected = (request.tcp.seq + 1) % 2**32
        conn = cls(guest, kept, isn, expected, request)
        conn.say("SA", **{"options": [("MSS", 1460), ("SAckOK", b"")], **fields})
        conn.seq += 1
        return conn

    def segment(self, flags: str, payload: bytes = b"", **fields: Any) -> Packet:
        """Make the segment that comes next, without sending it or counting it."""
        base = {**self.fields, "seq": self.seq, "ack": self.ack}
        return tcp(flags, payload, **{**base, **fields})

    def say(self, flags: str, payload: bytes = b"", **fields: Any) -> None:
        """Send a segment; payload and FIN advance our sequence number."""
        packet = self.segment(flags, payload, **fields)
        if "seq" not in fields:
            self.seq = (self.seq + len(payload) + ("F" in flags)) % 2**32
        self.guest.send(packet)

    def send(self, payload: bytes, **fields: Any) -> None:
        """Send data in one segment."""
        self.say("PA", payload, **fields)

    def acknowledge(self, **fields: Any) -> None:
        """Send a bare acknowledgement of everything received."""
        self.say("A", **fields)

    def fin(self) -> None:
        """End our direction."""
        self.say("FA")

    def expect(self, flags: str, payload: bytes | None = None, **fields: Any) -> Frame:
        """Receive one segment of this connection, in order, and count it."""
        if payload is not None:
            fields["payload"] = payload
        frame = self.guest.expect(flags, **{"seq": self.ack, **fields})
        self.ack = (frame.tcp.seq + len(frame.payload) + ("F" in flags)) % 2**32
        return frame

    def read(self, size: int, ack_each: bool = True) -> bytes:
        """Receive exactly `size` bytes of in-order data, acknowledging them."""
        got = b""
        while len(got) < size:
            frame = self.guest.recv()
            assert frame.tcp.seq == self.ack, frame.packet.summary()
            got += frame.payload
            self.ack = (self.ack + len(frame.payload)) % 2**32
            if ack_each and frame.payload:
                self.acknowledge()
        assert len(got) == size
        return got


__all__ = [
    "ALL_OFFLOADS",
    "DPORT",
    "Connection",
    "Decide",
    "Frame",
    "Guest",
    "Raw",
    "Vnet",
    "answer",
    "complete_checksum",
    "forward_to",
    "later",
    "to_guest",
]

# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of a guest's datapath, and what they say of a connection's sockets."""

from collections import defaultdict

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet as Scapy

from passtpy.control.capture import PIECE, SNAPLEN
from passtpy.control.filter import Context, compile_program
from tests.datapath.guest import Guest
from tests.lab.pcapng import Packet, packets

TAP, SOCKETS = 0, 1
BOTH = 3
ALL = 2**63
CONTEXT = Context({})


class Capture:
    """One capture of a guest's datapath."""

    def __init__(
        self, guest: Guest, text: str = "", sides: int = BOTH, snaplen: int = SNAPLEN
    ) -> None:
        self.dp = guest.dp
        program = compile_program(text, CONTEXT)
        self.number = self.dp.capture_start(program, sides, snaplen)

    def take(self, last: bool = True) -> list[Packet]:
        """Everything that is there."""
        found: list[Packet] = []
        while True:
            raw, count, _ = self.dp.capture_take(self.number, PIECE, ALL, last)
            got = packets(raw)
            assert len(got) == count
            if not got:
                return found
            found += got

    def stop(self) -> None:
        self.dp.capture_stop(self.number)


def headers(packet: Packet) -> Scapy:
    """What scapy reads in a packet, of whose headers every checksum is right."""
    if packet.interface == TAP:
        return Ether(packet.data)
    kind = IP if packet.data[0] >> 4 == 4 else IPv6
    made = kind(packet.data)
    again = kind(packet.data)
    for layer in (IP, TCP, UDP, ICMP):
        if layer in again:
            del again[layer].chksum
    assert bytes(kind(bytes(again))) == packet.data
    return made


def payloads(capture: Capture) -> list[tuple[bool, bytes]]:
    """What moved at sockets: whether it went out, and the bytes."""
    found = [p for p in capture.take() if p.interface == SOCKETS]
    told = [(p.outbound, bytes(headers(p)[TCP].payload)) for p in found]
    return [each for each in told if each[1]]


def stories(capture: Capture) -> list[list[str]]:
    """What the sockets of each connection said, in the order of their first packets.

    `> S` is a SYN of our socket. Each segment begins where the one before it in its
    direction has ended, and acknowledges all that went the other way.
    """
    told: dict[tuple[object, ...], list[str]] = defaultdict(list)
    next_seq: dict[tuple[object, ...], int] = {}
    for packet in capture.take():
        if packet.interface != SOCKETS:
            continue
        made = headers(packet)
        ip, segment = made, made[TCP]
        ends = (ip.src, segment.sport), (ip.dst, segment.dport)
        here, there = ends if packet.outbound else ends[::-1]
        way = (*ends,)
        flags, size = str(segment.flags), len(bytes(segment.payload))
        assert segment.seq == next_seq.get(way, segment.seq)
        if "A" in flags:
            assert segment.ack == next_seq.get(way[::-1], segment.ack)
        next_seq[way] = segment.seq + size + ("S" in flags) + ("F" in flags)
        line = f"{'>' if packet.outbound else '<'} {flags}"
        told[here, there].append(f"{line} {size}" if size else line)
    return list(told.values())

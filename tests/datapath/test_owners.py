# SPDX-License-Identifier: GPL-2.0-or-later
"""Bytes on their way to the guest belong to one owner until it has them.

A tap may send later than it was told, and whoever told it may need its memory for
something else by then. Here several things happen between two flushes, each with bytes
of its own; the oracle of the guest looks at every frame.
"""

import socket
from itertools import count

from scapy.layers.inet import ICMP, UDP
from scapy.layers.inet6 import ICMPv6ParamProblem, IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from passtpy import _native
from passtpy.flow import Action, Verdict
from tests.datapath.guest import Frame, Guest, answer, forward_to
from tests.datapath.packets import GUEST6, REMOTE6, udp
from tests.datapath.tcp_peer import closed_port

ERRORS = 40


def told(number: int) -> bytes:
    """Bytes that no other packet has."""
    return b"datagram %04d " % number * 20


def errors(frames: list[Frame]) -> list[Frame]:
    """ICMP errors among frames."""
    return [frame for frame in frames if ICMP in frame.packet]


def burst(peer: socket.socket, first: int, size: int) -> list[bytes]:
    """Send datagrams that the guest is to get."""
    sent = [told(first + i) for i in range(size)]
    for payload in sent:
        peer.send(payload)
    return sent


def payloads(frames: list[Frame]) -> bytes:
    """Of all datagrams among frames, in order: a run is one frame where it can be."""
    return b"".join(
        frame.payload
        for frame in frames
        if UDP in frame.packet and ICMP not in frame.packet
    )


def test_refused_datagrams_are_quoted_amid_a_burst(
    guest: Guest, udp_peer: socket.socket
) -> None:
    refused, heard = closed_port(), udp_peer.getsockname()[1]

    def decide(miss: _native.Miss) -> Verdict | None:
        return forward_to(heard if miss.oport == 9 else refused)(miss)

    guest.decide = decide
    guest.send(udp(b"open", dport=9))
    udp_peer.connect(udp_peer.recvfrom(9)[1])
    wanted = b""
    for number in range(ERRORS):
        guest.put(udp(told(number), sport=30000 + number, dport=10))
        wanted += b"".join(burst(udp_peer, 1000 + 3 * number, 3))
    guest.turn()
    frames = guest.drain()
    assert len(errors(frames)) == ERRORS
    assert payloads(frames) == wanted


def test_rejected_datagrams_are_quoted_while_others_are_parked(guest: Guest) -> None:
    """What is quoted lies in the stage, where the next miss takes its place."""
    refuse, number = answer(Action.REJECT), count()

    def decide(miss: _native.Miss) -> Verdict | None:
        if (at := next(number)) < ERRORS:
            guest.put(udp(told(at), sport=31000 + at))
        return refuse(miss)

    guest.decide = decide
    guest.send(udp(b"first", sport=30000), udp(b"second", sport=30001))
    assert len(errors(guest.drain())) == ERRORS + 2


def bad_fragment(number: int) -> Packet:
    """A fragment that cannot be one, for its length is no multiple of eight."""
    head = IPv6ExtHdrFragment(nh=17, m=1, offset=0, id=number)
    return IPv6(src=GUEST6, dst=REMOTE6) / head / Raw(told(number)[:103])


def test_bad_fragments_are_quoted_though_more_is_read(guest: Guest) -> None:
    """More than one batch: the second one is read where the first one was."""
    guest.decide = answer(Action.DROP)
    for number in range(400):
        guest.put(bad_fragment(number))
    guest.turn()
    frames = guest.drain()
    assert sum(ICMPv6ParamProblem in frame.packet for frame in frames) == 400

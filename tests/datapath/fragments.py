# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting packets into fragments, and putting them together: by hand, to check ours."""

import struct
from collections.abc import Iterable

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment
from scapy.packet import Packet, Raw

from tests.datapath.guest import Frame

FRAGMENT = 44


def piece(packet: Packet, start: int, end: int, more: bool, ident: int = 7) -> Packet:
    """One fragment: the given bytes of what follows the IP header."""
    body = bytes(packet.payload)[start:end]
    if IPv6 in packet:
        head = packet.copy()
        head.remove_payload()
        nh = packet.nh
        del head.plen
        head.nh = FRAGMENT
        middle = IPv6ExtHdrFragment(nh=nh, offset=start // 8, m=int(more), id=ident)
        return head / middle / Raw(body)
    head = IP(bytes(packet)[:20])
    del head.len, head.chksum
    head.id, head.flags, head.frag = ident, "MF" if more else 0, start // 8
    return head / Raw(body)


def cut(packet: Packet, size: int, ident: int = 7) -> list[Packet]:
    """All fragments, of `size` bytes each (a multiple of 8) but the last."""
    packet = type(packet)(bytes(packet))  # protocol, lengths and checksums filled in
    total = len(bytes(packet.payload))
    return [
        piece(packet, at, min(at + size, total), at + size < total, ident)
        for at in range(0, total, size)
    ]


def _parse(frame: Frame) -> tuple[tuple[object, ...], int, bool, bytes]:
    """Key, offset, "more" and payload of one fragment; a whole packet is one too."""
    raw = frame.raw[14:]
    if raw[0] >> 4 == 4:
        header = IP(raw[:20])
        assert header.len == len(raw)
        said = header.chksum
        del header.chksum
        assert IP(bytes(header)).chksum == said
        key = (header.src, header.dst, header.proto, header.id)
        return key, header.frag * 8, "MF" in str(header.flags), raw[20:]
    header6 = IPv6(raw[:40])
    assert header6.plen == len(raw) - 40
    if header6.nh != FRAGMENT:
        return (header6.src, header6.dst, header6.nh, None), 0, False, raw[40:]
    nh, _, offset, ident = struct.unpack("!BBHI", raw[40:48])
    key = (header6.src, header6.dst, nh, ident)
    return key, offset & ~7, bool(offset & 1), raw[48:]


def reassemble(frames: Iterable[Frame], mtu: int) -> list[bytes]:
    """Datagrams (from the L4 header on) in order; every frame fits the MTU."""
    done: list[bytes] = []
    pending: dict[tuple[object, ...], bytes] = {}
    for frame in frames:
        assert len(frame.raw) <= 14 + mtu
        key, offset, more, data = _parse(frame)
        have = pending.pop(key, b"")
        assert offset == len(have), "fragments in order, without gaps"
        if more:
            assert len(data) % 8 == 0
            pending[key] = have + data
        else:
            done.append(have + data)
    assert not pending
    return done

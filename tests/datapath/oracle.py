# SPDX-License-Identifier: GPL-2.0-or-later
"""What every frame for a guest must keep, whatever the test is about.

Lengths and checksums of all layers, and of ICMP errors that they quote bytes which the
guest did send. Nothing of the datapath, of the package under test or of the packet
language is used: bytes and the RFCs.
"""

import struct
from ipaddress import ip_address

ICMP, TCP, UDP, ICMPV6, FRAGMENT = 1, 6, 17, 58, 44
_ERRORS = {ICMP: {3, 4, 5, 11, 12}, ICMPV6: {1, 2, 3, 4}}
_CHECKSUM_AT = {ICMP: 2, TCP: 16, UDP: 6, ICMPV6: 2}
_L4_MIN = {ICMP: 8, TCP: 20, UDP: 8, ICMPV6: 4}


def ones_sum(data: bytes) -> int:
    """One's complement sum of 16-bit words (RFC 1071); 0xffff: the checksum holds."""
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data[: len(data) & ~1]))
    if len(data) % 2:
        total += data[-1] << 8
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


class Packet:
    """An IP packet, taken apart: `l4` is what is above IP and its extensions."""

    def __init__(self, data: bytes, quoted: bool = False) -> None:
        """Check the IP header; a quoted packet may be cut off."""
        version = data[0] >> 4
        assert version in (4, 6), f"IP version {version}"
        take = self._v4 if version == 4 else self._v6
        take(data, quoted)

    def _v4(self, data: bytes, quoted: bool) -> None:
        header = (data[0] & 15) * 4
        assert header >= 20
        length, _, fragment = struct.unpack("!HHH", data[2:8])
        assert ones_sum(data[:header]) == 0xFFFF, "IPv4 header checksum"
        assert length >= header
        assert length == len(data) or (quoted and length >= len(data)), (
            f"IPv4 says {length} bytes, of {len(data)}"
        )
        self.fragment = bool(fragment & 0x3FFF)
        self.proto = data[9]
        self.src, self.dst = data[12:16], data[16:20]
        self.l4 = data[header:]

    def _v6(self, data: bytes, quoted: bool) -> None:
        length = int.from_bytes(data[4:6], "big") + 40
        assert length == len(data) or (quoted and length >= len(data)), (
            f"IPv6 says {length} bytes, of {len(data)}"
        )
        self.proto = data[6]
        self.src, self.dst = data[8:24], data[24:40]
        self.l4 = data[40:]
        self.fragment = self.proto == FRAGMENT
        while self.proto in (0, 43, 60) and not quoted:  # hop-by-hop, routing, options
            self.proto, size = self.l4[0], self.l4[1] * 8 + 8
            self.l4 = self.l4[size:]

    def __str__(self) -> str:
        ends = f"{ip_address(self.src)} -> {ip_address(self.dst)}"
        return f"{ends} protocol {self.proto}, {len(self.l4)} bytes"


def check_l4(packet: Packet) -> None:
    """Lengths and checksum of what is above IP, unless it is a part or unknown."""
    if packet.fragment or packet.proto not in _CHECKSUM_AT:
        return
    l4, at = packet.l4, _CHECKSUM_AT[packet.proto]
    assert len(l4) >= _L4_MIN[packet.proto], packet
    if packet.proto == UDP:
        assert int.from_bytes(l4[4:6], "big") == len(l4), f"{packet}: UDP length"
        if l4[at : at + 2] == b"\0\0" and len(packet.src) == 4:
            return  # none was made (RFC 768)
    if packet.proto == TCP:
        assert 20 <= (l4[12] >> 4) * 4 <= len(l4), f"{packet}: TCP offset"
    pseudo = b""
    if packet.proto != ICMP:
        pseudo = (
            packet.src + packet.dst + struct.pack("!IHBB", len(l4), 0, 0, packet.proto)
        )
    assert ones_sum(pseudo + l4) == 0xFFFF, f"{packet}: checksum"


def _blank(proto: int, l4: bytes) -> bytes:
    """L4 bytes without the checksum, which a quote may lack or have made anew.

    Of a datagram that came back in part, the length is not known either.
    """
    at, end = {UDP: (4, 8), ICMP: (2, 4), ICMPV6: (2, 4)}.get(proto, (0, 0))
    return l4[:at] + bytes(len(l4[at:end])) + l4[end:]


class Oracle:
    """One guest's memory of what it sent, and its eye on what it gets."""

    def __init__(self) -> None:
        self._sent: dict[tuple[int, bytes], list[bytes]] = {}
        self._parts = False
        self.checked = 0

    def sent(self, frame: bytes) -> None:
        """Remember a frame of the guest, sound or not."""
        kind, data = frame[12:14], frame[14:]
        if (kind, data[:1]) == (b"\x08\x00", b"\x45") and len(data) >= 28:
            self._parts |= bool(int.from_bytes(data[6:8], "big") & 0x3FFF)
            self._remember(data[9], data[16:20], data[20:])
        elif kind == b"\x86\xdd" and len(data) >= 44:
            self._parts |= data[6] == FRAGMENT
            self._remember(data[6], data[24:40], data[40:])

    def forget(self) -> None:
        """Start anew: what was sent so far is not quoted any more."""
        self._sent.clear()

    def _remember(self, proto: int, dst: bytes, l4: bytes) -> None:
        self._sent.setdefault((proto, dst), []).append(_blank(proto, l4))

    def received(self, frame: bytes) -> None:
        """Check a frame for the guest: whole, without padding, checksums complete."""
        assert 14 <= len(frame) <= 14 + 65535 + 40
        self.checked += 1
        if frame[12:14] == b"\x08\x00":
            assert frame[14] >> 4 == 4
        elif frame[12:14] == b"\x86\xdd":
            assert frame[14] >> 4 == 6
        else:
            return  # made by a service: ARP
        packet = Packet(frame[14:])
        check_l4(packet)
        if not packet.fragment and packet.l4[0] in _ERRORS.get(packet.proto, ()):
            self._check_quote(packet)

    def _check_quote(self, error: Packet) -> None:
        quote = Packet(error.l4[8:], quoted=True)
        assert quote.src == error.dst, f"{error}: quotes a packet of another host"
        if self._parts and not quote.fragment:
            return  # put together from parts: the tests of fragments look
        size = 8 if quote.proto == TCP else len(quote.l4)
        wanted = _blank(quote.proto, quote.l4[:size])
        known = [
            len(l4)
            for l4 in self._sent.get((quote.proto, quote.dst), [])
            if l4[:size] == wanted
        ]
        assert known, f"{error}: quotes what was never sent: {quote.l4.hex()}"
        if quote.proto == UDP and not quote.fragment:
            length = int.from_bytes(quote.l4[4:6], "big")
            assert length in (size, *known), f"{error}: length of the quoted datagram"

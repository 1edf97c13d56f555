# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest says of its multicast groups: IGMP (RFC 1112, 2236, 3376), MLD
(RFC 2710, 3810). Sources are not told apart: a group is wanted or it is not."""

from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from typing import Final, Self

from passtpy.addr import Address
from passtpy.errors import WireError
from passtpy.record import record
from passtpy.wire.checksum import checksum

IPPROTO_IGMP: Final = 2
_IGMP_LEN: Final = 8
_IGMP_JOIN: Final = frozenset((0x12, 0x16))  # reports of versions 1 and 2
_IGMP_LEAVE: Final = 0x17
_IGMP_REPORT3: Final = 0x22
_MLD_REPORT: Final = 131
_MLD_DONE: Final = 132
_MLD_REPORT2: Final = 143
MLD_TYPES: Final = frozenset((130, _MLD_REPORT, _MLD_DONE, _MLD_REPORT2))

# Types of a group record: what remains is how many sources it is about
_INCLUDE: Final = frozenset((1, 3))  # these sources only; none: leave
_EXCLUDE: Final = frozenset((2, 4))  # all but these
_ALLOW: Final = 5


@record
class Membership:
    """Groups that were joined (again), and left."""

    joined: tuple[Address, ...] = ()
    left: tuple[Address, ...] = ()

    @classmethod
    def parse_igmp(cls, data: bytes) -> Self:
        """Read an IGMP message; a query says nothing."""
        if len(data) < _IGMP_LEN:
            raise WireError("igmp: truncated")
        if checksum(data):
            raise WireError("igmp: bad checksum")
        if data[0] in _IGMP_JOIN:
            return cls(joined=(IPv4Address(data[4:8]),))
        if data[0] == _IGMP_LEAVE:
            return cls(left=(IPv4Address(data[4:8]),))
        if data[0] == _IGMP_REPORT3:
            return cls._from_records(data[6:], 4)
        return cls()

    @classmethod
    def parse_mld(cls, kind: int, body: bytes) -> Self:
        """Read an MLD message; `body` is what follows the ICMPv6 checksum."""
        if kind == _MLD_REPORT2:
            if len(body) < 4:
                raise WireError("mld: truncated")
            return cls._from_records(body[2:], 16)
        if len(body) < 20:
            raise WireError("mld: truncated")
        group = (IPv6Address(body[4:20]),)
        if kind == _MLD_REPORT:
            return cls(joined=group)
        return cls(left=group) if kind == _MLD_DONE else cls()

    @classmethod
    def _from_records(cls, data: bytes, size: int) -> Self:
        """Read the number of records, and the records of IGMPv3 or MLDv2."""
        joined, left = [], []
        for kind, sources, group in _records(data, size):
            if kind in _EXCLUDE or (sources and (kind in _INCLUDE or kind == _ALLOW)):
                joined.append(group)
            elif kind in _INCLUDE:
                left.append(group)
        return cls(tuple(joined), tuple(left))


def _records(data: bytes, size: int) -> Iterator[tuple[int, int, Address]]:
    """Yield type, number of sources and group of each record."""
    count, offset = int.from_bytes(data[:2], "big"), 2
    for _ in range(count):
        head = data[offset : offset + 4 + size]
        if len(head) < 4 + size:
            raise WireError("group record: truncated")
        sources = int.from_bytes(head[2:4], "big")
        raw = head[4:]
        yield head[0], sources, IPv4Address(raw) if size == 4 else IPv6Address(raw)
        offset += 4 + size + sources * size + head[1] * 4
        if offset > len(data):
            raise WireError("group record: sources truncated")

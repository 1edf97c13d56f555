# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCP and BOOTP messages (RFC 2131, RFC 951) and the frame of their options.

Options are kept as bytes by code: overloaded fields are read (RFC 2131 4.1), parts of
a split option joined (RFC 3396), and those that decide how a message is answered have
their lengths checked by parse(), so that the properties below cannot fail.
"""

from collections.abc import Iterator, Mapping
from enum import IntEnum
from ipaddress import IPv4Address
from typing import Final, Self

from passtpy.addr import Mac, show_mac
from passtpy.errors import WireError
from passtpy.record import field, record

SERVER_PORT: Final = 67
CLIENT_PORT: Final = 68
HEADERS: Final = 28  # IPv4 and UDP around a message
MIN_MAX_SIZE: Final = 576  # every host takes that much, headers included (RFC 2131 2)
MIN_LEN: Final = 300  # BOOTP's whole message: shorter ones are padded (RFC 1542 2.1)

_FIXED: Final = 236
_COOKIE: Final = bytes.fromhex("63825363")
_SNAME: Final = slice(44, 108)
_FILE: Final = slice(108, 236)
_ETHERNET: Final = b"\1\6"
_BROADCAST: Final = 0x8000
_PAD, _END, _OVERLOAD = 0, 255, 52
_FILE_HOLDS_OPTIONS, _SNAME_HOLDS_OPTIONS = 1, 2
_MAX_PART: Final = 255
_ANY4: Final = IPv4Address(0)


class Op(IntEnum):
    """Who speaks."""

    REQUEST = 1
    REPLY = 2


class MessageType(IntEnum):
    """Values of option 53."""

    DISCOVER = 1
    OFFER = 2
    REQUEST = 3
    DECLINE = 4
    ACK = 5
    NAK = 6
    RELEASE = 7
    INFORM = 8


_TYPES: Final = frozenset(MessageType)


class Code(IntEnum):
    """The options that we read or send."""

    MASK = 1
    ROUTER = 3
    DNS = 6
    HOSTNAME = 12
    MTU = 26
    REQUESTED_ADDRESS = 50
    LEASE = 51
    TYPE = 53
    SERVER = 54
    WANTED = 55
    MESSAGE = 56
    MAX_SIZE = 57
    RENEWAL = 58
    REBINDING = 59
    CLIENT_ID = 61
    RAPID_COMMIT = 80
    FQDN = 81
    SEARCH = 119
    ROUTES = 121


# Options of any other length make the message malformed: shortest, longest.
_LENGTHS: Final[Mapping[int, tuple[int, int]]] = {
    Code.REQUESTED_ADDRESS: (4, 4),
    Code.TYPE: (1, 1),
    Code.SERVER: (4, 4),
    Code.MAX_SIZE: (2, 2),
    Code.CLIENT_ID: (2, 255),
    Code.RAPID_COMMIT: (0, 0),
    Code.FQDN: (3, 258),
}


@record(kw_only=True)
class Dhcp:
    """One message; `options` keeps the order in which they are sent."""

    op: Op
    xid: int
    chaddr: Mac
    secs: int = 0
    broadcast: bool = False
    ciaddr: IPv4Address = _ANY4
    yiaddr: IPv4Address = _ANY4
    siaddr: IPv4Address = _ANY4
    giaddr: IPv4Address = _ANY4
    options: Mapping[int, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(_PAD < code < _END for code in self.options):
            raise ValueError("dhcp: no such option")
        if _OVERLOAD in self.options:
            raise ValueError("dhcp: overload is emit()'s business")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a message of a client with an Ethernet address."""
        if len(data) < _FIXED:
            raise WireError("dhcp: truncated")
        if data[0] not in (Op.REQUEST, Op.REPLY):
            raise WireError("dhcp: neither request nor reply")
        if data[1:3] != _ETHERNET:
            raise WireError("dhcp: not an Ethernet address")
        ciaddr, yiaddr, siaddr, giaddr = (
            IPv4Address(data[offset : offset + 4]) for offset in (12, 16, 20, 24)
        )
        options = _parse_options(data)
        _check(options)
        return cls(
            op=Op(data[0]),
            xid=int.from_bytes(data[4:8], "big"),
            chaddr=data[28:34],
            secs=int.from_bytes(data[8:10], "big"),
            broadcast=bool(data[10] & _BROADCAST >> 8),
            ciaddr=ciaddr,
            yiaddr=yiaddr,
            siaddr=siaddr,
            giaddr=giaddr,
            options=options,
        )

    def emit(self, room: int = MIN_MAX_SIZE - HEADERS) -> bytes:
        """Return a message of at most `room` bytes (and at least 300).

        Options that do not fit go to the file and name fields; what does not fit there
        either is left out, the last ones first.
        """
        head = bytearray(_FIXED)
        head[0], head[1:3] = self.op, _ETHERNET
        head[4:8] = self.xid.to_bytes(4, "big")
        head[8:10] = self.secs.to_bytes(2, "big")
        head[10:12] = (self.broadcast * _BROADCAST).to_bytes(2, "big")
        for offset, addr in (
            (12, self.ciaddr),
            (16, self.yiaddr),
            (20, self.siaddr),
            (24, self.giaddr),
        ):
            head[offset : offset + 4] = addr.packed
        head[28:34] = self.chaddr
        encoded = [_encode(code, data) for code, data in self.options.items()]
        main = max(room, MIN_LEN) - _FIXED - len(_COOKIE) - 1
        area = b"".join(encoded)
        if len(area) > main:
            area = _overload(head, encoded, main)
        return bytes(head + _COOKIE + area + bytes([_END])).ljust(MIN_LEN, b"\0")

    @property
    def kind(self) -> MessageType | None:
        """Return what option 53 says; None for BOOTP."""
        raw = self.options.get(Code.TYPE)
        return None if raw is None else MessageType(raw[0])

    def address(self, code: Code) -> IPv4Address | None:
        """Return the single address in an option, None without that option."""
        raw = self.options.get(code)
        return None if raw is None else IPv4Address(raw)

    @property
    def wanted(self) -> bytes:
        """Return the codes that the client asks for, most wanted first."""
        return self.options.get(Code.WANTED, b"")

    @property
    def max_size(self) -> int:
        """Return how long an answer may be, headers included."""
        raw = self.options.get(Code.MAX_SIZE, b"")
        return max(int.from_bytes(raw, "big"), MIN_MAX_SIZE)

    def __str__(self) -> str:
        name = "BOOTP" if self.kind is None else self.kind.name
        return f"DHCP {name} {show_mac(self.chaddr)} xid {self.xid:#010x}"


def _check(options: Mapping[int, bytes]) -> None:
    for code, (shortest, longest) in _LENGTHS.items():
        if not shortest <= len(options.get(code, bytes(shortest))) <= longest:
            raise WireError(f"dhcp: option {int(code)} of odd length")
    if options.get(Code.TYPE, b"\1")[0] not in _TYPES:
        raise WireError("dhcp: unknown type of message")


def _encode(code: int, data: bytes) -> bytes:
    """Return one option, in several parts if it is long (RFC 3396)."""
    starts = range(0, len(data), _MAX_PART) if data else (0,)
    parts = (data[start : start + _MAX_PART] for start in starts)
    return b"".join(bytes([code, len(part)]) + part for part in parts)


def _overload(head: bytearray, encoded: list[bytes], main: int) -> bytes:
    """Fill the file and name fields too; return what goes to the proper place."""
    rooms = [main - 3, 128 - 1, 64 - 1]  # less the option that tells, and two ends
    areas = [b"", b"", b""]
    for option in encoded:
        for number, room in enumerate(rooms):
            if len(areas[number]) + len(option) <= room:
                areas[number] += option
                break
    used = 0
    for area, place, flag in (
        (areas[1], _FILE, _FILE_HOLDS_OPTIONS),
        (areas[2], _SNAME, _SNAME_HOLDS_OPTIONS),
    ):
        if area:
            used |= flag
            filled = area + bytes([_END])
            head[place] = filled.ljust(place.stop - place.start, b"\0")
    return areas[0] + (bytes([_OVERLOAD, 1, used]) if used else b"")


def _parse_options(data: bytes) -> dict[int, bytes]:
    """Read the options of a message; without the cookie it is plain BOOTP."""
    options: dict[int, bytes] = {}
    start = _FIXED + len(_COOKIE)
    if data[_FIXED:start] != _COOKIE:
        return options
    _parse_area(data[start:], options)
    overload = options.get(_OVERLOAD, b"\0")
    if len(overload) != 1 or overload[0] > 3:
        raise WireError("dhcp: bad overload option")
    if overload[0] & _FILE_HOLDS_OPTIONS:
        _parse_area(data[_FILE], options)
    if overload[0] & _SNAME_HOLDS_OPTIONS:
        _parse_area(data[_SNAME], options)
    options.pop(_OVERLOAD, None)  # it described the fields; they are read
    return options


def _parse_area(data: bytes, options: dict[int, bytes]) -> None:
    for code, value in _walk(data):
        options[code] = options.get(code, b"") + value


def _walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield options up to the end mark; some clients forget to set one."""
    offset = 0
    while offset < len(data):
        code = data[offset]
        offset += 1
        if code == _PAD:
            continue
        if code == _END:
            return
        if offset == len(data) or offset + 1 + data[offset] > len(data):
            raise WireError("dhcp: truncated option")
        end = offset + 1 + data[offset]
        yield code, data[offset + 1 : end]
        offset = end

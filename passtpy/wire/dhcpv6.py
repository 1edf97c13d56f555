# SPDX-License-Identifier: GPL-2.0-or-later
"""DHCPv6 messages between client and server (RFC 8415 8), and their options.

Those that hold options themselves are read into values of their own: identity
associations, their addresses, status codes. All others stay bytes. Nesting is as deep
as the format allows, so hostile input cannot recurse further.
"""

from collections.abc import Callable, Iterable, Iterator
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final, Self

from passtpy.errors import WireError
from passtpy.record import record

SERVER_PORT: Final = 547
CLIENT_PORT: Final = 546
ALL_SERVERS: Final = IPv6Address("ff02::1:2")
MIN_DUID, MAX_DUID = 3, 130  # with the two bytes of its type (RFC 8415 11.1)
_HEADER: Final = 4
_OPTION_HEADER: Final = 4
_MAX_DATA: Final = 0xFFFF
_ADDRESS_LEN: Final = 24


class MessageType(IntEnum):
    """What clients and servers say to each other without a relay."""

    SOLICIT = 1
    ADVERTISE = 2
    REQUEST = 3
    CONFIRM = 4
    RENEW = 5
    REBIND = 6
    REPLY = 7
    RELEASE = 8
    DECLINE = 9
    RECONFIGURE = 10
    INFORMATION_REQUEST = 11


_TYPES: Final = frozenset(MessageType)


class Code(IntEnum):
    """The options that we read or send."""

    CLIENT_ID = 1
    SERVER_ID = 2
    IA_NA = 3
    IA_TA = 4
    IA_ADDRESS = 5
    WANTED = 6
    STATUS = 13
    RAPID_COMMIT = 14
    DNS = 23
    SEARCH = 24
    IA_PD = 25
    REFRESH_TIME = 32
    FQDN = 39


class StatusCode(IntEnum):
    """The outcomes that we report."""

    SUCCESS = 0
    UNSPECIFIED = 1
    NO_ADDRESSES = 2
    NO_BINDING = 3
    NOT_ON_LINK = 4
    USE_MULTICAST = 5
    NO_PREFIXES = 6


@record
class RawOption:
    """An option whose meaning is left to whoever reads it."""

    code: int
    data: bytes = b""

    def __post_init__(self) -> None:
        _check_room(self.data)

    def emit(self) -> bytes:
        """Return the option's bytes."""
        return _frame(self.code, self.data)


@record
class Status:
    """How it went; `text` is for people."""

    code: int
    text: str = ""

    def __post_init__(self) -> None:
        _check_room(self._data())

    def emit(self) -> bytes:
        """Return the option's bytes."""
        return _frame(Code.STATUS, self._data())

    def _data(self) -> bytes:
        return self.code.to_bytes(2, "big") + self.text.encode("utf-8", "replace")


@record
class IaAddress:
    """An address in an association, with its lifetimes in seconds."""

    addr: IPv6Address
    preferred: int = 0
    valid: int = 0
    status: Status | None = None

    def __post_init__(self) -> None:
        _check_room(self._data())

    def emit(self) -> bytes:
        """Return the option's bytes."""
        return _frame(Code.IA_ADDRESS, self._data())

    def _data(self) -> bytes:
        times = self.preferred.to_bytes(4, "big") + self.valid.to_bytes(4, "big")
        status = self.status.emit() if self.status else b""
        return self.addr.packed + times + status


@record
class Ia:
    """An identity association: addresses (IA_NA, IA_TA) or prefixes (IA_PD).

    Prefixes are not read: we have none to give.
    """

    code: int
    iaid: int
    t1: int = 0
    t2: int = 0
    addresses: tuple[IaAddress, ...] = ()
    status: Status | None = None

    def __post_init__(self) -> None:
        _check_room(self._data())

    def emit(self) -> bytes:
        """Return the option's bytes; IA_TA has no times."""
        return _frame(self.code, self._data())

    def _data(self) -> bytes:
        data = self.iaid.to_bytes(4, "big")
        if self.code != Code.IA_TA:
            data += self.t1.to_bytes(4, "big") + self.t2.to_bytes(4, "big")
        data += b"".join(address.emit() for address in self.addresses)
        return data + (self.status.emit() if self.status else b"")


Option = RawOption | Status | Ia


@record
class Dhcpv6:
    """One message; `options` in the order in which they are sent."""

    type: MessageType
    xid: int
    options: tuple[Option, ...] = ()

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a message; those of relays are not for us."""
        if len(data) < _HEADER:
            raise WireError("dhcpv6: truncated")
        if data[0] not in _TYPES:
            raise WireError("dhcpv6: unknown type of message")
        options = tuple(_parse_option(*item) for item in _walk(data[_HEADER:]))
        message = cls(MessageType(data[0]), int.from_bytes(data[1:4], "big"), options)
        for code in (Code.CLIENT_ID, Code.SERVER_ID):
            duid = message.raw(code)
            if duid is not None and not MIN_DUID <= len(duid) <= MAX_DUID:
                raise WireError("dhcpv6: bad DUID")
        if len(message.raw(Code.WANTED) or b"") % 2:
            raise WireError("dhcpv6: bad option request")
        return message

    def emit(self) -> bytes:
        """Return the message's bytes."""
        options = b"".join(option.emit() for option in self.options)
        return bytes([self.type]) + self.xid.to_bytes(3, "big") + options

    def raw(self, code: int) -> bytes | None:
        """Return the data of the first such option, None if there is none."""
        for option in self.options:
            if isinstance(option, RawOption) and option.code == code:
                return option.data
        return None

    @property
    def wanted(self) -> frozenset[int]:
        """Return the codes that the client asks for."""
        data = self.raw(Code.WANTED) or b""
        pairs = range(0, len(data), 2)
        return frozenset(int.from_bytes(data[at : at + 2], "big") for at in pairs)

    @property
    def associations(self) -> tuple[Ia, ...]:
        """Return all identity associations."""
        return tuple(option for option in self.options if isinstance(option, Ia))

    def __str__(self) -> str:
        return f"DHCPv6 {self.type.name} xid {self.xid:#08x}"


def _check_room(data: bytes) -> None:
    if len(data) > _MAX_DATA:
        raise ValueError("dhcpv6: option too long")


def _frame(code: int, data: bytes) -> bytes:
    return code.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


def _walk(data: bytes) -> Iterator[tuple[int, bytes]]:
    offset = 0
    while offset < len(data):
        start = offset + _OPTION_HEADER
        end = start + int.from_bytes(data[offset + 2 : start], "big")
        if end > len(data) or start > len(data):
            raise WireError("dhcpv6: truncated option")
        yield int.from_bytes(data[offset : offset + 2], "big"), data[start:end]
        offset = end


def _parse_option(code: int, data: bytes) -> Option:
    parse = _PARSERS.get(code)
    return RawOption(code, data) if parse is None else parse(code, data)


def _parse_status(_code: int, data: bytes) -> Status:
    if len(data) < 2:
        raise WireError("dhcpv6: truncated status")
    text = data[2:].decode("utf-8", "ignore")  # must not grow when sent again
    return Status(int.from_bytes(data[:2], "big"), text)


def _parse_ia(code: int, data: bytes) -> Ia:
    fixed = 4 if code == Code.IA_TA else 12
    if len(data) < fixed:
        raise WireError("dhcpv6: truncated association")
    iaid, t1, t2 = (int.from_bytes(data[at : at + 4], "big") for at in (0, 4, 8))
    if code == Code.IA_TA:
        t1 = t2 = 0
    inner = tuple(_walk(data[fixed:]))
    addresses = tuple(_parse_address(d) for c, d in inner if c == Code.IA_ADDRESS)
    return Ia(code, iaid, t1, t2, addresses, _status_among(inner))


def _parse_address(data: bytes) -> IaAddress:
    if len(data) < _ADDRESS_LEN:
        raise WireError("dhcpv6: truncated address")
    preferred, valid = (int.from_bytes(data[at : at + 4], "big") for at in (16, 20))
    status = _status_among(_walk(data[_ADDRESS_LEN:]))
    return IaAddress(IPv6Address(data[:16]), preferred, valid, status)


def _status_among(options: Iterable[tuple[int, bytes]]) -> Status | None:
    found = None
    for code, data in options:
        if code == Code.STATUS and found is None:
            found = _parse_status(code, data)
    return found


_PARSERS: Final[dict[int, Callable[[int, bytes], Option]]] = {
    Code.STATUS: _parse_status,
    Code.IA_NA: _parse_ia,
    Code.IA_TA: _parse_ia,
    Code.IA_PD: _parse_ia,
}

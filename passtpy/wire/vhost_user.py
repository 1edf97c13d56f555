# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages by which a hypervisor lends us a guest's memory and rings: vhost-user,
version 1, as in QEMU's docs/interop/vhost-user.

They are read in two steps, a header and then exactly as many bytes as it announces,
because descriptors travel beside the bytes and belong to one message. A header that
announces more than its request can carry is refused before anything is read for it.
Numbers are in the byte order of the machine. Only requests that we offer are known.
"""

import struct
from enum import IntEnum
from itertools import pairwise
from typing import Final, Self

from passtpy.errors import WireError
from passtpy.record import record

MAX_REGIONS: Final = 8  # of a memory table; each brings a descriptor
MAX_FDS: Final = MAX_REGIONS

_HEADER: Final = struct.Struct("=III")
HEADER_LEN: Final = _HEADER.size

_VERSION: Final = 1
_VERSION_MASK: Final = 3
_REPLY: Final = 1 << 2
_NEED_REPLY: Final = 1 << 3
_KNOWN_FLAGS: Final = _VERSION_MASK | _REPLY | _NEED_REPLY

_INDEX_MASK: Final = 0xFF
_NO_FD: Final = 1 << 8

_U64: Final = struct.Struct("=Q")
_STATE: Final = struct.Struct("=II")
_ADDRESS: Final = struct.Struct("=IIQQQQ")
_TABLE: Final = struct.Struct("=II")
_REGION: Final = struct.Struct("=QQQQ")

_ADDRESS_END: Final = 1 << 64
_FILE_END: Final = (1 << 63) - 1  # of a file's offset, which is signed


class Request(IntEnum):
    """What the front-end asks for."""

    GET_FEATURES = 1
    SET_FEATURES = 2
    SET_OWNER = 3
    RESET_OWNER = 4
    SET_MEM_TABLE = 5
    SET_VRING_NUM = 8
    SET_VRING_ADDR = 9
    SET_VRING_BASE = 10
    GET_VRING_BASE = 11
    SET_VRING_KICK = 12
    SET_VRING_CALL = 13
    SET_VRING_ERR = 14
    GET_PROTOCOL_FEATURES = 15
    SET_PROTOCOL_FEATURES = 16
    GET_QUEUE_NUM = 17
    SET_VRING_ENABLE = 18


def _check_width(bits: int, *numbers: int) -> None:
    if not all(0 <= number < 1 << bits for number in numbers):
        raise ValueError(f"vhost-user: more than {bits} bits")


@record
class Nothing:
    """No payload."""

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read no bytes at all."""
        _check_size(data, 0)
        return cls()

    def emit(self) -> bytes:
        """Return no bytes."""
        return b""


@record
class U64:
    """A number: features, an acknowledgement (0 is success), a count."""

    value: int

    def __post_init__(self) -> None:
        _check_width(64, self.value)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read eight bytes."""
        _check_size(data, _U64.size)
        return cls(*_U64.unpack(data))

    def emit(self) -> bytes:
        """Return eight bytes."""
        return _U64.pack(self.value)


@record
class VringState:
    """Something about a ring: its size, where it is, whether it is enabled."""

    index: int
    num: int

    def __post_init__(self) -> None:
        _check_width(32, self.index, self.num)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read index and number."""
        _check_size(data, _STATE.size)
        return cls(*_STATE.unpack(data))

    def emit(self) -> bytes:
        """Return index and number."""
        return _STATE.pack(self.index, self.num)


@record
class VringAddress:
    """Where the parts of a ring are, in the front-end's own address space."""

    index: int
    desc: int
    used: int
    avail: int
    flags: int = 0
    log: int = 0

    def __post_init__(self) -> None:
        _check_width(32, self.index, self.flags)
        _check_width(64, self.desc, self.used, self.avail, self.log)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read index, flags and addresses."""
        _check_size(data, _ADDRESS.size)
        index, flags, desc, used, avail, log = _ADDRESS.unpack(data)
        return cls(index, desc, used, avail, flags, log)

    def emit(self) -> bytes:
        """Return index, flags and addresses."""
        return _ADDRESS.pack(
            self.index, self.flags, self.desc, self.used, self.avail, self.log
        )


@record
class VringFile:
    """A descriptor for a ring: it comes beside the message, or there is none."""

    index: int
    has_fd: bool = True

    def __post_init__(self) -> None:
        _check_width(8, self.index)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the index, and whether there is a descriptor."""
        value = U64.parse(data).value
        if value & ~(_INDEX_MASK | _NO_FD):
            raise WireError("vhost-user: unknown bits beside the index of a ring")
        return cls(value & _INDEX_MASK, not value & _NO_FD)

    def emit(self) -> bytes:
        """Return the index, and whether there is a descriptor."""
        return U64(self.index | (0 if self.has_fd else _NO_FD)).emit()


@record
class MemoryRegion:
    """A piece of the guest's memory, part of a file that can be mapped.

    `user_addr` is where it is in the front-end's own address space.
    """

    guest_addr: int
    size: int
    user_addr: int
    mmap_offset: int

    def __post_init__(self) -> None:
        _check_width(64, self.guest_addr, self.size, self.user_addr, self.mmap_offset)
        if not self.size:
            raise ValueError("vhost-user: empty region of memory")
        if max(self.guest_addr, self.user_addr) + self.size > _ADDRESS_END:
            raise ValueError("vhost-user: region of memory wraps around")
        if self.mmap_offset + self.size > _FILE_END:
            raise ValueError("vhost-user: region of memory beyond any file")


@record
class MemoryTable:
    """All of the guest's memory; each region has a descriptor, in the same order."""

    regions: tuple[MemoryRegion, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.regions) <= MAX_REGIONS:
            raise ValueError(f"vhost-user: {len(self.regions)} regions of memory")
        ordered = sorted(self.regions, key=lambda region: region.guest_addr)
        for low, high in pairwise(ordered):
            if low.guest_addr + low.size > high.guest_addr:
                raise ValueError("vhost-user: regions of memory overlap")

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the number of regions, and as many regions."""
        if len(data) < _TABLE.size:
            raise WireError("vhost-user: truncated table of memory")
        count, _padding = _TABLE.unpack_from(data)
        if count > MAX_REGIONS:
            raise WireError(f"vhost-user: {count} regions of memory")
        _check_size(data, _TABLE.size + count * _REGION.size)
        try:
            return cls(
                tuple(
                    MemoryRegion(*fields)
                    for fields in _REGION.iter_unpack(data[_TABLE.size :])
                )
            )
        except ValueError as error:
            raise WireError(str(error)) from error

    def emit(self) -> bytes:
        """Return the number of regions, and the regions."""
        return _TABLE.pack(len(self.regions), 0) + b"".join(
            _REGION.pack(r.guest_addr, r.size, r.user_addr, r.mmap_offset)
            for r in self.regions
        )


Payload = Nothing | U64 | VringState | VringAddress | VringFile | MemoryTable

_REQUESTS: Final[dict[Request, type[Payload]]] = {
    Request.GET_FEATURES: Nothing,
    Request.SET_FEATURES: U64,
    Request.SET_OWNER: Nothing,
    Request.RESET_OWNER: Nothing,
    Request.SET_MEM_TABLE: MemoryTable,
    Request.SET_VRING_NUM: VringState,
    Request.SET_VRING_ADDR: VringAddress,
    Request.SET_VRING_BASE: VringState,
    Request.GET_VRING_BASE: VringState,
    Request.SET_VRING_KICK: VringFile,
    Request.SET_VRING_CALL: VringFile,
    Request.SET_VRING_ERR: VringFile,
    Request.GET_PROTOCOL_FEATURES: Nothing,
    Request.SET_PROTOCOL_FEATURES: U64,
    Request.GET_QUEUE_NUM: Nothing,
    Request.SET_VRING_ENABLE: VringState,
}
assert len(_REQUESTS) == len(Request)

_SIZES: Final[dict[type[Payload], int]] = {  # the longest
    Nothing: 0,
    U64: _U64.size,
    VringState: _STATE.size,
    VringAddress: _ADDRESS.size,
    VringFile: _U64.size,
    MemoryTable: _TABLE.size + MAX_REGIONS * _REGION.size,
}


def _payload_type(request: Request, reply: bool) -> type[Payload]:
    """Return what a message carries; most replies are a number."""
    if reply and request is not Request.GET_VRING_BASE:
        return U64
    return _REQUESTS[request]


def _check_size(data: bytes, size: int) -> None:
    if len(data) != size:
        raise WireError(f"vhost-user: payload of {len(data)} bytes, not {size}")


@record
class Header:
    """What comes first: it tells how many bytes of payload follow."""

    request: Request
    size: int
    reply: bool = False
    need_reply: bool = False

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read HEADER_LEN bytes."""
        if len(data) != HEADER_LEN:
            raise WireError("vhost-user: truncated header")
        number, flags, size = _HEADER.unpack(data)
        if flags & _VERSION_MASK != _VERSION or flags & ~_KNOWN_FLAGS:
            raise WireError(f"vhost-user: unknown version or flags {flags:#x}")
        try:
            request = Request(number)
        except ValueError:
            raise WireError(f"vhost-user: request {number} was not offered") from None
        reply = bool(flags & _REPLY)
        if size > _SIZES[_payload_type(request, reply)]:
            raise WireError(f"vhost-user: {request.name} with {size} bytes of payload")
        return cls(request, size, reply, bool(flags & _NEED_REPLY))

    def emit(self) -> bytes:
        """Return HEADER_LEN bytes."""
        flags = _VERSION | self.reply * _REPLY | self.need_reply * _NEED_REPLY
        return _HEADER.pack(self.request, flags, self.size)


@record
class Message:
    """A request or a reply, without the descriptors that travel beside it."""

    request: Request
    payload: Payload = Nothing()
    reply: bool = False
    need_reply: bool = False

    def __post_init__(self) -> None:
        if type(self.payload) is not _payload_type(self.request, self.reply):
            raise ValueError(f"vhost-user: {self.request.name} with a wrong payload")

    @classmethod
    def parse(cls, header: Header, data: bytes) -> Self:
        """Read the payload that belongs to a header."""
        payload = _payload_type(header.request, header.reply).parse(data)
        return cls(header.request, payload, header.reply, header.need_reply)

    def emit(self) -> bytes:
        """Return header and payload."""
        data = self.payload.emit()
        header = Header(self.request, len(data), self.reply, self.need_reply)
        return header.emit() + data

    @property
    def fd_count(self) -> int:
        """Return how many descriptors must come with it: no more, no fewer."""
        match self.payload:
            case MemoryTable(regions):
                return len(regions)
            case VringFile(_, has_fd):
                return int(has_fd)
        return 0

    def __str__(self) -> str:
        kind = "reply to " if self.reply else ""
        payload = "" if self.payload == Nothing() else f" {self.payload}"
        return f"{kind}{self.request.name}{payload}"

# SPDX-License-Identifier: GPL-2.0-or-later
"""Messages of vhost-user as bytes, and whatever else may come in their place."""

import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from passtpy.errors import WireError
from passtpy.wire.vhost_user import (
    HEADER_LEN,
    MAX_REGIONS,
    U64,
    Header,
    MemoryRegion,
    MemoryTable,
    Message,
    Nothing,
    Payload,
    Request,
    VringAddress,
    VringFile,
    VringState,
)

U32 = st.integers(0, 2**32 - 1)
WORD = st.integers(0, 2**64 - 1)
PAGE = 4096


@st.composite
def tables(draw: st.DrawFn) -> MemoryTable:
    """Regions one after the other, with gaps."""
    regions, at = [], 0
    for _ in range(draw(st.integers(1, MAX_REGIONS))):
        at += draw(st.integers(0, 2**40))
        size = draw(st.integers(1, 2**40))
        user, offset = draw(st.integers(0, 2**47)), draw(st.integers(0, 2**40))
        regions.append(MemoryRegion(at, size, user, offset))
        at += size
    return MemoryTable(tuple(draw(st.permutations(regions))))


PAYLOADS: dict[type[Payload], st.SearchStrategy[Payload]] = {
    Nothing: st.just(Nothing()),
    U64: st.builds(U64, WORD),
    VringState: st.builds(VringState, U32, U32),
    VringAddress: st.builds(VringAddress, U32, WORD, WORD, WORD, U32, WORD),
    VringFile: st.builds(VringFile, st.integers(0, 255), st.booleans()),
    MemoryTable: tables(),
}


@st.composite
def messages(draw: st.DrawFn) -> Message:
    """Any message that can be built."""
    request, need_reply = draw(st.sampled_from(Request)), draw(st.booleans())
    for payload in draw(st.permutations(list(PAYLOADS.values()))):
        with suppress(ValueError):
            return Message(request, draw(payload), draw(st.booleans()), need_reply)
    return Message(request, U64(0), reply=True, need_reply=need_reply)


def read(data: bytes) -> Message:
    """Read one message as the socket's reader does."""
    header = Header.parse(data[:HEADER_LEN])
    return Message.parse(header, data[HEADER_LEN:][: header.size])


@given(messages())
def test_what_is_emitted_is_read_again(message: Message) -> None:
    assert read(message.emit()) == message


@given(
    st.binary(max_size=12),
    st.integers(0, 40),
    st.sampled_from((1, 5, 9, 13)),
    st.binary(max_size=300),
)
def test_anything_is_read_or_refused(
    head: bytes, request: int, flags: int, data: bytes
) -> None:
    with suppress(WireError):
        Header.parse(head)
    with suppress(WireError):
        header = Header.parse(struct.pack("=III", request, flags, len(data)))
        Message.parse(header, data)
    with suppress(WireError):
        words = struct.pack("=II", len(data) // 32, 0) + data[: len(data) // 32 * 32]
        MemoryTable.parse(words)


@given(messages(), st.integers(0, 200), st.integers(0, 255))
def test_a_changed_byte_is_read_or_refused(
    message: Message, at: int, value: int
) -> None:
    data = bytearray(message.emit())
    data[at % len(data)] = value
    with suppress(WireError):
        read(bytes(data))


def test_known_bytes() -> None:
    data = struct.pack("=IIIII", 8, 0x1, 8, 1, 256)
    assert read(data) == Message(Request.SET_VRING_NUM, VringState(1, 256))
    data = struct.pack("=IIIQ", 1, 0x5, 8, 1 << 32)
    assert read(data) == Message(Request.GET_FEATURES, U64(1 << 32), reply=True)
    data = struct.pack("=IIIQ", 13, 0x9, 8, 0x101)
    assert read(data) == Message(
        Request.SET_VRING_CALL, VringFile(1, has_fd=False), need_reply=True
    )
    data = struct.pack("=IIIIIQQQQ", 9, 0x1, 40, 1, 0, 10, 20, 30, 40)
    assert read(data) == Message(
        Request.SET_VRING_ADDR, VringAddress(1, desc=10, used=20, avail=30, log=40)
    )
    data = struct.pack("=IIIIIQQQQ", 5, 0x1, 40, 1, 0, 1, 2, 3, 4)
    region = MemoryRegion(guest_addr=1, size=2, user_addr=3, mmap_offset=4)
    assert read(data) == Message(Request.SET_MEM_TABLE, MemoryTable((region,)))


@pytest.mark.parametrize(
    ("request_", "flags", "size", "complaint"),
    [
        (1, 0, 0, "version"),
        (1, 2, 0, "version"),
        (1, 0x11, 0, "flags 0x11"),
        (6, 1, 8, "request 6 was not offered"),
        (2**32 - 1, 1, 0, "not offered"),
        (1, 1, 1, "GET_FEATURES with 1 bytes"),
        (2, 1, 9, "SET_FEATURES with 9 bytes"),
        (5, 1, 8 + 9 * 32, "SET_MEM_TABLE with 296 bytes"),
        (5, 1, 2**32 - 1, "SET_MEM_TABLE with 4294967295 bytes"),
    ],
)
def test_bad_header(request_: int, flags: int, size: int, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        Header.parse(struct.pack("=III", request_, flags, size))


@pytest.mark.parametrize(
    ("request_", "data", "complaint"),
    [
        (Request.SET_FEATURES, bytes(4), "4 bytes, not 8"),
        (Request.SET_VRING_NUM, b"", "0 bytes, not 8"),
        (Request.SET_VRING_ADDR, bytes(39), "39 bytes, not 40"),
        (Request.SET_VRING_KICK, struct.pack("=Q", 1 << 9), "unknown bits"),
        (Request.SET_MEM_TABLE, bytes(4), "truncated"),
        (Request.SET_MEM_TABLE, bytes(8), "0 regions"),
        (Request.SET_MEM_TABLE, struct.pack("=II", 9, 0), "9 regions"),
        (Request.SET_MEM_TABLE, struct.pack("=II", 2, 0) + bytes(32), "40 bytes"),
    ],
)
def test_bad_payload(request_: Request, data: bytes, complaint: str) -> None:
    with pytest.raises(WireError, match=complaint):
        Message.parse(Header(request_, len(data)), data)


@pytest.mark.parametrize(
    ("regions", "complaint"),
    [
        ([(0, 0, 0, 0)], "empty"),
        ([(2**64 - PAGE, PAGE + 1, 0, 0)], "wraps"),
        ([(0, PAGE + 1, 2**64 - PAGE, 0)], "wraps"),
        ([(0, PAGE, 0, 2**63 - PAGE)], "beyond any file"),
        ([(PAGE, PAGE, 0, 0), (0, PAGE + 1, 0, 0)], "overlap"),
    ],
)
def test_bad_memory(regions: list[tuple[int, ...]], complaint: str) -> None:
    data = struct.pack("=II", len(regions), 0)
    data += b"".join(struct.pack("=QQQQ", *region) for region in regions)
    with pytest.raises(WireError, match=complaint):
        MemoryTable.parse(data)


def test_descriptors_are_counted() -> None:
    region = MemoryRegion(0, PAGE, 0, 0)
    other = MemoryRegion(PAGE, PAGE, 0, 0)
    table = MemoryTable((region, other))
    assert Message(Request.SET_MEM_TABLE, table).fd_count == 2
    assert Message(Request.SET_VRING_KICK, VringFile(0)).fd_count == 1
    assert Message(Request.SET_VRING_ERR, VringFile(0, has_fd=False)).fd_count == 0
    assert Message(Request.SET_OWNER).fd_count == 0


def test_a_message_reads_well() -> None:
    assert str(Message(Request.SET_OWNER)) == "SET_OWNER"
    state = Message(Request.GET_VRING_BASE, VringState(1, 7), reply=True)
    assert str(state) == "reply to GET_VRING_BASE VringState(index=1, num=7)"

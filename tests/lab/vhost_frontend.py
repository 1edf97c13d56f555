# SPDX-License-Identifier: GPL-2.0-or-later
"""A small vhost-user front-end and the guest behind it: rings in a memfd, nothing more.

    frontend = Frontend(sock, features=PLAIN | EVENT_IDX)
    frontend.start()
    frontend.send_frame(frame)
    header, frame = frontend.receive_frame()

The guest's addresses, the front-end's addresses and the offsets in the file are all
different, and rings and buffers are regions of their own, so that no mix-up goes
unnoticed. For tests of what must not be: `say()` sends any message, `send_raw()` any
bytes and descriptors, `Ring` lets every field be written.

One process may hold both ends: whatever waits calls `idle` until it is fulfilled.
"""

import array
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from passtpy.wire.vhost_user import (
    HEADER_LEN,
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
from tests.lab.ready import readable

CSUM: Final = 1 << 0
GUEST_CSUM: Final = 1 << 1
GUEST_TSO4: Final = 1 << 7
GUEST_TSO6: Final = 1 << 8
HOST_TSO4: Final = 1 << 11
HOST_TSO6: Final = 1 << 12
MRG_RXBUF: Final = 1 << 15
VERSION_1: Final = 1 << 32
EVENT_IDX: Final = 1 << 29
PLAIN: Final = VERSION_1 | MRG_RXBUF
OFFLOADS: Final = (
    PLAIN | CSUM | GUEST_CSUM | GUEST_TSO4 | GUEST_TSO6 | HOST_TSO4 | HOST_TSO6
)
PROTOCOL_FEATURES: Final = 1 << 30
REPLY_ACK: Final = 1 << 3

PAGE: Final = 4096
RING_REGION: Final = 64 * 1024
RX, TX = 0, 1
WAIT_S: Final = 30.0

NEXT: Final = 1
WRITE: Final = 2
_DESC: Final = struct.Struct("<QIHH")
_USED: Final = struct.Struct("<II")
VNET: Final = struct.Struct("<BBHHHHH")  # struct virtio_net_hdr_v1


@dataclass(frozen=True, slots=True)
class Vnet:
    """What stands before each frame in a buffer (virtio 1.2, 5.1.6)."""

    flags: int = 0
    gso_type: int = 0
    hdr_len: int = 0
    gso_size: int = 0
    csum_start: int = 0
    csum_offset: int = 0
    num_buffers: int = 0

    def __bytes__(self) -> bytes:
        return VNET.pack(
            self.flags,
            self.gso_type,
            self.hdr_len,
            self.gso_size,
            self.csum_start,
            self.csum_offset,
            self.num_buffers,
        )


class Ring:
    """A split ring in shared memory, as the driver sees it."""

    def __init__(self, memory: mmap.mmap, index: int, at: int, size: int) -> None:
        """Lay out a ring of `size` descriptors at an offset of the file."""
        self.index, self.size = index, size
        self.desc_at = at
        self.avail_at = at + 16 * size
        self.used_at = (self.avail_at + 6 + 2 * size + 3) & ~3
        self.end = self.used_at + 6 + 8 * size
        self.memory = memory
        # Two bytes must become visible at once, which only such a view does.
        self._words = memoryview(memory).cast("H")
        self.seen = 0  # used entries that were taken
        self.offered = 0  # avail entries that were made
        self.kick = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.call = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def close(self) -> None:
        """Release the view of the memory and close the descriptors."""
        self._words.release()
        os.close(self.kick)
        os.close(self.call)

    def word(self, at: int) -> int:
        """Read two bytes at an even offset of the file."""
        return self._words[at // 2]

    def set_word(self, at: int, value: int) -> None:
        """Write two bytes at an even offset of the file."""
        self._words[at // 2] = value & 0xFFFF

    def set_desc(
        self, number: int, addr: int, size: int, flags: int, after: int = 0
    ) -> None:
        """Write one descriptor; `addr` is the guest's."""
        at = self.desc_at + 16 * number
        _DESC.pack_into(self.memory, at, addr, size, flags, after)

    def offer(self, head: int) -> None:
        """Make a chain available, without a kick."""
        slot = self.offered % self.size
        self.set_word(self.avail_at + 4 + 2 * slot, head)
        self.offered += 1
        self.set_word(self.avail_at + 2, self.offered)

    def take(self) -> tuple[int, int] | None:
        """Return head and length of the next used chain."""
        if self.word(self.used_at + 2) == self.seen & 0xFFFF:
            return None
        at = self.used_at + 4 + 8 * (self.seen % self.size)
        self.seen += 1
        # With EVENT_IDX: tell us of the next one too.
        self.set_word(self.avail_at + 4 + 2 * self.size, self.seen)
        head, length = _USED.unpack_from(self.memory, at)
        return head, length

    def notify(self) -> None:
        """Kick the back-end."""
        os.eventfd_write(self.kick, 1)


@dataclass
class Frontend:
    """One connection to a back-end; start() does what a driver and QEMU do together."""

    sock: socket.socket
    features: int = PLAIN
    protocol: int = REPLY_ACK
    ring_size: int = 256
    rx_buffer: int = 2048  # bytes of each of the guest's receive buffers
    tx_buffer: int = 65536 + 128
    guest_base: int = 0x4000_0000
    user_base: int = 0x3F12_3450_0000
    idle: Callable[[], None] = lambda: None
    rings: list[Ring] = field(default_factory=list, init=False)
    # Receive buffers are offered again as soon as they are read, or kept in `read`.
    refilling: bool = field(default=True, init=False)
    read: list[int] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        self.sock.setblocking(False)
        self.buffers_at = PAGE + RING_REGION
        self.tx_count = min(self.ring_size // 2, 32)
        self.tx_at = self.buffers_at + self.ring_size * self.rx_buffer
        self.size = self.tx_at + self.tx_count * self.tx_buffer
        self.size = (self.size + PAGE - 1) // PAGE * PAGE
        self.memfd = os.memfd_create("guest", os.MFD_CLOEXEC)
        os.ftruncate(self.memfd, self.size)
        self.memory = mmap.mmap(self.memfd, self.size)
        self._lay_out()

    def _lay_out(self) -> None:
        at = PAGE
        for index in (RX, TX):
            ring = Ring(self.memory, index, at, self.ring_size)
            at = (ring.end + 63) & ~63
            self.rings.append(ring)
        assert at <= self.buffers_at, "rings too large"
        self._tx_free = [number * 2 for number in range(self.tx_count)]

    def close(self) -> None:
        """Hang up; the memory goes with us. Once is enough."""
        self.sock.close()
        for ring in self.rings:
            ring.close()
        self.rings.clear()
        if not self.memory.closed:
            self.memory.close()
            os.close(self.memfd)

    def __enter__(self) -> "Frontend":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Addresses of one byte of the file: the file's first page is never shown

    def guest(self, at: int) -> int:
        """Return what the guest calls the byte at an offset of the file."""
        return self._elsewhere(at, self.guest_base)

    def user(self, at: int) -> int:
        """Return what the front-end calls it."""
        return self._elsewhere(at, self.user_base)

    def _elsewhere(self, at: int, base: int) -> int:
        if at < self.buffers_at:
            return base + at - PAGE
        return 2 * base + at - self.buffers_at

    def regions(self) -> tuple[MemoryRegion, ...]:
        """Return the memory table: rings, and buffers."""
        rings = self.region(PAGE, RING_REGION)
        return rings, self.region(self.buffers_at, self.size - self.buffers_at)

    def region(self, at: int, size: int) -> MemoryRegion:
        """Return a piece of the file as a region."""
        return MemoryRegion(self.guest(at), size, self.user(at), at)

    def address(self, ring: Ring) -> VringAddress:
        """Return where a ring is."""
        desc, used, avail = map(self.user, (ring.desc_at, ring.used_at, ring.avail_at))
        return VringAddress(ring.index, desc, used, avail)

    # Talking

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Return what `condition` returns, as soon as that is true."""
        deadline = time.monotonic() + WAIT_S
        while not (got := condition()):
            assert time.monotonic() < deadline, f"timed out: {what}"
            self.idle()
            readable([self.sock], 0.001)
        return got

    def send_raw(self, data: bytes, fds: Sequence[int] = ()) -> None:
        """Send bytes with descriptors beside them."""
        raw = array.array("i", fds).tobytes()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, raw)] if fds else []
        assert self.sock.sendmsg([data], ancillary) == len(data)

    def say(self, request: Request, payload: Payload | None = None, *fds: int) -> None:
        """Send one message, without waiting for anything."""
        self.send_raw(Message(request, payload or Nothing()).emit(), fds)

    def ask(
        self, request: Request, payload: Payload | None = None, *fds: int
    ) -> Payload:
        """Send one message, and return the payload of the answer.

        Requests that have none of their own are sent so that they are acknowledged.
        """
        has_own = request.name.startswith("GET_")
        message = Message(request, payload or Nothing(), need_reply=not has_own)
        self.send_raw(message.emit(), fds)
        return self.receive().payload

    def number(self, request: Request, payload: Payload | None = None) -> int:
        """Send one message, and return the number that is answered."""
        answer = self.ask(request, payload)
        assert isinstance(answer, U64)
        return answer.value

    def receive(self) -> Message:
        """Return the next answer."""
        header = Header.parse(self._read(HEADER_LEN))
        message = Message.parse(header, self._read(header.size))
        assert message.reply
        return message

    def _read(self, size: int) -> bytes:
        data = bytearray()

        def more() -> bool:
            try:
                got = self.sock.recv(size - len(data))
            except BlockingIOError:
                return False
            assert got, "the back-end hung up"
            data.extend(got)
            return len(data) == size

        self.wait(more, "an answer")
        return bytes(data)

    def hung_up(self) -> bool:
        """Tell whether the back-end has closed the connection."""
        try:
            return not self.sock.recv(1 << 16)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    # What QEMU says

    def negotiate(self) -> None:
        """Connect as QEMU does."""
        offered = self.number(Request.GET_FEATURES)
        missing = self.features & ~offered
        assert not missing, f"not offered: {missing:#x}"
        if offered & PROTOCOL_FEATURES:
            self.features |= PROTOCOL_FEATURES
            self.number(Request.GET_PROTOCOL_FEATURES)
            self.say(Request.SET_PROTOCOL_FEATURES, U64(self.protocol))
        self.say(Request.SET_OWNER)
        self.number(Request.GET_FEATURES)

    def share_memory(self) -> None:
        """Tell where the guest's memory is."""
        regions = self.regions()
        fds = [self.memfd] * len(regions)
        self.say(Request.SET_MEM_TABLE, MemoryTable(regions), *fds)

    def start_ring(self, ring: Ring, base: int = 0) -> None:
        """Tell everything about a ring, and let it start."""
        index = ring.index
        self.say(Request.SET_VRING_NUM, VringState(index, ring.size))
        self.say(Request.SET_VRING_BASE, VringState(index, base))
        self.say(Request.SET_VRING_ADDR, self.address(ring))
        self.say(Request.SET_VRING_KICK, VringFile(index), ring.kick)
        self.say(Request.SET_VRING_CALL, VringFile(index), ring.call)

    def enable(self, index: int, enabled: bool = True) -> None:
        """Let frames pass, or not."""
        self.say(Request.SET_VRING_ENABLE, VringState(index, int(enabled)))

    def start(self) -> None:
        """Do all that is needed for frames to pass."""
        self.negotiate()
        self.say(Request.SET_FEATURES, U64(self.features))
        self.share_memory()
        for ring in self.rings:
            self.start_ring(ring)
            self.enable(ring.index)
        self.number(Request.GET_FEATURES)  # all of the above has been seen
        self.fill()

    def stop(self) -> list[int]:
        """Stop both rings, and return where they stood."""
        bases = []
        for ring in self.rings:
            state = self.ask(Request.GET_VRING_BASE, VringState(ring.index, 0))
            assert isinstance(state, VringState)
            bases.append(state.num)
        return bases

    # What the guest does

    def fill(self) -> None:
        """Offer all receive buffers, once."""
        self.read = list(range(self.ring_size))
        self.refill()

    def refill(self) -> None:
        """Offer the receive buffers that were read."""
        ring = self.rings[RX]
        for number in self.read:
            at = self.buffers_at + number * self.rx_buffer
            ring.set_desc(number, self.guest(at), self.rx_buffer, WRITE)
            ring.offer(number)
        self.read.clear()
        ring.notify()

    def send_frame(self, frame: bytes, vnet: Vnet | None = None) -> None:
        """Send one frame, in two descriptors: its header, and the rest."""
        ring = self.rings[TX]
        self._reclaim()
        if not self._tx_free:
            self.wait(self._reclaim, "room in the transmit queue")
        head = self._tx_free.pop()
        at = self.tx_at + head // 2 * self.tx_buffer
        data = bytes(vnet or Vnet()) + frame
        self.memory[at : at + len(data)] = data
        ring.set_desc(head, self.guest(at), VNET.size, NEXT, head + 1)
        ring.set_desc(head + 1, self.guest(at + VNET.size), len(frame), 0)
        ring.offer(head)
        ring.notify()

    def _reclaim(self) -> bool:
        while (used := self.rings[TX].take()) is not None:
            self._tx_free.append(used[0])
        return bool(self._tx_free)

    def all_sent(self) -> bool:
        """Tell whether the back-end has taken every frame."""
        self._reclaim()
        return len(self._tx_free) == self.tx_count

    def next_frame(self) -> tuple[Vnet, bytes] | None:
        """Return the next frame if there is one."""
        ring, parts, buffers = self.rings[RX], list[bytes](), list[int]()
        wanted = 1
        while len(parts) < wanted:
            used = ring.take()
            if used is None:
                # A frame becomes visible at once, with all of its buffers.
                assert not parts, "part of a frame"
                return None
            head, length = used
            assert head < ring.size, f"used {head}, which was never offered"
            assert length <= self.rx_buffer, f"{length} bytes in a smaller buffer"
            at = self.buffers_at + head * self.rx_buffer
            parts.append(self.memory[at : at + length])
            buffers.append(head)
            if self.features & MRG_RXBUF and len(parts) == 1:
                wanted = Vnet(*VNET.unpack_from(parts[0])).num_buffers
                assert wanted, "a frame of no buffers"
        self.read += buffers
        if self.refilling:
            self.refill()
        data = b"".join(parts)
        return Vnet(*VNET.unpack_from(data)), data[VNET.size :]

    def receive_frame(self) -> tuple[Vnet, bytes]:
        """Return the next frame, waiting for it."""
        frame: tuple[Vnet, bytes] = self.wait(self.next_frame, "a frame")
        return frame
